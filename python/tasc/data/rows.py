"""Rows of a task from files, one at a time."""

from __future__ import annotations

import gzip
import json
import logging
import os
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeAlias

from tasc.checks import function, listed, whole_number
from tasc.errors import CorpusError, InputError, MissingExtraError
from tasc.progress import Progress

_log = logging.getLogger(__name__)

Row: TypeAlias = dict[str, Any]
"""A row of a task: `output`, and `input`, `split` and more where known."""

Paths: TypeAlias = str | Path | Sequence[str | Path]

JSON_LINES = (".jsonl", ".ndjson", ".json")
TEXT = (".txt", ".text", "")

MAX_LINE_BYTES = 1 << 24
"""Most bytes of a line, unless told otherwise. A line of JSON takes up to about 30 times its bytes in memory."""

VARIABLE = "TASC_MAX_LINE_BYTES"
"""Environment variable that sets another limit, for all commands."""

CHUNK = 1 << 18
"""Bytes read at a time."""

_RAISE_LIMIT = f"shorten the row, or set {VARIABLE} (in Python also max_line_bytes) to a larger number of bytes"
_PARQUET_BATCH = 16  # rows: one value of a dictionary may stand in all of them
_ZSTD_PIECE = 1 << 8  # bytes; zstd makes up to 32768 bytes of one, so 8 MiB of a piece
_ZSTD_WINDOW = 1 << 27  # bytes; what `zstd -d` takes without --long

_BLANK = b" \t\r\n\xef\xbb\xbf"  # and the bytes of a BOM


def read_rows(
    paths: Paths,
    split: str | None = None,
    *,
    output_field: str = "output",
    input_field: str = "input",
    other_fields: Sequence[str] = (),
    needs_output: bool = True,
    max_line_bytes: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Row]:
    """Rows of JSONL (`.jsonl`, `.json`), Parquet (`.parquet`) or plain-text files (`.txt`, one output per line).

    JSONL and text are UTF-8, and may be compressed (`.gz`, `.zst`). A JSON array is refused. Nothing is held in memory
    but the present line. For Parquet, a page of each column and a batch of rows are held. Blank lines are passed over.

    Args:
        paths: One file or several, read in order.
        split: Only rows whose `split` equals this; None takes all.
        output_field: Name of the field that becomes `output`; it must be text in every row.
        input_field: Name of the field that becomes `input`: text or null. Rows may lack the field `input`, but not
            one that is named here otherwise.
        other_fields: Names of further fields that are needed: of a Parquet file, only the columns of the output, the
            input, `split` and these are read. Rows of JSONL have all their fields in any case.
        needs_output: Whether a row without output is an error; otherwise it has no `output`.
        max_line_bytes: Most bytes of a line; a longer one is refused. None: the environment variable
            `TASC_MAX_LINE_BYTES`, or 16 MiB without it. For Parquet: most bytes of a row, on average over a row group.
        progress: Called with (bytes read, bytes in all), by compressed size.

    Yields:
        Rows with `output`, `input` where known, and the other fields as they were.

    Raises:
        CorpusError: For what is no row, naming file and line; no row of that split, naming the splits that are there.
        InputError: An argument is of a wrong type.
        MissingExtraError: Parquet without `tasc-lm[parquet]`.
        FileNotFoundError: A path that is not there.
    """
    listed("other_fields", other_fields, str, "a list of fields")
    fields: dict[str, Any] = {"output_field": output_field, "input_field": input_field, "needs_output": needs_output}
    columns = {output_field, input_field, "split", *other_fields}
    needed = _needed_fields(**fields)
    rows = located_rows(
        paths, columns, needed, output_field=output_field, max_line_bytes=max_line_bytes, progress=progress
    )
    yield from checked_rows(rows, split, **fields)


def located_rows(
    paths: Paths,
    columns: Collection[str] | None = None,
    needed: Mapping[str, str] = MappingProxyType({}),
    *,
    output_field: str = "output",
    max_line_bytes: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Any]]:
    """Rows as they stand in files, each with its position: `FILE:LINE`, or `FILE: row NUMBER` for Parquet.

    Args:
        paths: As in `read_rows`.
        columns: Columns of Parquet files that are read; None: all that JSON can hold.
        needed: Columns that Parquet files must have, and the options that name them.
        output_field: Name of the field that a line of text becomes.
        max_line_bytes: As in `read_rows`.
        progress: As in `read_rows`.

    Raises:
        CorpusError: For a line that cannot be read, naming file and line.
        MissingExtraError: Parquet without `tasc-lm[parquet]`.
        FileNotFoundError: A path that is not there.
    """
    longest = _max_line_bytes(max_line_bytes)
    named = [paths] if isinstance(paths, str | PathLike) else paths
    files = [Path(file) for file in listed("paths", named, (str, PathLike), "a path or a list of paths")]
    function("progress", progress)
    sizes = [file.stat().st_size for file in files]
    total = sum(sizes)

    def tell(before: int, done: int) -> None:
        if progress:
            progress(before + done, total)

    for k, file in enumerate(files):
        yield from _raw_rows(file, columns, needed, output_field, longest, partial(tell, sum(sizes[:k])))
    tell(total, 0)


