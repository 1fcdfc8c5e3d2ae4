"""Text for a terminal or a page: what files hold, and numbers of things."""

from __future__ import annotations

import re

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text whose control characters stand there as `\uXXXX`; tabs and line ends (`\n`) stay as they are.

    A terminal would obey them: C0 and C1 controls with the escape sequences that they begin, and the marks that turn
    the direction of writing. Lone surrogates cannot be written at all. A JSON document stays the same value.

    Examples:
        >>> printable("\x1b[2Jred \u202etxt")
        '\\u001b[2Jred \\u202etxt'
    """
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one.

    Examples:
        >>> counted(1, "row"), counted(1200, "row")
        ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def a_type(value: object) -> str:
    """Return the name of a value's type with its article.

    Examples:
        >>> a_type(3), a_type("x")
        ('an int', 'a str')
    """
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
