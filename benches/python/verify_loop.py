"""Cost of the decoding loop, compared with transformers' generate; CPU seconds, so that other work on the machine counts little.

    python benches/python/verify_loop.py [--model DIR] [--tokens 40] [--rounds 5] [--threads 1]

Prints the cost of a step over the number of its tokens, with usual and with packed weights, then the time of transformers'
greedy generate, of the plain loop, of the loop with context n-grams, and with a drafter that never hits, interleaved.
All four must say the same.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc import Generator, NullDrafter, TokenDraft
from tasc.decoding.engine.cache import RowCache
from tasc.decoding.engine.prepacked_linear import PrepackedLinears
from tasc.decoding.engine.target import Target
from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter
from tasc.models import smollm2

QUESTION = "Write a long story about a dragon and a princess who live in a castle near the sea."
POINTS = (1, 2, 3, 5, 9, 17, 33, 65)


class NeverHits(Drafter, protocol.Request):
    """Always drafts eight tokens that do not come."""

    name = "never"

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Any:
        return self

    def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
        return TokenDraft.of([7] * min(max_tokens, 8))

    def update(self, ids: Any) -> None:
        pass


def cpu_seconds(call: Callable[[], Any]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


@torch.inference_mode()
def step_costs(model: Any, rounds: int) -> None:
    target, cache = Target(model), RowCache(1)
    least: dict[tuple[str, int], float] = {}
    for _ in range(rounds + 1):
        for name, weights in (("usual", contextlib.nullcontext), ("packed", PrepackedLinears(model, True).applied)):
            with weights():
                target.step(cache, 0, [[5] * 2], [64], 2)
                for n in POINTS:
                    spent = cpu_seconds(lambda n=n: target.step(cache, 0, [[5] * n], [64], n))  # type: ignore[misc]
                    least[name, n] = min(least.get((name, n), spent), spent)
    print("tokens in the step ", *(f"{n:6d}" for n in POINTS))
    for name in ("usual", "packed"):
        print(f"{name:8s} CPU ms    ", *(f"{least[name, n] * 1e3:6.1f}" for n in POINTS))


def decoding(model: Any, tokenizer: Any, tokens: int, rounds: int) -> None:
    chat = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = prompt["input_ids"][0].tolist()

    def peer() -> list[int]:
        out = model.generate(**prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        return list(out[0, len(ids) :].tolist())

    def ours(**options: Any) -> Callable[[], list[int]]:
        generator = Generator(model, tokenizer, **options)

        def call() -> list[int]:
            generator.generate(prompts=[[1]], max_tokens=1)  # so that no prefix is left to re-use
            return generator.generate(prompts=[ids], max_tokens=tokens, eos=())[0].ids

        return call

    runs = {
        "transformers": peer,
        "plain loop": ours(drafter=NullDrafter()),
        "context n-grams": ours(),
        "never hits": ours(drafter=NeverHits()),
    }
    expected = peer()
    for name, call in runs.items():
        if call() != expected:
            raise SystemExit(f"{name} says something else")
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, call in runs.items():
            spent[name].append(cpu_seconds(call))
    base = statistics.median(spent["transformers"])
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(f"{name:16s} {middle:6.2f} CPU s (least {min(seconds):.2f}), speed {base / middle:.2f} of transformers'")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="directory or name; default SmolLM2-135M")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.model or smollm2()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    step_costs(model, options.rounds)
    decoding(model, AutoTokenizer.from_pretrained(folder), options.tokens, options.rounds)


if __name__ == "__main__":
    main()
