"""The demo's task: what someone asks an office assistant for, turned into a JSON with a fixed shape per intent.

    python examples/demo/assistant.py 7000 --seed 0 > rows.jsonl

Every slot of an intent is always written, ``null`` where the request says nothing about it, as schemas for tool calls
ask for. Values are copied, or put into a normal form: times ``15:30``, days ``03-14``, sums ``45.00 EUR``. Everything
is made up from a seed: no outside data, the same rows on every machine.
"""

from __future__ import annotations

import argparse
import json
import random
import re

from grammar import expand, fill, slots_of
from intents import INTENTS
from values import Values

SYSTEM = "Turn the request into JSON."
HELD_OUT = 0.1

_OPENING = "(|||please |can you |could you |would you |I need you to |hi, please |hello, can you |hey, |go ahead and )"
_GREETING = "(||||hi, |hello, |hey, |good morning, )"
_CLOSING = "(||||| please| thanks|, thank you|, if you can)"

_STATEMENT = re.compile(r"(I|we|the|my|it|is|when|where|which|a|dinner|lunch) |(order )?\{")
_BEFORE_RELATIVE_DAY = re.compile(r"\bon (today|tomorrow|next )")


def rows(n: int, seed: int) -> list[dict[str, str]]:
    """Rows ``{input, output, split}``.

    The last tenth are ``test`` rows: their requests appear in no ``train`` row, and about half of their values are
    words that no ``train`` row contains.

    Args:
        n: how many rows.
        seed: the same n and seed give the same rows.
    """
    rng = random.Random(f"assistant-{seed}")
    first_test = n - round(n * HELD_OUT)
    seen: set[str] = set()
    made: list[dict[str, str]] = []
    while len(made) < n:
        held_out = len(made) >= first_test
        request, output = _row(rng, held_out=held_out)
        if request not in seen:
            seen.add(request)
            made.append({"input": request, "output": output, "split": "test" if held_out else "train"})
    return made


def _row(rng: random.Random, *, held_out: bool) -> tuple[str, str]:
    """A request and its JSON."""
    intent = rng.choice(INTENTS)
    values = Values(rng, held_out=held_out)
    core = expand(rng.choice(intent.phrases), rng)
    phrase = expand(_GREETING if _STATEMENT.match(core) else _OPENING, rng) + core + expand(_CLOSING, rng)
    made = {slot: intent.slots[slot](values) for slot in slots_of(phrase)}
    request = fill(phrase, {slot: said for slot, (said, _) in made.items()})
    written = {slot: made[slot][1] if slot in made else None for slot in intent.slots}
    output = {"domain": intent.domain, "intent": intent.name, "slots": written}
    return _styled(request, rng), json.dumps(output, ensure_ascii=False)


def _styled(request: str, rng: random.Random) -> str:
    """Nobody says "on tomorrow"; some start with a capital, some end with a full stop."""
    request = _BEFORE_RELATIVE_DAY.sub(r"\1", request)
    if rng.random() < 0.5:
        request = request[0].upper() + request[1:]
    return request + rng.choice(("", ".", ""))


def main() -> None:
    """Prints rows as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for row in rows(options.n, options.seed):
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
