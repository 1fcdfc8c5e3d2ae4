"""Checks of arguments. An error names the argument, its value and what it must be."""

from __future__ import annotations

import operator
import os
import reprlib
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasc.errors import InputError
from tasc.printable import a_type


def whole_number(name: str, value: Any, least: int | None = None) -> int:
    """Return an argument as an int.

    Raises:
        InputError: It is no whole number, or below `least`.

    Examples:
        >>> whole_number("max_tokens", 2.5, 1)
        Traceback (most recent call last):
        ...
        tasc.errors.InputError: max_tokens is 2.5; it must be a whole number of at least 1
    """
    limit = "" if least is None else f" of at least {least}"
    try:
        number = operator.index(value)
    except TypeError:
        raise wrong(name, value, f"a whole number{limit}") from None
    if least is not None and number < least:
        raise InputError(f"{name} is {number}; it must be at least {least}")
    return number


def number(name: str, value: Any) -> float:
    """Return an argument as a float.

    Raises:
        InputError: It is no number.
    """
    try:
        if not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise wrong(name, value, "a number")


def path(name: str, value: Any) -> Path:
    """Return an argument as a path.

    Raises:
        InputError: It is neither text nor a path.
    """
    if isinstance(value, (str, os.PathLike)):
        return Path(value)
    raise wrong(name, value, "a path")


def listed(name: str, values: Any, kind: type | tuple[type, ...], allowed: str) -> list[Any]:
    """Return an argument as a list of items of one kind.

    Args:
        name: Name of the argument.
        values: The argument; a string or a mapping is one item, not several.
        kind: Type of the items, or several types.
        allowed: What the argument must be, in words.

    Raises:
        InputError: It is no list of such items.

    Examples:
        >>> listed("rows", [{"input": "a"}, "b"], Mapping, "rows")
        Traceback (most recent call last):
        ...
        tasc.errors.InputError: rows[1] is 'b'; it must be one of rows
    """
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, Mapping)):
        raise wrong(name, values, allowed)
    if hasattr(values, "columns"):  # the items of a DataFrame are the names of its columns
        raise InputError(f"{name} is {a_type(values)}; give {name}.to_dict('records')")
    items = list(values)
    for number, item in enumerate(items):
        if not isinstance(item, kind):
            raise wrong(f"{name}[{number}]", item, f"one of {allowed}")
    return items


def of_kind(name: str, value: Any, kind: type) -> None:
    """Check the type of an argument.

    Raises:
        InputError: It has another type.
    """
    if not isinstance(value, kind):
        raise wrong(name, value, f"of type {kind.__name__}")


def function(name: str, value: Any) -> None:
    """Check that an argument is a function or None.

    Raises:
        InputError: It is something else.
    """
    if value is not None and not callable(value):
        raise wrong(name, value, "a function")


def wrong(name: str, value: Any, allowed: str) -> InputError:
    """Make the error of an argument that is not what it must be; long values are cut."""
    return InputError(f"{name} is {textwrap.shorten(reprlib.repr(value), 80, placeholder='…')}; it must be {allowed}")
