"""Cost of verifying k drafted tokens, in plain steps: given, measured on a model, or learnt from an engine's steps."""

from __future__ import annotations

import operator
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.defaults import DEFAULT_SLOPE
from tasc.drafting.protocol import Costs
from tasc.errors import InputError

_Floats: TypeAlias = NDArray[np.float64]

# Of MeasuredCosts.
_GRID = (1, 2, 3, 5, 9, 17, 33, 65, 129)
_STEP_WEIGHT = 0.05  # weight of one real step in the running average
_MAX_RATIO = 1.5  # a real step counts as at most this much slower or faster than expected
_CACHED_SHAPES = 256
_SHORTEST = 1e-9  # seconds of a step
_LEAST_POINTS = 4  # numbers of tokens that are measured first, however long it takes
_MOST_BUDGETS = 2  # seconds of the first round, in budgets, after which longer steps are not measured
_AGAIN_SHARE = 0.01  # of the time of real steps goes into measuring points again
_AGAIN_AFTER = 64  # steps until a point that no real step was near is measured again, and after one that surprised
_AGAIN_RARELY = 4096  # the number of steps doubles up to this while measurements confirm a point

# Of LearnedCosts.
_KEPT_STEPS = 512
_FIT_EVERY = 16  # steps between two fits, once there are some
_LINE_WEIGHT = 2.0  # steps that the straight line counts for beside those seen at a number of tokens
_PLAIN_STEPS = 8  # plain steps wanted among the kept ones; at the beginning one in _PLAIN_EVERY
_PLAIN_EVERY = 4
_LONGEST = 1e9  # seconds of a step; a clock that says more, or less than _SHORTEST, is wrong
_ASK_AGAIN = 64  # a plain step that is not seen is asked for _PLAIN_STEPS times, then once in so many steps
_POINTS = 1.0 + np.concatenate([[0.0], 2.0 ** np.arange(16)])  # 1, 2, 3, 5, 9, … tokens
_BOUNDS = np.sqrt(_POINTS[:-1] * _POINTS[1:])  # between them, which point is nearest by ratio


class CostCurve(ABC):
    """Cost of a step by its drafted tokens, in plain steps."""

    @abstractmethod
    def costs(self, max_draft: int, num_rows: int = 1, prompt: int = 1, in_use: int | None = None) -> Costs:
        """Cost of k drafted tokens per row, in steps that emit one token in each row.

        Args:
            max_draft: Longest draft K.
            num_rows: Rows of the step.
            prompt: Tokens of each row besides the drafted ones: those of the longest prompt.
            in_use: Rows of a plain step, where that is another number: prompts come a few at a time, and a token that
                their drafts bring is worth a row's share of a step over all rows.

        Returns:
            (K + 1,) float64, non-decreasing, [0] = 1.
        """

    def observe(self, tokens: int, seconds: float) -> None:
        """Take a real step that computed `tokens` ≥ 1 tokens in all its rows. The default ignores it."""
        return

    def plain_steps(self, seconds: float, num_rows: int) -> float:
        """Seconds as a number of plain steps at a batch size; 0 where the curve knows no seconds."""
        return 0.0

    def lacks_plain_steps(self, tokens: int = 1) -> bool:
        """Whether a step of `tokens` tokens, without drafts, would teach the curve what it needs. The default: no.

        Ask once per step: the answer depends on how often it was asked.
        """
        return False


class GivenCosts(CostCurve):
    """Costs that the caller gave, the same at every batch size.

    Args:
        costs: c, meaning 1 + c·k, or an array with `costs[k]` > 0 for k = 0, 1, …, which goes on with its last slope.

    Raises:
        InputError: A negative slope, an empty array, or values that are not positive numbers.

    Examples:
        >>> GivenCosts([2.0, 3.0]).costs(3).tolist()
        [1.0, 1.5, 2.0, 2.5]
    """

    def __init__(self, costs: float | Sequence[float] | _Floats = DEFAULT_SLOPE) -> None:
        try:
            curve: _Floats = np.asarray(costs, dtype=np.float64)
        except (TypeError, ValueError):  # no numbers, or lists of several lengths
            curve = np.empty(0)
        if curve.ndim == 0:
            curve = np.array([1.0, 1.0 + float(curve)])
        valid = curve.ndim == 1 and len(curve) > 0 and np.isfinite(curve).all() and curve.min() > 0
        if not valid or curve[-1] < curve[0]:
            raise InputError(f"costs={costs!r}: give a slope ≥ 0, or one positive number per count of drafted tokens")
        self._curve = curve / curve[0]

    def costs(self, max_draft: int, num_rows: int = 1, prompt: int = 1, in_use: int | None = None) -> Costs:
        """(max_draft + 1,) the costs given."""
        return np.maximum.accumulate(extrapolated(np.arange(max_draft + 1), np.arange(len(self._curve)), self._curve))


