"""Generated tasks of very different kinds, on which the general mixture weights are fitted.

Each is a function of (random, kit) that gives one row {input, output}; the kit holds what is drawn once per task
(names, tables, phrases), so that two seeds make two different tasks of the same kind.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Row = dict[str, str]
Kit = dict[str, Any]
_SYLLABLES = [
    "ka",
    "lo",
    "mi",
    "ren",
    "tor",
    "vas",
    "del",
    "pin",
    "gra",
    "sho",
    "ul",
    "ter",
    "bon",
    "fi",
    "nex",
    "qua",
    "ri",
    "sta",
    "von",
    "zel",
    "har",
    "mon",
    "dy",
    "pre",
    "sil",
    "ta",
    "cor",
    "ble",
]
_VERBS = [
    "book",
    "move",
    "cancel",
    "list",
    "send",
    "open",
    "close",
    "pay",
    "check",
    "find",
    "update",
    "share",
    "print",
    "track",
    "refund",
    "order",
]
_NOUNS = [
    "flight",
    "room",
    "invoice",
    "ticket",
    "parcel",
    "meeting",
    "report",
    "account",
    "table",
    "car",
    "lamp",
    "song",
    "note",
    "server",
    "refund",
    "seat",
]
_GLUE = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "on",
    "with",
    "as",
    "by",
    "at",
    "from",
    "it",
    "an",
    "be",
    "this",
    "which",
    "or",
    "are",
    "was",
    "not",
    "but",
    "have",
]


def _word(r: random.Random, parts: int = 2) -> str:
    return "".join(r.choice(_SYLLABLES) for _ in range(r.randint(1, parts)))


def _zipf(r: random.Random, items: list[Any]) -> Any:
    return items[min(int(len(items) ** r.random()) - 1 + (r.random() < 0.1), len(items) - 1)]


def _kit(r: random.Random) -> Kit:
    slots = ["_".join(r.sample(_NOUNS, 2)) for _ in range(14)]
    return {
        "names": [_word(r, 3).title() for _ in range(400)],
        "cities": [_word(r, 3).title() for _ in range(90)],
        "slots": slots,
        "intents": {i: r.sample(slots, r.randint(1, 5)) for i in {f"{r.choice(_VERBS)}_{n}" for n in _NOUNS}},
        "tables": {t: [_word(r, 2) for _ in range(7)] for t in r.sample(_NOUNS, 6)},
        "phrases": [" ".join(r.choice(_GLUE + _NOUNS + _VERBS) for _ in range(r.randint(4, 11))) for _ in range(60)],
        "vocabulary": [_word(r, 3) for _ in range(3000)],
        "components": [f"{_word(r)}.{_word(r)}" for _ in range(30)],
    }


def _value(r: random.Random, kit: Kit, slot: str) -> str:
    kind = sum(map(ord, slot)) % 5
    if kind == 0:
        return str(r.randint(1, 2000))
    if kind == 1:
        return f"{r.randint(1, 12)}:{r.choice(['00', '15', '30', '45'])} {r.choice(['am', 'pm'])}"
    return str(_zipf(r, kit["cities"] if kind < 4 else kit["names"])) + (f" {_word(r)}" if r.random() < 0.2 else "")


def slots(r: random.Random, kit: Kit) -> Row:
    """Slot filling: utterance → JSON."""
    intent = _zipf(r, sorted(kit["intents"]))
    found = {s: _value(r, kit, s) for s in kit["intents"][intent] if r.random() < 0.6}
    words = " ".join(f"{s.replace('_', ' ')} {v}" for s, v in r.sample(sorted(found.items()), len(found)))
    return {
        "input": f"please {intent.replace('_', ' ')} {words}".lower(),
        "output": json.dumps({"intent": intent, "slots": found}).lower(),
    }


def sql(r: random.Random, kit: Kit) -> Row:
    """Question → SQL."""
    first, second = r.sample(sorted(kit["tables"]), 2)
    column, other = r.choice(kit["tables"][first]), r.choice(kit["tables"][second])
    value = _value(r, kit, column)
    head = f"SELECT DISTINCT {first.upper()}alias0.{column.upper()} FROM {first.upper()} AS {first.upper()}alias0"
    join = f" , {second.upper()} AS {second.upper()}alias0" if r.random() < 0.6 else ""
    where = f' WHERE {first.upper()}alias0.{column.upper()} = "{value}"'
    more = f" AND {second.upper()}alias0.{other.upper()} = {first.upper()}alias0.{column.upper()}" if join else ""
    order = f" ORDER BY {other.upper()} LIMIT {r.randint(1, 9)}" if r.random() < 0.2 else ""
    return {
        "input": f"which {first} has {column} {value} by {second} {other}",
        "output": head + join + where + more + order + " ;",
    }


def log(r: random.Random, kit: Kit) -> Row:
    """Log line → template JSON."""
    component, words = _zipf(r, kit["components"]), str(_zipf(r, kit["phrases"])).split()
    at = sorted(r.sample(range(len(words)), r.randint(0, 2)))
    line = [str(r.randint(0, 99999)) if k in at else w for k, w in enumerate(words)]
    template = ["<*>" if k in at else w for k, w in enumerate(words)]
    level = r.choice(["INFO", "INFO", "WARN"])
    answer = {"component": component, "level": level, "template": " ".join(template), "values": [line[k] for k in at]}
    return {"input": f"{level} {component}: {' '.join(line)}", "output": json.dumps(answer)}


def letter(r: random.Random, kit: Kit) -> Row:
    """Facts → form letter."""
    name, city, number = r.choice(kit["names"]), _zipf(r, kit["cities"]), r.randint(1000, 99999)
    body = ". ".join(str(_zipf(r, kit["phrases"])).capitalize() for _ in range(r.randint(2, 4)))
    text = f"Dear {name},\n\nthank you for your order {number} from {city}. {body}.\n\nKind regards,\n{kit['names'][0]}"
    return {"input": f"{name}; {city}; {number}", "output": text}


def command(r: random.Random, kit: Kit) -> Row:
    """Request → command line."""
    tool, path = (
        _zipf(r, kit["vocabulary"][:40]),
        "/".join(r.choice(kit["vocabulary"][:300]) for _ in range(r.randint(1, 3))),
    )
    flags = " ".join(
        f"-{r.choice('abcdefghlnprstvx')}" + (f" {r.randint(1, 64)}" if r.random() < 0.3 else "")
        for _ in range(r.randint(0, 3))
    )
    pipe = f" | {_zipf(r, kit['vocabulary'][:40])} '{r.choice(kit['vocabulary'])}'" if r.random() < 0.4 else ""
    return {"input": f"use {tool} on {path}", "output": f"{tool} {flags} /{path}{pipe}".replace("  ", " ")}


def prose(r: random.Random, kit: Kit) -> Row:
    """Question → free text with little repetition."""

    def sentence() -> str:
        words = [
            r.choice(_GLUE) if r.random() < 0.5 else str(_zipf(r, kit["vocabulary"])) for _ in range(r.randint(6, 18))
        ]
        return " ".join(words).capitalize() + "."

    numbers = [r.randint(2, 90) for _ in range(2)]
    steps = f" So {numbers[0]} * {numbers[1]} = {numbers[0] * numbers[1]}."
    return {"input": sentence(), "output": " ".join(sentence() for _ in range(r.randint(2, 5))) + steps}


KINDS: dict[str, Callable[[random.Random, Kit], Row]] = {
    f.__name__: f for f in (slots, sql, log, letter, command, prose)
}


def rows(kind: str, count: int, seed: int) -> list[Row]:
    """`count` rows of one task.

    Args:
        kind: One of `KINDS`.
        count: Number of rows.
        seed: Another seed is another task of that kind.
    """
    r = random.Random(f"{kind}/{seed}")
    kit = _kit(r)
    return [KINDS[kind](r, kit) for _ in range(count)]
