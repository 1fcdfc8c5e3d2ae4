"""A small grammar of phrasings: ``(a|b|)`` is one of its alternatives, ``{slot}`` a value's place."""

from __future__ import annotations

import random
import re

_INNERMOST = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")


def expand(pattern: str, rng: random.Random) -> str:
    """Chooses among all alternatives of `pattern`, inner ones first; slots stay as they are."""
    while match := _INNERMOST.search(pattern):
        pattern = pattern[: match.start()] + rng.choice(match[1].split("|")) + pattern[match.end() :]
    return pattern


def slots_of(phrase: str) -> list[str]:
    """The slots of a phrase, each once, in the order of the text."""
    return list(dict.fromkeys(_SLOT.findall(phrase)))


def fill(phrase: str, said: dict[str, str]) -> str:
    """Puts what is said in the places of `phrase`."""
    return _SLOT.sub(lambda match: said[match[1]], phrase)
