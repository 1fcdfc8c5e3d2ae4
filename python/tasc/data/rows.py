"""Rows of a task from files, one at a time."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

from tasc.errors import CorpusError, MissingExtraError
from tasc.progress import Progress

Row: TypeAlias = dict[str, Any]
"""A row of a task: `output`, and `input`, `split` and more where known."""

Paths: TypeAlias = str | Path | Sequence[str | Path]

JSON_LINES = (".jsonl", ".ndjson", ".json")
TEXT = (".txt", ".text", "")

CHUNK = 1 << 18
"""Bytes read at a time."""


def read_rows(
    paths: Paths,
    split: str | None = None,
    *,
    output_field: str = "output",
    input_field: str = "input",
    needs_output: bool = True,
    progress: Progress | None = None,
) -> Iterator[Row]:
    """Rows of JSONL (`.jsonl`, `.json`), Parquet (`.parquet`) or plain-text files (`.txt`, one output per line).

    JSONL and text may be compressed (`.gz`, `.zst`). Nothing is held in memory but the present row (the present
    batch for Parquet). Blank lines are passed over.

    Args:
        paths: One file or several, read in order.
        split: Only rows whose `split` equals this; None takes all.
        output_field: Name of the field that becomes `output`; it must be text in every row.
        input_field: Name of the field that becomes `input`: text or null. Rows may lack the field `input`, but not
            one that is named here otherwise.
        needs_output: Whether a row without output is an error; otherwise it has no `output`.
        progress: Called with (bytes read, bytes in all), by compressed size.

    Yields:
        Rows with `output`, `input` where known, and the other fields as they were.

    Raises:
        CorpusError: For what is no row, naming file and line; no row of that split, naming the splits that are there.
        MissingExtraError: Parquet without `tasc-lm[parquet]`.
        FileNotFoundError: A path that is not there.
    """
    files = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    sizes = [file.stat().st_size for file in files]
    total = sum(sizes)

    def tell(before: int, done: int) -> None:
        if progress:
            progress(before + done, total)

    def everything() -> Iterator[tuple[str, Any]]:
        for k, file in enumerate(files):
            yield from _raw_rows(file, output_field, partial(tell, sum(sizes[:k])))
        tell(total, 0)

    fields: dict[str, Any] = {"output_field": output_field, "input_field": input_field}
    yield from checked_rows(everything(), split, needs_output=needs_output, **fields)


def checked_rows(
    rows: Iterable[tuple[str, Any]],
    split: str | None,
    *,
    output_field: str = "output",
    input_field: str = "input",
    needs_output: bool = True,
) -> Iterator[Row]:
    """Check and name rows from any source, each given as (position, row).

    Raises:
        CorpusError: As `read_rows`.
    """
    seen: set[str] = set()
    found = False
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise CorpusError(f"{where}: is a {type(row).__name__}, a row is an object like {{'output': 'text'}}")
        if split is not None and row.get("split") != split:
            seen.add(repr(row.get("split")) if "split" in row else "none")
            continue
        found = True
        yield _checked(where, row, output_field, input_field, needs_output)
    if split is not None and seen and not found:
        raise CorpusError(f"no row has the split {split!r}; the splits there are: {', '.join(sorted(seen)[:10])}")


def _checked(where: str, row: Mapping[str, Any], output_field: str, input_field: str, needs_output: bool) -> Row:
    wanted = [(output_field, "output_field")] if needs_output else []
    wanted += [(input_field, "input_field")] if input_field != "input" else []
    for field, name in wanted:
        if field not in row:
            fields = ", ".join(map(repr, row)) or "none"
            raise CorpusError(f"{where}: has no field {field!r}; its fields are {fields}: name one as {name}")
    rest = {k: v for k, v in row.items() if k not in (output_field, input_field)}
    if row.get(input_field) is not None:
        _check_text(where, input_field, row[input_field], "text or null")
        rest["input"] = row[input_field]
    if needs_output or row.get(output_field) is not None:
        _check_text(where, output_field, row[output_field], "text")
        rest["output"] = row[output_field]
    return rest


def _check_text(where: str, field: str, value: Any, wanted: str) -> None:
    if not isinstance(value, str):
        raise CorpusError(f"{where}: field {field!r} is {type(value).__name__}, it must be {wanted}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(f"{where}: field {field!r} is no valid text: {error.reason}") from error


def _raw_rows(file: Path, output_field: str, tell: Callable[[int], None]) -> Iterator[tuple[str, Any]]:
    """(file:line, row as it stands)."""
    compression = file.suffix if file.suffix in (".gz", ".zst") else ""
    suffix = Path(file.name.removesuffix(compression)).suffix.lower()
    if suffix == ".parquet" and not compression:
        yield from _parquet(file, tell)
        return
    if suffix not in JSON_LINES + TEXT:
        known = ", ".join([*JSON_LINES, ".txt (each also with .gz or .zst)", ".parquet"])
        raise CorpusError(f"{file}: files like {suffix!r} are not read; give one of {known}")
    with file.open("rb") as raw:
        for number, line in enumerate(_lines(file, raw, compression, tell), 1):
            where = f"{file}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise CorpusError(f"{where}: is not UTF-8: {error.reason} at byte {error.start + 1}") from error
            if text.strip():
                yield where, _parsed(where, text) if suffix in JSON_LINES else {output_field: text}


def _lines(file: Path, raw: IO[bytes], compression: str, tell: Callable[[int], None]) -> Iterator[bytes]:
    decompressed: Iterator[bytes] = {"": _plain, ".gz": _gunzipped, ".zst": _unzstandard}[compression](raw)
    rest = b""
    try:
        for chunk in decompressed:
            tell(raw.tell())
            *lines, tail = chunk.split(b"\n")
            if lines:
                yield rest + lines[0]
                yield from lines[1:]
                rest = b""
            rest += tail
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"{file}: cannot be decompressed: {error}") from error
    if rest:
        yield rest


def _plain(raw: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while chunk := raw.read(CHUNK):
        yield chunk


def _gunzipped(raw: IO[bytes]) -> Iterator[bytes]:
    yield from _plain(gzip.GzipFile(fileobj=raw))


def _unzstandard(raw: IO[bytes]) -> Iterator[bytes]:
    import zstandard

    decoder = None
    try:
        for chunk in _plain(raw):
            while chunk:  # one frame after the other
                decoder = decoder or zstandard.ZstdDecompressor().decompressobj()
                yield decoder.decompress(chunk)
                chunk = decoder.unused_data if decoder.eof else b""
                decoder = None if decoder.eof else decoder
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error
    if decoder is not None:
        raise EOFError("the file is cut short")


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = "; write one object per line, not an array" if text.lstrip().startswith("[") else ""
        raise CorpusError(f"{where}: is not JSON: {error.msg} at column {error.colno}{hint}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise CorpusError(f"{where}: is JSON that cannot be read: {error}") from error


def _parquet(file: Path, tell: Callable[[int], None]) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError(f"reading {file.name}", "parquet") from error
    number, size = 0, file.stat().st_size
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}: row {number}", row
                tell(size * number // table.metadata.num_rows)
    except pyarrow.ArrowException as error:
        raise CorpusError(f"{file}: is no Parquet file that can be read: {error}") from error
