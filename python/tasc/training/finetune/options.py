"""Options of fine-tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tasc.errors import InputError
from tasc.training.options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Options of fine-tuning. Equal options and rows give the same order of rows."""

    method: Literal["lora", "full"] = "lora"
    """`lora`: LoRA adapters on all linear layers of the blocks, and new embedding rows; `full`: every parameter."""
    epochs: float = 1.0
    max_steps: int | None = None
    """Optimizer steps; None: given by `epochs`."""
    batch_size: int = 16
    """Rows of a forward pass on one device."""
    accumulate: int = 1
    """Forward passes of an optimizer step."""
    learning_rate: float | None = None
    """Highest learning rate; None: 1e-3 for LoRA, 2e-5 for full tuning."""
    rows_rate: float | None = None
    """Highest learning rate of new embedding rows with LoRA; None: `learning_rate`."""
    rows_first: int = 0
    """Optimizer steps in which only the new embedding rows are trained, before the LoRA adapters."""
    warmup: float = 0.05
    """Share of the optimizer steps in which the learning rate rises. It then falls along a cosine to 2 %."""
    rank: int = 16
    """Rank of the LoRA adapters; alpha is twice the rank."""
    weight_decay: float = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the arithmetic. Trainable parameters are always float32. auto: bf16 if the machine supports it."""
    max_tokens: int = 2048
    """Maximum length of a row in base tokens, prompt and output together. Longer rows are skipped and counted."""
    save_every: int = 100
    """Optimizer steps between checkpoints."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values. Raise InputError that names the option."""
        for name in ("batch_size", "accumulate", "rank", "save_every", "max_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: at least 1")
        for name in ("epochs", "learning_rate", "rows_rate", "max_steps"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise InputError(f"{name}={value}: give a number above 0")
        if self.rows_first < 0:
            raise InputError(f"rows_first={self.rows_first}: a number of steps, 0 or more")
        if self.rows_first and self.method == "full":
            raise InputError("rows_first goes with method='lora'; full tuning has no LoRA adapters")
        for name, known in (("method", ("lora", "full")), ("precision", ("auto", "fp32", "bf16", "fp16"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name}={getattr(self, name)!r}: one of {', '.join(known)}")
