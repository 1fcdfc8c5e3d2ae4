"""transformers' own `generate`: plain, with its prompt lookup, and with tasc's drafts; greedy, one prompt at a time.

    python benches/python/transformers_generate.py DATA.jsonl.gz --model smollm2 --adapter FOLDER \\
        --system "Extract the intent and the slots of the request as JSON." [--limit 50] [-o OUT.json]
    python benches/python/transformers_generate.py --smoke

DATA has rows {input, output, split}: `train` is indexed, `test` asked. Methods take turns prompt by prompt; all must say
the same.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from on_model import model_arguments, parsed, subject
from ratios import Ratio, report

from tasc.adapters.transformers import TascGenerate
from tasc.cli.console import progress_bars
from tasc.data import load_tokenizer
from tasc.decoding.prompts import prompt_ids
from tasc.evaluation.replay_comparison import open_task

METHODS = ("generate", "prompt lookup", "tasc")


def measure(
    model: Any, tokenizer: Any, data: Path, limit: int, system: str | None, max_tokens: int, max_draft: int
) -> dict[str, list[float]]:
    """Seconds of each prompt by method, and its output tokens under `tokens`. The first prompt runs once before."""
    seconds: dict[str, list[float]] = {name: [] for name in ("tokens", *METHODS)}
    with progress_bars() as bar, open_task(data, load_tokenizer(tokenizer), limit=limit, progress=bar) as task:
        prompts = prompt_ids(tokenizer, [row["input"] for row in task.held_out], None, system)
        options: dict[str, dict[str, Any]] = {
            "generate": {},
            "prompt lookup": {"prompt_lookup_num_tokens": 10},
            "tasc": {"custom_generate": TascGenerate(task.index, tokenizer, max_draft=max_draft)},
        }
        told = bar("decoding")
        for number, prompt in enumerate([prompts[0], *prompts]):
            ids = torch.tensor([prompt], device=model.device)
            spent, generated = {}, {}
            for name, more in options.items():
                begin = time.perf_counter()
                out = model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False, **more
                )
                generated[name] = out[0, len(prompt) :].tolist()
                spent[name] = time.perf_counter() - begin
            for name in METHODS:
                assert generated[name] == generated["generate"], f"{name} differs from generate on prompt {number}"
            if number:
                seconds["tokens"].append(len(generated["generate"]))
                for name in METHODS:
                    seconds[name].append(spent[name])
                told(number, len(prompts))
    return seconds


def figures(seconds: dict[str, list[float]], goals: bool) -> list[Ratio]:
    """Tokens per second over all prompts."""
    rate = {name: sum(seconds["tokens"]) / sum(seconds[name]) for name in METHODS}
    least = {"generate": 2.5, "prompt lookup": 1.0} if goals else {}
    return [
        Ratio("tokens/s", rate["tasc"], peer, rate[peer], least=least.get(peer)) for peer in METHODS if peer != "tasc"
    ]


def main() -> None:
    parser = model_arguments(__doc__, limit=50)
    parser.add_argument("--max-draft", type=int, default=64)
    options = parsed(parser)
    with subject(options) as (model, tokenizer, data):
        seconds = measure(model, tokenizer, data, options.limit, options.system, options.max_tokens, options.max_draft)
    report("generate of transformers, greedy", figures(seconds, not options.smoke), options.output, seconds=seconds)


if __name__ == "__main__":
    main()
