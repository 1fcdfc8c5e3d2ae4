"""int8 weights on a CPU: plain and drafted decoding over fp32 and int8 copies of the weights, one at a time, greedy.

    python benches/python/int8_weights.py DATA.jsonl.gz --model smollm2 --adapter FOLDER --threads 1 \\
        --system "Extract the intent and the slots of the request as JSON." [--limit 40] [--gguf Q8_0.gguf] [-o OUT.json]
    python benches/python/int8_weights.py --smoke

Methods take turns prompt by prompt. Drafted texts are compared with plain texts over the same weights, and int8 texts
with fp32 texts. With --gguf and llama-cpp-python, llama.cpp decodes that file plainly in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

from on_model import model_arguments, parsed, subject
from ratios import Ratio, report

from tasc import Generator, NullDrafter
from tasc._core import NgramDrafter
from tasc.cli.console import progress_bars
from tasc.data import load_tokenizer
from tasc.decoding.prompts import prompt_ids
from tasc.evaluation.replay_comparison import open_task

Decoder = Callable[[list[int]], list[int]]
"""Decodes a prompt's ids greedily; returns the output's ids without EOS."""


def loop(model: Any, tokenizer: Any, max_tokens: int, **options: Any) -> Decoder:
    """tasc's loop."""
    generator = Generator(model, tokenizer, **options)
    ends = generator._target.eos_ids(tokenizer)

    def decode(prompt: list[int]) -> list[int]:
        ids = generator.generate(prompts=[prompt], max_tokens=max_tokens)[0].ids
        return list(takewhile(lambda token: token not in ends, ids))

    return decode


def llama_cpp(gguf: Path, ends: frozenset[int], max_tokens: int, threads: int) -> Decoder:
    """Plain decoding of llama.cpp."""
    import llama_cpp

    llm = llama_cpp.Llama(str(gguf), n_ctx=1024, verbose=False, n_threads=threads, n_threads_batch=threads)

    def decode(prompt: list[int]) -> list[int]:
        made: list[int] = []
        for token in llm.generate(prompt, temp=0.0):
            if token in ends or len(made) == max_tokens:
                break
            made.append(token)
        return made

    return decode


def measure(decoders: dict[str, Decoder], prompts: list[list[int]]) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """Tokens per second and outputs of each method; methods take turns."""
    seconds = dict.fromkeys(decoders, 0.0)
    outputs: dict[str, list[Any]] = {name: [] for name in decoders}
    names = list(decoders)
    for name in names:
        decoders[name](prompts[-1][::-1])  # warms up with a prompt that is not measured
    for number, prompt in enumerate(prompts):
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            begin = time.perf_counter()
            outputs[name].append(decoders[name](prompt))
            seconds[name] += time.perf_counter() - begin
    return {name: sum(map(len, outputs[name])) / seconds[name] for name in names}, outputs


def main() -> None:
    parser = model_arguments(__doc__, limit=40)
    parser.add_argument("--max-draft", type=int, default=16)
    parser.add_argument("--gguf", type=Path, help="the same model as Q8_0, decoded by llama.cpp")
    options = parsed(parser)
    with subject(options) as (model, tokenizer, data), progress_bars() as bar:
        task_tokenizer = load_tokenizer(tokenizer)
        with open_task(data, task_tokenizer, limit=options.limit, progress=bar) as task:
            prompts = prompt_ids(tokenizer, [row["input"] for row in task.held_out], None, options.system)
            decoders = {
                f"{weights} {method}": loop(
                    model, tokenizer, options.max_tokens, drafter=drafter, max_draft=options.max_draft, pack_weights=pack
                )
                for weights, pack in (("fp32", True), ("int8", "int8"))
                for method, drafter in (
                    ("plain", NullDrafter()), ("drafted", NgramDrafter(task.index, tokenizer=task_tokenizer))
                )
            }  # fmt: skip
            if options.gguf is not None:
                ends = frozenset([tokenizer.eos_token_id])
                decoders["llama.cpp Q8_0"] = llama_cpp(options.gguf, ends, options.max_tokens, options.threads or 1)
            speed, outputs = measure(decoders, prompts)

    def equal(one: str, other: str) -> int:
        return sum(a == b for a, b in zip(outputs[one], outputs[other], strict=True))

    texts = {pair: equal(*pair.split(" / ")) for pair in (
        "fp32 drafted / fp32 plain", "int8 drafted / int8 plain", "int8 plain / fp32 plain")}  # fmt: skip
    if options.smoke:
        assert texts["int8 drafted / int8 plain"] == len(prompts), texts
    pairs: list[tuple[str, str, float | None]] = [
        ("int8 plain", "fp32 plain", 1.8),
        ("int8 drafted", "fp32 drafted", 1.2),
    ]
    pairs += [(name, "llama.cpp Q8_0", None) for name in ("int8 plain", "int8 drafted") if "llama.cpp Q8_0" in speed]
    ratios = [
        Ratio(f"{ours}: tokens/s", speed[ours], theirs, speed[theirs], least=None if options.smoke else least)
        for ours, theirs, least in pairs
    ]
    report("int8 weights, greedy, batch 1", ratios, options.output, equal_texts=texts, prompts=len(prompts))


if __name__ == "__main__":
    main()
