"""Splits a task's rows into rows to index and rows to replay."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from tasc.data import Row
from tasc.errors import InputError

MAX_ROWS = 20_000
"""Most rows that a check looks at, unless told otherwise."""

MIN_HELD_OUT, MAX_HELD_OUT = 50, 500
"""Fewest and most rows held out; between them a tenth of the rows is."""


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

    With a column, `train` is indexed and `test` is held out. By hash, all rows of one input fall into the same part, so
    that no held-out input is known to the index. A row without an input is hashed with its output and the number of
    times that the output occurred before: that outputs repeat themselves is a property of the task. The split depends
    on the rows alone: equal rows give equal parts.

    Args:
        rows: Rows, each with an `output`. At most `limit` of them are held in memory.
        limit: Most rows in both parts together. Of more rows, a sample by hash is taken.

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
    counter = Counter[str]()  # of the rows read
    kept = heapq.nsmallest(limit, _hashed(rows, counter), key=lambda item: item[:2])
    if counter["column"]:
        kept.sort(key=lambda item: item[1])
        train, held_out = ([row for *_, row in kept if row.get("split") == part] for part in ("train", "test"))
        if not train or not held_out:
            raise InputError(
                f"the rows have a split column, and {len(train)} of them say 'train', {len(held_out)} 'test': "
                "check needs rows of both; rename the splits, or leave the column out"
            )
        return RowSplit(train, held_out[:MAX_HELD_OUT], "column", counter["rows"])
    end = _end_of_held_out(kept)
    if end >= len(kept):
        raise InputError(
            f"{len(kept)} rows with {len({item[0] for item in kept})} different inputs cannot be split: give more rows"
        )
    first, last = ([row for *_, row in sorted(part, key=lambda item: item[1])] for part in (kept[:end], kept[end:]))
    return RowSplit(last, first, "hash", counter["rows"])


def _hashed(rows: Iterable[Row], counter: Counter[str]) -> Iterator[tuple[int, int, Row]]:
    """Yield (hash, position, row), and count the rows and those with a split."""
    seen = Counter[int]()  # occurrences of outputs, by hash
    for position, row in enumerate(rows):
        counter["rows"] += 1
        counter["column"] += row.get("split") is not None
        if row.get("input"):
            key = _hash("i", row["input"])
        else:
            output = _hash("o", row["output"])
            key = _hash("n", f"{output} {seen[output]}")
            seen[output] += 1
        yield key, position, row


def _hash(kind: str, text: str) -> int:
    return int.from_bytes(blake2b(f"{kind}{text}".encode(), digest_size=8).digest())


def _end_of_held_out(kept: list[tuple[int, int, Any]]) -> int:
    """Return the number of rows to hold out, from the first, so that no hash is on both sides."""
    wanted = min(max(MIN_HELD_OUT, min(len(kept) // 10, MAX_HELD_OUT)), len(kept) // 3)
    end = max(1, wanted)
    while end < len(kept) and kept[end][0] == kept[end - 1][0]:
        end += 1
    return end
