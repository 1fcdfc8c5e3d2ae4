"""tasc: small language models generate several times faster on a task whose outputs repeat themselves.

The public names live here and are loaded on first use, so `import tasc` takes no torch:

- data: `read_rows`, `Row`, `load_tokenizer`, `TaskTokenizer`, `TokenStore`, `NgramTable`
- drafting: `TaskIndex`, `NgramDrafter`, `Drafter`, `Request`, `Draft`
- decoding: `Generator`, `generate`, `Generation`, `Sampling`, `Stats`, `ModelDrafter`, `HybridDrafter`
- task vocabulary and training: `MergePlan`, `learn_vocabulary`, `extend_checkpoint`, `tune`, `distill`
"""

from importlib import import_module

from tasc._core import __version__

TYPE_CHECKING = False  # type checkers take it for typing's, whose import would take most of the time of this one
if TYPE_CHECKING:
    from typing import Any

    from tasc._core import (
        MergePlan as MergePlan,
        NgramDrafter as NgramDrafter,
        NgramRequest as NgramRequest,
        TaskIndex as TaskIndex,
    )
    from tasc.data import (
        NgramTable as NgramTable,
        Row as Row,
        TaskTokenizer as TaskTokenizer,
        TokenStore as TokenStore,
        load_tokenizer as load_tokenizer,
        read_rows as read_rows,
    )
    from tasc.decoding.draft_model.drafter import ModelDrafter as ModelDrafter
    from tasc.decoding.draft_model.hybrid import HybridDrafter as HybridDrafter
    from tasc.decoding.generator import (
        Generation as Generation,
        Generations as Generations,
        Generator as Generator,
        generate as generate,
    )
    from tasc.decoding.sampling import Sampling as Sampling
    from tasc.decoding.stats import Stats as Stats
    from tasc.drafting.protocol import (
        SOURCES as SOURCES,
        Draft as Draft,
        Drafter as Drafter,
        NullDrafter as NullDrafter,
        Request as Request,
        TokenDraft as TokenDraft,
    )
    from tasc.training.distill.options import DistillOptions as DistillOptions
    from tasc.training.distill.run import distill as distill
    from tasc.training.finetune.options import TuneOptions as TuneOptions
    from tasc.training.finetune.tune import tune as tune
    from tasc.vocab.surgery import extend_checkpoint as extend_checkpoint, extend_model as extend_model
    from tasc.vocab.vocabulary import extend_tokenizer as extend_tokenizer, learn_vocabulary as learn_vocabulary

_HOMES = {
    "tasc._core": ("MergePlan", "NgramDrafter", "NgramRequest", "TaskIndex"),
    "tasc.data": ("NgramTable", "Row", "TaskTokenizer", "TokenStore", "load_tokenizer", "read_rows"),
    "tasc.drafting.protocol": ("SOURCES", "Draft", "Drafter", "NullDrafter", "Request", "TokenDraft"),
    "tasc.decoding.draft_model.drafter": ("ModelDrafter",),
    "tasc.decoding.draft_model.hybrid": ("HybridDrafter",),
    "tasc.decoding.generator": ("Generation", "Generations", "Generator", "generate"),
    "tasc.decoding.sampling": ("Sampling",),
    "tasc.decoding.stats": ("Stats",),
    "tasc.training.distill.options": ("DistillOptions",),
    "tasc.training.distill.run": ("distill",),
    "tasc.training.finetune.options": ("TuneOptions",),
    "tasc.training.finetune.tune": ("tune",),
    "tasc.vocab.surgery": ("extend_checkpoint", "extend_model"),
    "tasc.vocab.vocabulary": ("extend_tokenizer", "learn_vocabulary"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> "Any":
    """Load a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tasc.errors import MissingExtraError

    try:
        found = getattr(import_module(_HOME[name]), name)
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("torch", "transformers"):
            raise
        raise MissingExtraError(f"tasc.{name}", "hf") from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
