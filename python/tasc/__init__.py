"""tasc: small language models generate several times faster on a task whose outputs repeat themselves.

The public names live here and are loaded on first use, so `import tasc` takes no torch:

- data: `read_rows`, `Row`, `load_tokenizer`, `TaskTokenizer`, `TokenStore`, `NgramTable`
- drafting: `TaskIndex`, `NgramDrafter`, `Drafter`, `Request`, `Draft`
- decoding: `Generator`, `generate`, `Generation`, `GenerationFuture`, `Piece`, `Sampling`, `Grammar`, `Stats`,
  `ModelDrafter`, `EagleDrafter`, `HybridDrafter`
- task vocabulary and training: `MergePlan`, `learn_vocabulary`, `extend_checkpoint`, `tune`, `distill`
"""

from importlib import import_module

from tasc._core import __version__

_HOMES = {
    "tasc._core": ("MergePlan", "NgramDrafter", "NgramRequest", "TaskIndex"),
    "tasc.data": ("NgramTable", "Row", "TaskTokenizer", "TokenStore", "load_tokenizer", "read_rows"),
    "tasc.drafting.protocol": ("SOURCES", "Draft", "Drafter", "NullDrafter", "Request", "TokenDraft"),
    "tasc.decoding.draft_model.drafter": ("ModelDrafter",),
    "tasc.decoding.draft_model.eagle_drafter": ("EagleDrafter",),
    "tasc.decoding.draft_model.hybrid": ("HybridDrafter",),
    "tasc.decoding.generator": ("Generation", "Generations", "Generator", "generate"),
    "tasc.decoding.grammar": ("Grammar",),
    "tasc.decoding.sampling": ("Sampling",),
    "tasc.decoding.stats": ("Stats",),
    "tasc.decoding.submitted": ("GenerationFuture", "Piece"),
    "tasc.training.distill.narrow_draft": ("DraftSize",),
    "tasc.training.distill.options": ("DistillOptions",),
    "tasc.training.distill.run": ("distill",),
    "tasc.training.finetune.options": ("TuneOptions",),
    "tasc.training.finetune.tune": ("tune",),
    "tasc.vocab.surgery": ("extend_checkpoint", "extend_model"),
    "tasc.vocab.vocabulary": ("extend_tokenizer", "learn_vocabulary"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
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
