"""Files of rows: what kind a file is, and its rows as they stand there, one at a time."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import stat
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, BytesIO
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, TypeAlias

from tasc.data.columns import arrow_rows, dataset_rows, parquet_rows
from tasc.data.forms import FIELDS, notice
from tasc.data.limits import RAISE_LIMIT
from tasc.data.request_logs import vllm_rows
from tasc.errors import CorpusError, InputError

LocatedRow: TypeAlias = tuple[str, Any]
"""(position, row): the position is `FILE:LINE`, or `FILE: row NUMBER`."""

KINDS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".text": "text",
    ".log": "log",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""Kind of a file by the end of its name; other files are sniffed."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Compression of a file of text by the end of its name."""

COLUMNAR: dict[str, Callable[..., Iterator[LocatedRow]]] = {"parquet": parquet_rows, "arrow": arrow_rows}
"""Reader of a kind of file that is read by columns."""

STDIN = ("-", "/dev/stdin")
"""Paths that stand for standard input."""

CHUNK = 1 << 18
"""Bytes read at a time."""

_COMPRESSION_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_COLUMNAR_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow"}
_ZSTD_PIECE = 1 << 8  # bytes; zstd makes up to 32768 bytes of one, so 8 MiB of a piece
_ZSTD_WINDOW = 1 << 27  # bytes; what `zstd -d` takes without --long
_DECODER = json.JSONDecoder()
_LONGEST_LITERAL = 12  # characters; a value that is cut within so many of its end may go on
_BLANK = b" \t\r\n\xef\xbb\xbf"  # and the bytes of a BOM
_OBJECT, _ARRAY = re.compile(rb'\{\s*["}]'), re.compile(rb"\[\s*[{\]]")


def is_stdin(path: str | Path) -> bool:
    """Return whether a path stands for standard input."""
    return str(path) in STDIN


def rows_of(
    file: Path,
    columns: Collection[str] | None,
    needed: Mapping[str, str],
    output_field: str,
    longest: int,
    tell: Callable[[int], None],
) -> Iterator[LocatedRow]:
    """Yield the rows of a file, of a folder of `datasets`, or of standard input.

    Args:
        file: The path; `-` is standard input.
        columns: Columns that are read of files with columns of their own; None: all that JSON can hold.
        needed: Columns that such files must have, and the options that name them.
        output_field: Name of the field that a line of text becomes.
        longest: Most bytes of a row.
        tell: Called with the number of bytes read.

    Raises:
        CorpusError: What is no row, naming file and line.
        MissingExtraError: Parquet or Arrow without `tasc-lm[parquet]`.
    """
    if file.is_dir():
        yield from dataset_rows(file, columns, needed, longest, tell)
        return
    compression = COMPRESSIONS.get(file.suffix.lower(), "")
    suffix = (file.with_suffix("") if compression else file).suffix.lower()
    with _opened(file) as raw:
        head = raw.peek(16)
        kind = KINDS.get(suffix) or _by_magic(head, {} if compression else _COLUMNAR_MAGIC)
        if kind in COLUMNAR:
            if compression or not raw.seekable() or is_stdin(file):
                raise CorpusError(f"{file}: {kind} is read from a file that is not compressed; write it to one")
            yield from COLUMNAR[kind](file, columns, needed, longest, tell)
            return
        compression = compression or _by_magic(head, _COMPRESSION_MAGIC)
        name = "stdin" if is_stdin(file) else str(file)
        chunks = _decompressed(name, raw, compression, tell)
        head, chunks = _peeked(chunks)
        kind = _sniffed(head) or "log" if kind == "log" else kind
        kind = kind or _sniffed(head) or ("text" if suffix == "" or is_stdin(file) else "")
        if not kind:
            known = ", ".join(KINDS)
            raise CorpusError(f"{file}: files like {suffix!r} are not read; give one of {known} (.gz, .zst)")
        if kind == "json" and head.lstrip(_BLANK).startswith(b"["):
            kind = "array"
        yield from TEXTUAL[kind](name, chunks, output_field, longest)


@contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    """Open a file or standard input, which stays open."""
    if is_stdin(file):
        with open(sys.stdin.fileno(), "rb", closefd=False) as raw:
            yield raw
        return
    if stat.S_ISFIFO(file.stat().st_mode) and not str(file).startswith(("/dev/", "/proc/")):
        raise InputError(f"{file} is a named pipe, which may never have a writer; give its content as -: … - < {file}")
    with file.open("rb") as raw:
        yield raw


def _by_magic(head: bytes, magic: Mapping[bytes, str]) -> str:
    return next((kind for start, kind in magic.items() if head.startswith(start)), "")


