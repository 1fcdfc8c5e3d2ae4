"""TASC-spec: drafts from a task's past outputs, verified losslessly by the target model.

`TaskIndex` (a task's n-grams) and the running context → `NgramDrafter` → `Generator` (verify loop) → tokens, `Stats`.
Nothing here loads torch before a `Generator` is asked for.
"""

from typing import TYPE_CHECKING, Any

from tasc._core import ContextIndex, NgramDrafter, NgramRequest, TaskIndex
from tasc.spec.drafter import SOURCES, Draft, Drafter, NullDrafter, Request, Terms, TokenDraft, served_log

if TYPE_CHECKING:
    from tasc.spec.combined import CombinedDrafter
    from tasc.spec.generator import Generation, Generations, Generator, generate
    from tasc.spec.model_drafter import ModelDrafter
    from tasc.spec.sampling import Sampling
    from tasc.spec.stats import Stats

_LAZY = {
    "CombinedDrafter": "combined",
    "Generation": "generator",
    "Generations": "generator",
    "Generator": "generator",
    "ModelDrafter": "model_drafter",
    "Sampling": "sampling",
    "Stats": "stats",
    "generate": "generator",
}

__all__ = [
    "Stats",
    "Sampling",
    "Generator",
    "Generations",
    "Generation",
    "SOURCES",
    "CombinedDrafter",
    "ContextIndex",
    "Draft",
    "Drafter",
    "ModelDrafter",
    "NgramDrafter",
    "NgramRequest",
    "NullDrafter",
    "Request",
    "TaskIndex",
    "Terms",
    "TokenDraft",
    "generate",
    "served_log",
]


def __getattr__(name: str) -> Any:
    """Load what needs torch on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from tasc.errors import MissingExtraError

    try:
        return getattr(import_module(f"tasc.spec.{_LAZY[name]}"), name)
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("torch", "transformers"):
            raise
        raise MissingExtraError(f"tasc.spec.{name}", "hf") from error