class MeasuredCosts(CostCurve):
    """Seconds of a step over the number of tokens in it: rows times tokens per row.

    The matrix products of a step see only that number, so one curve serves every batch size: at B rows, verifying k
    drafted tokens costs seconds(B·(k + 1)) / seconds(B). The curve is measured at 1, 2, 3, 5, 9, … tokens before the
    first draft, interpolated, and continued with its last slope. Real steps then move the points next to them by a
    running average in which no step counts as more than half as slow, or fast, again as expected.

    The policy takes no draft of a length that looks dear, so no real step would ever show that it has become cheap, for
    instance because another process has ended. A point that no real step was near for a while is therefore measured
    again, which takes 1 % of the time of real steps at most.

    Args:
        run: Runs one step of n tokens in one row and waits for its end.
        max_draft: Longest draft, ≥ 1.
        num_rows: Most rows.
        budget: Seconds to spend on measuring first, about; every point is measured at least twice. Where the steps
            are so long that this takes four times as long, those of the most tokens are estimated until later.
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
        self._run = run
        self._computed = computed or operator.mul
        self._tokens = lru_cache(_CACHED_SHAPES)(self._step_tokens)
        most = num_rows * (max_draft + 1)
        grid = [n for n in _GRID if n < most] + ([most] if most <= _GRID[-1] else [])
        rounds = _measured(run, grid, budget)
        points = np.array(grid[: len(rounds[0])], dtype=np.float64)
        seconds = rising(np.median(rounds, axis=0) if len(rounds) > 2 else np.min(rounds, axis=0))
        beyond = grid[-1] * 2.0 ** np.arange(1, 1 + np.ceil(np.log2(max(1.0, most / grid[-1]))))
        self._points: _Floats = np.append(grid, np.minimum(beyond, most))
        least = seconds[0] * (1.0 + DEFAULT_SLOPE * (self._points - 1.0)) * (self._points > points[-1])
        self._seconds: _Floats = np.maximum(extrapolated(self._points, points, seconds), least)
        self._credit = 0.0  # seconds that may go into measuring again
        self._unseen = np.zeros(len(grid), np.int64)  # steps since a real one was near, by point
        self._wait = np.full(len(grid), _AGAIN_AFTER)  # steps until it is measured again, by point

    def costs(self, max_draft: int, num_rows: int = 1, prompt: int = 1, in_use: int | None = None) -> Costs:
        """Cost of k drafted tokens per row; see `CostCurve.costs`."""
        seconds = rising(self.seconds(self._tokens(max_draft, num_rows, prompt)))
        in_use = in_use or num_rows
        curve: Costs = 1.0 + (seconds - seconds[0]) / (self.plain_seconds(in_use) * num_rows / in_use)
        return curve

    def plain_seconds(self, num_rows: int = 1) -> float:
        """Seconds of a step without drafts, at a batch size."""
        return float(self.seconds(self._computed(num_rows, 1)))

    def plain_steps(self, seconds: float, num_rows: int) -> float:
        """Seconds as a number of plain steps at a batch size."""
        return seconds / self.plain_seconds(num_rows)

    def observe(self, tokens: int, seconds: float) -> None:
        """Take a real step that computed `tokens` tokens in all its rows; now and then measure a point again."""
        expected = float(self.seconds(tokens))
        ratio = min(max(seconds / expected, 1 / _MAX_RATIO), _MAX_RATIO)
        right = min(int(np.searchsorted(self._points, tokens)), len(self._points) - 1)
        left = max(right - 1, 0)
        span = self._points[right] - self._points[left]
        share = (tokens - self._points[left]) / span if span else 1.0
        self._unseen += 1
        for point, weight in ((left, 1.0 - share), (right, share)):
            if weight > 0:
                self._seconds[point] *= 1.0 + _STEP_WEIGHT * weight * (ratio - 1.0)
            if weight >= 0.5 and point < len(self._unseen):
                self._unseen[point] = 0
        self._credit = min(self._credit + _AGAIN_SHARE * seconds, float(self._seconds[0]))
        if self._credit > 0:
            self._measure_again()

    def seconds(self, tokens: Any) -> Any:
        """Seconds of steps that compute so many tokens; float64 of the same shape."""
        return extrapolated(tokens, self._points, self._seconds)

    def _measure_again(self) -> None:
        """Measure the point that has waited longest beyond its time, if there is one."""
        overdue = self._unseen / self._wait
        point = int(overdue.argmax())
        if overdue[point] < 1.0:
            return
        twice = [_timed(self._run, int(self._points[point])) for _ in range(2)]  # the first may capture a CUDA graph
        self._credit -= sum(twice)
        self._unseen[point] = 0
        ratio = min(twice) / self._seconds[point]
        is_confirmed = 1 / _MAX_RATIO <= ratio <= _MAX_RATIO
        self._wait[point] = min(2 * self._wait[point], _AGAIN_RARELY) if is_confirmed else _AGAIN_AFTER
        self._seconds[point] *= min(ratio, np.sqrt(ratio))  # whatever else runs can only make a step slower

    def _step_tokens(self, max_draft: int, num_rows: int, prompt: int) -> NDArray[np.int64]:
        """(max_draft + 1,) tokens that a step computes with k drafted ones per row."""
        return np.array([self._computed(num_rows, prompt + k) for k in range(max_draft + 1)])


class LearnedCosts(CostCurve):
    """Seconds of an engine's step over the number of its tokens, drafted ones of all rows included.

    A straight line through the medians of the latest steps by number of tokens, bent towards those medians where there
    are many. Where no step was seen it has the slope it began with. Only ratios of the seconds matter.

    Args:
        slope: Cost of one more token, in steps of one token, which is kept; None: learnt, from `DEFAULT_SLOPE` on.

    Examples:
        >>> curve = LearnedCosts(0.5)
        >>> curve.costs(2, num_rows=1).tolist()
        [1.0, 1.5, 2.0]
        >>> curve.costs(2, num_rows=3).tolist()
        [1.0, 1.75, 2.5]
    """

    def __init__(self, slope: float | None = None) -> None:
        self._learns = slope is None
        self._slope = DEFAULT_SLOPE if slope is None else slope
        self._steps: deque[tuple[int, float]] = deque(maxlen=_KEPT_STEPS)
        self._since_fit = self._asked = 0
        self._seconds: _Floats = 1.0 + self._slope * (_POINTS - 1.0)

    def costs(self, max_draft: int, num_rows: int = 1, prompt: int = 1, in_use: int | None = None) -> Costs:
        """Cost of k drafted tokens per row; see `CostCurve.costs`."""
        found = rising(self.seconds(num_rows * np.arange(prompt, prompt + max_draft + 1.0)))
        found /= found[0]
        return found

    def step_costs(self, max_drafted: int, num_rows: int) -> Costs:
        """Cost of m drafted tokens in all rows together: (max_drafted + 1,) float64, non-decreasing, [0] = 1."""
        found = rising(self.seconds(num_rows + np.arange(max_drafted + 1.0)))
        found /= found[0]
        return found

    def observe(self, tokens: int, seconds: float) -> None:
        """Take a real step of `tokens` tokens in all its rows; nothing where the slope is given, or for no duration."""
        if not (self._learns and _SHORTEST <= seconds <= _LONGEST):  # NaN is neither
            return
        self._asked = 0
        self._steps.append((tokens, seconds))
        self._since_fit += 1
        if self._since_fit >= min(_FIT_EVERY, len(self._steps)):
            self._since_fit = 0
            self._fit()

    def lacks_plain_steps(self, tokens: int = 1) -> bool:
        """Whether too few of the kept steps were about as small as one of `tokens` tokens, without drafts.

        Drafts are compared with such a step. Where each step has a draft, its seconds are only a guess, which makes
        drafts look cheap wherever the first drafted token costs more than the next ones.

        A step is small enough at the same point of the curve: requests that end one by one would need plain steps of
        every number of tokens otherwise. An engine may show no step without prompts for long, so drafts do not wait for
        a plain step: it is asked for 8 times, then once in 64 steps.
        """
        at = int(np.searchsorted(_BOUNDS, tokens))
        most = _BOUNDS[at] if at < len(_BOUNDS) else np.inf
        seen = sum(computed <= most for computed, _ in self._steps)
        if not self._learns or seen >= min(_PLAIN_STEPS, len(self._steps) // _PLAIN_EVERY):
            return False
        self._asked += 1
        return self._asked <= _PLAIN_STEPS or self._asked % _ASK_AGAIN == 0

    def seconds(self, tokens: Any) -> Any:
        """(n,) numbers of tokens → (n,) seconds; in steps of one token before a step was seen."""
        return extrapolated(tokens, _POINTS, self._seconds)

    def _fit(self) -> None:
        tokens, seconds = np.array(self._steps, np.float64).T
        near = np.searchsorted(_BOUNDS, tokens)
        groups = [near == point for point in np.unique(near)]
        at = np.array([tokens[group].mean() for group in groups])
        median = np.array([np.median(seconds[group]) for group in groups])
        count = np.array([float(group.sum()) for group in groups])
        start, slope = self._line(at, median, count)
        bend = (count * median / (start + slope * at) + _LINE_WEIGHT) / (count + _LINE_WEIGHT)
        self._seconds = np.maximum((start + slope * _POINTS) * np.interp(_POINTS, at, bend), _SHORTEST)

    def _line(self, at: _Floats, median: _Floats, count: _Floats) -> tuple[float, float]:
        """Start and slope of the line of least relative error through the medians and two points of the first slope."""
        begin = median[0] / (1.0 + self._slope * (at[0] - 1.0))
        far = at[0] + 64.0
        tokens = np.append(at, [1.0, far])
        seconds = np.append(median, [begin, begin * (1.0 + self._slope * (far - 1.0))])
        slope, start = np.polyfit(tokens, seconds, 1, w=np.sqrt(np.append(count, [1.0, 1.0])) / seconds)
        if slope >= 0.0 < start:
            return float(start), float(slope)
        level = float(np.average(median, weights=count))  # noise: nothing is known but the level
        return level, self._slope * level


def extrapolated(at: Any, points: Any, values: _Floats) -> Any:
    """Interpolate a curve and continue it with its last slope, level if that falls or there is one point.

    Args:
        at: Where to read the curve: any shape.
        points: (n,) ascending.
        values: (n,) the curve at the points.

    Returns:
        float64 of the shape of `at`.

    Examples:
        >>> extrapolated([0.5, 3.0], [0, 1], np.array([1.0, 2.0])).tolist()
        [1.5, 4.0]
    """
    found = np.interp(at, points, values)
    if len(values) == 1:
        return found
    slope = max(0.0, (values[-1] - values[-2]) / (points[-1] - points[-2]))
    return found + slope * np.maximum(0.0, np.subtract(at, points[-1]))


def rising(values: _Floats) -> _Floats:
    """Return the middle between the lowest rising curve above the values and the highest below them."""
    above = np.maximum.accumulate(values)
    below = np.minimum.accumulate(values[::-1])[::-1]
    middle: _Floats = (above + below) / 2
    return middle


def _measured(run: Callable[[int], None], grid: Sequence[int], budget: float) -> list[list[float]]:
    """Return the seconds of steps at the first points of a grid, four at least, over 1 to 7 rounds."""
    run(1)
    begin = time.perf_counter()
    first: list[float] = []
    for tokens in grid:
        if len(first) >= _LEAST_POINTS and sum(first) > _MOST_BUDGETS * budget:
            break
        first.append(min(_timed(run, tokens) for _ in range(2)))  # the first one may capture a CUDA graph
    rounds = [first]
    while len(rounds) < 7 and time.perf_counter() - begin < budget:
        rounds.append([_timed(run, tokens) for tokens in grid[: len(first)]])
    return rounds


def _timed(run: Callable[[int], None], tokens: int) -> float:
    begin = time.perf_counter()
    run(tokens)
    return max(time.perf_counter() - begin, _SHORTEST)  # a coarse clock may not have moved
