"""Keys and values of a batch of requests, addressed by row and position.

Every layer holds one buffer of shape (R, H, C, D) for keys and one for values: R rows, H key/value heads, C slots,
D head size. Slot == position: what row r knows of its token at position p lies in slot p, and the attention mask lets
the query at position p see slots ≤ p. So a rejected draft needs no roll-back: its slots lie beyond the row's length,
are never visible to what comes next, and are overwritten by it. Rows of different length stand side by side without
padding, and a prefix is copied from row to row by copying slots. One spare slot, which nothing ever sees, takes what
steps of fixed shape must write somewhere.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class Window(Protocol):
    """Where one forward pass writes, and what it sees.

    Attributes:
        past: Slots before the pass, of the longest row.
        end: Slots that it sees.
    """

    past: int
    end: int

    def write(self, buffer: Tensor, states: Tensor) -> None:
        """Write (n, H, Q, D) states to a (R, H, C, D) buffer."""

    def seen(self, buffer: Tensor) -> Tensor:
        """The (n, H, end, D) of a buffer that the pass sees."""


class StepWindow:
    """That of a step whose rows and positions are known here.

    Args:
        first_row: First of the `n` neighbouring rows.
        positions: (n, Q) position of each query token; -1 marks padding, which is written nowhere.
        uniform_start: Position of the first query token where all rows agree on it and nothing is padded, else None.
        end: Number of slots that the longest row has after the step.
        device: Of the buffers.
    """

    def __init__(
        self, first_row: int, positions: Tensor, uniform_start: int | None, end: int, device: torch.device
    ) -> None:
        self.end = end
        self.past = end - positions.shape[1]
        self._rows = slice(first_row, first_row + positions.shape[0])
        self._start = uniform_start
        if uniform_start is None:
            batch, query = (positions >= 0).nonzero(as_tuple=True)
            self._batch, self._query = batch.to(device), query.to(device)
            self._slot_rows = (batch + first_row).to(device)
            self._slots = positions[batch, query].to(device)

    def write(self, buffer: Tensor, states: Tensor) -> None:
        """Write (n, H, Q, D) states, but for the padding."""
        if self._start is not None:
            buffer[self._rows, :, self._start : self.end] = states
        else:
            buffer[self._slot_rows, :, self._slots] = states[self._batch, :, self._query]

    def seen(self, buffer: Tensor) -> Tensor:
        """The rows' slots up to the end."""
        return buffer[self._rows, :, : self.end]


class StaticWindow:
    """That of a step of fixed shape, whose rows and positions are numbers on the device (`graphs.py`).

    Args:
        rows: (n,) rows.
        positions: (n, Q) position of each query token; -1 marks padding, which goes to the cache's spare slot.
        end: Slots that the step sees.
        spare: Number of the spare slot.
        from_front: Whether `rows` are 0, 1, …, so that their slots need not be gathered.
    """

    def __init__(self, rows: Tensor, positions: Tensor, end: int, spare: int, *, from_front: bool) -> None:
        self.end = end
        self.past = end - positions.shape[1]
        self._rows = rows[:, None]
        self._slots = torch.where(positions < 0, spare, positions)
        self._seen: slice | Tensor = slice(0, len(rows)) if from_front else rows

    def write(self, buffer: Tensor, states: Tensor) -> None:
        """Write (n, H, Q, D) states."""
        buffer[self._rows, :, self._slots] = states.transpose(1, 2)

    def seen(self, buffer: Tensor) -> Tensor:
        """The rows' slots up to the end."""
        return buffer[self._seen, :, : self.end]


class RowLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one attention layer, (R, H, C + 1, D) each; the last slot is spare."""

    is_sliding = False
    keys: Tensor  # None before the first step
    values: Tensor

    def __init__(self, cache: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = weakref.proxy(cache)  # so that memory is given back as soon as nobody has the cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers in the shape, type and place of these (n, H, Q, D) states."""
        self.keys = self._allocate(key_states)
        self.values = self._allocate(value_states)
        self.is_initialized = True

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, size = states.shape
        # zeros, not empty: a masked slot has weight 0, and 0 · NaN would be NaN
        return states.new_zeros((self._cache.num_rows, heads, self._cache.num_slots + 1, size))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (n, H, Q, D) states and return the rows' slots up to the window's end, (n, H, end, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self._cache.window
        window.write(self.keys, key_states)
        window.write(self.values, value_states)
        return window.seen(self.keys), window.seen(self.values)

    def get_seq_length(self) -> int:
        """Slots before the present step, of the longest row."""
        window: Window = self._cache.window
        return window.past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots visible in the present step, and the position of the first of them."""
        return self._cache.window.end, 0

    def get_max_length(self) -> int:
        """No limit: the cache grows before a step needs it."""
        return -1


class RowCache(Cache):
    """The cache that a `transformers` model writes to and reads from; see the module's text.

    Args:
        num_rows: R, most requests at once.
        num_slots: C to begin with; grows by doubling.

    Attributes:
        moves: How often the buffers have moved to another place in memory.
        window: Of the present step.
    """

    def __init__(self, num_rows: int, num_slots: int = 256) -> None:
        self._rows: list[RowLayer] = []
        super().__init__(layers=self._rows)  # type: ignore[arg-type]  # the same list, under their name for it
        self.num_rows = num_rows
        self.num_slots = num_slots
        self.moves = 0
        self.window: Window
        self._blocks: list[Tensor] = []
        self._in_blocks = 0

    def reserve(self, num_slots: int) -> None:
        """Make room for positions below `num_slots`; contents stay."""
        if num_slots > self.num_slots:
            while self.num_slots < num_slots:
                self.num_slots *= 2
            self._move()

    def reserve_rows(self, num_rows: int) -> None:
        """Make room for `num_rows` rows; contents stay."""
        if num_rows > self.num_rows:
            self.num_rows = num_rows
            self._move()

    def _move(self) -> None:
        """Move all buffers to blocks of the present size, (N, R, H, C + 1, D), one for each kind of buffer."""
        kinds: dict[Any, list[tuple[RowLayer, str]]] = {}
        for layer in self._ready():
            for name in ("keys", "values"):
                old: Tensor = getattr(layer, name)
                kinds.setdefault((old.shape, old.dtype, old.device), []).append((layer, name))
        self._blocks = []
        for ((rows, heads, slots, size), dtype, device), places in kinds.items():
            shape = (len(places), self.num_rows, heads, self.num_slots + 1, size)
            block = torch.zeros(shape, dtype=dtype, device=device)
            for new, (layer, name) in zip(block, places, strict=True):
                new[:rows, :, :slots] = getattr(layer, name)
                setattr(layer, name, new)
            self._blocks.append(block)
        self._in_blocks = len(self._ready())
        self.moves += 1

    def _ready(self) -> list[RowLayer]:
        """The layers that have buffers."""
        return [layer for layer in self._rows if layer.is_initialized]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's states; see `RowLayer.update`."""
        while len(self._rows) <= layer_idx:
            self._rows.append(RowLayer(self))
        return self._rows[layer_idx].update(key_states, value_states)

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` slots of one row to another: one operation for all layers."""
        if source != target and length > 0:
            if self._in_blocks != len(self._ready()):
                self._move()
            for block in self._blocks:
                block[:, target, :, :length] = block[:, source, :, :length]

    @property
    def num_bytes(self) -> int:
        """Memory held by the buffers."""
        buffers = [buffer for layer in self._ready() for buffer in (layer.keys, layer.values)]
        return sum(buffer.numel() * buffer.element_size() for buffer in buffers)


def longest_common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading ids that two sequences share.

    >>> longest_common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    known, most = 0, min(len(a), len(b))
    while known < most:  # slices are compared much faster than ids one by one
        middle = (known + most + 1) // 2
        if a[known:middle] == b[known:middle]:
            known = middle
        else:
            most = middle - 1
    return known
