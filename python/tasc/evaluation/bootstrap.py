"""Bootstrap intervals of figures that are functions of sums over rows.

A `Measure` stores what each row adds to the sums, so the figure of any resample needs no second look at the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc.errors import InputError

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 1000
"""Default number of resamples of a bootstrap interval."""

_CHUNK = 64
"""Number of resamples drawn together."""


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """Figure of N rows that is a function of S sums over them.

    Attributes:
        rows: (N, S) float64, summands of each row.
        score: Function from sums (…, S) to figures (…,); NaN if undefined, such as 0/0.
    """

    rows: Floats
    score: Callable[[Floats], Floats]

    @property
    def value(self) -> float | None:
        """Figure of all rows; None if it is undefined."""
        figure = float(self.score(self.rows.sum(axis=0)))
        return None if np.isnan(figure) else figure


@dataclass(frozen=True, slots=True)
class Interval:
    """Confidence interval from `low` to `high`."""

    low: float
    high: float


def ratio(numerators: Any, denominators: Any = None) -> Measure:
    """Return the sum of (N,) `numerators` divided by the sum of (N,) `denominators`; without denominators, the mean."""
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
    """Compute a percentile bootstrap interval: the figure's distribution over resamples of the rows.

    Args:
        measure: Figure of the rows.
        against: Figure of another model on the same rows. The interval is then of the difference `measure` minus
            `against`, both from the same resampled rows (paired).
        resamples: Number of resamples. Time and precision grow with it.
        confidence: Share of the resamples inside the interval.
        seed: Seed of the resamples. Equal seeds give equal intervals.

    Returns:
        The interval; None if there is one row, whose resamples are all equal, or if the figure is undefined in every
        resample. If all rows are equal, as with 300 of 300 correct, the interval is a point: a bootstrap does not see
        the doubt that few rows leave.

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
    if count == 1:
        return None
    rng = np.random.default_rng(seed)
    figures = []
    for start in range(0, resamples, _CHUNK):
        drawn = rng.multinomial(count, [1 / count] * count, size=min(_CHUNK, resamples - start))
        figure = measure.score(drawn @ measure.rows)
        figures.append(figure if against is None else figure - against.score(drawn @ against.rows))
    known = np.concatenate(figures)
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def estimate(measure: Measure, *, against: Measure | None = None, **options: Any) -> dict[str, float | None]:
    """Return `value`, `low` and `high`: a figure, or its difference from `against`, and the bootstrap interval.

    Args:
        measure: Figure of the rows.
        against: Figure of another model on the same rows.
        **options: Options of `bootstrap_interval`.

    Returns:
        JSON values; None where they are undefined.
    """
    value, other = measure.value, 0.0 if against is None else against.value
    if value is None or other is None:
        return {"value": None, "low": None, "high": None}
    interval = bootstrap_interval(measure, against=against, **options)
    ends = {"low": None, "high": None} if interval is None else asdict(interval)
    return {"value": value - other, **ends}


def divided(above: Floats, below: Floats) -> Floats:
    """Return `above` / `below`, NaN where `below` is 0."""
    out: Floats = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=out, where=below != 0)
    return out
