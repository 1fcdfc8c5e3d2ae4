"""Predictors of the speed-up of drafts, beside the speed-up: what `tasc check` says from the training rows alone.

    python benches/python/predictors.py DATA_FOLDER --tokenizer T [--limit 5000] [-o OUT.json]
    python benches/python/predictors.py DATA_FOLDER --tokenizer T --sizes 0 64 128 256 500 1000 [-o OUT.json]
    python benches/python/predictors.py --smoke

DATA_FOLDER holds NAME.jsonl.gz files of rows {input, output, split}. For each, the rows of the split `train` are checked
alone; that gives the predictors and the predicted speed-ups. Then the rows of `test` are replayed on an index of `train`,
and vocabularies learned from `train` are measured on them. Kendall's τ compares the order of the sets by each predictor
with their order by speed-up: 1 or −1 if it is the same or the reverse, 0 if they have nothing to do with each other.

With --sizes, H₂ of the training outputs in a vocabulary of K new tokens stands beside the decoding steps of the test
outputs in it, for each set and K. The TASC paper has τ = −0.964 between H₂ and run time over 124 runs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tasc import learn_vocabulary
from tasc.cli.console import out, print_table, progress_bars
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer, read_rows
from tasc.evaluation.check import CheckResult, check_rows
from tasc.evaluation.check.predictors import renyi_entropy

COST = 0.02

PREDICTORS = {
    "H₂ of the tokens": "renyi",
    "H₂ with the vocabulary": "renyi_extended",
    "entropy of outputs against inputs": "relative_entropy",
    "repeated share": "repeated",
    "copied share": "copied",
    "replay: s(0.02) of drafts": "drafts",
    "replay: speed-up of the vocabulary": "vocabulary",
}
"""Key of each predictor in the figures of a set, by name."""


def kendall(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Kendall's τ-a of two orders: pairs in the same order less pairs in reverse order, divided by all pairs."""
    pairs = list(combinations(zip(xs, ys, strict=True), 2))
    return sum(sign((a - c) * (b - d)) for (a, b), (c, d) in pairs) / len(pairs)


def sign(x: float) -> int:
    return (x > 0) - (x < 0)


def speedups(result: CheckResult) -> dict[str, float]:
    """Speed-ups of drafts at the usual cost and of the recommended vocabulary alone."""
    [drafts] = [one.speedup["value"] or 1.0 for one in result.drafts if one.cost == COST]
    vocabulary = 1.0
    if result.vocabulary is not None:
        vocabulary = max(one.speedup["value"] or 1.0 for one in result.vocabulary.sizes)
    return {"drafts": drafts, "vocabulary": vocabulary}


def measure(data: Path, tokenizer: TaskTokenizer, limit: int) -> dict[str, Any]:
    """Predictors from the training rows, and the speed-ups on the test rows."""
    train = [{k: v for k, v in row.items() if k != "split"} for row in read_rows([data], "train")]
    with progress_bars() as bar:
        predicted = check_rows(train, tokenizer, limit=limit, progress=bar)
        measured = check_rows(read_rows([data]), tokenizer, limit=limit, progress=bar)
    texts = predicted.predictors
    before = {name: getattr(texts, name) for name in ("renyi", "relative_entropy", "repeated", "copied")}
    extended = texts.renyi if texts.renyi_extended is None else texts.renyi_extended
    return {**before, "renyi_extended": extended, **speedups(predicted), "measured": speedups(measured)}


def sizes_of(data: Path, tokenizer: TaskTokenizer, sizes: Sequence[int]) -> dict[str, dict[str, float]]:
    """H₂ in bits of the training outputs, with their end token and without, and mean tokens of the test outputs, by number
    of new tokens. Where outputs become a few tokens, every third or so is the end token.
    """
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        store, held_out = (
            TokenStore.build(data, tokenizer, Path(name, split), split=split, input_field=None)
            for split in ("train", "test")
        )
        train, test = ([ids for ids, times in part for _ in range(times)] for part in (store, held_out))
        for size in sizes:
            outputs, answers, learned = train, test, 0
            if size:
                plan = learn_vocabulary(store, tokenizer, Path(name, f"{size}.plan"), size=size, held_out=0.0)
                outputs, answers, learned = plan.segment_batch(train), plan.segment_batch(test), len(plan)
            if any(learned == one["new_tokens"] for one in found.values()):
                continue  # no more tokens pass the floors: the same vocabulary again
            steps = float(np.mean([len(ids) for ids in answers]))
            inner = renyi_entropy([ids[:-1] for ids in outputs])
            found[str(size)] = {
                "renyi": renyi_entropy(outputs), "renyi_inner": inner, "steps": steps, "new_tokens": learned
            }  # fmt: skip
    return found