def _max_line_bytes(given: int | None) -> int:
    if given is not None:
        return whole_number("max_line_bytes", given, 1)
    told = os.environ.get(VARIABLE) or str(MAX_LINE_BYTES)
    if not (told.isascii() and told.isdecimal() and 1 <= int(told) <= sys.maxsize):
        raise InputError(f"{VARIABLE} is {told!r}; it must be a number of bytes from 1, such as {MAX_LINE_BYTES}")
    return int(told)


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
        _check_object(where, row)
        if split is not None and row.get("split") != split:
            seen.add(repr(row.get("split")) if "split" in row else "none")
            continue
        found = True
        yield _checked(where, row, output_field, input_field, needs_output)
    if split is not None and seen and not found:
        raise CorpusError(f"no row has the split {split!r}; the splits there are: {', '.join(sorted(seen)[:10])}")


def _checked(where: str, row: Mapping[str, Any], output_field: str, input_field: str, needs_output: bool) -> Row:
    _check_fields(where, row, _needed_fields(output_field, input_field, needs_output))
    rest = {k: v for k, v in row.items() if k not in (output_field, input_field)}
    if row.get(input_field) is not None:
        _check_text(where, input_field, row[input_field], "text or null")
        rest["input"] = row[input_field]
    if needs_output or row.get(output_field) is not None:
        _check_text(where, output_field, row[output_field], "text")
        rest["output"] = row[output_field]
    return rest


def _needed_fields(output_field: str, input_field: str, needs_output: bool) -> dict[str, str]:
    """Return the fields that a row must have, and the option that names each."""
    needed = {output_field: "output_field"} if needs_output else {}
    return needed if input_field == "input" else needed | {input_field: "input_field"}


def _check_fields(where: str, fields: Collection[str], needed: Mapping[str, str]) -> None:
    for field, option in needed.items():
        if field not in fields:
            had = ", ".join(map(repr, fields)) or "none"
            raise CorpusError(f"{where}: has no field {field!r}; its fields are {had}: name one as {option}")


