"""Result of a check."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tasc.evaluation.check.drafts import DraftFigures


@dataclass(slots=True)
class CheckResult:
    """What tasc would bring on a task.

    Attributes:
        rows: Numbers of rows: `all`, `train`, `held_out`, `with_input`; `split_by` says what split them.
        tokenizer: Name of the tokenizer.
        drafts: Drafts from an index of the training rows, replayed on the held-out ones, by ascending cost.
    """

    rows: dict[str, Any]
    tokenizer: str
    drafts: list[DraftFigures] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)
