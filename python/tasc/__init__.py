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

    from tasc._core import MergePlan, NgramDrafter, NgramRequest, TaskIndex
    from tasc.data import NgramTable, Row, TaskTokenizer, TokenStore, load_tokenizer, read_rows
    from tasc.decoding.draft_model.drafter import ModelDrafter
    from tasc.decoding.draft_model.hybrid import HybridDrafter
    from tasc.decoding.generator import Generation, Generations, Generator, generate
    from tasc.decoding.sampling import Sampling
    from tasc.decoding.stats import Stats
    from tasc.drafting.protocol import SOURCES, Draft, Drafter, NullDrafter, Request, TokenDraft
    from tasc.training.distill.options import DistillOptions
    from tasc.training.distill.run import distill
    from tasc.training.finetune.options import TuneOptions
    from tasc.training.finetune.tune import tune
    from tasc.vocab.surgery import extend_checkpoint, extend_model
    from tasc.vocab.vocabulary import extend_tokenizer, learn_vocabulary

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

__all__ = [
    "SOURCES",
    "Draft",
    "DistillOptions",
    "Drafter",
    "Generation",
    "Generations",
    "Generator",
    "HybridDrafter",
    "MergePlan",
    "ModelDrafter",
    "NgramDrafter",
    "NgramRequest",
    "NgramTable",
    "NullDrafter",
    "Request",
    "Row",
    "Sampling",
    "Stats",
    "TaskIndex",
    "TaskTokenizer",
    "TokenDraft",
    "TokenStore",
    "TuneOptions",
    "__version__",
    "distill",
    "extend_checkpoint",
    "extend_model",
    "extend_tokenizer",
    "generate",
    "learn_vocabulary",
    "load_tokenizer",
    "read_rows",
    "tune",
]


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
