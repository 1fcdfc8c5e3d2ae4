"""Rows of a task, from files and from objects, one at a time."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from tasc.checks import function, listed
from tasc.data.columns import dataset_files
from tasc.data.files import is_stdin, rows_of
from tasc.data.forms import FIELDS, FormReader, Row, notice
from tasc.data.limits import line_limit
from tasc.data.objects import object_rows
from tasc.data.request_logs import joined
from tasc.errors import CorpusError
from tasc.printable import a_type
from tasc.progress import Progress

__all__ = ["AUTO", "Paths", "Row", "check_json", "located_rows", "read_rows", "understood_rows"]

Paths: TypeAlias = str | Path | Sequence[str | Path]

AUTO = "auto"
"""In place of the name of a field: the field is found from the fields of the rows."""


def read_rows(
    rows: Paths | Iterable[Mapping[str, Any]] | Any,
    split: str | None = None,
    *,
    output_field: str = AUTO,
    input_field: str = AUTO,
    other_fields: Sequence[str] = (),
    needs_output: bool = True,
    every_turn: bool = False,
    max_line_bytes: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Row]:
    """Rows of files or objects, in any common form, as rows with `output` and, where known, `input`.

    **Files**: JSON lines (`.jsonl`, `.ndjson`, `.json`), a JSON array (`.json`), CSV and TSV with a header, text (one
    output per line), each also compressed (`.gz`, `.zst`); Parquet, Arrow and Feather; folders that `save_to_disk` of
    `datasets` has written; `-` for standard input. A file whose name does not tell is known by its contents. Text is
    UTF-8. The present row is in memory, and of columnar files a batch of 16 rows; but lines of OpenAI's batch files
    wait for the other file's line of the same `custom_id`.

    **Forms**, by the fields of a file's first row; one line of the log says what was understood, unless the rows are
    `{input, output}`:

    - `input`, `prompt` or `question`, with `output`, `completion`, `response` or `answer`; `text` alone is an output;
    - `instruction` with `input` or `context` (Alpaca, Dolly): input is the instruction, a newline and that;
    - `messages`, `conversations` (ShareGPT), or a `prompt` of messages with its `completion`: output is the last
      assistant turn, input the last user turn before it. `messages` holds all turns up to the answer;
    - requests with their responses: logs of OpenAI's API, vLLM and LiteLLM, and OpenAI's batch files.

    Outputs that are JSON objects or lists become text as `json.dumps` writes it, with their fields in the row's order.

    Args:
        rows: A file or several, read in order; or rows: a DataFrame, a `datasets.Dataset`, a list of dicts.
        split: Only rows whose `split` equals this; None takes all. The rows of a `DatasetDict` have their split.
        output_field: Name of the field that becomes `output`; `auto` finds it, and so `input_field`.
        input_field: Name of the field that becomes `input`: text or null.
        other_fields: Names of further fields that are needed: of columnar files, only the columns that may tell the
            output and the input, `split` and these are read. Other rows have all their fields in any case.
        needs_output: Whether a row without output is an error; otherwise it has no `output`.
        every_turn: Whether each assistant turn of a chat is a row; otherwise the last one.
        max_line_bytes: Most bytes of a row; a longer one is refused. None: the environment variable
            `TASC_MAX_LINE_BYTES`, or 16 MiB without it.
        progress: Called with (bytes read, bytes in all), by compressed size.

    Yields:
        Rows with `output`, `input` where known, and the fields that are neither, as they were.

    Raises:
        CorpusError: For what is no row, or a row of another form than those before it, naming file and line; no row of
            that split, naming the splits that are there.
        InputError: An argument is of a wrong type; a named pipe, which must be given as `-`.
        MissingExtraError: Parquet or Arrow without `tasc-lm[parquet]`.
        FileNotFoundError: A path that is not there.

    Examples:
        >>> list(read_rows([{"question": "2 + 2?", "answer": "4"}]))
        [{'input': '2 + 2?', 'output': '4'}]
        >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
        >>> row = next(read_rows([{"messages": turns}]))
        >>> row["input"], row["output"], len(row["messages"])
        ('Hi', 'Hello.', 2)
    """
    listed("other_fields", other_fields, str, "a list of fields")
    fields: dict[str, Any] = {"output_field": output_field, "input_field": input_field, "needs_output": needs_output}
    function("progress", progress)
    if (paths := _paths(rows)) is None:
        located: Iterator[tuple[str, Any]] = object_rows(rows)
    else:
        columns = {*FIELDS, output_field, input_field, *other_fields}
        named = {"output_field": output_field, "input_field": input_field}
        needed = {field: option for option, field in named.items() if field not in (AUTO, "input")}
        if not needs_output:
            needed.pop(output_field, None)
        located = located_rows(
            paths, columns, needed, output_field=output_field, max_line_bytes=max_line_bytes, progress=progress
        )
    for _, row in understood_rows(located, split, every_turn=every_turn, **fields):
        yield row


def _paths(rows: Any) -> Paths | None:
    """Return the files that a source of rows names; None if it holds the rows themselves."""
    if isinstance(rows, str | PathLike):
        return [Path(rows)]
    return rows if isinstance(rows, Sequence) and rows and isinstance(rows[0], str | PathLike) else None


def located_rows(
    paths: Paths,
    columns: Collection[str] | None = None,
    needed: Mapping[str, str] = MappingProxyType({}),
    *,
    output_field: str = AUTO,
    max_line_bytes: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Any]]:
    """Rows as they stand in files, each with its position: `FILE:LINE`, or `FILE: row NUMBER`.

    Args:
        paths: As in `read_rows`.
        columns: Columns of columnar files that are read; None: all that JSON can hold.
        needed: Columns that columnar files must have, and the options that name them.
        output_field: Name of the field that a line of text becomes.
        max_line_bytes: As in `read_rows`.
        progress: As in `read_rows`.

    Raises:
        CorpusError: For a row that cannot be read, naming file and line.
        InputError: A named pipe.
        MissingExtraError: Parquet or Arrow without `tasc-lm[parquet]`.
        FileNotFoundError: A path that is not there.
    """
    longest = line_limit(max_line_bytes)
    named = [paths] if isinstance(paths, str | PathLike) else paths
    files = [Path(file) for file in listed("paths", named, (str, PathLike), "a path or a list of paths")]
    function("progress", progress)
    text_field = "output" if output_field == AUTO else output_field
    sizes = [_size(file) for file in files]
    total = sum(sizes)

    def tell(before: int, done: int) -> None:
        if progress:
            progress(before + done, total)

    for k, file in enumerate(files):
        is_empty = True
        for located in rows_of(file, columns, needed, text_field, longest, partial(tell, sum(sizes[:k]))):
            is_empty = False
            yield located
        if is_empty:
            notice(f"{file}: holds no rows")
    tell(total, 0)


def _size(file: Path) -> int:
    """Return the bytes of a file, or of the files of a dataset; 0 for standard input."""
    if is_stdin(file):
        return 0
    return sum(_size(one) for _, one in dataset_files(file)) if file.is_dir() else file.stat().st_size


def understood_rows(
    rows: Iterable[tuple[str, Any]],
    split: str | None,
    *,
    output_field: str = AUTO,
    input_field: str = AUTO,
    needs_output: bool = True,
    every_turn: bool = False,
) -> Iterator[tuple[str, Row]]:
    """Understand and check rows from any source, each given and returned as (position, row).

    Raises:
        CorpusError: As `read_rows`.
    """
    given = None if input_field == AUTO else input_field, None if output_field == AUTO else output_field
    seen: set[str] = set()
    found = False
    readers: dict[str, FormReader] = {}
    for where, row in joined(rows, needs_output):
        check_object(where, row)
        if split is not None and row.get("split") != split:
            seen.add(repr(row.get("split")) if "split" in row else "none")
            continue
        found = True
        file = where.rpartition(":")[0] or "rows"
        if file not in readers:
            readers[file] = FormReader(file, *given, needs_output, every_turn)
        for made in readers[file].rows(where, row):
            yield where, made
    if split is not None and seen and not found:
        raise CorpusError(f"no row has the split {split!r}; the splits there are: {', '.join(sorted(seen)[:10])}")


def check_json(where: str, row: Any) -> None:
    """Check that a row is an object that can be written as a line of JSON.

    Raises:
        CorpusError: It is not, naming position and field.
    """
    check_object(where, row)
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


def check_object(where: str, row: Any) -> None:
    """Check that a row is an object.

    Raises:
        CorpusError: It is not.
    """
    if not isinstance(row, Mapping):
        raise CorpusError(f"{where}: is {a_type(row)}, a row is an object like {{'output': 'text'}}")
