"""Draft length and pauses: one policy for the verify loop and every adapter (docs/policy.md).

A decoder asks `budget` before it drafts and `cut` after it, and reports to `record`. Everything here is pure: costs
come from a `CostCurve`, seconds from the caller's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.protocol import Costs, Drafter

Layout = Literal["padded", "packed", "fixed"]
"""How a decoder verifies the drafts of a step. padded: rows are filled up to the longest draft, so all rows pay for it.
packed: each row pays for its own tokens. fixed: a step verifies the same number of tokens whatever is drafted."""

_DISCOUNT = 0.25  # share of the verification cost that a drafter of negligible cost is told
_CREDIT, _MAX_CREDIT = 2.0, 8.0  # plain steps that a drafter may lose before it is paused; most that it can save up
_MIN_PAUSE, _MAX_PAUSE = 4, 64  # steps
_MAX_DRAFTING_COST = 1.0  # plain steps that the time of one draft counts at most: the first one may take long


class DraftThrottle:
    """Pauses a drafter whose drafts do not pay.

    A step in which it drafted pays if it gains more tokens per row than it costs plain steps beyond one: a > C(k) - 1
    + the time of drafting. Gains and losses go to an account with a credit of 2 plain steps. When the account is
    overdrawn, drafting pauses for 4 steps, and for twice as long each time that the step after a pause loses again, up
    to 64. So a drafter that never hits costs a few plain steps at the start and one step in 64 later.
    """

    def __init__(self) -> None:
        self._balance = _CREDIT
        self._pause = _MIN_PAUSE
        self._left = 0

    def should_skip(self) -> bool:
        """Whether this step goes without a draft; counts the step."""
        if self._left:
            self._left -= 1
            return True
        return False

    def record(self, accepted: float, extra: float) -> None:
        """Account for a step with a draft.

        Args:
            accepted: Accepted drafted tokens per row of a plain step.
            extra: The step's cost beyond a plain step, in plain steps.
        """
        self._balance = min(self._balance + accepted - extra, _MAX_CREDIT)
        if accepted > extra:
            self._pause = _MIN_PAUSE
        if self._balance < 0:
            self._balance = 0.0
            self._left = self._pause
            self._pause = min(2 * self._pause, _MAX_PAUSE)


class DraftPolicy:
    """Decides for one decoder whether a drafter drafts in a step, at what cost, and how much of the drafts is verified.

    Args:
        layout: How the decoder verifies drafts.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._throttles: WeakKeyDictionary[Drafter, DraftThrottle] = WeakKeyDictionary()

    def budget(self, drafter: Drafter, costs: Costs) -> Costs | None:
        """The costs that a drafter is told in this step; None: it does not draft. Counts the step.

        Args:
            drafter: The drafter.
            costs: Cost of verifying k drafted tokens per row.
        """
        if not drafter.fixed_length and self._throttle(drafter).should_skip():
            return None
        return discounted_costs(drafter, costs) if self.layout == "padded" else costs

    def cut(self, probs: Sequence[Sequence[float]], costs: Costs) -> list[int]:
        """Return the number of tokens of each row's draft that are verified.

        Args:
            probs: Probabilities of each row's drafted tokens, (K_b,) each.
            costs: Cost of k drafted tokens: per row where the layout is padded, of all rows together where it is
                packed. Not used where it is fixed.
        """
        if self.layout == "fixed":
            return [len(row) for row in probs]
        if self.layout == "packed":
            return packed_draft_lengths(probs, costs)
        longest = batch_draft_length(probs, costs)
        return [min(len(row), longest) for row in probs]

    def record(self, drafter: Drafter, accepted: float, extra: float, drafting: float = 0.0) -> None:
        """Account for a step in which a drafter drafted.

        Args:
            drafter: The drafter.
            accepted: Accepted drafted tokens per row of a plain step.
            extra: Cost of verification beyond a plain step, in plain steps.
            drafting: Time of drafting, in plain steps.
        """
        self._throttle(drafter).record(accepted, extra + min(drafting, _MAX_DRAFTING_COST))

    def _throttle(self, drafter: Drafter) -> DraftThrottle:
        return self._throttles.setdefault(drafter, DraftThrottle())


def discounted_costs(drafter: Drafter, costs: Costs) -> Costs:
    """Return the costs that a drafter is told where its drafts are cut afterwards.

    A drafter of negligible cost is told a quarter of the verification cost, so it proposes more than pays for one row
    alone: up to the batch's draft length a row's tokens cost nothing, and what is too long is cut.

    Args:
        drafter: Any drafter.
        costs: (K + 1,) cost of verifying k drafted tokens per row.
    """
    return 1.0 + _DISCOUNT * (costs - 1.0) if drafter.negligible_cost else costs


def batch_draft_length(probs: Sequence[Sequence[float]], costs: Costs) -> int:
    """Return the draft length at which a padded step is expected to emit most tokens per unit of cost.

    Rows that are verified together are padded to the longest draft, so a step costs C(k) for all of them even if one
    row alone has k drafted tokens. The rule serves a single row too: where tokens are hard to predict, one accepted
    token saves a whole step.

    Args:
        probs: Probabilities of each row's drafted tokens, given that those before are right; (K_b,) each, n rows.
        costs: (≥ max K_b + 1,) cost of verifying k drafted tokens per row.

    Returns:
        The least k that maximises (n + Σ_b Σ_{j≤min(k, K_b)} Π_{i≤j} p_bi) / (n·C(k)).

    Examples:
        >>> batch_draft_length([[0.9, 0.9], []], np.array([1.0, 1.2, 1.6]))
        1
        >>> batch_draft_length([[0.9, 0.9], [0.9, 0.9]], np.array([1.0, 1.2, 1.6]))
        2
    """
    chances = _survival(probs)
    emitted = chances.sum(0).cumsum()
    return int((emitted / costs[: chances.shape[1]]).argmax())


def packed_draft_lengths(probs: Sequence[Sequence[float]], costs: Costs) -> list[int]:
    """Return each row's draft length at which a packed step is expected to emit most tokens per unit of cost.

    In a packed step every row pays for its own tokens. A token's value is its survival Π_{i≤j} p_bi, which falls along
    a row, so the best m tokens of all rows are a prefix of each draft.

    Args:
        probs: As for `batch_draft_length`.
        costs: (≥ Σ K_b + 1,) cost of a step with m drafted tokens in all its rows.

    Returns:
        (n,) lengths that maximise (n + Σ survival) / costs[Σ lengths].

    Examples:
        >>> packed_draft_lengths([[0.9, 0.8], [0.1]], 1.0 + 0.2 * np.arange(4))
        [2, 0]
    """
    survival = _survival(probs)[:, 1:]
    rows, places = np.nonzero(survival)
    values = survival[rows, places]
    order = np.lexsort((places, -values))
    emitted = len(probs) + np.concatenate([[0.0], values[order].cumsum()])
    taken = int((emitted / costs[: len(emitted)]).argmax())
    lengths: list[int] = np.bincount(rows[order[:taken]], minlength=len(probs)).tolist()
    return lengths


def _survival(probs: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """(n, 1 + max K_b): the chance that the first k tokens of each draft are right; 0 past a draft's end."""
    chances = np.zeros((len(probs), 1 + max(map(len, probs), default=0)))
    chances[:, 0] = 1.0
    for row, given in zip(chances, probs, strict=True):
        row[1 : len(given) + 1] = given
    survival: NDArray[np.float64] = np.nan_to_num(chances).clip(0.0, 1.0).cumprod(1)
    return survival
