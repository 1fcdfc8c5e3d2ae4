"""Effect of CUDA graphs and compiled parts on a GPU: the time of a step, and plain decoding beside transformers.

    python benches/python/cuda_graphs.py [--model smollm2 | --shape qwen2.5-1.5b] [--dtype bfloat16] [-o OUT.json]

`--shape` builds a model of that size with random weights, which takes as long as the real one. `--compiled` decodes with
transformers' static cache as well, whose steps it compiles first, for minutes. All are warmed up. Needs a CUDA device.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from ratios import Ratio, report

from tasc import Generator, NullDrafter
from tasc.decoding.engine.cache import RowCache
from tasc.decoding.engine.compile import CompiledModules
from tasc.decoding.engine.steps import StepRunner
from tasc.decoding.engine.target import Target

POINTS = ((1, 1), (1, 5), (1, 17), (1, 65), (1, 257), (8, 1), (8, 9), (32, 1), (32, 9))  # rows, tokens per row
CONTEXT = 100
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                         num_key_value_heads=3, vocab_size=49152),
    "qwen2.5-0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
                         num_key_value_heads=2, vocab_size=151936),
    "qwen2.5-1.5b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
                         num_key_value_heads=2, vocab_size=151936),
    "qwen2.5-7b": dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
                       num_key_value_heads=4, vocab_size=152064),
}  # fmt: skip


def random_model(shape: str, dtype: torch.dtype) -> Any:
    """A Llama of that shape on the device."""
    config = transformers.LlamaConfig(
        **SHAPES[shape], max_position_embeddings=8192, tie_word_embeddings=True, initializer_range=0.04
    )
    with torch.device("cuda"):
        torch.set_default_dtype(dtype)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        torch.set_default_dtype(torch.float32)
    return model.eval()


def median_ms(run: Callable[[], Any], rounds: int = 15, warm: int = 3) -> float:
    """Median milliseconds of `run`, which waits for its own end."""
    for _ in range(warm):
        run()
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        spent.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(spent)


@torch.inference_mode()
def step_times(model: Any) -> list[Ratio]:
    """Milliseconds of steps over rows of `CONTEXT` tokens: with graphs and compiled parts, against less."""
    rows = max(rows for rows, _ in POINTS)
    ways: dict[str, list[float]] = {}
    for name, graphs, compile in (("directly", False, False), ("graphs", True, False), ("compiled", True, True)):
        steps = StepRunner(Target(model), RowCache(rows, 512), 65, graphs)
        ways[name] = []
        with CompiledModules(model, compile).applied():
            for number, query in POINTS:
                given = ([[5] * query] * number, [CONTEXT] * number, min(query, 65))
                ways[name].append(median_ms(partial(steps.argmax, 0, *given)))
    return [
        Ratio(f"step of {number} x {query} tokens, ms", ours, peer, theirs, lower=True)
        for peer in ("directly", "graphs")
        for (number, query), ours, theirs in zip(POINTS, ways["compiled"], ways[peer], strict=True)
    ]


def decoding(model: Any, tokens: int, compiled: bool) -> list[Ratio]:
    """Tokens per second of plain greedy decoding at batch 1."""
    prompt = torch.randint(10, 1000, (1, 60), device=model.device, generator=torch.Generator("cuda").manual_seed(0))
    ids = prompt[0].tolist()
    options = dict(
        attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip

    def ours(graphs: bool, compile: bool = False) -> Callable[[], Any]:
        generator = Generator(model, drafter=NullDrafter(), cuda_graphs=graphs, compile=compile)
        return lambda: generator.generate(prompts=[ids], max_tokens=tokens, eos=())[0].ids

    def theirs(**more: Any) -> Callable[[], Any]:
        def run() -> list[int]:
            with torch.inference_mode():
                return list(model.generate(prompt, **options, **more)[0, 60:].tolist())

        return run

    runs = {
        "plain loop, CUDA graphs, compiled parts": ours(True, True),
        "plain loop, CUDA graphs": ours(True),
        "plain loop directly": ours(False),
        "transformers": theirs(),
    }
    if compiled:
        runs["transformers, static cache, compiled"] = theirs(cache_implementation="static")
    outputs = {name: run() for name, run in runs.items()}
    speed = {name: 1e3 * tokens / median_ms(run, rounds=5, warm=2) for name, run in runs.items()}
    first, *others = speed
    for name in others:
        same = sum(a == b for a, b in zip(outputs[first], outputs[name], strict=True))
        print(f"{name}: {same} of {tokens} tokens the same")
    return [Ratio(f"{first}: tokens/s", speed[first], name, speed[name]) for name in others]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder, a hub name or smollm2")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    if options.model is None:
        model = random_model(options.shape, getattr(torch, options.dtype))
    else:
        from tasc.models import load_checkpoint

        model, _ = load_checkpoint(options.model, dtype=options.dtype)
    name = options.model or f"{options.shape}, random weights"
    title = f"{name}, {options.dtype}, {torch.cuda.get_device_name()}"
    report(title, step_times(model) + decoding(model, options.tokens, options.compiled), options.output)


if __name__ == "__main__":
    main()
