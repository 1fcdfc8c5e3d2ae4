"""Plain decoding in tasc's loop against `generate` of transformers, both greedy at batch 1; the first must not be slower.

python benches/python/plain_loop.py DATA.jsonl.gz --model smollm2 [--adapter FOLDER] [--system TEXT] [--limit 20]
python benches/python/plain_loop.py --smoke
"""

from __future__ import annotations

from end_to_end import measure, speed
from on_model import model_arguments, parsed, subject
from ratios import report

from tasc.cli.bench import print_methods
from tasc.evaluation.bench import PLAIN, BenchOptions


def main() -> None:
    options = parsed(model_arguments(__doc__, limit=20, max_tokens=128))
    settings = BenchOptions(system=options.system, max_tokens=options.max_tokens, methods=("transformers",))
    with subject(options) as (model, tokenizer, data):
        results = measure(model, tokenizer, data, options.limit, settings)
    print_methods(results)
    least = None if options.smoke else 1.0
    report("Plain decoding, greedy, batch 1", [speed(results["methods"], PLAIN, "transformers", least)], options.output)


if __name__ == "__main__":
    main()
