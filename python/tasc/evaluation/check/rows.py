"""Splits a task's rows into rows to index and rows to replay."""

from __future__ import annotations

import heapq
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

from tasc.data import Row
from tasc.errors import InputError
from tasc.printable import counted

MAX_ROWS = 20_000
"""Most rows that a check looks at, unless told otherwise."""

MIN_HELD_OUT, MAX_HELD_OUT = 50, 500
"""Fewest and most rows held out; between them a tenth of the rows is."""

LONGEST = 4_000
"""Most tokens of an output that are replayed: its first ones."""

HELD_OUT_SPLITS = ("test", "validation", "valid", "val", "dev")
"""Values of a `split` column whose rows are held out; the first that occurs counts."""


@dataclass(frozen=True, slots=True)
class RowSplit:
    """Rows of a task in two parts.

    Attributes:
        train: Rows to index.
        held_out: Rows to replay.
        by: `column` if the rows' `split` decided, `hash` otherwise.
        of: Number of rows there were; more than in both parts if some were left out.
    """

    train: list[Row]
    held_out: list[Row]
    by: str
    of: int


def split_rows(rows: Iterable[Row], *, limit: int = MAX_ROWS) -> RowSplit:
    """Split rows by their `split` column, or by a hash if there is none.

    With a column, `train` is indexed, and the first of `HELD_OUT_SPLITS` that occurs is held out; if none does, the
    rows of `train` are split by hash. By hash, all rows of one input fall into the same part, so that no held-out input
    is known to the index. A row without an input is hashed with its output and the number of
    times that the output occurred before: that outputs repeat themselves is a property of the task. The split depends
    on the rows alone: equal rows give equal parts.

    Args:
        rows: Rows, each with an `output`. A sample of them is held in memory.
        limit: Most rows to split, or, with a column, to index. Of more rows, a sample by hash is taken.

    Raises:
        InputError: One of the parts would be empty.

    Examples:
        >>> rows = [{"input": str(k % 40), "output": "yes"} for k in range(200)]
        >>> parts = split_rows(rows)
        >>> len(parts.train), len(parts.held_out)
        (150, 50)
        >>> {row["input"] for row in parts.train} & {row["input"] for row in parts.held_out}
        set()
    """
    samples: dict[str | None, _Sample] = {"train": _Sample(limit), None: _Sample(limit)}
    for name in HELD_OUT_SPLITS:
        samples[name] = _Sample(MAX_HELD_OUT)
    number, has_column, first = 0, False, None
    for key, position, row in _hashed(rows):
        number += 1
        part = row.get("split")
        if part is not None and not has_column:
            has_column, first = True, part
        if (part is None or isinstance(part, str)) and part in samples:
            samples[part].add(key, position, row)
    kept = samples["train" if has_column else None].kept()
    if has_column and not kept:
        raise InputError(
            f"the rows have a split column that says {reprlib.repr(first)} and never 'train': rename a split, or leave "
            "the column out"
        )
    replayed = next((items for name in HELD_OUT_SPLITS if (items := samples[name].kept())), None)
    if replayed is not None:
        return RowSplit(_in_order(kept), _in_order(replayed), "column", number)
    if not number:
        raise InputError("there are no rows: give more rows, each with an output")
    end = _end_of_held_out(kept)
    if not 0 < end < len(kept):
        raise InputError(
            f"{counted(len(kept), 'row')} with {counted(len({item[0] for item in kept}), 'different input')} cannot be "
            "split: give more rows, with other inputs"
        )
    return RowSplit(_in_order(kept[end:]), _in_order(kept[:end]), "hash", number)


_Item: TypeAlias = tuple[int, int, Row]
"""(hash, position, row); no two have the same position."""


class _Sample:
    """The items with the smallest hashes.

    Args:
        size: Most items.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[_Item] = []  # of negated hashes and positions, the largest hash first

    def add(self, key: int, position: int, row: Row) -> None:
        """Add an item, in place of the one with the largest hash if there are too many."""
        item = (-key, -position, row)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    def kept(self) -> list[_Item]:
        """Return the items by ascending hash."""
        return [(-key, -position, row) for key, position, row in sorted(self._heap, key=lambda i: i[:2], reverse=True)]


def _in_order(items: Iterable[_Item]) -> list[Row]:
    return [row for *_, row in sorted(items, key=lambda item: item[1])]


def _hashed(rows: Iterable[Row]) -> Iterator[_Item]:
    seen = Counter[int]()  # occurrences of outputs, by hash
    for position, row in enumerate(rows):
        if row.get("input"):
            key = _hash("i", row["input"])
        else:
            output = _hash("o", row["output"])
            key = _hash("n", f"{output} {seen[output]}")
            seen[output] += 1
        yield key, position, row


def _hash(kind: str, text: str) -> int:
    return int.from_bytes(blake2b(f"{kind}{text}".encode(), digest_size=8).digest())


def _end_of_held_out(kept: list[_Item]) -> int:
    """Return the number of rows to hold out, from the first, so that no hash is on both sides.

    Rows of the last hash are held out whole, or not at all where nothing would be left to index. 0 if all rows have one
    hash.
    """
    wanted = min(max(MIN_HELD_OUT, min(len(kept) // 10, MAX_HELD_OUT)), len(kept) // 3)
    end = max(1, wanted)
    while end < len(kept) and kept[end][0] == kept[end - 1][0]:
        end += 1
    if end >= len(kept):
        end = next((k for k, item in enumerate(kept) if item[0] == kept[-1][0]), 0)
    return end