def _check_text(where: str, field: str, value: Any, wanted: str) -> None:
    if not isinstance(value, str):
        raise CorpusError(f"{where}: field {field!r} is {type(value).__name__}, it must be {wanted}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(f"{where}: field {field!r} is no valid text: {error.reason}") from error


def check_json(where: str, row: Any) -> None:
    """Check that a row is an object that can be written as a line of JSON.

    Raises:
        CorpusError: It is not, naming position and field.
    """
    _check_object(where, row)
    for field, value in row.items():
        try:
            json.dumps({field: value}, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as error:
            raise CorpusError(f"{where}: field {field!r} is no valid text: {error.reason}") from error
        except ValueError as error:
            said = f"{where}: field {field!r} holds NaN or an infinite number, which JSON does not have; write null"
            raise CorpusError(said) from error
        except (TypeError, RecursionError) as error:
            raise CorpusError(f"{where}: field {field!r} cannot be written as JSON; leave it out") from error


def _check_object(where: str, row: Any) -> None:
    if not isinstance(row, Mapping):
        raise CorpusError(f"{where}: is a {type(row).__name__}, a row is an object like {{'output': 'text'}}")


def _raw_rows(
    file: Path,
    columns: Collection[str] | None,
    needed: Mapping[str, str],
    output_field: str,
    longest: int,
    tell: Callable[[int], None],
) -> Iterator[tuple[str, Any]]:
    compression = file.suffix.lower() if file.suffix.lower() in (".gz", ".zst") else ""
    suffix = (file.with_suffix("") if compression else file).suffix.lower()
    if suffix == ".parquet" and not compression:
        yield from _parquet(file, columns, needed, longest, tell)
        return
    if suffix not in JSON_LINES + TEXT:
        known = ", ".join([*JSON_LINES, ".txt (each also with .gz or .zst)", ".parquet"])
        raise CorpusError(f"{file}: files like {suffix!r} are not read; give one of {known}")
    is_json = suffix in JSON_LINES
    with file.open("rb") as raw:
        for number, line in enumerate(_lines(file, raw, compression, is_json, longest, tell), 1):
            where = f"{file}:{number}"
            if len(line) > longest:
                raise CorpusError(f"{where}: the line is longer than {longest:,} bytes, the limit; {_RAISE_LIMIT}")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                said = f"{where}: is not UTF-8: {error.reason} at byte {error.start + 1}; save the file as UTF-8"
                raise CorpusError(said) from error
            if text.strip():
                yield where, _parsed(where, text) if is_json else {output_field: text}


def _lines(
    file: Path, raw: IO[bytes], compression: str, is_json: bool, longest: int, tell: Callable[[int], None]
) -> Iterator[bytes]:
    """Yield lines without their ends; of a line with more than `longest` bytes only a part, which is longer too."""
    decompressed: Iterator[bytes] = {"": _plain, ".gz": _gunzipped, ".zst": _unzstandard}[compression](raw)
    parts: list[bytes] = []  # of a line that goes on
    size = told = 0
    begun = False
    try:
        for chunk in decompressed:
            if told != (told := raw.tell()):
                tell(told)
            if is_json and not begun and (head := chunk.lstrip(_BLANK)):
                begun = True
                if head.startswith(b"["):  # said now: it may be one line of any length
                    raise CorpusError(f"{file}: begins an array; write one object per line, as jq -c '.[]' does")
            *lines, tail = chunk.split(b"\n")
            if lines:
                yield b"".join([*parts, lines[0]])
                yield from lines[1:]
                parts, size = [], 0
            parts.append(tail)
            size += len(tail)
            if size > longest:
                break
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"{file}: cannot be decompressed: {error}") from error
    if rest := b"".join(parts):
        yield rest


def _plain(raw: IO[bytes] | gzip.GzipFile | BytesIO) -> Iterator[bytes]:
    while chunk := raw.read(CHUNK):
        yield chunk


def _gunzipped(raw: IO[bytes]) -> Iterator[bytes]:
    yield from _plain(gzip.GzipFile(fileobj=raw))


def _unzstandard(raw: IO[bytes]) -> Iterator[bytes]:
    import zstandard

    decoder = None
    try:
        for chunk in _plain(raw):
            for begin in range(0, len(chunk), _ZSTD_PIECE):
                piece = chunk[begin : begin + _ZSTD_PIECE]
                while piece:  # one frame after the other
                    decoder = decoder or zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
                    yield from _plain(BytesIO(decoder.decompress(piece)))
                    piece = decoder.unused_data if decoder.eof else b""
                    decoder = None if decoder.eof else decoder
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error
    if decoder is not None:
        raise EOFError("the file is cut short")


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{where}: is not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise CorpusError(f"{where}: is JSON that cannot be read: brackets in brackets, too many levels") from error
    except ValueError as error:
        digits = sys.get_int_max_str_digits()
        raise CorpusError(f"{where}: is JSON that cannot be read: a number has over {digits} digits") from error


def _parquet(
    file: Path, columns: Collection[str] | None, needed: Mapping[str, str], longest: int, tell: Callable[[int], None]
) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError(f"reading {file.name}", "parquet") from error
    number, size = 0, file.stat().st_size
    try:
        with parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            _check_fields(str(file), schema.names, needed)
            names = [f.name for f in schema if (_fits_json(f.type) if columns is None else f.name in columns)]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise CorpusError(f"{file}: has {names.count(twice)} columns named {twice!r}; rename or remove one")
            if columns is None and len(names) < len(schema):
                left = ", ".join(f"{field.name} ({field.type})" for field in schema if field.name not in names)
                _log.warning("%s: columns that JSON cannot hold are left out: %s", file, left)
            _check_row_groups(file, table.metadata, names, longest)
            for batch in table.iter_batches(batch_size=_PARQUET_BATCH, columns=names):
                for k in range(batch.num_rows):
                    number += 1
                    where = f"{file}: row {number}"
                    yield where, {name: _value(where, name, batch.column(name)[k]) for name in names}
                tell(size * number // table.metadata.num_rows)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{file}: is no Parquet file that can be read: {error}") from error


def _check_row_groups(file: Path, metadata: Any, names: Collection[str], longest: int) -> None:
    """Check the mean size of the rows of each row group, as the file's metadata give it."""
    for k in range(metadata.num_row_groups):
        group = metadata.row_group(k)
        columns = [group.column(i) for i in range(group.num_columns)]
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] in names)
        if size > longest * max(group.num_rows, 1):
            raise CorpusError(
                f"{file}: the rows of row group {k} have {size // max(group.num_rows, 1):,} bytes on average, "
                f"more than {longest:,}, the limit; {_RAISE_LIMIT}"
            )


def _value(where: str, field: str, scalar: Any) -> Any:
    """Return a value of Arrow as a Python object."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: field {field!r} is not UTF-8: {error.reason} at byte {error.start + 1}") from error
    except (ValueError, OverflowError) as error:
        raise CorpusError(
            f"{where}: field {field!r} is {scalar.type}, which cannot be read; store it as text"
        ) from error


def _fits_json(type: Any) -> bool:
    """Whether JSON can hold the values of a type of Arrow."""
    from pyarrow import types

    if types.is_dictionary(type):
        return _fits_json(type.value_type)
    if type.num_fields:
        return all(_fits_json(type.field(k).type) for k in range(type.num_fields))
    text = types.is_string(type) or types.is_large_string(type) or types.is_string_view(type)
    return text or any(
        is_kind(type) for is_kind in (types.is_boolean, types.is_integer, types.is_floating, types.is_null)
    )
