"""What a step of an engine costs at its present load, learnt from the steps themselves."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.costs import rising

_Floats: TypeAlias = NDArray[np.float64]

SLOPE = 0.02
"""Cost of one more token in plain steps of one row, before anything has been seen."""

_KEPT = 512  # latest steps
_OFTEN = 16  # steps between two fits, once there are some
_TRUST = 4.0  # steps that the straight line counts for beside those seen at a number of tokens
_POINTS = 1.0 + np.concatenate([[0.0], 2.0 ** np.arange(16)])  # 1, 2, 3, 5, 9, … tokens


class StepTimes:
    """Seconds of a step over the number of tokens in it, drafted ones of all rows included.

    A straight line through the medians of the latest steps by number of tokens, bent towards those medians where there
    are many; where nothing was seen it has the slope it began with. Only ratios of the seconds matter.

    Args:
        cost: Cost of one more token, in steps of one token; None: learnt, from `SLOPE` on.

    Example:
        >>> times = StepTimes(0.5)
        >>> times.costs(num_rows=1, max_draft=2).tolist()
        [1.0, 1.5, 2.0]
        >>> times.costs(num_rows=3, max_draft=2).tolist()
        [1.0, 1.75, 2.5]
    """

    def __init__(self, cost: float | None = None) -> None:
        self._learns = cost is None
        self._slope = slope = SLOPE if cost is None else cost
        self._seen: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self._since = 0
        self._seconds: _Floats = 1.0 + slope * (_POINTS - 1.0)

    def observe(self, tokens: int, seconds: float) -> None:
        """Take a step of `tokens` ≥ 1 tokens in all its rows; nothing where the cost was given."""
        if not self._learns:
            return
        self._seen.append((tokens, seconds))
        self._since += 1
        if self._since >= min(_OFTEN, len(self._seen)):
            self._since = 0
            self._fit()

    def seconds(self, tokens: _Floats) -> _Floats:
        """(n,) numbers of tokens → (n,) seconds of a step; of unit one step of one token before one was observed."""
        last = (self._seconds[-1] - self._seconds[-2]) / (_POINTS[-1] - _POINTS[-2])
        found: _Floats = np.interp(tokens, _POINTS, self._seconds) + np.maximum(0.0, tokens - _POINTS[-1]) * last
        return found

    def costs(self, num_rows: int, max_draft: int) -> _Floats:
        """What k drafted tokens per row cost where `num_rows` rows are in a step, in plain steps of so many rows.

        Returns:
            (max_draft + 1,) float64, non-decreasing, [0] = 1.
        """
        found = rising(self.seconds(num_rows * np.arange(1.0, max_draft + 2)))
        found /= found[0]
        return found

    def _fit(self) -> None:
        tokens, seconds = np.array(self._seen, np.float64).T
        near = np.abs(np.log(tokens[:, None] / _POINTS)).argmin(axis=1)
        groups = [near == point for point in np.unique(near)]
        at = np.array([tokens[group].mean() for group in groups])
        median = np.array([np.median(seconds[group]) for group in groups])
        count = np.array([float(group.sum()) for group in groups])
        start, slope = self._line(at, median, count)
        bend = (count * median / (start + slope * at) + _TRUST) / (count + _TRUST)
        self._seconds = np.maximum((start + slope * _POINTS) * np.interp(_POINTS, at, bend), 1e-9)

    def _line(self, at: _Floats, median: _Floats, count: _Floats) -> tuple[float, float]:
        """Start and slope of the line of least relative error through the medians and two points that keep the slope
        it began with.
        """
        begin = median[0] / (1.0 + self._slope * (at[0] - 1.0))
        far = at[0] + 64.0
        tokens, seconds = (
            np.append(at, [1.0, far]),
            np.append(median, [begin, begin * (1.0 + self._slope * (far - 1.0))]),
        )
        slope, start = np.polyfit(tokens, seconds, 1, w=np.sqrt(np.append(count, [1.0, 1.0])) / seconds)
        if slope >= 0.0 < start:
            return float(start), float(slope)
        level = float(np.average(median, weights=count))  # noise: nothing can be said but the level
        return level, self._slope * level
