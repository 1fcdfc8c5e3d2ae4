"""Draft quality against SuffixDecoding at its best factor, by replay of held-out rows; no model.

    python benches/python/draft_quality.py DATA_FOLDER --tokenizer T [--k 16] [--cost 0.02] [-o OUT.json]
    python benches/python/draft_quality.py --smoke

DATA_FOLDER holds NAME.jsonl.gz files of rows {input, output, split}. Of the sets that repeat themselves the geometric
mean of the ratios of s(cost) must reach 1.10 and none may fall below 1.05; the others must not fall below 1.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

from ratios import Ratio, report

from tasc.cli.console import progress_bars
from tasc.data import TaskTokenizer, load_tokenizer
from tasc.spec.compare import best_suffix, families_here, make_drafters, open_task
from tasc.spec.replay import ReplayResult, encode_rows, replay

REPEATING = ("slu_atis", "t2s_atis", "loghub")
CONTROLS = ("gsm8k", "nl2bash")


def measure(
    path: Path, tokenizer: TaskTokenizer, names: list[str], k: int, cost: float, limit: int | None
) -> list[ReplayResult]:
    """Every drafter's replay of one set."""
    with progress_bars() as bar, open_task(path, tokenizer, limit=limit, progress=bar) as task:
        rows = encode_rows(task.held_out, tokenizer, eos=task.eos)
        drafters = make_drafters(names, task, k)
        results = [replay(d, rows, max_tokens=k, cost=cost, progress=bar(d.name)) for d in drafters]
    best = best_suffix(results)
    return results + ([best] if best else [])


def compare(name: str, results: list[ReplayResult], peer: str, least: float | None) -> Ratio:
    """s of tasc over s of the peer on one set."""
    found = {r.name: r.speedup for r in results}
    return Ratio(f"{name}: s({results[0].cost:g})", found["tasc"], peer, found.get(peer), least=least)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of NAME.jsonl.gz files")
    parser.add_argument("--tokenizer", help="folder, tokenizer.json or hub name")
    parser.add_argument("--sets", default=",".join((*REPEATING, *CONTROLS)))
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--cost", type=float, default=0.02)
    parser.add_argument("--limit", type=int, help="held-out rows per set")
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
            options.data / f"{name}.jsonl.gz", tokenizer, families_here(), options.k, options.cost, options.limit
        )
        for name in sets
    }
    ratios = [compare(n, r, "suffix-best", 1.05 if n in REPEATING else 1.0) for n, r in found.items()]
    known = [r for n, r in zip(sets, ratios, strict=True) if n in REPEATING and r.ratio is not None]
    if known:
        mean = math.exp(sum(math.log(r.ratio or 1.0) for r in known) / len(known))
        ratios.append(Ratio("repeating sets: geometric mean of the ratios", mean, "suffix-best", 1.0, least=1.10))
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
