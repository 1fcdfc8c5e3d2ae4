"""One longest draft for the rows of a step.

Rows that are verified together are padded to the longest draft among them, so a step costs C(k) for all of them even if
a single row has k drafted tokens. What each row thinks best for itself is then no measure: the rows' drafts are cut to
the length at which the step as a whole is expected to bring most tokens for its time. That serves a single row too:
where tokens are hard to foresee, one that is right saves a whole step, not the share of it that it is worth on average.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]

_TOLD = 0.25  # of what drafted tokens cost


def told_costs(drafter: object, costs: Costs) -> Costs:
    """The costs that a drafter is told.

    One that takes no time worth mention (`is_cheap`) is told less, so that it drafts more than it thinks pays: up to
    the common length a row's tokens cost nothing, and what is too long is cut.

    Args:
        drafter: Any `Drafter`.
        costs: (K + 1,) cost of k drafted tokens per row.
    """
    return 1.0 + _TOLD * (costs - 1.0) if getattr(drafter, "is_cheap", False) else costs


def common_length(probs: Sequence[Sequence[float]], costs: Costs) -> int:
    """The k at which a step is expected to emit most tokens per unit of cost.

    Args:
        probs: Of each of n rows' drafted tokens, given that those before are right; (K_b,) each.
        costs: (≥ max K_b + 1,) cost of k drafted tokens per row.

    Returns:
        The least k that maximises (n + Σ_b Σ_{j≤min(k, K_b)} Π_{i≤j} p_bi) / (n·C(k)).

    >>> common_length([[0.9, 0.9], []], np.array([1.0, 1.2, 1.6]))
    1
    >>> common_length([[0.9, 0.9], [0.9, 0.9]], np.array([1.0, 1.2, 1.6]))
    2
    """
    longest = max(map(len, probs))
    chances = np.zeros((len(probs), longest + 1))
    chances[:, 0] = 1.0
    for row, given in zip(chances, probs, strict=True):
        row[1 : len(given) + 1] = given
    emitted = np.nan_to_num(chances).clip(0.0, 1.0).cumprod(1).sum(0).cumsum()
    return int((emitted / costs[: longest + 1]).argmax())
