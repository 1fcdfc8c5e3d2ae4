"""Options that fine-tuning and distillation share."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tasc.errors import InputError

_TRACKERS = ("tensorboard", "wandb")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a training run."""

    batch_size: int = 16
    """Rows of a forward pass on one device."""
    accumulate: int = 1
    """Forward passes of an optimizer step."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises; afterwards it falls as a cosine to 2 %."""
    weight_decay: float = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the arithmetic; trained weights are always float32. auto: bf16 where the machine has it."""
    max_tokens: int = 2048
    """Longest row in base tokens, prompt and output together; longer rows are left out and counted."""
    save_every: int = 100
    """Steps between checkpoints to resume from."""
    seed: int = 0
    """Seed of the order of rows and of random choices."""
    report_to: str = ""
    """Trackers that the loss is reported to: tensorboard, wandb, or both with a comma."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: A value is of a wrong type or out of its range; names the option.
        """
        for name, annotation in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not fits(value, annotation) and not (value is None and NoneType in get_args(annotation)):
                raise InputError(f"{name}={value!r}; allowed: {allowed(annotation)}")
        for tracker in self.trackers:
            if tracker not in _TRACKERS:
                raise InputError(f"report_to={self.report_to!r}; allowed: {', '.join(_TRACKERS)}")
            if find_spec(tracker) is None:
                raise InputError(f"report_to={self.report_to!r}: {tracker} is not installed; run pip install {tracker}")
        self._check_counts("batch_size", "accumulate", "save_every", "max_tokens")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup={self.warmup}: a share of the steps, 0 to below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay={self.weight_decay}: give a number of at least 0")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed={self.seed}: give a number from 0 to {2**32 - 1}")

    @property
    def trackers(self) -> list[str]:
        """Names in `report_to`."""
        return [name.strip() for name in self.report_to.split(",") if name.strip()]

    @property
    def identity(self) -> dict[str, Any]:
        """Options that must be equal to resume a run."""
        return {name: value for name, value in asdict(self).items() if name != "report_to"}

    def _check_counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: at least 1")

    def _check_positive(self, *names: str) -> None:
        """Check numbers that may be None."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}={value}: give a finite number above 0")


_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def allowed(annotation: Any) -> str:
    """Return the values of an option by its annotation, in words."""
    separator = ", " if get_origin(annotation) is Literal else " or "
    return separator.join(_NAMES.get(kind, kind) for kind in _kinds(annotation))


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value other than None is allowed by an annotation: a literal, a type or a union of types."""
    kinds = _kinds(annotation)
    if get_origin(annotation) is Literal:
        return value in kinds
    return type(value) in kinds or (type(value) is int and float in kinds)


def _kinds(annotation: Any) -> list[Any]:
    """Return the values of a literal, or the types of a union without None, for which TOML has no value."""
    return [kind for kind in get_args(annotation) or [annotation] if kind is not NoneType]
