"""Rows of a task from files, one at a time."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

import zstandard

from tasc.errors import CorpusError, MissingExtraError

Row: TypeAlias = dict[str, Any]
"""A row of a task: `output`, and `input`, `split` and more where known."""

Paths: TypeAlias = str | Path | Sequence[str | Path]
Progress: TypeAlias = Callable[[int, int], None]
"""Called with (bytes read, bytes in all)."""


def read_rows(
    paths: Paths,
    *,
    split: str | None = None,
    output_field: str = "output",
    input_field: str = "input",
    progress: Progress | None = None,
) -> Iterator[Row]:
    """Rows of JSONL (`.jsonl`, `.json`), Parquet (`.parquet`) or plain-text files (one output per line).

    JSONL and text may be compressed (`.gz`, `.zst`). Nothing is held in memory but the present row (the present
    batch for Parquet).

    Args:
        paths: One file or several, read in order.
        split: Only rows whose `split` equals this; None takes all.
        output_field: Name of the field that becomes `output`; it must be text in every row.
        input_field: Name of the field that becomes `input`, where a row has it; text or null.
        progress: Told how far reading has come, by compressed size.

    Yields:
        Rows with `output`, `input` where known, and the other fields as they were.

    Raises:
        CorpusError: Naming file and line, for what is no row.
        MissingExtraError: Parquet without `tasc[parquet]`.
        FileNotFoundError: A path that is not there.
    """
    files = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    sizes = [file.stat().st_size for file in files]
    before = 0
    for file, size in zip(files, sizes, strict=True):

        def tell(done: int, start: int = before) -> None:
            if progress:
                progress(start + done, sum(sizes))

        for where, row in _raw_rows(file, output_field, tell):
            if split is not None and row.get("split") != split:
                continue
            yield _checked(where, row, output_field, input_field)
        before += size
        tell(0, before)


def _raw_rows(file: Path, output_field: str, tell: Callable[[int], None]) -> Iterator[tuple[str, Row]]:
    """(file:line, row as it stands)."""
    name = file.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        yield from _parquet(file, tell)
        return
    as_json = name.endswith((".jsonl", ".json", ".ndjson"))
    try:
        with file.open("rb") as raw, _decompressed(raw, file.suffix) as lines:
            for number, line in enumerate(lines, 1):
                if number % 256 == 0:
                    tell(raw.tell())
                text = line.rstrip("\r\n")
                if text.strip():
                    where = f"{file}:{number}"
                    yield where, (_parsed(where, text) if as_json else {output_field: text})
    except (EOFError, gzip.BadGzipFile, zstandard.ZstdError, UnicodeDecodeError) as error:
        raise CorpusError(f"{file}: cannot be read: {error}") from error


def _decompressed(raw: IO[bytes], suffix: str) -> io.TextIOWrapper:
    stream: Any = raw
    if suffix == ".gz":
        stream = gzip.open(raw)
    elif suffix == ".zst":
        stream = zstandard.ZstdDecompressor().stream_reader(raw)
    return io.TextIOWrapper(stream, encoding="utf-8", newline="\n")


def _parsed(where: str, text: str) -> Row:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{where}: is not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise CorpusError(f"{where}: is a JSON {type(row).__name__}, a row must be an object like {{'output': …}}")
    return row


def _parquet(file: Path, tell: Callable[[int], None]) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError(f"reading {file.name}", "parquet") from error
    number = 0
    size = file.stat().st_size
    with parquet.ParquetFile(file) as table:
        rows = max(table.metadata.num_rows, 1)
        for batch in table.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}:{number}", row
            tell(size * number // rows)


def _checked(where: str, row: Row, output_field: str, input_field: str) -> Row:
    if output_field not in row:
        raise CorpusError(
            f"{where}: has no field {output_field!r}; its fields are {', '.join(map(repr, row)) or 'none'}"
        )
    output, given = row[output_field], row.get(input_field)
    if not isinstance(output, str):
        raise CorpusError(f"{where}: field {output_field!r} is {type(output).__name__}, it must be text")
    if given is not None and not isinstance(given, str):
        raise CorpusError(f"{where}: field {input_field!r} is {type(given).__name__}, it must be text or null")
    rest = {k: v for k, v in row.items() if k not in (output_field, input_field)}
    return {**rest, "output": output} if given is None else {**rest, "input": given, "output": output}


def batched(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Lists of up to `size` rows."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
