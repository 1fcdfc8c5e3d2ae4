"""Exact weighted n-gram counts of a store, as a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc import _core
from tasc.checks import whole_number
from tasc.errors import InputError
from tasc.progress import Progress, reporting

Batch: TypeAlias = tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint64]]
"""N-grams of one length: ids (B, n), counts (B,), documents (B,)."""

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
"""Unit prefixes of a number of bytes."""


class NgramTable(_core.NgramTable):
    """Exact counts of each n-gram of 1 to N tokens in a store and of the documents that hold it, mapped from one file.

    Counts are exact and weighted: an output that occurred ten times counts ten times, but is one document. N-grams do
    not cross documents. The end token counts like any other token. Opening takes constant time, and processes share
    the file's pages.

    Examples:
        >>> table = NgramTable.count(store, "task.ngrams", max_length=4, memory_limit="1GB")  # doctest: +SKIP
        >>> for ids, count, documents in table.top(10, 2):  # doctest: +SKIP
        ...     print(tokenizer.decode(ids), count, documents)
    """

    @classmethod
    def open(cls, path: str | Path) -> NgramTable:
        """Open a table in constant time; contents are checked where they are read (see `verify`).

        Raises:
            FormatError: Not a table, cut short, damaged header, or another major version.
            OSError: The file cannot be read.
        """
        return cls(Path(path))

    @classmethod
    def count(
        cls,
        store: _core.Store,
        path: str | Path,
        *,
        max_length: int = 4,
        memory_limit: int | str = "512MB",
        num_threads: int | None = None,
        min_count: int = 1,
        min_documents: int = 1,
        progress: Progress | bool | None = None,
    ) -> NgramTable:
        """Count the n-grams of a store into a new file; it appears under its name when it is whole.

        What memory cannot hold is sorted in runs, spilled beside `path` (up to twice the size of the table, more
        where n-grams occur in many runs) and merged. The same store gives the same bytes for any memory limit and
        number of threads.

        Args:
            store: The documents.
            path: Path of the table; a table that exists there is replaced.
            max_length: Length of the longest n-grams that are counted, at most 32.
            memory_limit: Most bytes of memory to take, as a number or as text like "64MB", "2GiB"; at least 1 MiB.
                Mapped pages of the store, which the system takes back when it needs them, are not part of it.
            num_threads: Threads that sort; None for all cores. Fewer are used below 4 MiB of memory each.
            min_count: Leave out n-grams of a smaller weighted count, once all are counted.
            min_documents: Leave out n-grams that fewer documents hold, once all are counted.
            progress: Called with (millionths of the work done, 10**6); True shows a progress bar.

        Raises:
            InputError: An option that cannot be used, or a document too long for the memory limit.
            FormatError: The store is damaged.
            OSError: The file or the spilled runs cannot be written.
        """
        with reporting(progress, "counting", of_bytes=False) as tell:
            _core.count_ngrams(
                store,
                Path(path),
                max_length=_natural("max_length", max_length),
                memory_limit=as_bytes(memory_limit),
                num_threads=_threads(num_threads),
                min_count=_natural("min_count", min_count),
                min_documents=_natural("min_documents", min_documents),
                progress=lambda done: tell(round(done * 10**6), 10**6),
            )
        return cls(Path(path))

    @classmethod
    def merge(
        cls,
        tables: Sequence[NgramTable | str | Path],
        path: str | Path,
        *,
        num_threads: int | None = None,
        min_count: int = 1,
        min_documents: int = 1,
        progress: Progress | bool | None = None,
    ) -> NgramTable:
        """Add up tables of shards that were counted elsewhere, into a new file.

        Shards with different documents give what counting all of them at once would have given. A document that is in
        two shards is two documents of the sum; its count is right all the same.

        Args:
            tables: The shards' tables, or their files.
            path: Where the sum goes; it may be the path of one of the tables.
            num_threads: Threads that merge, at most one per length; None for all cores.
            min_count: As in `count`.
            min_documents: As in `count`.
            progress: As in `count`.

        Raises:
            InputError: No tables, tables of different lengths, or one that leaves out n-grams (counted with a minimum).
            TokenizerMismatchError: Tables of two tokenizers.
            FormatError: A damaged table.
        """
        opened = [table if isinstance(table, _core.NgramTable) else cls(Path(table)) for table in tables]
        with reporting(progress, "merging", of_bytes=False) as tell:
            _core.merge_ngrams(
                opened,
                Path(path),
                num_threads=_threads(num_threads),
                min_count=_natural("min_count", min_count),
                min_documents=_natural("min_documents", min_documents),
                progress=lambda done: tell(round(done * 10**6), 10**6),
            )
        return cls(Path(path))

    def top(self, k: int, length: int | Sequence[int] | None = None) -> list[tuple[NDArray[np.uint32], int, int]]:
        """The most frequent n-grams: by count, then by documents, then the shorter, then the smaller ids.

        Args:
            k: How many.
            length: Only n-grams of this length, or of these lengths; None: of all.

        Returns:
            (ids (n,) uint32, count, documents) each, the most frequent first.

        Raises:
            InputError: A length that the table does not have.
            FormatError: The file is damaged.
        """
        return super().top(_natural("k", k, least=0), self._lengths(length))

    def batches(self, length: int, size: int = 65_536) -> _core.NgramBatches:
        """The n-grams of one length in ascending order of their ids, in arrays.

        Args:
            length: Tokens of an n-gram, n.
            size: Most n-grams of a batch, B.

        Returns:
            An iterator over (ids (B, n) uint32, counts (B,) uint64, documents (B,) uint64).

        Raises:
            InputError: A length that the table does not have.
            FormatError: The file is damaged (when a batch is read).
        """
        return super().batches(self._lengths(length)[0], _natural("size", size))

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """(ids, count, documents) of each n-gram: the shorter first, those of one length in ascending order."""
        for length in range(1, self.max_length + 1):
            for ids, counts, documents in self.batches(length):
                yield from zip(map(tuple, ids.tolist()), counts.tolist(), documents.tolist(), strict=True)

    def __len__(self) -> int:
        """Number of n-grams of all lengths."""
        return sum(self.sizes)

    def __reduce__(self) -> tuple[type[NgramTable], tuple[Path]]:
        """Other processes open the same path."""
        return type(self), (self.path,)

    def __repr__(self) -> str:
        """Path and sizes."""
        return f"NgramTable({str(self.path)!r}: {len(self)} n-grams of 1 to {self.max_length} tokens)"

    def _lengths(self, length: int | Sequence[int] | None) -> list[int]:
        every = range(1, self.max_length + 1)
        wanted = every if length is None else [length] if isinstance(length, int | np.integer) else length
        for n in wanted:
            if n not in every:
                raise InputError(f"{self.path} has n-grams of 1 to {self.max_length} tokens, none of {n}")
        return [int(n) for n in wanted]


def as_bytes(size: int | str) -> int:
    """A number of bytes, from a number or from text.

    Args:
        size: As 67108864, "64MB" (10**6), "64MiB" (2**20), "1.5 GB".

    Raises:
        InputError: Anything else.

    Examples:
        >>> as_bytes("64MB"), as_bytes("1.5 GiB")
        (64000000, 1610612736)
    """
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?\s*", size, re.IGNORECASE)
        if match is None:
            raise InputError(f'{size!r} is not a number of bytes; write it as 67108864, "64MB" or "64MiB"')
        return int(float(match[1]) * UNITS[match[2].lower()])
    return _natural("a number of bytes", size)


def _threads(number: int | None) -> int:
    if number is not None:
        return _natural("num_threads", number)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _natural(name: str, value: Any, least: int = 1) -> int:
    """A whole number that the core can take."""
    number = whole_number(name, value, least)
    if number >= 2**63:
        raise InputError(f"{name} is {number}; it must be below 2**63")
    return number
