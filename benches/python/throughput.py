"""Tokens per second of many requests at several batch sizes: plain decoding, SuffixDecoding and tasc in one loop, greedy.

    python benches/python/throughput.py DATA.jsonl.gz --model smollm2 --adapter FOLDER --system TEXT \\
        [--batch 1,8,32] [--limit 64] [--factor 4] [--transformers] [--dtype bfloat16] [-o OUT.json]
    python benches/python/throughput.py --smoke

DATA has rows {input, output, split}: `train` is indexed, `test` asked, all in one call. At every batch size each method
answers all prompts once unmeasured, so that shapes are compiled and drafters warmed up, then the methods take turns.
`--transformers` adds transformers' own `generate` over left-padded batches.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from on_model import model_arguments, parsed, subject
from ratios import Ratio, report

from tasc import Generator, NgramDrafter, NullDrafter
from tasc.cli.console import progress_bars
from tasc.data import load_tokenizer
from tasc.data.endings import required_eos_ids
from tasc.decoding.prompts import prompt_ids
from tasc.evaluation.baselines import SuffixDecodingDrafter, suffix_decoding_installed, suffix_depth
from tasc.evaluation.bench import without_eos
from tasc.evaluation.machine import machine
from tasc.evaluation.replay_comparison import Task, open_task

Answer = Callable[[], list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of a run."""

    batches: Sequence[int] = (1, 8, 32)
    system: str | None = None
    max_tokens: int = 256
    max_draft: int = 16
    factor: float = 4.0
    transformers: bool = False
    compile: bool = False
    rounds: int = 3


def methods(model: Any, tokenizer: Any, task: Task, prompts: list[list[int]], batch: int, options: Options) -> Any:
    """Methods that decode all prompts, by name."""
    drafters: dict[str, Any] = {
        "plain": NullDrafter(),
        "tasc": NgramDrafter(task.index, tokenizer=task.tokenizer),
    }
    if suffix_decoding_installed():
        depth = suffix_depth(options.max_draft)
        drafters["suffix"] = SuffixDecodingDrafter(task.outputs(), factor=options.factor, depth=depth)
    made: dict[str, Answer] = {}
    for name, drafter in drafters.items():
        generator = Generator(
            model, tokenizer, drafter=drafter, batch_size=batch, max_draft=options.max_draft, compile=options.compile
        )
        inputs = [row["input"] for row in task.held_out]

        def answer(generator: Generator = generator, inputs: list[str] = inputs) -> list[list[int]]:
            answers = generator.generate(inputs, system=options.system, max_tokens=options.max_tokens)
            return [item.ids for item in answers]

        made[name] = answer
    if options.transformers:
        made["transformers"] = lambda: padded(model, tokenizer, prompts, batch, options)
    return made


def padded(model: Any, tokenizer: Any, prompts: list[list[int]], batch: int, options: Options) -> list[list[int]]:
    """`generate` of transformers over left-padded batches."""
    eos = required_eos_ids(model, tokenizer)
    made = []
    for begin in range(0, len(prompts), batch):
        group = prompts[begin : begin + batch]
        width = max(map(len, group))
        ids = torch.tensor([[min(eos)] * (width - len(p)) + p for p in group], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in group], device=model.device)
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=options.max_tokens, do_sample=False,
                eos_token_id=sorted(eos), pad_token_id=min(eos),
            )  # fmt: skip
        made += out[:, width:].tolist()
    return made


def measure(model: Any, tokenizer: Any, data: Path, limit: int, options: Options) -> dict[str, Any]:
    """Tokens per second by batch size and method, and how many outputs are plain decoding's."""
    found: dict[str, Any] = {}
    with progress_bars() as bar, open_task(data, load_tokenizer(tokenizer), limit=limit, progress=bar) as task:
        prompts = prompt_ids(tokenizer, [row["input"] for row in task.held_out], None, options.system)
        eos = required_eos_ids(model, tokenizer)
        told = bar("decoding")
        for number, batch in enumerate(options.batches):
            runs = methods(model, tokenizer, task, prompts, batch, options)
            generated = {name: [without_eos(ids, eos) for ids in run()] for name, run in runs.items()}
            tokens = {name: sum(map(len, outputs)) for name, outputs in generated.items()}
            seconds: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(options.rounds):
                for name, run in runs.items():
                    begin = time.perf_counter()
                    run()
                    seconds[name].append(time.perf_counter() - begin)
            found[str(batch)] = {
                name: {
                    "tokens_per_second": tokens[name] / statistics.median(seconds[name]),
                    "identical": sum(a == b for a, b in zip(generated[name], generated["plain"], strict=True)),
                }
                for name in runs
            }
            told(number + 1, len(options.batches))
    return found


def figures(found: dict[str, Any]) -> list[Ratio]:
    """tasc against each at each batch size."""
    return [
        Ratio(f"{batch} at once: tokens/s", facts["tasc"]["tokens_per_second"], name, facts[name]["tokens_per_second"])
        for batch, facts in found.items()
        for name in facts
        if name != "tasc"
    ]


def main() -> None:
    parser = model_arguments(__doc__, limit=64)
    parser.add_argument("--batch", default="1,8,32")
    parser.add_argument("--max-draft", type=int, default=16)
    parser.add_argument("--factor", type=float, default=4.0, help="max_spec_factor of SuffixDecoding")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--compile", action="store_true", help="the model's small parts, on a GPU")
    options = parsed(parser)
    settings = Options(
        batches=[int(batch) for batch in options.batch.split(",")],
        system=options.system,
        max_tokens=options.max_tokens,
        max_draft=options.max_draft,
        factor=options.factor,
        transformers=options.transformers,
        compile=options.compile,
        rounds=options.rounds,
    )
    with subject(options) as (model, tokenizer, data):
        found = measure(model, tokenizer, data, options.limit, settings)
    if options.smoke:
        assert all(facts["identical"] == options.limit for by_name in found.values() for facts in by_name.values())
    report("Many requests, greedy", figures(found), options.output, results=found, machine=machine())


if __name__ == "__main__":
    main()
