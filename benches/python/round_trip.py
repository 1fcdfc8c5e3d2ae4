"""New tokens against the text they stand for, on every row: prompts keep their ids, outputs decode to the exact text.

    python benches/python/round_trip.py DATA --tokenizer MODEL [--sets NAME,...] [-k 500] [-o OUT.json]
    python benches/python/round_trip.py --smoke

A plan is learnt on each set's train rows and put into the tokenizer. Then, for every row of every split: the ids of
input and output are those of the tokenizer as it was; the output with new tokens expands to these ids again and decodes
to the text that they decode to, at once and as a stream. What is counted are rows where all of that holds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from draft_quality import SETS
from ratios import Ratio, report
from smoke_task import write_rows, write_tokenizer
from tokenizers.decoders import DecodeStream

from tasc import extend_tokenizer, learn_vocabulary
from tasc.data import Row, TaskTokenizer, load_tokenizer, read_rows


@dataclass
class Found:
    """Results of one set."""

    new_tokens: int
    rows: int = 0
    exact: int = 0
    """Rows where all holds."""
    before: int = 0
    """Tokens of the outputs."""
    after: int = 0
    """Tokens of the outputs, with new tokens."""


def measure(data: Path, base: TaskTokenizer, size: int) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        plan = learn_vocabulary(data, base, Path(folder) / "task.plan", size=size, split="train")
        extended = extend_tokenizer(base, plan)
        found = Found(len(plan))
        for rows in batches(read_rows(data)):
            compare(base, extended, rows, found)
    return found


def compare(base: TaskTokenizer, extended: TaskTokenizer, rows: Sequence[Row], found: Found) -> None:
    assert extended.plan is not None
    outputs, inputs = [row["output"] for row in rows], [row.get("input") or "" for row in rows]
    old, new = base.encode_batch(outputs), extended.encode_outputs(outputs)
    checks = zip(
        zip(old, extended.encode_batch(outputs), strict=True),
        zip(base.encode_batch(inputs), extended.encode_batch(inputs), strict=True),
        ((ids, back.tolist()) for ids, back in zip(old, extended.plan.expand_batch(new), strict=True)),
        ((base.decode(ids), extended.decode(said)) for ids, said in zip(old, new, strict=True)),
        ((streamed(base, ids), streamed(extended, said)) for ids, said in zip(old, new, strict=True)),
        strict=True,
    )
    found.rows += len(rows)
    found.exact += sum(all(one == other for one, other in pairs) for pairs in checks)
    found.before += sum(map(len, old))
    found.after += sum(map(len, new))


def streamed(task: TaskTokenizer, ids: list[int]) -> str:
    stream = DecodeStream(skip_special_tokens=True)
    return "".join(stream.step(task.tokenizer, i) or "" for i in ids)


def batches(rows: Iterator[Row], size: int = 2000) -> Iterator[list[Row]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of NAME.jsonl.gz files")
    parser.add_argument("--tokenizer", help="folder, tokenizer.json or hub name")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("-k", "--size", type=int, default=500)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny generated task")
    options = parser.parse_args()
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            data = write_rows(Path(folder))
            found = {"slots": measure(data, load_tokenizer(write_tokenizer(Path(folder), data)), 50)}
    elif options.data is None or options.tokenizer is None:
        parser.error("give DATA_FOLDER and --tokenizer, or --smoke")
    else:
        base = load_tokenizer(options.tokenizer)
        found = {n: measure(options.data / f"{n}.jsonl.gz", base, options.size) for n in options.sets.split(",")}
    ratios = [
        Ratio(f"{name}, {f.new_tokens} new tokens: rows where all holds", f.exact, "all rows", f.rows, least=1.0)
        for name, f in found.items()
    ]
    report("Round trip", ratios, options.output, sets={name: asdict(f) for name, f in found.items()})


if __name__ == "__main__":
    main()
