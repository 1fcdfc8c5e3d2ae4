"""Checks of arguments. An error names the argument, its value and what it must be."""

from __future__ import annotations

import operator
import reprlib
import textwrap
from typing import Any

from tasc.errors import InputError


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


def wrong(name: str, value: Any, allowed: str) -> InputError:
    """Make the error of an argument that is not what it must be; long values are cut."""
    return InputError(f"{name} is {textwrap.shorten(reprlib.repr(value), 80, placeholder='…')}; it must be {allowed}")
