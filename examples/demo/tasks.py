"""Generated tasks of low output variability: rows to index, to measure on, and to fit default weights on.

Everything is made up here from a seed: no outside data, the same rows on every machine.

    python examples/demo/tasks.py assistant 4000 --seed 0 > rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable

import assistant

KINDS: dict[str, Callable[..., tuple[str, str]]] = {"assistant": assistant.row}
HELD_OUT = 0.1


def rows(kind: str, n: int, seed: int) -> list[dict[str, str]]:
    """Rows ``{input, output, split}`` of one task.

    The last tenth are ``test`` rows: their requests appear in no ``train`` row, and about half of their values are
    words that no ``train`` row contains.

    Args:
        kind: one of `KINDS`.
        n: how many rows.
        seed: the same seed gives the same rows. Of two numbers of rows, the longer list does not begin with the
            shorter one's test rows.

    Raises:
        ValueError: an unknown kind, or more rows than the task has different requests.
    """
    if kind not in KINDS:
        raise ValueError(f"no task {kind!r}: choose from {', '.join(KINDS)}")
    rng = random.Random(f"{kind}-{seed}")
    first_test = n - round(n * HELD_OUT)
    seen: set[str] = set()
    made: list[dict[str, str]] = []
    repeats = 0
    while len(made) < n:
        held_out = len(made) >= first_test
        request, output = KINDS[kind](rng, held_out=held_out)
        if request in seen:
            repeats += 1
            if repeats > 10 * n + 1000:
                raise ValueError(f"task {kind!r} has only {len(made)} different requests, {n} were asked for")
            continue
        seen.add(request)
        made.append({"input": request, "output": output, "split": "test" if held_out else "train"})
    return made


def main() -> None:
    """Prints rows as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for row in rows(arguments.kind, arguments.n, arguments.seed):
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
