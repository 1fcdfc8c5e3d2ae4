"""How to tune."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tasc.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How to tune; the same options and rows give the same order of rows."""

    method: Literal["lora", "full"] = "lora"
    """`lora`: adapters on all linear layers of the blocks, and the new tokens' rows; `full`: every weight."""
    epochs: float = 1.0
    max_steps: int | None = None
    """Optimizer steps; None: as many as the epochs have."""
    batch_size: int = 16
    """Rows of a forward pass on one device."""
    accumulate: int = 1
    """Forward passes of an optimizer step."""
    learning_rate: float | None = None
    """Highest rate; None: 1e-3 for LoRA, 2e-5 for full tuning."""
    rows_rate: float | None = None
    """Highest rate of the new tokens' rows in LoRA tuning; None: the learning rate."""
    rows_first: int = 0
    """Steps in which the new rows learn alone, before the adapters begin (LoRA)."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises; it falls as a cosine to 2 % then."""
    rank: int = 16
    """Of the adapters; alpha is twice that."""
    weight_decay: float = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the arithmetic; weights that learn are float32 always. auto: bf16 where the machine has it."""
    max_tokens: int = 2048
    """Rows longer than this in base tokens, prompt and output together, are left out, and counted."""
    save_every: int = 100
    """Steps between checkpoints to resume from."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers. Raises InputError naming the option."""
        for name in ("batch_size", "accumulate", "rank", "save_every", "max_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: at least 1")
        for name in ("epochs", "learning_rate", "rows_rate", "max_steps"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise InputError(f"{name}={value}: give a number above 0")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup={self.warmup}: a share of the steps, 0 to below 1")
        if self.rows_first < 0:
            raise InputError(f"rows_first={self.rows_first}: a number of steps, 0 or more")
        if self.rows_first and self.method == "full":
            raise InputError("rows_first goes with method='lora'; full tuning has no adapters that could wait")
        for name, known in (("method", ("lora", "full")), ("precision", ("auto", "fp32", "bf16", "fp16"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name}={getattr(self, name)!r}: one of {', '.join(known)}")
