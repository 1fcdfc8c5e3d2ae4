"""End to end on a real model: tokens per second and request latency of every method, one run, greedy, batch 1.

    python benches/python/end_to_end.py DATA.jsonl.gz --model smollm2 --adapter FOLDER \\
        --system "Extract the intent and the slots of the request as JSON." [--limit 100] [--html OUT.html] [-o OUT.json]
    python benches/python/end_to_end.py --smoke

DATA has rows {input, output, split}: `train` is indexed, `test` asked. Methods take turns prompt by prompt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from on_model import model_arguments, parsed, subject
from ratios import Ratio, report

from tasc.cli.bench import print_methods
from tasc.cli.console import progress_bars
from tasc.data import load_tokenizer
from tasc.evaluation.bench import PLAIN, BenchOptions, bench
from tasc.evaluation.replay_comparison import open_task


def measure(model: Any, tokenizer: Any, data: Path, limit: int, options: BenchOptions) -> dict[str, Any]:
    """`tasc.evaluation.bench.bench` with progress bars."""
    with progress_bars() as bar, open_task(data, load_tokenizer(tokenizer), limit=limit, progress=bar) as task:
        return bench(model, tokenizer, task, options, progress=bar("decoding"))


def figures(results: dict[str, Any], goals: bool) -> list[Ratio]:
    """tasc against plain decoding in the same loop, against each peer at its best, and plain against transformers."""
    methods = results["methods"]
    peers = {"transformers-prompt-lookup": None, best_suffix(methods): 1.1 if goals else None}
    made = [speed(methods, "tasc", PLAIN, 5.0 if goals else None)]
    made += [speed(methods, "tasc", peer, least) for peer, least in peers.items() if peer in methods]
    made += [latency(methods, quantile, best_suffix(methods) or PLAIN) for quantile in ("p50", "p90")]
    if "transformers" in methods:
        made.append(speed(methods, PLAIN, "transformers", 1.0 if goals else None))
    return made


def best_suffix(methods: dict[str, Any]) -> str:
    """The fastest of SuffixDecoding's factors; empty where it did not run."""
    theirs = [name for name in methods if name.startswith("suffix-")]
    return max(theirs, key=lambda name: methods[name]["tokens_per_second"], default="")


def speed(methods: dict[str, Any], ours: str, theirs: str, least: float | None) -> Ratio:
    """Tokens per second."""
    a, b = (methods[name]["tokens_per_second"] for name in (ours, theirs))
    return Ratio(f"{ours}: tokens/s", a, theirs, b, least=least)


def latency(methods: dict[str, Any], quantile: str, theirs: str) -> Ratio:
    """Request latency in ms."""
    a, b = (1e3 * methods[name][f"latency_{quantile}"] for name in ("tasc", theirs))
    return Ratio(f"tasc: request latency {quantile}, ms", a, theirs, b, lower=True)


def main() -> None:
    parser = model_arguments(__doc__, limit=100)
    parser.add_argument("--max-draft", type=int, default=16)
    parser.add_argument("--methods", help="comma-separated; by default all that are installed")
    parser.add_argument("--compile", action="store_true", help="the model's small parts, on a GPU")
    parser.add_argument("--html", type=Path)
    options = parsed(parser)
    methods = "transformers,transformers-prompt-lookup,tasc" if options.smoke else options.methods
    settings = BenchOptions(
        system=options.system,
        max_tokens=options.max_tokens,
        max_draft=options.max_draft,
        compile=options.compile,
        methods=tuple(methods.split(",")) if methods else None,
    )
    with subject(options) as (model, tokenizer, data):
        results = measure(model, tokenizer, data, options.limit, settings)
    if options.smoke:
        for name, facts in results["methods"].items():
            assert facts["identical"] == facts["requests"], f"{name} differs from plain decoding"
    print_methods(results)
    if options.html is not None:
        from tasc.evaluation.report import render

        render(results, options.html)
    ratios = figures(results, goals=not options.smoke)
    report("End to end, greedy, batch 1", ratios, options.output, results=results)


if __name__ == "__main__":
    main()