def _peeked(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the beginning up to a line that is not blank, at least, and all chunks."""
    head = b""
    for chunk in chunks:
        head += chunk
        if b"\n" in head.lstrip(_BLANK) or len(head) >= CHUNK:
            break
    return head, chain([head] if head else [], chunks)


def _sniffed(head: bytes) -> str:
    """Return the kind of text by its beginning: json, csv or tsv; nothing if it is none of these."""
    head = head.lstrip(_BLANK)
    if _OBJECT.match(head) or _ARRAY.match(head):
        return "json"
    line = head.split(b"\n", 1)[0].decode(errors="replace")
    delimiter = _delimiter(line)
    names = [name.strip().strip('"') for name in line.split(delimiter)]
    return ("tsv" if delimiter == "\t" else "csv") if len(names) > 1 and FIELDS.intersection(names) else ""


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _json_rows(name: str, chunks: Iterator[bytes], output_field: str, longest: int) -> Iterator[LocatedRow]:
    for where, line in _texts(name, chunks, longest):
        yield where, _parsed(where, line)


def _text_rows(name: str, chunks: Iterator[bytes], output_field: str, longest: int) -> Iterator[LocatedRow]:
    for k, (where, line) in enumerate(_texts(name, chunks, longest)):
        if k == 0 and _OBJECT.match(line.lstrip().encode()):
            notice(f"{name}: is text, so each line is an output, though it begins with JSON; name it .jsonl")
        yield where, {output_field: line}


def _log_rows(name: str, chunks: Iterator[bytes], output_field: str, longest: int) -> Iterator[LocatedRow]:
    rows = vllm_rows(_texts(name, chunks, longest))
    if (first := next(rows, None)) is None:
        raise CorpusError(
            f"{name}: is a log without responses of vLLM; start its server with --enable-log-requests "
            "--enable-log-outputs and the log level DEBUG, or give JSON lines"
        )
    yield from chain([first], rows)


def _texts(name: str, chunks: Iterator[bytes], longest: int) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not blank, with their positions."""
    for number, line in enumerate(_lines(chunks, longest), 1):
        where = f"{name}:{number}"
        _check_length(where, "the line", len(line), longest)
        text = _decoded(where, line, number == 1).rstrip("\r\n")
        if text.strip():
            yield where, text


def _table_rows(
    name: str, chunks: Iterator[bytes], output_field: str, longest: int, delimiter: str | None = None
) -> Iterator[LocatedRow]:
    """Yield the rows of a table whose first line names the columns; a quoted value may have several lines."""
    number, size = 0, 0  # of the lines so far, of the row so far

    def lines() -> Iterator[str]:
        nonlocal number, size
        for number, line in enumerate(_lines(chunks, longest), 1):
            size += len(line) + 1
            _check_length(f"{name}:{number}", "the row", size - 1, longest)
            yield _decoded(f"{name}:{number}", line, number == 1) + "\n"

    source = lines()
    header = next((line for line in source if line.strip()), "")
    reader = csv.reader(chain([header], source), delimiter=delimiter or _delimiter(header), strict=True)
    names: list[str] = []
    while True:
        begin, size = number + 1, 0
        try:
            with _field_limit(longest):
                row = next(reader, None)
        except csv.Error as error:
            raise CorpusError(f"{name}:{number}: is no row of a table: {error}") from error
        if row is None:
            return
        if not names and not row:  # an empty file
            continue
        if not names:
            names = [column.strip() for column in row]
            twice, times = max(Counter(names).items(), key=itemgetter(1))
            if times > 1:
                raise CorpusError(f"{name}:{number}: has {times} columns named {twice!r}; rename one")
        elif row:
            if len(row) != len(names):
                raise CorpusError(f"{name}:{begin}: has {len(row)} values, but the table has {len(names)} columns")
            yield f"{name}:{begin}", dict(zip(names, row, strict=True))


@contextmanager
def _field_limit(longest: int) -> Iterator[None]:
    """Let the `csv` package read long values; its own limit holds for the whole process."""
    before = csv.field_size_limit(min(longest, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _array_rows(name: str, chunks: Iterator[bytes], output_field: str, longest: int) -> Iterator[LocatedRow]:
    """Yield the elements of a JSON array; the present one is in memory, and a chunk."""
    text = _Text(name, chunks)
    text.skip("[")
    for number in count(1):
        where = f"{name}: row {number}"
        if text.next() == "]" and number == 1:
            break
        yield where, text.value(where, longest)
        if text.next() == "]":
            break
        text.skip(",")
    text.skip("]")
    if rest := text.next():
        raise CorpusError(f"{name}: goes on with {rest!r} after the end of the array; remove what is there")


class _Text:
    """Text of JSON, decoded piece by piece."""

    def __init__(self, name: str, chunks: Iterator[bytes]) -> None:
        self._name, self._chunks = name, chunks
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._rest, self._at, self._ended = "", 0, False

    def _more(self) -> bool:
        """Read another chunk; return whether there was one."""
        if self._ended:
            return False
        chunk = next(self._chunks, None)
        self._ended = chunk is None
        try:
            self._rest = self._rest[self._at :] + self._decoder.decode(chunk or b"", final=self._ended)
        except UnicodeDecodeError as error:
            raise CorpusError(f"{self._name}: is not UTF-8: {error.reason}; save the file as UTF-8") from error
        self._at = 0
        return not self._ended

    def next(self) -> str:
        """Return the next character that is not blank, and stay before it; "" at the end."""
        while True:
            while self._at < len(self._rest):
                if self._rest[self._at] not in " \t\r\n":
                    return self._rest[self._at]
                self._at += 1
            if not self._more():
                return ""

    def skip(self, character: str) -> None:
        """Pass over a character.

        Raises:
            CorpusError: Another one is there.
        """
        if (found := self.next()) != character:
            what = repr(found) if found else "the end of the file"
            raise CorpusError(f"{self._name}: is no array of JSON: {what} stands where {character!r} must be")
        self._at += 1

    def value(self, where: str, longest: int) -> Any:
        """Return the next value; it is parsed again whenever what is read of it has doubled."""
        while True:
            try:
                with _named_errors(where):
                    value, end = _DECODER.raw_decode(self._rest, self._at)
            except json.JSONDecodeError as error:
                size, column = len(self._rest) - self._at, error.pos - self._at + 1
                goes_on = error.msg.startswith("Unterminated") or error.pos > len(self._rest) - _LONGEST_LITERAL
                _check_length(where, "the row", size if goes_on else 0, longest)
                if not (goes_on and self._more()):
                    raise CorpusError(f"{where}: is not JSON: {_fault(error)} at its character {column}") from error
                while len(self._rest) < 2 * size and self._more():
                    pass
                continue
            _check_length(where, "the row", end - self._at, longest)
            self._at = end
            return value


def _check_length(where: str, what: str, size: int, longest: int) -> None:
    if size > longest:
        raise CorpusError(f"{where}: {what} is longer than {longest:,} bytes, the limit; {RAISE_LIMIT}")


def _decoded(where: str, line: bytes, is_first: bool) -> str:
    try:
        return line.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError as error:
        said = f"{where}: is not UTF-8: {error.reason} at byte {error.start + 1}; save the file as UTF-8"
        raise CorpusError(said) from error


def _parsed(where: str, text: str) -> Any:
    try:
        with _named_errors(where):
            return json.loads(text)
    except json.JSONDecodeError as error:
        ends = error.pos >= len(text.rstrip())
        hint = "; a row must be one line, or an element of an array that the file holds" if ends else ""
        raise CorpusError(f"{where}: is not JSON: {_fault(error)} at column {error.colno}{hint}") from error


def _fault(error: json.JSONDecodeError) -> str:
    """Return what is wrong, to go before a position; some of the messages end with their own "at"."""
    return error.msg.removesuffix(" at")


@contextmanager
def _named_errors(where: str) -> Iterator[None]:
    """Name the row whose JSON cannot be read though it may be well formed."""
    try:
        yield
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise CorpusError(f"{where}: is JSON that cannot be read: brackets in brackets, too many levels") from error
    except ValueError as error:
        digits = sys.get_int_max_str_digits()
        raise CorpusError(f"{where}: is JSON that cannot be read: a number has over {digits} digits") from error


def _lines(chunks: Iterator[bytes], longest: int) -> Iterator[bytes]:
    """Yield lines without their ends; of a line with more than `longest` bytes only a part, which is longer too."""
    parts: list[bytes] = []  # of a line that goes on
    size = 0
    for chunk in chunks:
        *lines, tail = chunk.split(b"\n")
        if lines:
            yield b"".join([*parts, lines[0]])
            yield from lines[1:]
            parts, size = [], 0
        parts.append(tail)
        size += len(tail)
        if size > longest:
            break
    if rest := b"".join(parts):
        yield rest


def _decompressed(name: str, raw: BufferedReader, compression: str, tell: Callable[[int], None]) -> Iterator[bytes]:
    told = 0
    decompressed: Iterator[bytes] = {"": _plain, "gzip": _gunzipped, "zstd": _unzstandard}[compression](raw)
    try:
        for chunk in decompressed:
            if raw.seekable() and told != (told := raw.tell()):
                tell(told)
            yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"{name}: cannot be decompressed: {error}") from error


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


TEXTUAL: dict[str, Callable[[str, Iterator[bytes], str, int], Iterator[LocatedRow]]] = {
    "json": _json_rows,
    "array": _array_rows,
    "csv": _table_rows,
    "tsv": partial(_table_rows, delimiter="\t"),
    "text": _text_rows,
    "log": _log_rows,
}
"""Reader of a kind of file that is read as text."""
