"""Figures of rows that are functions of sums over them, and how sure they are: bootstrap intervals.

A `Measure` keeps what each row adds, so any resample of the rows has its figure without looking at a row again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc.errors import InputError

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 1000
"""Resamples of a bootstrap interval."""

_AT_ONCE = 64
"""Resamples drawn together."""


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """A figure of N rows that is a function of S sums over them.

    Attributes:
        rows: (N, S) float64, what each row adds to the sums.
        score: From sums (…, S) to figures (…,); NaN where there is none, such as a share of nothing.
    """

    rows: Floats
    score: Callable[[Floats], Floats]

    @property
    def value(self) -> float | None:
        """The figure of all rows; None where there is none."""
        return _number(self.score(self.rows.sum(axis=0)))


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure lies from `low` to `high` with the confidence asked for."""

    low: float
    high: float


def ratio(numerators: Any, denominators: Any = None) -> Measure:
    """The sum of (N,) `numerators` over that of (N,) `denominators`; without these, the mean."""
    above = np.asarray(numerators, np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, np.float64)
    return Measure(np.stack([above, below], axis=-1), lambda sums: divided(sums[..., 0], sums[..., 1]))


def bootstrap_interval(
    measure: Measure,
    *,
    against: Measure | None = None,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Compute a percentile bootstrap interval of a figure over its rows.

    Args:
        measure: The figure of the rows.
        against: The figure of the same rows answered by another model: the interval is of the difference `measure`
            less `against`, both from the same drawn rows (paired).
        resamples: Draws; the time and the precision of the ends grow with it.
        confidence: Share of the draws inside the interval.
        seed: The same seed gives the same interval.

    Returns:
        The interval; None where no draw has a figure. It is a point where all rows say the same, as with 300 of 300
        right: few rows then still leave doubt, which a bootstrap does not see.

    Raises:
        InputError: If there is no row or no draw, the confidence is not between 0 and 1, or the two measures have
            different numbers of rows.

    Complexity:
        Time O(`resamples` · N), memory O(N).
    """
    count = len(measure.rows)
    if count == 0 or resamples < 1 or not 0 < confidence < 1:
        raise InputError(
            f"an interval of {count} rows, {resamples} resamples and confidence {confidence}: "
            "at least one of each, and a confidence between 0 and 1, are needed"
        )
    if against is not None and len(against.rows) != count:
        raise InputError(f"{count} rows against {len(against.rows)}: a paired interval needs the same rows")
    rng = np.random.default_rng(seed)
    figures = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = rng.multinomial(count, [1 / count] * count, size=min(_AT_ONCE, resamples - start))
        figure = measure.score(drawn @ measure.rows)
        figures.append(figure if against is None else figure - against.score(drawn @ against.rows))
    known = np.concatenate(figures)
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def divided(above: Floats, below: Floats) -> Floats:
    """`above` by `below`, NaN where that is 0."""
    out: Floats = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=out, where=below != 0)
    return out


def _number(figure: Any) -> float | None:
    return None if np.isnan(figure) else float(figure)
