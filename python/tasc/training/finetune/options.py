"""Options of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasc.errors import InputError
from tasc.training.options import TrainingOptions

ROWS_FACTOR = 5
"""Rate of new tokens' rows by that of the adapters: at one rate, rare slots lost accuracy on ATIS (docs/paper.md)."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions(TrainingOptions):
    """Options of fine-tuning. The same options and rows give the same order of rows."""

    method: Literal["lora", "qlora", "full"] = "lora"
    """`lora`: adapters on all linear layers of the blocks, and the new tokens' rows; `qlora`: the same over a base in
    4 bits (NF4), merged into the unquantised base; `full`: every weight."""
    epochs: float = 1.0
    max_steps: int | None = None
    """Optimizer steps; None: the steps of `epochs` epochs."""
    learning_rate: float | None = None
    """Highest rate; None: 1e-3 for LoRA and QLoRA, 2e-5 for full tuning."""
    rows_rate: float | None = None
    """Highest rate of the new tokens' rows in LoRA tuning; None: `ROWS_FACTOR` times the learning rate."""
    rows_first: int = 0
    """Steps in which only the new rows are trained, before the adapters (LoRA)."""
    rank: int = 16
    """Rank of the adapters; alpha is twice the rank."""

    def __post_init__(self) -> None:
        """Check the values. Raises InputError that names the option."""
        super().__post_init__()
        self._check_counts("rank")
        self._check_positive("epochs", "learning_rate", "rows_rate", "max_steps")
        if self.rows_first < 0:
            raise InputError(f"rows_first={self.rows_first}: a number of steps, 0 or more")
        if self.rows_first and self.method == "full":
            raise InputError("rows_first goes with method='lora' or 'qlora'; full tuning has no LoRA adapters")
