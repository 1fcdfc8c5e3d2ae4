"""Time of drafts that know their input: per drafted token from Rust, start of a request from Python, and of the fit.

    python benches/python/input_latency.py DATA.jsonl.gz --tokenizer T [--grow 10000000] [-o OUT.json]
    python benches/python/input_latency.py --smoke

DATA has rows {input, output, split}. With --grow the `train` rows are repeated, each time with other words in the places
of those that inputs and outputs share, until the outputs have so many tokens. From Rust one core replays the `test` rows
(`cargo run --release -p tasc-benches --bin input_latency`).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ratios import Ratio, percentiles, report

from tasc import NgramDrafter, TaskIndex
from tasc.data import Row, TaskTokenizer, TokenStore, load_tokenizer, read_rows

WORD = re.compile(r"[^\W\d_]+")
PER_TOKEN = re.compile(r"per drafted token: p50 ([\d.]+) µs, p90 [\d.]+, p99 ([\d.]+)")


def grown(rows: list[Row], tokenizer: TaskTokenizer, tokens: int) -> Iterator[Row]:
    """The rows, then the same with other shared words, until the outputs have so many tokens."""
    shared = sorted({w for row in rows for w in set(WORD.findall(row["input"])) & set(WORD.findall(row["output"]))})
    size = sum(map(len, tokenizer.encode_batch([row["output"] for row in rows]))) + len(rows)
    for copy in range(max(1, -(-tokens // size))):
        others = shared.copy()
        if copy:
            random.Random(copy).shuffle(others)
        other = dict(zip(shared, others, strict=True))

        def change(text: str, other: dict[str, str] = other) -> str:
            return WORD.sub(lambda m: other.get(m[0], m[0]), text)

        yield from ({"input": change(row["input"]), "output": change(row["output"])} for row in rows)


def from_rust(index: Path, held_out: Path) -> tuple[float, float]:
    """Microseconds per drafted token, p50 and p99."""
    command = ["cargo", "run", "--release", "--quiet", "-p", "tasc-benches", "--bin", "input_latency", "--"]
    done = subprocess.run([*command, str(index), str(held_out)], check=True, capture_output=True, text=True)
    print(done.stdout, end="")
    found = PER_TOKEN.search(done.stdout)
    assert found is not None
    return float(found[1]), float(found[2])


def starts(drafter: NgramDrafter, rows: list[Row], tokenizer: TaskTokenizer) -> list[float]:
    """Nanoseconds that the start of each row's request takes."""
    prompts = [tokenizer.encode(row["input"] + "\n") for row in rows]
    taken = []
    for prompt, row in zip(prompts, rows, strict=True):
        begin = time.perf_counter_ns()
        drafter.start(prompt, row["input"])
        taken.append(float(time.perf_counter_ns() - begin))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tokenizer", help="folder, tokenizer.json or hub name")
    parser.add_argument("--grow", type=int, default=0, metavar="TOKENS")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny generated task")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.smoke:
            from smoke_task import write_rows, write_tokenizer

            options.data = write_rows(folder)
            options.tokenizer = write_tokenizer(folder, options.data)
        if options.data is None or options.tokenizer is None:
            parser.error("give DATA and --tokenizer, or --smoke")
        tokenizer = load_tokenizer(options.tokenizer)
        rows = list(read_rows([options.data]))
        train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
        store = TokenStore.build(grown(train, tokenizer, options.grow), tokenizer, folder / "rows.store")
        begin = time.perf_counter()
        TaskIndex.build(store, folder / "plain.tasc", tokenizer=tokenizer, fit=False)
        unfitted = time.perf_counter() - begin
        index = TaskIndex.build(store, folder / "task.tasc", tokenizer=tokenizer)
        fitting = time.perf_counter() - begin - 2 * unfitted
        TokenStore.build(test, tokenizer, folder / "test.store")
        p50, p99 = from_rust(folder / "task.tasc", folder / "test.store")
        start = percentiles(starts(NgramDrafter(index, tokenizer=tokenizer), test, tokenizer))
        goals = (None, None, None, None) if options.smoke else (2.0, 8.0, 300.0, 5.0)
        figures = [
            ("per drafted token, p50 µs", p50),
            ("per drafted token, p99 µs", p99),
            ("start of a request, p50 µs", start[0]),
            ("fit beyond building twice, s", fitting),
        ]
        ratios = [Ratio(what, ours, lower=True, limit=goal) for (what, ours), goal in zip(figures, goals, strict=True)]
        facts = json.loads(json.dumps(index.info(), default=str))
        title = f"Drafts that know their input, {facts['tokens']:,} tokens, {facts['inputs']:,} rows"
        report(title, ratios, options.output, start=start, fit=facts["fit"])


if __name__ == "__main__":
    main()
