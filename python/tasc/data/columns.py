"""Rows of files that are read by columns: Parquet, Arrow, and folders of the `datasets` package."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tasc.data.forms import Row, check_fields
from tasc.data.limits import RAISE_LIMIT
from tasc.errors import CorpusError, MissingExtraError

_log = logging.getLogger(__name__)

_BATCH = 16  # rows: one value of a dictionary may stand in all of them
_DATASET, _DATASET_DICT = "state.json", "dataset_dict.json"  # files of `save_to_disk`


def parquet_rows(
    file: Path, columns: Collection[str] | None, needed: Mapping[str, str], longest: int, tell: Callable[[int], None]
) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a Parquet file; see `tasc.data.files.rows_of`."""
    with _arrow_errors(file, "Parquet"):
        from pyarrow import parquet

        number, size = 0, file.stat().st_size
        with parquet.ParquetFile(file) as table:
            names = _names(file, table.schema_arrow, columns, needed)
            _check_row_groups(file, table.metadata, names, longest)
            for batch in table.iter_batches(batch_size=_BATCH, columns=names):
                yield from _rows(file, batch, names, number, longest)
                number += batch.num_rows
                tell(size * number // table.metadata.num_rows)


def arrow_rows(
    file: Path, columns: Collection[str] | None, needed: Mapping[str, str], longest: int, tell: Callable[[int], None]
) -> Iterator[tuple[str, Row]]:
    """Yield the rows of an Arrow file or stream (Feather is one too); see `tasc.data.files.rows_of`."""
    with _arrow_errors(file, "Arrow"):
        import pyarrow
        from pyarrow import ipc

        number = 0
        with pyarrow.memory_map(str(file)) as mapped:
            is_file = mapped.read(6) == b"ARROW1"
            mapped.seek(0)
            with ipc.open_file(mapped) if is_file else ipc.open_stream(mapped) as reader:
                names = _names(file, reader.schema, columns, needed)
                batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
                for batch in batches:
                    batch.validate(full=True)
                    for begin in range(0, batch.num_rows, _BATCH):
                        yield from _rows(file, batch.slice(begin, _BATCH), names, number + begin, longest)
                    number += batch.num_rows
                    tell(mapped.tell())


def dataset_rows(
    folder: Path, columns: Collection[str] | None, needed: Mapping[str, str], longest: int, tell: Callable[[int], None]
) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a folder that `datasets` has saved; those of a `DatasetDict` have their `split`."""
    done = 0
    for split, file in dataset_files(folder):
        for where, row in arrow_rows(file, columns, needed, longest, partial(_add, tell, done)):
            yield where, row if split is None else {"split": split, **row}
        done += file.stat().st_size


def _add(tell: Callable[[int], None], before: int, read: int) -> None:
    tell(before + read)


def dataset_files(folder: Path) -> list[tuple[str | None, Path]]:
    """Return the Arrow files of a folder of `datasets`, each with its split, if it has one.

    Raises:
        CorpusError: The folder is none of `datasets`.
    """
    if (folder / _DATASET_DICT).is_file():
        splits = _listed(folder / _DATASET_DICT, "splits")
        return [(split, file) for split in splits for _, file in dataset_files(folder / split)]
    if (folder / _DATASET).is_file():
        files = [folder / name for name in _listed(folder / _DATASET, "_data_files", "filename")]
        if (strange := next((file for file in files if not file.is_file()), None)) is not None:
            raise CorpusError(f"{strange}: is no file, though {_DATASET} names it; save the dataset again")
        return [(None, file) for file in files]
    raise CorpusError(
        f"{folder}: is a folder, and none that save_to_disk of `datasets` has written; name the files in it"
    )


def _listed(file: Path, field: str, inner: str | None = None) -> list[str]:
    """Return the names in a file of `datasets`: of files or folders beside it, each once."""
    try:
        found = json.loads(file.read_bytes())[field]
        names = [one if inner is None else one[inner] for one in found]
        beside = all(isinstance(name, str) and Path(name).name == name != ".." for name in names)
        if beside and len(set(names)) == len(names):
            return names
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise CorpusError(f"{file}: must list names under {field!r}; save the dataset again")


def _names(file: Path, schema: Any, columns: Collection[str] | None, needed: Mapping[str, str]) -> list[str]:
    """Return the names of the columns to read."""
    check_fields(str(file), schema.names, needed)
    names = [f.name for f in schema if (_fits_json(f.type) if columns is None else f.name in columns)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CorpusError(f"{file}: has {names.count(twice)} columns named {twice!r}; rename or remove one")
    if columns is None and len(names) < len(schema):
        left = ", ".join(f"{field.name} ({field.type})" for field in schema if field.name not in names)
        _log.warning("%s: columns that JSON cannot hold are left out: %s", file, left)
    return names


@contextmanager
def _arrow_errors(file: Path, kind: str) -> Iterator[None]:
    """Name the file whose reading fails."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError(f"reading {file.name}", "parquet") from error
    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{file}: is no {kind} file that can be read: {error}") from error


def _rows(file: Path, batch: Any, names: Iterable[str], before: int, longest: int) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a batch of Arrow, of which `before` rows have been read before."""
    batch = batch.select(list(names))
    is_large = batch.nbytes > longest
    sharing = [name for name in names if _shares(batch.schema.field(name).type)]
    for k in range(batch.num_rows):
        where = f"{file}: row {before + k + 1}"
        if sharing and _written_out([batch.column(name)[k] for name in sharing], longest) > longest:
            raise CorpusError(f"{where}: has more than {longest:,} bytes, the limit; {RAISE_LIMIT}")
        row = {name: _value(where, name, batch.column(name)[k]) for name in names}
        if is_large and (size := sum(map(_size, row.values()))) > longest:
            raise CorpusError(f"{where}: has {size:,} bytes, more than {longest:,}, the limit; {RAISE_LIMIT}")
        yield where, row


def _shares(type: Any, *, is_inner: bool = False) -> bool:
    """Whether a value of a type of Arrow can hold one text, or one list, in many places."""
    from pyarrow import types

    if types.is_dictionary(type) or types.is_run_end_encoded(type):
        return is_inner or _shares(type.value_type)
    views = (types.is_string_view, types.is_binary_view, types.is_list_view, types.is_large_list_view)
    inner = (type.field(k).type for k in range(type.num_fields))
    return (is_inner and any(is_view(type) for is_view in views)) or any(_shares(one, is_inner=True) for one in inner)


def _written_out(scalars: Iterable[Any], most: int) -> int:
    """Return the bytes of values of Arrow that are written out, at least 8 each; counting ends above `most`."""
    from pyarrow import types

    size = 0
    for scalar in scalars:
        type = scalar.type
        size += 8
        if not scalar.is_valid:
            pass
        elif types.is_dictionary(type) or types.is_run_end_encoded(type):
            size += _written_out([scalar.value], most - size)
        elif types.is_struct(type):
            size += _written_out(scalar.values(), most - size)
        elif type.num_fields:
            size += _written_out(scalar.values, most - size)
        elif hasattr(scalar, "as_buffer"):
            size += scalar.as_buffer().size
        if size > most:
            break
    return size


def _size(value: Any) -> int:
    """Return the bytes of the text in a value."""
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 8


def _check_row_groups(file: Path, metadata: Any, names: Collection[str], longest: int) -> None:
    """Check the mean size of the rows of each row group, as the file's metadata give it."""
    for k in range(metadata.num_row_groups):
        group = metadata.row_group(k)
        columns = [group.column(i) for i in range(group.num_columns)]
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] in names)
        if size > longest * max(group.num_rows, 1):
            raise CorpusError(
                f"{file}: the rows of row group {k} have {size // max(group.num_rows, 1):,} bytes on average, "
                f"more than {longest:,}, the limit; {RAISE_LIMIT}"
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
