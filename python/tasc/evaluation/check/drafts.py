"""Drafts of an index on held-out rows: tokens per step and speed-up at several costs, with intervals over rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasc.drafting.defaults import MAX_DRAFT
from tasc.evaluation.bootstrap import estimate, ratio
from tasc.evaluation.replay import ReplayResult, ReplayRow, replay
from tasc.progress import ProgressBars

if TYPE_CHECKING:
    from tasc.drafting.protocol import Drafter

COSTS = (0.02, 0.05, 0.1, 0.2)
"""Costs of verifying one drafted token, in plain steps, at which drafts are replayed."""


@dataclass(frozen=True, slots=True)
class DraftFigures:
    """Replay of held-out rows at one cost.

    Attributes:
        cost: Cost of verifying one drafted token, in plain steps; drafts are as long as they pay at this cost.
        tau: Tokens per step, as `value`, `low` and `high`.
        speedup: s(cost), as `value`, `low` and `high`.
        drafted: Mean draft length.
        accepted: Share of the drafted tokens that were accepted.
        accepted_at: By position, share of the drafts that reach it whose token there was accepted, given that all
            tokens before it were.
    """

    cost: float
    tau: dict[str, float | None]
    speedup: dict[str, float | None]
    drafted: float
    accepted: float
    accepted_at: list[float]


def draft_figures(
    new_drafter: Callable[[], Drafter],
    rows: Sequence[ReplayRow],
    *,
    costs: Sequence[float] = COSTS,
    tokens: Sequence[int] | None = None,
    max_tokens: int = MAX_DRAFT,
    progress: ProgressBars,
) -> list[DraftFigures]:
    """Replay rows at several costs, each with a new drafter.

    Args:
        new_drafter: Makes a drafter.
        rows: Held-out rows.
        costs: Costs of verifying one drafted token, in plain steps.
        tokens: Number of tokens of each row by which speed-ups and τ count; None: those of `rows`. For rows in the
            tokens of an extended vocabulary, numbers of base tokens make the figures comparable.
        max_tokens: Most tokens of a draft.
        progress: Called with the title of a job; returns its progress callback.
    """
    return [_figures(new_drafter(), rows, cost, tokens, max_tokens, progress) for cost in costs]


def _figures(
    drafter: Drafter,
    rows: Sequence[ReplayRow],
    cost: float,
    tokens: Sequence[int] | None,
    max_tokens: int,
    progress: ProgressBars,
) -> DraftFigures:
    tell = progress(f"replaying at cost {cost:g}")
    found: list[ReplayResult] = []
    for row in rows:
        found.append(replay(drafter, [row], max_tokens=max_tokens, cost=cost))
        tell(len(found), len(rows))
    counts = np.array([[r.tokens, r.steps, r.drafted, r.hits] for r in found], np.float64)  # (rows, 4)
    emitted, steps, drafted, hits = counts.T
    if tokens is not None:
        emitted = np.asarray(tokens, np.float64)
    tested, right = (np.array([getattr(r, name) for r in found]).sum(axis=0) for name in ("tested_at", "hits_at"))
    return DraftFigures(
        cost,
        estimate(ratio(emitted, steps)),
        estimate(ratio(emitted, steps + cost * drafted)),
        drafted.sum() / steps.sum(),
        hits.sum() / max(1.0, drafted.sum()),
        (right[tested > 0] / tested[tested > 0]).tolist(),
    )
