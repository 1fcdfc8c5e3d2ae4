"""A task's past rows as token ids on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasc._core import Store, StoreWriter
from tasc.data.rows import Paths, Progress, Row, batched, read_rows
from tasc.data.tokenizer import TaskTokenizer, load_tokenizer
from tasc.errors import TokenizerMismatchError

BATCH = 4096
"""Rows tokenised at a time."""


class TokenStore(Store):
    """Distinct outputs with weights, and the inputs beside them, mapped from one file.

    Equal outputs are one *document* whose weight says how often it occurred; equal (input, output) rows are one
    *input*. Opening takes constant time; the file is shared between processes through the page cache.

    Example:
        >>> store = TokenStore.build("rows.jsonl", "path/to/model", "rows.store")  # doctest: +SKIP
        >>> len(store), store.num_tokens, store.document(0)  # doctest: +SKIP
    """

    @classmethod
    def build(
        cls,
        rows: Paths | Iterable[Row],
        tokenizer: Any,
        path: str | Path,
        *,
        split: str | None = None,
        output_field: str = "output",
        input_field: str = "input",
        eos: str | int | None = "auto",
        progress: Progress | None = None,
    ) -> TokenStore:
        """Tokenise rows into a new store; it appears under its name when it is whole.

        Args:
            rows: Files (see `read_rows`), or rows `{output, input?}` themselves.
            tokenizer: Whatever `load_tokenizer` takes.
            path: Where the store goes; one that is there is replaced.
            split: Only rows of this `split`.
            output_field: The field with the outputs, for files.
            input_field: The field with the inputs, for files.
            eos: The token that ends every output (see `load_tokenizer`); None appends none.
            progress: Called with (bytes read, bytes in all), for files.

        Raises:
            CorpusError: A bad row (with file and line), or no rows.
            InputError: An unusable tokenizer.
        """
        task = load_tokenizer(tokenizer, eos=eos)
        writer = StoreWriter.create(
            Path(path),
            fingerprint=task.fingerprint,
            tokenizer=task.name,
            vocab_size=task.vocab_size,
            eos_id=task.eos_id,
        )
        _fill(writer, task, _rows(rows, split, output_field, input_field, progress))
        return cls(Path(path))

    def append(
        self,
        rows: Paths | Iterable[Row],
        tokenizer: Any,
        *,
        split: str | None = None,
        output_field: str = "output",
        input_field: str = "input",
        progress: Progress | None = None,
    ) -> TokenStore:
        """Add rows and return the store as it is then; this object goes on reading the old one.

        Atomic: the file is written anew and takes the old one's place whole. Appends from several processes wait for
        each other.

        Raises:
            TokenizerMismatchError: Another tokenizer made the store.
            CorpusError: A bad row; the store is unchanged then.
        """
        task = load_tokenizer(tokenizer, eos=self.eos_id)
        if task.fingerprint != self.fingerprint:
            raise TokenizerMismatchError(
                f"{self.path} was made by the tokenizer {self.tokenizer} ({self.fingerprint[:12]}…), not by "
                f"{task.name} ({task.fingerprint[:12]}…); use the same tokenizer or build it again"
            )
        writer = StoreWriter.append(self.path, task.fingerprint)
        _fill(writer, task, _rows(rows, split, output_field, input_field, progress))
        return type(self)(self.path)

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint32], int]]:
        """(ids (T,) uint32, weight) of each document."""
        return ((self.document(k), self.weight(k)) for k in range(len(self)))

    def __repr__(self) -> str:
        """Path and sizes."""
        return (
            f"TokenStore({str(self.path)!r}: {len(self)} documents, {self.num_tokens} tokens, {self.num_inputs} inputs)"
        )


def _rows(
    rows: Paths | Iterable[Row], split: str | None, output_field: str, input_field: str, progress: Progress | None
) -> Iterable[Row]:
    if isinstance(rows, str | Path):
        rows = [rows]
    given = iter(rows)
    first = next(given, None)
    if isinstance(first, str | Path):
        files = [first, *(Path(str(p)) for p in given)]
        return read_rows(files, split=split, output_field=output_field, input_field=input_field, progress=progress)
    everything: Iterator[Any] = _chain(first, given)
    return (row for row in everything if split is None or row.get("split") == split)


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    if first is not None:
        yield first
    yield from rest


def _fill(writer: StoreWriter, task: TaskTokenizer, rows: Iterable[Row]) -> None:
    end = [] if task.eos_id is None else [task.eos_id]
    try:
        for batch in batched(rows, BATCH):
            outputs = [ids + end for ids in task.encode_batch([row["output"] for row in batch])]
            ends = np.cumsum([len(ids) for ids in outputs], dtype=np.uint64)
            flat = np.fromiter((i for ids in outputs for i in ids), np.uint32, int(ends[-1]))
            writer.push(flat, ends, [row.get("input") for row in batch])
        writer.finish()
    except BaseException:  # Ctrl-C too: no half-written file stays behind
        writer.discard()
        raise
