"""Plain decoding in tasc's loop against `generate` of transformers, both greedy at batch 1; the first must not be slower.

python benches/python/plain_loop.py DATA.jsonl.gz --model smollm2 [--adapter FOLDER] [--system TEXT] [--limit 20]
python benches/python/plain_loop.py --smoke
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from end_to_end import measure, speed
from ratios import report

from tasc.cli.bench import print_methods
from tasc.spec.bench import PLAIN, BenchOptions
from tasc.spec.checkpoint import load_checkpoint, use_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--system")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny random model on a generated task")
    options = parser.parse_args()
    if options.data is None and not options.smoke:
        parser.error("give DATA, or --smoke")
    if options.threads is not None:
        use_threads(options.threads)
    settings = BenchOptions(system=options.system, max_tokens=options.max_tokens, methods=("transformers",))
    if options.smoke:
        from smoke_task import tiny_model, write_rows, write_tokenizer

        with tempfile.TemporaryDirectory() as folder:
            data = write_rows(Path(folder))
            model, tokenizer = tiny_model(write_tokenizer(Path(folder), data))
            results = measure(model, tokenizer, data, 3, settings)
    else:
        model, tokenizer = load_checkpoint(options.model, adapter=options.adapter, dtype=options.dtype)
        results = measure(model, tokenizer, options.data, options.limit, settings)
    print_methods(results)
    least = None if options.smoke else 1.0
    report("Plain decoding, greedy, batch 1", [speed(results["methods"], PLAIN, "transformers", least)], options.output)


if __name__ == "__main__":
    main()
