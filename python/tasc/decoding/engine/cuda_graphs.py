"""Forward passes as CUDA graphs.

On a GPU, one step of a small model takes as long as Python needs to launch its thousand kernels, whatever the kernels
do. A CUDA graph launches all of them in one call, but it always runs the same kernels on the same memory. Steps
therefore get a few fixed shapes: the numbers of rows, of tokens per row and of readable positions are rounded up. The
token ids, the positions and the first row are copied into memory that the graph reads. The padding that fills a shape
is written to the scratch position, so that it changes nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasc.decoding.engine.cache import RowCache, StaticStepView
from tasc.decoding.engine.target import Target, TokenLists
from tasc.decoding.verify import argmax

_QUERY_LENGTHS = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513)  # tokens per row; longer prompts are compute-bound
_MIN_POSITIONS = 256
_MAX_GRAPHS = 256

Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Captures a function whose memory and operations are always the same; returns a function that replays it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """Shape of a captured step.

    Attributes:
        num_rows: Cache rows, with the padding rows.
        query_length: Tokens per row, with the padding.
        num_positions: Positions that queries can read.
        from_row_0: Whether the rows are the cache's first ones.
        greedy: Whether the output is the argmax of the logits instead of the logits.
    """

    num_rows: int
    query_length: int
    num_positions: int
    from_row_0: bool
    greedy: bool


class StepGraphs:
    """CUDA graphs of a model's steps over one cache.

    A shape is captured when it is used for the second time. The first use runs eagerly and does the lazy
    initialisation that cannot be captured.

    Args:
        target: The model, on a CUDA device.
        cache: Its cache. When its buffers move, all shapes are captured again.
        max_keep: Most trailing positions per row whose logits are computed.
        new_capture: Returns a `Capture` with a memory pool of its own: `cuda_graph_capture`.

    Attributes:
        was_replay: Whether the last step replayed a graph, so that its duration is representative.
    """

    def __init__(self, target: Target, cache: RowCache, max_keep: int, new_capture: Callable[[], Capture]) -> None:
        self.was_replay = False
        self._target, self._cache, self._max_keep = target, cache, max_keep
        self._new_capture = new_capture
        self._steps: dict[StepShape, StaticStep] = {}
        self.clear()

    def clear(self) -> None:
        """Drop all graphs: the model's or the cache's memory is no longer what they were captured with."""
        self._steps.clear()
        self._num_moves, self._capture = self._cache.num_moves, self._new_capture()

    def run(
        self, first_row: int, tokens: TokenLists, starts: Sequence[int], keep: int, *, greedy: bool
    ) -> Tensor | None:
        """Run a step; the arguments are those of `Target.step`.

        Returns:
            (n, keep, V) logits, or their (n, keep) argmax with `greedy`. The next step overwrites the tensor. None if
            no shape is large enough.
        """
        query_length = _round_up(max(map(len, tokens)))
        if query_length is None or keep > self._max_keep:
            return None
        end = max(start + len(row) for start, row in zip(starts, tokens, strict=True))
        self._cache.reserve(end)
        step = self._step(self._padded_rows(len(tokens)), query_length, end, first_row == 0, greedy)
        output = step(first_row, tokens, starts)
        self.was_replay = step.is_captured
        return output[: len(tokens), -keep:]

    def run_padding(self, query_length: int) -> None:
        """Replay a step of one row with nothing but padding, and wait for its end: for timing."""
        step = self._step(1, _round_up(query_length) or query_length, 1, True, True)
        while not step.is_captured:
            step(0, [[]], [0])
        step(0, [[]], [0]).tolist()

    def num_computed_tokens(self, num_rows: int, query_length: int) -> int:
        """Number of tokens that a step computes, with the padding."""
        return self._padded_rows(num_rows) * (_round_up(query_length) or query_length)

    def _step(self, num_rows: int, query_length: int, end: int, from_row_0: bool, greedy: bool) -> StaticStep:
        """Return the step of this shape, its positions rounded up; the least recently used one is dropped."""
        if self._num_moves != self._cache.num_moves:
            self.clear()
        num_positions = min(_power_of_two(max(end, _MIN_POSITIONS)), self._cache.num_positions)
        shape = StepShape(
            num_rows=num_rows,
            query_length=query_length,
            num_positions=num_positions,
            from_row_0=from_row_0,
            greedy=greedy,
        )
        step = self._steps.pop(shape, None)
        if step is None:
            if len(self._steps) == _MAX_GRAPHS:
                del self._steps[next(iter(self._steps))]
            step = StaticStep(self._target, self._cache, shape, min(self._max_keep, query_length), self._capture)
        self._steps[shape] = step
        return step

    def _padded_rows(self, num_rows: int) -> int:
        return min(_power_of_two(num_rows), self._cache.num_rows)


class StaticStep:
    """A step of one shape: its input memory, and its graph once it is captured."""

    def __init__(self, target: Target, cache: RowCache, shape: StepShape, keep: int, capture: Capture) -> None:
        self._target, self._cache, self._shape, self._keep, self._capture = target, cache, shape, keep, capture
        # the first row, then (num_rows, query_length) ids, then as many positions, −1 for padding
        size = 1 + 2 * shape.num_rows * shape.query_length
        self._host_input = torch.zeros(size, dtype=torch.long, pin_memory=target.device.type == "cuda")
        self._input = torch.zeros(size, dtype=torch.long, device=target.device)
        self._is_warm = False
        self._replay: Callable[[], Tensor] | None = None

    @property
    def is_captured(self) -> bool:
        """Whether the next run replays a graph."""
        return self._replay is not None

    def __call__(self, first_row: int, tokens: TokenLists, starts: Sequence[int]) -> Tensor:
        """Return (num_rows, keep, V) logits or their (num_rows, keep) argmax; padding rows come last."""
        self._write_input(first_row, tokens, starts)
        self._input.copy_(self._host_input, non_blocking=True)
        if self._replay is None and self._is_warm:
            self._replay = self._capture(self._forward)
        self._is_warm = True
        return self._forward() if self._replay is None else self._replay()

    def _write_input(self, first_row: int, tokens: TokenLists, starts: Sequence[int]) -> None:
        numbers: Any = self._host_input.numpy()
        numbers[0] = first_row
        ids, positions = numbers[1:].reshape(2, self._shape.num_rows, self._shape.query_length)
        positions.fill(-1)
        for row, (new, start) in enumerate(zip(tokens, starts, strict=True)):
            if new:
                ids[row, -len(new) :] = new
                positions[row, -len(new) :] = range(start, start + len(new))

    def _forward(self) -> Tensor:
        shape, cache = self._shape, self._cache
        ids, positions = self._input[1:].view(2, shape.num_rows, shape.query_length)
        rows = (self._input[0] + torch.arange(shape.num_rows, device=ids.device)).clamp(max=cache.num_rows - 1)
        cache.view = StaticStepView(
            rows, positions, shape.num_positions, cache.num_positions, from_row_0=shape.from_row_0
        )
        positions = positions.clamp(min=0)
        mask = self._target.mask(positions, shape.num_positions, additive=True)
        logits = self._target.forward(cache, ids, positions, mask, self._keep)
        return argmax(logits) if shape.greedy else logits


def capture_for(device: torch.device) -> Callable[[], Capture] | None:
    """Return the `new_capture` of `StepGraphs` for a device; None if the device has no graphs."""
    return cuda_graph_capture if device.type == "cuda" else None


def cuda_graph_capture() -> Capture:
    """Return a `Capture` whose CUDA graphs share one memory pool, so that only one of them may run at a time."""
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with _gc_disabled(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            output = run()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay

    return capture


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disable garbage collection: freeing an older graph or its memory during a capture ends the process."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _round_up(query_length: int) -> int | None:
    """Return the first of `_QUERY_LENGTHS` that is large enough."""
    return next((length for length in _QUERY_LENGTHS if length >= query_length), None)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
