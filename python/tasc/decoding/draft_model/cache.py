"""Cache rows of a draft model: their owners, their tokens, and steps over the rows of a batch."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from tasc.data.ids import common_prefix_length
from tasc.decoding.draft_model.plain_llama import PlainLlama
from tasc.decoding.engine.cache import RowCache
from tasc.decoding.engine.model_cache import ModelCaches
from tasc.decoding.engine.steps import StepRunner
from tasc.decoding.engine.target import Target


@dataclass(slots=True, eq=False)
class Row:
    """One row of the cache.

    Attributes:
        index: Position in the cache.
        tokens: Token ids, the owner's own list.
        length: Number of these tokens whose keys and values the cache holds.
        owner: The request that uses the row; the row is free once nobody else refers to the owner.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    length: int = 0
    owner: weakref.ref[Any] | None = None

    @property
    def is_free(self) -> bool:
        """Whether no request uses the row."""
        return self.owner is None or self.owner() is None

    @property
    def reusable(self) -> int:
        """Number of the first tokens whose keys and values serve other requests too."""
        return self.length


class Owner(Protocol):
    """Request that owns a cache row."""

    tokens: list[int]
    """Prompt, output and drafted ids; only changed past the row's `length`."""
    row: Row | None

    @property
    def verified(self) -> int:
        """Number of these tokens that are no draft."""
        ...


class DraftRows:
    """The cache of a draft model, one cache row per running request (see `engine/cache.py`).

    Args:
        target: The draft model.
        cuda_graphs: As for `StepRunner`.
        plain: Whether a Llama's own code may be left out (`plain_llama.py`).
    """

    def __init__(self, target: Target, cuda_graphs: bool | None = None, plain: bool = True) -> None:
        self._target = target
        self._cache = target.new_cache(1)
        self._steps = StepRunner(target, self._cache, 1, cuda_graphs)
        self._plain = PlainLlama(target) if plain and PlainLlama.fits(target) else None
        self._rows = [self._new_row(0)]

    _new_row = Row

    @property
    def num_rows(self) -> int:
        """Number of rows, in use or free."""
        return len(self._rows)

    def place(self, owners: Sequence[Owner]) -> None:
        """Give each owner a row. Rows of a batch become neighbours as far as free rows allow.

        The last row moves into a free row between them until there is none.
        """
        for owner in owners:
            if owner.row is None:
                self._assign_row(owner)
        rows = [owner.row for owner in owners if owner.row is not None]
        while not isinstance(self._cache, ModelCaches):  # which runs one row at a time
            rows.sort(key=lambda row: row.index)
            between = self._rows[rows[0].index : rows[-1].index]
            gap = next((row for row in between if row.is_free), None)
            if gap is None:
                return
            self._move(rows[-1], gap)

    def free(self, owners: Sequence[Owner]) -> None:
        """Free the rows of owners that may live on, such as in a traceback."""
        for owner in owners:
            if owner.row is not None:
                owner.row.owner, owner.row = None, None

    def step(self, owners: Sequence[Owner]) -> Tensor:
        """Run the owners' tokens that the cache does not hold, at least one each.

        Rows of other requests between theirs run their last token again, which has no effect.

        Returns:
            (n, V) logits after the last token of each.
        """
        if isinstance(self._cache, ModelCaches):
            return torch.stack([self._single_step(self._cache, owner) for owner in owners])
        if self._plain is not None and len(owners) == 1:
            return self._plain_step(self._plain, owners[0])[None]
        places = [owner.row.index for owner in owners if owner.row is not None]
        first, end = min(places), max(places) + 1
        wanted = set(places)
        fresh: list[list[int]] = []
        starts: list[int] = []
        for row in self._rows[first:end]:
            start = max(0, min(row.length, len(row.tokens) - 1) if row.index in wanted else row.length - 1)
            starts.append(start)
            fresh.append(row.tokens[start:] if row.index in wanted else row.tokens[start : row.length] or [0])
        logits = self._steps.logits(first, fresh, starts, 1)
        for place in places:
            row = self._rows[place]
            row.length = len(row.tokens)
        return logits[[place - first for place in places], -1]

    def cut(self, row: Row, length: int) -> None:
        """Take back the tokens of a row behind the first `length` ones."""
        if row.length > length:
            row.length = self._cache.keep(row.index, length)

    def _plain_step(self, plain: PlainLlama, owner: Owner) -> Tensor:
        """Run the unread tokens of one owner, or its last one. Returns (V,) logits."""
        row, cache = owner.row, self._cache
        assert row is not None and isinstance(cache, RowCache)
        start = min(row.length, len(owner.tokens) - 1)
        logits = plain.logits(cache, row.index, owner.tokens[start:], start)
        row.length = len(owner.tokens)
        return logits

    def _single_step(self, cache: ModelCaches, owner: Owner) -> Tensor:
        """Run the unread tokens of one owner; the row is marked where its draft begins. Returns (V,) logits."""
        row = owner.row
        assert row is not None
        if row.length >= len(owner.tokens):
            row.length = 0
        logits: Tensor | None = None
        for end in (owner.verified, len(owner.tokens)):
            if row.length < end:
                logits = cache.step(row.index, owner.tokens[row.length : end], row.length, 1)
                row.length = end
            if end == owner.verified == row.length:
                cache.mark(row.index)
        assert logits is not None
        return logits[0, -1]

    def _drop_contents(self) -> None:
        """Drop all keys and values; requests that run compute theirs again."""
        self._cache.reset()
        for row in self._rows:
            row.length = 0

    def _assign_row(self, owner: Owner) -> None:
        """Give an owner a free row, with the longest prefix of its tokens that some row holds."""
        if self._steps.prepare(len(owner.tokens)):
            self._drop_contents()
        row = next((row for row in self._rows if row.is_free), None)
        if row is None:
            row = self._new_row(len(self._rows))
            self._rows.append(row)
            self._cache.reserve_rows(1 << (row.index).bit_length())  # in doubling steps, as all that is in it moves
        shared = [common_prefix_length(other.tokens[: other.reusable], owner.tokens) for other in self._rows]
        source = max(range(len(shared)), key=lambda place: (shared[place], place == row.index))
        length = self._cache.copy_row(source, row.index, min(shared[source], len(owner.tokens) - 1))
        row.tokens, row.length, row.owner = owner.tokens, length, weakref.ref(owner)
        owner.row = row

    def _move(self, row: Row, free: Row) -> None:
        """Exchange a row with a free one. The old position keeps its keys and values."""
        self._cache.copy_row(row.index, free.index, row.length)
        free.tokens, free.length = row.tokens[: row.length], row.length
        row.index, free.index = free.index, row.index
        self._rows[row.index], self._rows[free.index] = row, free