def report_sizes(found: dict[str, dict[str, dict[str, float]]]) -> dict[str, tuple[float, float]]:
    """Print H₂ and steps by set and size, and Kendall's τ between them; return the latter."""
    table, taus = [], {}
    runs: list[tuple[float, float, float, float]] = []
    for name, sizes in found.items():
        base = next(iter(sizes.values()))["steps"]
        here = [(one["renyi"], one["renyi_inner"], one["steps"], one["steps"] / base) for one in sizes.values()]
        table += [(name, k, one["new_tokens"], *run) for (k, one), run in zip(sizes.items(), here, strict=True)]
        taus[name] = ordered(here, 2)
        runs += here
    taus["all sets, steps per output"] = ordered(runs, 2)
    taus["all sets, steps relative to K = 0"] = ordered(runs, 3)
    columns = ("set", "K", "new tokens", "H₂", "H₂ without end tokens", "steps per test output", "of K = 0")
    print_table("H₂ of the training outputs in a vocabulary of K new tokens, and decoding steps", columns, table)
    print_table(
        f"Kendall's τ with the steps, {len(runs)} runs",
        ("runs", "H₂", "H₂ without end tokens"),
        [(name, *both) for name, both in taus.items()],
    )
    return taus


def ordered(runs: Sequence[Sequence[float]], column: int) -> tuple[float, float]:
    """Kendall's τ of H₂, with end tokens and without, with a column of steps."""
    whole, inner = (kendall([run[h] for run in runs], [run[column] for run in runs]) for h in (0, 1))
    return whole, inner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tokenizer")
    parser.add_argument("--limit", type=int, default=5000, help="most rows of a set that are indexed")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of new tokens; the first is compared with")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="three tiny generated tasks")
    options = parser.parse_args()
    if options.smoke:
        found = smoke()
    elif options.data and options.tokenizer:
        tokenizer = load_tokenizer(options.tokenizer)
        files = sorted(options.data.glob("*.jsonl.gz"))
        if options.sizes:
            by_size = {file.name.split(".")[0]: sizes_of(file, tokenizer, options.sizes) for file in files}
            write(options.output, {"sizes": by_size, "kendall": report_sizes(by_size)})
            return
        found = {file.name.split(".")[0]: measure(file, tokenizer, options.limit) for file in files}
    else:
        parser.error("give DATA_FOLDER and --tokenizer, or --smoke")
    write(options.output, {"sets": found, "kendall": report(found)})


def write(output: Path | None, found: dict[str, Any]) -> None:
    """Write JSON, if a file is named."""
    if output is not None:
        output.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def report(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Print the sets and Kendall's τ of each predictor with each speed-up; return the latter."""
    keys = list(PREDICTORS.values())
    names = ("set", "H₂", "H₂ new", "entropy", "repeated", "copied", "s pred.", "v pred.", "s(0.02)", "vocab.")
    print_table(
        "Predictors from the training rows, and the speed-ups on the test rows",
        names,
        [(name, *(one[key] for key in keys), *one["measured"].values()) for name, one in found.items()],
    )
    taus: dict[str, dict[str, float]] = {}
    for name, key in PREDICTORS.items():
        known = [one for one in found.values() if one[key] is not None]
        taus[name] = {
            method: kendall([one[key] for one in known], [one["measured"][method] for one in known])
            for method in ("drafts", "vocabulary")
        }
    print_table(
        f"Kendall's τ over {len(found)} sets",
        ("predictor", "with s(0.02) of drafts", "with the vocabulary"),
        [(name, one["drafts"], one["vocabulary"]) for name, one in taus.items()],
    )
    errors = sorted(abs(one[m] / one["measured"][m] - 1) for one in found.values() for m in ("drafts", "vocabulary"))
    out.print(
        f"replay: median error {100 * errors[len(errors) // 2]:.1f} %, largest {100 * errors[-1]:.1f} %",
        highlight=False,
    )
    return taus


def smoke() -> dict[str, Any]:
    """All of it on generated tasks."""
    from smoke_task import write_rows, write_tokenizer

    assert kendall([1, 2, 3], [1, 2, 3]) == 1
    assert kendall([1, 2, 3], [3, 2, 1]) == -1
    with tempfile.TemporaryDirectory() as name:
        files = {kind: write_rows(Path(name), kind) for kind in ("slots", "sql", "log")}
        tokenizer = load_tokenizer(write_tokenizer(Path(name), files["slots"]))
        report_sizes({kind: sizes_of(file, tokenizer, [0, 8, 16]) for kind, file in files.items()})
        return {kind: measure(file, tokenizer, 5000) for kind, file in files.items()}


if __name__ == "__main__":
    main()
