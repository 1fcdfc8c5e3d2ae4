"""A task vocabulary on held-out rows: tokens saved by size, and drafts for a model that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasc._core import MergePlan, NgramDrafter, TaskIndex
from tasc.drafting.retokenizing import RetokenizingDrafter
from tasc.evaluation.bootstrap import estimate, ratio
from tasc.evaluation.check.drafts import COSTS, DraftFigures, draft_figures
from tasc.evaluation.replay import ReplayRow
from tasc.progress import ProgressBars
from tasc.vocab.vocabulary import learn_vocabulary

if TYPE_CHECKING:
    from tasc.data import TaskTokenizer, TokenStore

SIZES = (64, 128, 250, 500, 1000)
"""Numbers of new tokens that are tried."""

ADOPTION = 0.99
"""Assumed share of the new tokens in the fewest-token form of an output that a tuned model emits; the others it writes
in base tokens. `tasc eval` measured 100 % and more on two tuned models (docs/how-to/check.md)."""

_ENOUGH = 0.98  # of the best speed-up: a smaller vocabulary that reaches it is recommended


@dataclass(frozen=True, slots=True)
class SizeFigures:
    """One size of vocabulary on held-out rows.

    Attributes:
        wanted: Number of new tokens asked for.
        tokens: Number of new tokens learned; fewer where no more pass the thresholds.
        saved: Share of the held-out tokens saved, as `value`, `low` and `high`.
        speedup: Base tokens per token, that is, the speed-up of plain decoding, as `value`, `low` and `high`.
    """

    wanted: int
    tokens: int
    saved: dict[str, float | None]
    speedup: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class VocabularyFigures:
    """Task vocabularies learned from the training rows.

    Attributes:
        adoption: Share of the new tokens that a tuned model is assumed to use; all figures depend on it.
        sizes: Figures by size.
        recommended: Number of new tokens to ask for: the smallest of the sizes that is nearly as fast as the best.
        drafts: Drafts for a model with the recommended vocabulary, from an index of base tokens: τ and s in base tokens
            per plain step of the model without new tokens.
    """

    adoption: float
    sizes: list[SizeFigures]
    recommended: int
    drafts: list[DraftFigures]


def vocabulary_figures(
    store: TokenStore,
    index: TaskIndex,
    rows: Sequence[ReplayRow],
    tokenizer: TaskTokenizer,
    folder: Path,
    *,
    sizes: Sequence[int] = SIZES,
    adoption: float = ADOPTION,
    progress: ProgressBars,
) -> tuple[VocabularyFigures, MergePlan]:
    """Learn vocabularies of several sizes from a store and measure them on held-out rows.

    Args:
        store: Training rows.
        index: Index of the training rows.
        rows: Held-out rows, in base tokens.
        tokenizer: Tokenizer that made all of them.
        folder: Where plans are written.
        sizes: Numbers of new tokens to try, ascending.
        adoption: Share of the new tokens that a tuned model uses, from 0 to 1.
        progress: Called with the title of a job; returns its progress callback.

    Returns:
        The figures, and the plan of the recommended size.

    Raises:
        InputError: The tokenizer cannot be extended, or no n-gram occurs often enough to be a token.
    """
    tell = progress("learning vocabularies")
    found: list[SizeFigures] = []
    plans: list[MergePlan] = []
    base = np.array([len(row.output) for row in rows], np.float64)
    for size in sizes:
        plan = learn_vocabulary(store, tokenizer, folder / f"{size}.plan", size=size, held_out=0.0)
        segmented = plan.segment_batch([row.output for row in rows])
        after = base - adoption * (base - [len(ids) for ids in segmented])
        plans.append(plan)
        found.append(SizeFigures(size, len(plan), estimate(ratio(base - after, base)), estimate(ratio(base, after))))
        tell(len(found), len(sizes))
        if len(plan) < size:  # larger ones are the same
            break
    speedups = [one.speedup["value"] or 1.0 for one in found]
    best = next(k for k, one in enumerate(speedups) if one >= _ENOUGH * max(speedups))
    adopted = adopted_rows(rows, plans[best], adoption)
    drafts = draft_figures(
        lambda: RetokenizingDrafter(NgramDrafter(index, tokenizer=tokenizer), plans[best]),
        adopted,
        costs=COSTS,
        tokens=[len(row.output) for row in rows],
        progress=progress,
    )
    return VocabularyFigures(adoption, found, found[best].wanted, drafts), plans[best]


def adopted_rows(rows: Sequence[ReplayRow], plan: MergePlan, adoption: float, *, seed: int = 0) -> list[ReplayRow]:
    """Return rows whose outputs are written as a tuned model might: each new token is kept with probability `adoption`.

    Args:
        rows: Rows in base tokens.
        plan: New tokens.
        adoption: Probability, from 0 to 1, that a new token of the fewest-token form is used. Otherwise its base tokens
            stand in its place.
        seed: Seed of the choice.
    """
    rng = np.random.default_rng(seed)
    segmented = plan.segment_batch([row.output for row in rows])
    return [
        ReplayRow(row.prompt, _adopted(ids, plan, adoption, rng), row.input)
        for row, ids in zip(rows, segmented, strict=True)
    ]


def _adopted(ids: NDArray[np.uint32], plan: MergePlan, adoption: float, rng: np.random.Generator) -> NDArray[np.uint32]:
    dropped = (ids >= plan.base_vocab_size) & (rng.random(len(ids)) >= adoption)
    parts = [plan.expand(ids[k : k + 1]) if dropped[k] else ids[k : k + 1] for k in range(len(ids))]
    return np.concatenate(parts) if parts else ids
