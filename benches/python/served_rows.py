"""Online rows while a task drifts, and changing to a new index; by replay, no model.

    python benches/python/served_rows.py DATA_FOLDER --tokenizer T [--sets slu_atis,loghub] [--limit 1500]
    python benches/python/served_rows.py --smoke

The first rows of a set are indexed, the next ones are drafted for and then served, in the order of the file. Generated
tasks change halfway: to other names and phrases, or to another way of writing the same outputs.
Halfway the index takes in what was served: s of the second half for the old index, a new drafter over the
new one, and the old drafter's successor (`NgramDrafter.with_index`), which keeps the weights learnt so far.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from draft_quality import SETS
from generated_tasks import rows as generated
from ratios import Ratio, report

from tasc import NgramDrafter, TaskIndex
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer, read_rows
from tasc.data.endings import required_eos
from tasc.drafting.protocol import served_log
from tasc.evaluation.replay import ReplayResult, ReplayRow, encode_rows, replay

KINDS = ("slots", "sql", "log")
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Stream:
    """Rows to index, then rows as they come; `turn` of them stand before the task changes (real ones: their middle)."""

    name: str
    indexed: Rows
    served: Rows

    @property
    def turn(self) -> int:
        return len(self.served) // 2


def streams(data: Path | None, sets: Iterable[str], indexed: int, limit: int) -> Iterator[Stream]:
    """The real sets in the order of their files, then the generated ones."""
    for name in sets if data else ():
        assert data is not None
        rows = [row for row in read_rows([data / f"{name}.jsonl.gz"]) if row["split"] == "train"]
        yield Stream(name, rows[:indexed], rows[indexed:][:limit])
    for kind in KINDS:
        same = generated(kind, indexed + limit, seed=1)
        start, half = same[:indexed], same[indexed:][: limit // 2]
        yield Stream(f"{kind}, same", start, same[indexed:])
        yield Stream(f"{kind}, other names", start, half + generated(kind, limit - limit // 2, seed=2))
        yield Stream(f"{kind}, written otherwise", start, half + [otherwise(r) for r in same[indexed + limit // 2 :]])


def otherwise(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its output without the blanks after punctuation."""
    return {**row, "output": row["output"].replace(": ", ":").replace(", ", ",").replace("= ", "=")}


def serve(drafter: NgramDrafter, rows: Sequence[ReplayRow], cost: float) -> list[ReplayResult]:
    """Drafts for each row, then serves it."""
    results = []
    for row in rows:
        results.append(replay(drafter, [row], cost=cost))
        drafter.serve([(row.input, row.output)])
    return results


def speedup(results: Sequence[ReplayResult], cost: float) -> float:
    """s(cost) over rows together."""
    steps, tokens, drafted = (sum(getattr(r, name) for r in results) for name in ("steps", "tokens", "drafted"))
    return tokens / max(1.0, steps + cost * drafted)


def changes(stream: Stream, index: TaskIndex, tokenizer: TaskTokenizer, cost: float) -> Iterator[Ratio]:
    """s of the second half, by what drafts for it."""
    rows = encode_rows(stream.served, tokenizer, eos=required_eos(tokenizer))
    first, second = rows[: stream.turn], rows[stream.turn :]
    old = NgramDrafter(index, tokenizer=tokenizer, served=served_log(index))
    serve(old, first, cost)
    new, _ = index.compact(f"{index.path}.new", served=served_log(index), tokenizer=tokenizer)
    fresh = NgramDrafter(new, tokenizer=tokenizer)
    following = NgramDrafter(index, tokenizer=tokenizer)
    serve(following, first, cost)
    goes_on = speedup(serve(following, second, cost), cost)
    for name, drafter in (("new drafter", fresh), ("with_index", old.with_index(new))):
        yield Ratio(f"{stream.name}: {name}", speedup(serve(drafter, second, cost), cost), "old index", goes_on)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of NAME.jsonl.gz files")
    parser.add_argument("--tokenizer", help="folder, tokenizer.json or hub name")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--indexed", type=int, default=300, help="rows indexed at first")
    parser.add_argument("--limit", type=int, default=1500, help="rows served")
    parser.add_argument("--cost", type=float, default=0.02)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="generated tasks alone, tiny")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.smoke:
            from smoke_task import write_rows, write_tokenizer

            options.tokenizer = write_tokenizer(folder, write_rows(folder))
            options.data, options.indexed, options.limit = None, 40, 40
        elif options.data is None or options.tokenizer is None:
            parser.error("give DATA_FOLDER and --tokenizer, or --smoke")
        tokenizer = load_tokenizer(options.tokenizer)
        ratios: list[Ratio] = []
        for number, stream in enumerate(streams(options.data, options.sets.split(","), options.indexed, options.limit)):
            store = TokenStore.build(stream.indexed, tokenizer, folder / f"{number}.store")
            index = TaskIndex.build(store, folder / f"{number}.tasc", tokenizer=tokenizer)
            ratios += changes(stream, index, tokenizer, options.cost)
        report("Served rows", ratios, options.output)


if __name__ == "__main__":
    main()
