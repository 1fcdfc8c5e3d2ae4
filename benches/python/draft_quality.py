"""Draft quality against SuffixDecoding at its best factor, by replay of held-out rows; no model.

    python benches/python/draft_quality.py DATA_FOLDER --tokenizer T [--k 16] [--cost 0.02] [-o OUT.json]
    python benches/python/draft_quality.py DATA_FOLDER --tokenizer T --k 64
    python benches/python/draft_quality.py DATA_FOLDER --tokenizer T --outputs-only
    python benches/python/draft_quality.py DATA_FOLDER --tokenizer T --sets slu_atis --train-rows 100
    python benches/python/draft_quality.py --smoke

DATA_FOLDER holds NAME.jsonl.gz files of rows {input, output, split}. With --outputs-only the index sees no inputs. With
--train-rows tasc indexes so many rows, drawn at random, and SuffixDecoding all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from pathlib import Path

from ratios import Ratio, report

from tasc.cli.console import progress_bars
from tasc.data import TaskTokenizer, load_tokenizer, read_rows
from tasc.evaluation.replay import ReplayResult, encode_rows, replay
from tasc.evaluation.replay_comparison import best_suffix, families_here, make_drafters, open_task

SETS = ("slu_atis", "t2s_atis", "loghub", "nl2bash", "gsm8k")
REPEATING = SETS[:3]

LEAST = {
    16: {"slu_atis": 1.65, "t2s_atis": 1.30, "loghub": 1.79, "nl2bash": 1.34, "gsm8k": 1.10},
    64: {"slu_atis": 2.0, "t2s_atis": 1.35, "loghub": 3.0},
}
"""Required ratio of s(cost) over SuffixDecoding, by the most tokens drafted."""

LEAST_OUTPUTS_ONLY = 1.15
"""Required geometric mean over `REPEATING` if the index has seen no inputs."""

LEAST_FEW_ROWS = 1.15
"""Required ratio of a hundred rows over SuffixDecoding with all of them."""


def measure(
    path: Path,
    tokenizer: TaskTokenizer,
    names: list[str],
    k: int,
    cost: float,
    limit: int | None,
    *,
    inputs: bool = True,
    train_rows: int | None = None,
) -> list[ReplayResult]:
    """Every drafter's replay of one set."""
    with progress_bars() as bar, open_task(path, tokenizer, limit=limit, inputs=inputs, progress=bar) as task:
        rows = encode_rows(task.held_out, tokenizer, eos=task.eos)
        peers = [name for name in names if train_rows is None or name != "tasc"]
        results = [
            replay(d, rows, max_tokens=k, cost=cost, progress=bar(d.name)) for d in make_drafters(peers, task, k)
        ]
    if train_rows is not None:
        with tempfile.TemporaryDirectory() as folder, progress_bars() as bar:
            few = fewer_rows(path, train_rows, Path(folder))
            with open_task(few, tokenizer, limit=limit, inputs=inputs, progress=bar) as task:
                results += [replay(d, rows, max_tokens=k, cost=cost) for d in make_drafters(["tasc"], task, k)]
    best = best_suffix(results)
    return results + ([best] if best else [])


def fewer_rows(path: Path, count: int, folder: Path) -> Path:
    """A file with so many of the `train` rows, drawn with a fixed seed, and all others."""
    rows = list(read_rows([path]))
    train = [row for row in rows if row["split"] == "train"]
    random.Random(5).shuffle(train)
    file = folder / path.name.removesuffix(".gz")
    kept = train[:count] + [row for row in rows if row["split"] != "train"]
    file.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return file


def compare(name: str, results: list[ReplayResult], peer: str, least: float | None) -> Ratio:
    """s of tasc over s of the peer on one set."""
    found = {r.name: r.speedup for r in results}
    return Ratio(f"{name}: s({results[0].cost:g})", found["tasc"], peer, found.get(peer), least=least)


def least(name: str, options: argparse.Namespace) -> float | None:
    """Required ratios of a set in this run."""
    if options.outputs_only:
        return None if name in REPEATING else 1.0
    if options.train_rows is not None:
        return LEAST_FEW_ROWS if options.train_rows == 100 and name == "slu_atis" else None
    return LEAST.get(options.k, {}).get(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of NAME.jsonl.gz files")
    parser.add_argument("--tokenizer", help="folder, tokenizer.json or hub name")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--cost", type=float, default=0.02)
    parser.add_argument("--limit", type=int, help="held-out rows per set")
    parser.add_argument("--outputs-only", action="store_true", help="index no inputs")
    parser.add_argument("--train-rows", type=int, help="rows that tasc indexes; SuffixDecoding has all of them")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny generated task against prompt lookup")
    options = parser.parse_args()
    if options.smoke:
        smoke(options.output)
        return
    if options.data is None or options.tokenizer is None:
        parser.error("give DATA_FOLDER and --tokenizer, or --smoke")
    tokenizer = load_tokenizer(options.tokenizer)
    sets = options.sets.split(",")
    found = {
        name: measure(
            options.data / f"{name}.jsonl.gz",
            tokenizer,
            families_here(),
            options.k,
            options.cost,
            options.limit,
            inputs=not options.outputs_only,
            train_rows=options.train_rows,
        )
        for name in sets
    }
    ratios = [compare(n, r, "suffix-best", least(n, options)) for n, r in found.items()]
    known = [r for n, r in zip(sets, ratios, strict=True) if n in REPEATING and r.ratio is not None]
    if options.outputs_only and known:
        mean = math.exp(sum(math.log(r.ratio or 1.0) for r in known) / len(known))
        what = "repeating sets: geometric mean of the ratios"
        ratios.append(Ratio(what, mean, "suffix-best", 1.0, least=LEAST_OUTPUTS_ONLY))
    details = {n: {r.name: r.as_dict() for r in results} for n, results in found.items()}
    report(f"Draft quality, at most {options.k} drafted", ratios, options.output, sets=details)


def smoke(output: Path | None) -> None:
    """The whole path on a tiny task, against the peer that needs no package."""
    from smoke_task import write_rows, write_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(Path(folder))
        tokenizer = load_tokenizer(write_tokenizer(Path(folder), data))
        results = measure(data, tokenizer, ["tasc", "prompt-lookup"], 16, 0.02, None)
    report("Draft quality (smoke)", [compare("slots", results, "prompt-lookup", 1.0)], output)


if __name__ == "__main__":
    main()
