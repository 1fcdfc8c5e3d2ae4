"""Result of a check."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from tasc.evaluation.check.drafts import DraftFigures
from tasc.evaluation.check.predictors import Predictors
from tasc.evaluation.check.verdict import Verdict
from tasc.evaluation.check.vocabulary import VocabularyFigures


@dataclass(slots=True)
class CheckResult:
    """What tasc would bring on a task.

    Attributes:
        rows: Numbers of rows: `all`, `train`, `held_out`, `with_input`; `split_by` says what split them. `known`
            counts the held-out rows that are indexed too, with their input and output, and `cut` those of whose output
            only the first `LONGEST` tokens were replayed.
        tokenizer: Name of the tokenizer.
        drafts: Drafts from an index of the training rows, replayed on the held-out ones, by ascending cost.
        vocabulary: Task vocabularies; None where none could be learned.
        no_vocabulary: Why none could be learned; empty if there is one.
        predictors: Entropies, repetition, and the share copied from the input.
        verdict: What to do.
        model: What a model says and would gain (`tasc.evaluation.check.with_model`); None without a model.
        input_place: Where the input is in the rows' prompts, in words; None if their inputs are no whole prompts.
        failed: Error or Ctrl-C that ended the check with the model, after the figures of the rows, or its measurement,
            after the predictions; None if there was none.
    """

    rows: dict[str, Any]
    tokenizer: str
    drafts: list[DraftFigures]
    vocabulary: VocabularyFigures | None
    no_vocabulary: str
    predictors: Predictors
    verdict: Verdict
    model: dict[str, Any] | None = None
    input_place: str | None = None
    failed: BaseException | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        failed = None if self.failed is None else str(self.failed) or "interrupted"
        return {**asdict(replace(self, failed=None)), "failed": failed}
