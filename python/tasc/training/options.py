"""Options that fine-tuning and distillation share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tasc.errors import InputError


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

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: A value is out of its range; names the option.
        """
        self._check_counts("batch_size", "accumulate", "save_every", "max_tokens")
        self._check_choices({"precision": ("auto", "fp32", "bf16", "fp16")})
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup={self.warmup}: a share of the steps, 0 to below 1")

    def _check_counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: at least 1")

    def _check_choices(self, choices: Mapping[str, tuple[str, ...]]) -> None:
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name}={getattr(self, name)!r}: one of {', '.join(known)}")
