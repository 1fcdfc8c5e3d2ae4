"""What it costs to verify k drafted tokens, in units of one plain step."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasc.errors import InputError

_GRID = (1, 2, 3, 5, 9, 17, 33, 65, 129)
_MEMORY = 0.05  # weight of one real step in the running average
_REMEMBERED = 256  # shapes of steps
_CLIP = 1.5  # a real step counts as at most this much slower or faster than expected


def given_costs(costs: float | Sequence[float] | NDArray[np.float64], max_draft: int) -> NDArray[np.float64]:
    """A cost curve from a slope or an array.

    Args:
        costs: c, meaning 1 + c·k, or an array with `costs[k]` ≥ 0 for k = 0, 1, …, which goes on with its last slope.
        max_draft: Longest draft.

    Returns:
        (max_draft + 1,) float64, non-decreasing, [0] = 1.

    Raises:
        InputError: A negative slope, an empty array, or values that are not positive numbers.
    """
    curve: NDArray[np.float64] = np.asarray(costs, dtype=np.float64)
    if curve.ndim == 0:
        curve = np.asarray(1.0 + float(curve) * np.arange(max_draft + 1), dtype=np.float64)
    if curve.ndim != 1 or len(curve) == 0 or not np.isfinite(curve).all() or curve.min() <= 0 or curve[-1] < curve[0]:
        raise InputError(f"costs={costs!r}: give a slope ≥ 0, or one positive number per count of drafted tokens")
    missing = max_draft + 1 - len(curve)
    if missing > 0:
        slope = curve[-1] - curve[-2] if len(curve) > 1 else 0.0
        curve = np.concatenate([curve, curve[-1] + slope * np.arange(1, missing + 1)])
    return np.maximum.accumulate(curve[: max_draft + 1] / curve[0])


class CostCurve:
    """Seconds of a step over the number of tokens in it: rows times tokens per row.

    The matrix products of a step see only that number, so one curve serves every batch size: at B rows, verifying k
    drafted tokens costs seconds(B·(k + 1)) / seconds(B). Measured once at 1, 2, 3, 5, 9, … tokens, interpolated, and
    continued with its last slope; real steps then move the points next to them by a running average in which no
    single step counts as more than half as slow, or fast, again as expected.

    Args:
        run: Runs one step of n tokens in one row and waits for its end.
        max_draft: Longest draft, ≥ 1.
        num_rows: Most rows.
        budget: Seconds to spend on measuring, about; every point is measured at least twice.
        computed: Tokens that a step over (rows, tokens per row) computes; None: their product.
    """

    def __init__(
        self,
        run: Callable[[int], None],
        max_draft: int,
        num_rows: int = 1,
        budget: float = 0.5,
        computed: Callable[[int, int], int] | None = None,
    ) -> None:
        self._computed = computed or operator.mul
        self._tokens = _tokens(self._computed, max_draft)
        most = num_rows * (max_draft + 1)
        measured = [n for n in _GRID if n < most] + ([most] if most <= _GRID[-1] else [])
        rounds: list[list[float]] = []
        run(1)
        begin = time.perf_counter()
        while len(rounds) < 2 or (len(rounds) < 7 and time.perf_counter() - begin < budget):
            rounds.append([_seconds(run, n) for n in measured])
        seconds = rising(np.median(rounds, axis=0) if len(rounds) > 2 else np.min(rounds, axis=0))
        points = np.array(measured, dtype=np.float64)
        while points[-1] < most:
            slope = (seconds[-1] - seconds[-2]) / (points[-1] - points[-2])
            points = np.append(points, min(2 * points[-1], most))
            seconds = np.append(seconds, seconds[-1] + slope * (points[-1] - points[-2]))
        self._points: NDArray[np.float64] = points
        self._seconds: NDArray[np.float64] = seconds

    def costs(self, num_rows: int = 1, prompt: int = 1, in_use: int | None = None) -> NDArray[np.float64]:
        """Cost of k drafted tokens per row, in steps that emit one token in each row.

        Args:
            num_rows: Rows of the step.
            prompt: Tokens of each row besides the drafted ones: those of the longest prompt.
            in_use: Rows of a plain step, where that is another number: prompts come a few at a time, and a token that
                their drafts bring is worth a row's share of a step over all rows.

        Returns:
            (max_draft + 1,) float64, non-decreasing, [0] = 1.
        """
        seconds = rising(self._expected(self._tokens(num_rows, prompt)))
        curve: NDArray[np.float64] = seconds - seconds[0]
        curve /= self.plain_seconds(in_use or num_rows) * num_rows / (in_use or num_rows)
        curve += 1.0
        return curve

    def plain_seconds(self, num_rows: int = 1) -> float:
        """Seconds of a step without drafts, at a batch size."""
        return float(self._expected(self._computed(num_rows, 1)))

    def _expected(self, tokens: int | NDArray[np.int64]) -> Any:
        """Seconds of steps that compute so many tokens; float64 of the same shape."""
        within = np.interp(tokens, self._points, self._seconds)
        if len(self._points) == 1:
            return within
        slope = (self._seconds[-1] - self._seconds[-2]) / (self._points[-1] - self._points[-2])
        return within + max(0.0, slope) * np.maximum(0, tokens - self._points[-1])

    def observe(self, tokens: int, seconds: float) -> None:
        """Take a real step of `tokens` tokens in all its rows."""
        expected = float(self._expected(tokens))
        ratio = min(max(seconds / expected, 1 / _CLIP), _CLIP)
        right = min(int(np.searchsorted(self._points, tokens)), len(self._points) - 1)
        left = max(right - 1, 0)
        span = self._points[right] - self._points[left]
        share = (tokens - self._points[left]) / span if span else 1.0
        for point, weight in ((left, 1.0 - share), (right, share)):
            if weight > 0:
                self._seconds[point] *= 1.0 + _MEMORY * weight * (ratio - 1.0)


def rising(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle between the lowest rising curve above the values and the highest below them."""
    above = np.maximum.accumulate(values)
    below = np.minimum.accumulate(values[::-1])[::-1]
    return (above + below) / 2


def _tokens(computed: Callable[[int, int], int], max_draft: int) -> Callable[[int, int], NDArray[np.int64]]:
    """By rows and tokens of each besides drafted ones: (max_draft + 1,) tokens computed with k drafted ones."""

    @lru_cache(_REMEMBERED)
    def tokens(num_rows: int, prompt: int) -> NDArray[np.int64]:
        return np.array([computed(num_rows, prompt + k) for k in range(max_draft + 1)])

    return tokens


def _seconds(run: Callable[[int], None], tokens: int) -> float:
    begin = time.perf_counter()
    run(tokens)
    return time.perf_counter() - begin
