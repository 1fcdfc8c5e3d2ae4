"""Steps of a model as CUDA graphs.

On a GPU a small model's step takes as long as Python needs to launch its thousand kernels, however little each of them
does. A CUDA graph launches all of them at once, but always the same ones over the same memory. So steps are given a
few fixed shapes: numbers of rows, of tokens per row and of slots that are seen are rounded up, and the numbers
themselves (token ids, positions, the first row) are copied into memory that the graph reads. What is added to fill a
shape is written to the cache's spare slot and changes nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasc.decoding.engine.cache import RowCache, StaticWindow
from tasc.decoding.engine.target import Target

_QUERIES = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513)  # tokens per row; longer prompts are bound by arithmetic
_LEAST_SLOTS = 256
_MOST_GRAPHS = 256

Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Makes of a function that always does the same over the same memory one that repeats it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a graph is made for.

    Attributes:
        rows: Rows, those that fill the shape included.
        query: Tokens per row, padding included.
        slots: Slots that they see.
        from_front: Whether the rows are the cache's first.
        greedy: Whether it ends in the likeliest tokens, else in logits.
    """

    rows: int
    query: int
    slots: int
    from_front: bool
    greedy: bool


class StepGraphs:
    """A model's steps over one cache. A shape is captured when it comes for the second time: the first time, run as
    it is, warms up what must not happen within a capture.

    Args:
        target: The model, on a CUDA device.
        cache: Its cache. When the buffers move, all shapes are captured anew.
        most_kept: Most last positions whose logits are wanted.
        new_capture: Makes what captures, with memory of its own: `cuda_graphs`.

    Attributes:
        is_steady: Whether the last step was a replay, so that its time tells something.
    """

    def __init__(self, target: Target, cache: RowCache, most_kept: int, new_capture: Callable[[], Capture]) -> None:
        self.is_steady = False
        self._target, self._cache, self._most_kept = target, cache, most_kept
        self._new_capture = new_capture
        self._capture = new_capture()
        self._steps: dict[Shape, StaticStep] = {}
        self._moves = cache.moves

    def run(
        self, first_row: int, tokens: Sequence[Sequence[int]], starts: Sequence[int], keep: int, *, greedy: bool
    ) -> Tensor | None:
        """As `Target.step`, with (n, keep) likeliest tokens for logits if `greedy`; None for what has no shape here.

        The next step writes over what is returned.
        """
        query = _next(_QUERIES, max(map(len, tokens)))
        if query is None or keep > self._most_kept:
            return None
        end = max(start + len(row) for start, row in zip(starts, tokens, strict=True))
        self._cache.reserve(end)
        step = self._step(self._padded_rows(len(tokens)), query, end, first_row == 0, greedy)
        made = step(first_row, tokens, starts)
        self.is_steady = step.is_captured
        return made[: len(tokens), -keep:]

    def blank(self, query: int) -> None:
        """Run one row of `query` tokens that leaves no trace, and wait for its end: for timing."""
        step = self._step(1, _next(_QUERIES, query) or query, 1, True, True)
        while not step.is_captured:
            step(0, [[]], [0])
        step(0, [[]], [0]).tolist()

    def computed(self, rows: int, query: int) -> int:
        """Number of tokens that a step over `rows` rows of `query` tokens computes."""
        return self._padded_rows(rows) * (_next(_QUERIES, query) or query)

    def _step(self, rows: int, query: int, end: int, from_front: bool, greedy: bool) -> StaticStep:
        """The step of this shape, its slots rounded up; the one used last stands last."""
        if self._moves != self._cache.moves:
            self.forget()
        slots = min(_power_of_two(max(end, _LEAST_SLOTS)), self._cache.num_slots)
        shape = Shape(rows=rows, query=query, slots=slots, from_front=from_front, greedy=greedy)
        step = self._steps.pop(shape, None)
        if step is None:
            if len(self._steps) == _MOST_GRAPHS:
                del self._steps[next(iter(self._steps))]
            step = StaticStep(self._target, self._cache, shape, min(self._most_kept, query), self._capture)
        self._steps[shape] = step
        return step

    def forget(self) -> None:
        """Let go of all graphs, whose memory is no longer the model's or the cache's."""
        self._steps.clear()
        self._moves, self._capture = self._cache.moves, self._new_capture()

    def _padded_rows(self, rows: int) -> int:
        return min(_power_of_two(rows), self._cache.num_rows)


class StaticStep:
    """One shape: the memory that it reads, and its graph once there is one."""

    def __init__(self, target: Target, cache: RowCache, shape: Shape, keep: int, capture: Capture) -> None:
        self._target, self._cache, self._shape, self._keep, self._capture = target, cache, shape, keep, capture
        # the first row, then (rows, query) ids, then as many positions, -1 for padding
        size = 1 + 2 * shape.rows * shape.query
        self._host = torch.zeros(size, dtype=torch.long, pin_memory=target.device.type == "cuda")
        self._given = torch.zeros(size, dtype=torch.long, device=target.device)
        self._is_warm = False
        self._replay: Callable[[], Tensor] | None = None

    @property
    def is_captured(self) -> bool:
        """Whether the next run is a replay."""
        return self._replay is not None

    def __call__(self, first_row: int, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        """(rows, keep) likeliest tokens or (rows, keep, V) logits; the rows given come first, the rest is filling."""
        self._write(first_row, tokens, starts)
        self._given.copy_(self._host, non_blocking=True)
        if self._replay is None and self._is_warm:
            self._replay = self._capture(self._forward)
        self._is_warm = True
        return self._forward() if self._replay is None else self._replay()

    def _write(self, first_row: int, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> None:
        numbers: Any = self._host.numpy()
        numbers[0] = first_row
        ids, positions = numbers[1:].reshape(2, self._shape.rows, self._shape.query)
        positions.fill(-1)
        for row, (new, start) in enumerate(zip(tokens, starts, strict=True)):
            if new:
                ids[row, -len(new) :] = new
                positions[row, -len(new) :] = range(start, start + len(new))

    def _forward(self) -> Tensor:
        shape, cache = self._shape, self._cache
        ids, positions = self._given[1:].view(2, shape.rows, shape.query)
        rows = self._given[0] + torch.arange(shape.rows, device=ids.device)
        cache.window = StaticWindow(
            rows.clamp(max=cache.num_rows - 1), positions, shape.slots, cache.num_slots, from_front=shape.from_front
        )
        places = positions.clamp(min=0)
        mask = self._target.mask(places, shape.slots, additive=True)
        logits = self._target.forward(cache, ids, places, mask, self._keep)
        return logits.argmax(-1) if shape.greedy else logits


def capture_on(device: torch.device) -> Callable[[], Capture] | None:
    """What `StepGraphs` captures with on a device; None: there is nothing."""
    return cuda_graphs if device.type == "cuda" else None


def cuda_graphs() -> Capture:
    """Captures CUDA graphs that share their memory: one at a time may run."""
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with _uncollected(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            made = run()

        def replay() -> Tensor:
            graph.replay()
            return made

        return replay

    return capture


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: within a capture, freeing an older graph or its memory ends the process."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _next(steps: Sequence[int], least: int) -> int | None:
    """The first of rising numbers that is at least so great."""
    return next((step for step in steps if step >= least), None)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
