"""The limit of the bytes of a row."""

from __future__ import annotations

import os
import sys

from tasc.checks import whole_number
from tasc.errors import InputError

MAX_LINE_BYTES = 1 << 24
"""Most bytes of a line, unless told otherwise. A line of JSON takes up to about 30 times its bytes in memory."""

VARIABLE = "TASC_MAX_LINE_BYTES"
"""Environment variable that sets another limit, for all commands."""

RAISE_LIMIT = f"shorten the row, or set {VARIABLE} (in Python also max_line_bytes) to a larger number of bytes"
"""What to do about a row that is too long."""


def line_limit(given: int | None) -> int:
    """Return the most bytes of a line: a given number, or that of the environment, or `MAX_LINE_BYTES`.

    Raises:
        InputError: It is no number of bytes from 1.
    """
    if given is not None:
        return whole_number("max_line_bytes", given, 1)
    told = os.environ.get(VARIABLE) or str(MAX_LINE_BYTES)
    if not (told.isascii() and told.isdecimal() and 1 <= int(told) <= sys.maxsize):
        raise InputError(f"{VARIABLE} is {told!r}; it must be a number of bytes from 1, such as {MAX_LINE_BYTES}")
    return int(told)
