"""KV cache of a batch of requests, addressed by cache row and position.

Every attention layer has one buffer of shape (R, H, C + 1, D) for keys and one for values: R cache rows (one per
running request), H key/value heads, C positions, D head size. The token at position p of request r has its keys at
[r, :, p]. The attention mask lets the query at position p read the positions ≤ p. This has three consequences:

- A rejected draft needs no roll-back. Its positions lie beyond the row's length, so that no later query reads them
  before they are overwritten.
- Requests of different lengths need no padding in the cache.
- A prefix is copied from row to row by copying positions.

Position C of every row is the scratch position. Steps of fixed shape write their padding to it, and no query reads it.
"""

from __future__ import annotations

import weakref
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class StepView(Protocol):
    """The positions of the cache that one forward pass writes and reads.

    Attributes:
        past: Number of filled positions before the pass, of the longest row.
        end: Number of positions that queries can read.
    """

    past: int
    end: int

    def write(self, buffer: Tensor, new: Tensor) -> None:
        """Write (n, H, Q, D) new keys or values to a (R, H, C + 1, D) buffer."""

    def read(self, buffer: Tensor) -> Tensor:
        """Return the readable part of a buffer, (n, H, end, D)."""


class DynamicStepView:
    """Step view whose rows and positions are known to Python.

    Args:
        first_row: First of the n neighbouring cache rows.
        positions: (n, Q) int64 position of each query token; −1 marks padding, which is not written.
        uniform_start: Position of the first query token if all rows agree on it and nothing is padded, else None.
        end: Number of filled positions of the longest row after the step.
        device: Device of the buffers.
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
            self._batch_rows = (batch + first_row).to(device)
            self._positions = positions[batch, query].to(device)

    def write(self, buffer: Tensor, new: Tensor) -> None:
        """Write (n, H, Q, D) new keys or values except the padding."""
        if self._start is not None:
            buffer[self._rows, :, self._start : self.end] = new
        else:
            buffer[self._batch_rows, :, self._positions] = new[self._batch, :, self._query]

    def read(self, buffer: Tensor) -> Tensor:
        """Return the rows' positions below `end`, (n, H, end, D)."""
        return buffer[self._rows, :, : self.end]


class StaticStepView:
    """Step view of fixed shape, whose rows and positions are tensors on the device (`cuda_graphs.py`).

    Args:
        rows: (n,) int64 cache rows.
        positions: (n, Q) int64 position of each query token; −1 marks padding, written to the scratch position.
        end: Number of positions that queries can read.
        scratch: The scratch position.
        from_row_0: Whether `rows` are 0, 1, …; they are then sliced and not gathered.
    """

    def __init__(self, rows: Tensor, positions: Tensor, end: int, scratch: int, *, from_row_0: bool) -> None:
        self.end = end
        self.past = end - positions.shape[1]
        self._rows = rows[:, None]
        self._positions = torch.where(positions < 0, scratch, positions)
        self._read_rows: slice | Tensor = slice(0, len(rows)) if from_row_0 else rows

    def write(self, buffer: Tensor, new: Tensor) -> None:
        """Write (n, H, Q, D) new keys or values."""
        buffer[self._rows, :, self._positions] = new.transpose(1, 2)

    def read(self, buffer: Tensor) -> Tensor:
        """Return the rows' positions below `end`, (n, H, end, D)."""
        return buffer[self._read_rows, :, : self.end]


class RowLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one attention layer, (R, H, C + 1, D) each."""

    is_sliding = False
    keys: Tensor  # None before the first step
    values: Tensor

    def __init__(self, cache: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = weakref.proxy(cache)  # no reference cycle: the memory is freed with the last use of the cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers with the head count, head size, dtype and device of (n, H, Q, D) keys and values."""
        self.keys, self.values = self._allocate(key_states), self._allocate(value_states)
        self.is_initialized = True

    def _allocate(self, like: Tensor) -> Tensor:
        _, heads, _, size = like.shape
        # zeros, not empty: a masked position has weight 0, and 0 · NaN would be NaN
        return like.new_zeros((self._cache.num_rows, heads, self._cache.num_positions + 1, size))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (n, H, Q, D) keys and values; return the readable ones, (n, H, end, D) each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        view = self._cache.view
        view.write(self.keys, key_states)
        view.write(self.values, value_states)
        return view.read(self.keys), view.read(self.values)

    def get_seq_length(self) -> int:
        """Return the number of filled positions before the present step, of the longest row."""
        view: StepView = self._cache.view
        return view.past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of positions that queries can read, and the first of them."""
        return self._cache.view.end, 0

    def get_max_length(self) -> int:
        """Return −1, no limit: the cache grows before a step needs the room."""
        return -1


class RowCache(Cache):
    """KV cache that a `transformers` model writes and reads; the module's docstring describes the layout.

    Args:
        num_rows: R, the most requests at once.
        num_positions: Initial C; it grows by doubling.

    Attributes:
        num_moves: How often the buffers were reallocated.
        view: View of the present step; set before each forward pass.
        keeps_states: Whether each position also holds the target's last hidden state at its token, for a drafter that
            reads it.
    """

    def __init__(self, num_rows: int, num_positions: int = 256) -> None:
        self._row_layers: list[RowLayer] = []
        super().__init__(layers=self._row_layers)  # type: ignore[arg-type]  # the same list, typed by its base class
        self.num_rows = num_rows
        self.num_positions = num_positions
        self.num_moves = 0
        self.view: StepView
        self.keeps_states = False
        self._states = RowLayer(self)  # (R, 1, C + 1, d) in the place of the keys, and values of size 0
        self._blocks: list[Tensor] = []
        self._num_layers_in_blocks = 0

    def reserve(self, num_positions: int) -> None:
        """Make room for positions below `num_positions`; contents stay."""
        if num_positions > self.num_positions:
            while self.num_positions < num_positions:
                self.num_positions *= 2
            self._reallocate()

    def reserve_rows(self, num_rows: int) -> None:
        """Make room for `num_rows` rows; contents stay."""
        if num_rows > self.num_rows:
            self.num_rows = num_rows
            self._reallocate()

    def _reallocate(self) -> None:
        """Copy N buffers of equal shape, dtype and device into one block of the present size, (N, R, H, C + 1, D)."""
        groups: dict[Any, list[tuple[RowLayer, str]]] = {}
        for layer in self._allocated_layers():
            for name in ("keys", "values"):
                old: Tensor = getattr(layer, name)
                groups.setdefault((old.shape, old.dtype, old.device), []).append((layer, name))
        self._blocks = []
        for ((rows, heads, positions, size), dtype, device), owners in groups.items():
            shape = (len(owners), self.num_rows, heads, self.num_positions + 1, size)
            block = torch.zeros(shape, dtype=dtype, device=device)
            for new, (layer, name) in zip(block, owners, strict=True):
                new[:rows, :, :positions] = getattr(layer, name)
                setattr(layer, name, new)
            self._blocks.append(block)
        self._num_layers_in_blocks = len(self._allocated_layers())
        self.num_moves += 1

    def _allocated_layers(self) -> list[RowLayer]:
        return [layer for layer in (*self._row_layers, self._states) if layer.is_initialized]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the keys and values of one layer; see `RowLayer.update`."""
        while len(self._row_layers) <= layer_idx:
            self._row_layers.append(RowLayer(self))
        return self._row_layers[layer_idx].update(key_states, value_states)

    def write_states(self, states: Tensor) -> None:
        """Write the (n, Q, d) last hidden states of the present step."""
        layer, new = self._states, states[:, None]
        if not layer.is_initialized:
            layer.lazy_initialization(new, new[..., :0])
        self.view.write(layer.keys, new)

    def states(self, row: int, length: int) -> Tensor:
        """Return the last hidden states at a row's first tokens, (length, d); the next step may overwrite them."""
        return self._states.keys[row, 0, :length] if self._states.is_initialized else torch.empty(0, 0)

    def copy_row(self, source: int, target: int, length: int) -> int:
        """Copy the first `length` positions from one row to another: one tensor operation per block, not per layer.

        Returns:
            Number of tokens that the row holds then: `length`.
        """
        if source != target and length > 0:
            if self._num_layers_in_blocks != len(self._allocated_layers()):
                self._reallocate()
            for block in self._blocks:
                block[:, target, :, :length] = block[:, source, :, :length]
        return length

    def move_row(self, source: int, target: int, length: int) -> None:
        """Give the first `length` positions of a row to another row."""
        self.copy_row(source, target, length)

    def clear_row(self, row: int) -> None:
        """Fill a row with zeros."""
        for layer in self._allocated_layers():
            layer.keys[row].zero_()
            layer.values[row].zero_()

    def may_draft(self, row: int, unread: int) -> bool:
        """Whether a draft may follow a row's unread tokens: always."""
        return True

    def keep(self, row: int, length: int) -> int:
        """Take back the tokens behind the first `length` ones: later steps overwrite them. Returns `length`."""
        return length
