"""Cost of a drafted token of small draft models in tasc's loop, in plain steps of the target.

    python benches/python/draft_cost.py [--model smollm2] [--ids 4096] [--sizes 0.5M 1M 2.2M 3.6M 8M] [--clock cpu]
    python benches/python/draft_cost.py --smoke

Each draft is timed alone: drafts of 8 tokens for one request, fp32, on the CPU, in turn with plain steps of the target.
Weights are untrained, which does not change the time. A cut of 4 layers is measured with all ids and with a draft
vocabulary, narrow drafts and an EAGLE head with a draft vocabulary. With `--clock cpu`, seconds are processor time of one
thread, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from tasc.cli.console import print_table
from tasc.decoding.draft_model.loading import draft_model_drafter
from tasc.decoding.draft_model.vocabulary import set_draft_vocabulary
from tasc.decoding.engine.prepacked_linear import PrepackedLinears
from tasc.decoding.engine.probe import probed_target
from tasc.decoding.engine.steps import StepRunner
from tasc.evaluation.machine import machine
from tasc.models import EMBEDDED, load_checkpoint, use_threads
from tasc.training.distill import DraftSize, cut_draft, narrow_draft
from tasc.training.distill.new_head import new_head

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
CONTEXT, LENGTH = 64, 8
SIZES = ["0.5M", "1M", "2.2M", "3.6M", "8M"]


def drafts(target: Any, count: int, sizes: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield names and draft models."""
    ids = list(range(count))
    layers = min(4, target.config.num_hidden_layers - 1)
    cut = cut_draft(target, layers)
    yield f"{layers} layers of the target, all ids", cut
    set_draft_vocabulary(cut, ids)
    yield f"{layers} layers of the target, {count:,} ids", cut
    for size in sizes:
        draft = narrow_draft(target, DraftSize.parse(size), ids)
        set_draft_vocabulary(draft, ids)
        yield f"narrow, {size}, {draft.config.hidden_size} wide, {count:,} ids", draft
    yield f"EAGLE head, {count:,} ids", new_head(target, ids)


def plain_step(target: Any) -> Callable[[], None]:
    """Return a function that runs a plain step of the target over one token."""
    import torch

    driven = probed_target(target)
    runner = StepRunner(driven, driven.new_cache(1), 1)
    packed = PrepackedLinears(driven.model)
    runner.logits(0, [[1] * CONTEXT], [0], 1)

    def run() -> None:
        with torch.inference_mode(), packed.applied():
            runner.argmax(0, [[1]], [CONTEXT], 1)

    return run


def draft_step(draft: Any) -> Callable[[], None]:
    """Return a function that drafts `LENGTH` tokens and rejects them."""
    import torch

    drafter = draft_model_drafter(draft, length=LENGTH)
    request: Any = drafter.start([1] * CONTEXT)

    def run() -> None:
        if drafter.reads_states:  # the loop's part
            request.read_states(torch.ones(len(request.tokens), draft.config.hidden_size))
        assert len(request.draft(LENGTH).tokens) == LENGTH
        request.update([1])

    return run


def seconds(run: Callable[[], None], clock: Callable[[], float]) -> float:
    begin = clock()
    run()
    return clock() - begin


def measure(target: Any, count: int, sizes: list[str], clock: str, rounds: int) -> list[dict[str, Any]]:
    """Return the seconds of a drafted token and of a plain step for each draft."""
    step, found = plain_step(target), []
    for name, draft in drafts(target, count, sizes):
        run = draft_step(draft)
        pairs = [(seconds(run, CLOCKS[clock]) / LENGTH, seconds(step, CLOCKS[clock])) for _ in range(rounds + 2)][2:]
        token, plain = (median(times) for times in zip(*pairs, strict=True))
        found.append({"draft": name, "token_seconds": token, "step_seconds": plain, "steps": token / plain})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED, help="target: folder, hub name or smollm2")
    parser.add_argument("--ids", type=int, default=4096, help="ids of the draft vocabulary")
    parser.add_argument("--sizes", nargs="*", default=SIZES)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny random target")
    args = parser.parse_args()
    use_threads(args.threads)
    if args.smoke:
        target, args.ids, args.sizes, args.rounds = tiny_target(), 50, ["40K"], 2
    else:
        target, _ = load_checkpoint(args.model, dtype="float32", device="cpu")
    found = measure(target, args.ids, args.sizes, args.clock, args.rounds)
    rows = [
        (
            one["draft"],
            f"{1e3 * one['token_seconds']:.2f} ms",
            f"{1e3 * one['step_seconds']:.1f} ms",
            f"{one['steps']:.3f}",
        )
        for one in found
    ]
    print_table(f"{args.clock} time, {args.threads} thread", ("draft", "token", "plain step", "in steps"), rows)
    if args.output is not None:
        args.output.write_text(
            json.dumps({"drafts": found, "clock": args.clock, "machine": machine()}, indent=2) + "\n"
        )


def tiny_target() -> Any:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=256,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


if __name__ == "__main__":
    main()
