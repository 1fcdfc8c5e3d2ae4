"""Rows of Python objects: DataFrames, datasets and tables of Arrow, lists of dicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasc.checks import wrong


def object_rows(source: Any) -> Iterator[tuple[str, Any]]:
    """Yield the rows of an object, each with its position, `row NUMBER` from 0.

    Args:
        source: A DataFrame of pandas or Polars, a `datasets.Dataset`, a `DatasetDict` (each row gets its `split`), a
            table of Arrow, or any iterable of dicts.

    Raises:
        InputError: It is none of these.
    """
    for number, row in enumerate(_rows(source)):
        yield f"row {number}", row


def _rows(source: Any) -> Any:
    if isinstance(source, Mapping) and all(hasattr(part, "column_names") for part in source.values()):
        return ({"split": split, **row} for split, part in source.items() for row in _rows(part))
    if hasattr(source, "itertuples"):  # pandas
        names = list(source.columns)
        tuples = source.itertuples(index=False, name=None)
        return ({name: _plain(value) for name, value in zip(names, values, strict=True)} for values in tuples)
    if hasattr(source, "iter_rows"):  # Polars
        return iter(source.iter_rows(named=True))
    if hasattr(source, "to_batches"):  # Arrow
        return (row for batch in source.to_batches(max_chunksize=16) for row in batch.to_pylist())
    if not isinstance(source, Iterable) or isinstance(source, str | bytes | Mapping):
        raise wrong("rows", source, "files, or rows like {'output': 'text'}")
    return source


def _plain(value: Any) -> Any:
    """Return a value of a DataFrame as Python has it: NaN stands for null there."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.tolist() if hasattr(value, "tolist") else value
