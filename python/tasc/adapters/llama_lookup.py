"""llama.cpp's static lookup cache (`llama-lookup -lcs FILE`), made of an index's exact n-gram counts.

Records without a header, little-endian: `{i32 tokens[4], the last two -1; i32 n; n × {i32 token, i32 count}}`, one for
each pair of neighbouring tokens, with everything that followed it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasc.errors import InputError
from tasc.files import atomic_path, scratch_folder

if TYPE_CHECKING:
    from tasc._core import NgramBatches, TaskIndex

MOST_COUNT = 100_000
"""Largest sum of a record's counts. llama.cpp multiplies 100 counts with those of its other caches in 32 bits."""


def export_lookup(index: TaskIndex, path: str | os.PathLike[str]) -> int:
    """Write the static lookup cache of an index; it appears under its name when it is whole.

    Counts are exact and by weight (an output that occurred twice counts twice), the end token among the tokens; where
    those of a record sum up to more than `MOST_COUNT`, all of them are divided by the same number, rounded down, and
    are 1 at least. Nothing of the inputs is written.

    Args:
        index: The task's index.
        path: The file to write.

    Returns:
        Number of records.

    Raises:
        InputError: An id beyond 2³¹ - 1.
        FormatError: The index is damaged.
        OSError: The file cannot be written.
    """
    from tasc.data import NgramTable

    with scratch_folder(path) as folder, atomic_path(path) as made, made.open("wb") as file:
        table = NgramTable.count(index.to_store(folder / "rows.store"), folder / "counts", max_length=3)
        return sum(_write(file, ids, counts) for ids, counts in _pairs(table.batches(3)))


def _pairs(batches: NgramBatches) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.uint64]]]:
    """(B, 3) ids and (B,) counts in ascending order, none of whose pairs goes on in the next batch."""
    kept, kept_counts = np.empty((0, 3), np.uint32), np.empty(0, np.uint64)
    for new, new_counts, _ in batches:
        ids, counts = np.concatenate([kept, new]), np.concatenate([kept_counts, new_counts])
        last = int(np.argmax((ids[:, :2] == ids[-1, :2]).all(axis=1)))  # where the last pair begins
        yield ids[:last], counts[:last]
        kept, kept_counts = ids[last:], counts[last:]
    yield kept, kept_counts


def _write(file: IO[bytes], ids: NDArray[np.uint32], counts: NDArray[np.uint64]) -> int:
    """Write the records of (B, 3) ascending ids with (B,) counts; returns how many there are."""
    if len(ids) == 0:
        return 0
    if int(ids.max()) > np.iinfo(np.int32).max:
        raise InputError(f"llama.cpp's ids are 32-bit signed, but the index holds id {int(ids.max())}")
    first = np.flatnonzero(np.append(True, (ids[1:, :2] != ids[:-1, :2]).any(axis=1)))  # each pair's first row
    sizes = np.diff(np.append(first, len(ids)))
    sums = np.add.reduceat(counts, first)
    divisors = np.repeat(-(-sums.astype(np.int64) // MOST_COUNT), sizes)
    scaled = np.maximum(counts.astype(np.int64) // divisors, 1)
    followers = np.stack([ids[:, 2].astype(np.int64), scaled], axis=1).astype("<i4")
    heads = np.concatenate([ids[first, :2].astype(np.int64), np.full((len(first), 2), -1), sizes[:, None]], axis=1)
    for head, start, size in zip(heads.astype("<i4"), first.tolist(), sizes.tolist(), strict=True):
        file.write(head.tobytes())
        file.write(followers[start : start + size].tobytes())
    return len(first)
