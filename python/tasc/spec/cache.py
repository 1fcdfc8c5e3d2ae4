"""Keys and values of a batch of requests, addressed by row and position.

Every layer holds one buffer of shape (R, H, C, D) for keys and one for values: R rows, H key/value heads, C slots,
D head size. Slot == position: what row r knows of its token at position p lies in slot p, and the attention mask lets
the query at position p see slots ≤ p. So a rejected draft needs no roll-back: its slots lie beyond the row's length,
are never visible to what comes next, and are overwritten by it. Rows of different length stand side by side without
padding, and a prefix is copied from row to row by copying slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class StepWindow:
    """Where one forward pass writes, and how far it can see.

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
        self.rows = slice(first_row, first_row + positions.shape[0])
        self.start = uniform_start
        self.end = end
        self.past = end - positions.shape[1]
        if uniform_start is None:
            batch, query = (positions >= 0).nonzero(as_tuple=True)
            self.batch, self.query = batch.to(device), query.to(device)
            self.slot_rows = (batch + first_row).to(device)
            self.slots = positions[batch, query].to(device)


class RowLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one attention layer, (R, H, C, D) each."""

    is_sliding = False
    keys: Tensor  # None before the first step
    values: Tensor

    def __init__(self, cache: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers in the shape, type and place of these (n, H, Q, D) states."""
        self.keys = self._allocate(key_states)
        self.values = self._allocate(value_states)
        self.is_initialized = True

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, size = states.shape
        # zeros, not empty: a masked slot has weight 0, and 0 · NaN would be NaN
        return states.new_zeros((self._cache.num_rows, heads, self._cache.num_slots, size))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (n, H, Q, D) states and return the rows' slots up to the window's end, (n, H, end, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self._cache.window
        _write(self.keys, key_states, window)
        _write(self.values, value_states, window)
        return self.keys[window.rows, :, : window.end], self.values[window.rows, :, : window.end]

    def resize(self) -> None:
        """Move to buffers of the cache's present size."""
        if self.is_initialized:
            self.keys, self.values = self._grown(self.keys), self._grown(self.values)

    def _grown(self, old: Tensor) -> Tensor:
        new = self._allocate(old)
        new[: old.shape[0], :, : old.shape[2]] = old
        return new

    def get_seq_length(self) -> int:
        """Slots before the present step, of the longest row."""
        return self._cache.window.past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots visible in the present step, and the position of the first of them."""
        return self._cache.window.end, 0

    def get_max_length(self) -> int:
        """No limit: the cache grows before a step needs it."""
        return -1


def _write(buffer: Tensor, states: Tensor, window: StepWindow) -> None:
    if window.start is not None:
        buffer[window.rows, :, window.start : window.end] = states
    else:
        buffer[window.slot_rows, :, window.slots] = states[window.batch, :, window.query]


class RowCache(Cache):
    """The cache that a `transformers` model writes to and reads from; see the module's text.

    Args:
        num_rows: R, most requests at once.
        num_slots: C to begin with; grows by doubling.
    """

    def __init__(self, num_rows: int, num_slots: int = 256) -> None:
        self._rows: list[RowLayer] = []
        super().__init__(layers=self._rows)  # type: ignore[arg-type]  # the same list, under their name for it
        self.num_rows = num_rows
        self.num_slots = num_slots
        self.window: StepWindow

    def reserve(self, num_slots: int) -> None:
        """Make room for positions below `num_slots`; contents stay."""
        if num_slots > self.num_slots:
            while self.num_slots < num_slots:
                self.num_slots *= 2
            for layer in self._rows:
                layer.resize()

    def reserve_rows(self, num_rows: int) -> None:
        """Make room for `num_rows` rows; contents stay."""
        if num_rows > self.num_rows:
            self.num_rows = num_rows
            for layer in self._rows:
                layer.resize()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's states; see `RowLayer.update`."""
        while len(self._rows) <= layer_idx:
            self._rows.append(RowLayer(self))
        return self._rows[layer_idx].update(key_states, value_states)

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` slots of one row to another."""
        if source != target and length > 0:
            for layer in self._rows:
                if layer.is_initialized:
                    layer.keys[target, :, :length] = layer.keys[source, :, :length]
                    layer.values[target, :, :length] = layer.values[source, :, :length]

    @property
    def num_bytes(self) -> int:
        """Memory held by the buffers."""
        return sum(
            tensor.numel() * tensor.element_size()
            for layer in self._rows
            if layer.is_initialized
            for tensor in (layer.keys, layer.values)
        )


def longest_common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading ids that two sequences share.

    >>> longest_common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    for position, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return position
    return min(len(a), len(b))
