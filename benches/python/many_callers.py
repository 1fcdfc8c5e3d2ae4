"""Requests of several threads at once: `submit` beside one call of `generate`, and beside `transformers serve`.

    python benches/python/many_callers.py DATA.jsonl.gz --model smollm2 --adapter FOLDER --system TEXT \\
        [--callers 8] [--limit 8] [--rounds 5] [--serve] [--threads 2] [--clock cpu] [-o OUT.json]
    python benches/python/many_callers.py --smoke

DATA has rows {input, output, split}: `train` is indexed, `test` asked. The threads take the prompts in turn, and each
waits for its output before it takes the next one. Each way answers all prompts once unmeasured; then the ways take
turns. `--serve` adds `transformers serve --continuous-batching` in a process of its own with as many threads, asked by
OpenAI's client (`pip install 'transformers[serving]' openai`). `--clock cpu` counts the processor time of both processes,
for a machine that others use.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from on_model import model_arguments, parsed, subject
from ratios import Ratio, report
from servers import Answer, ServerEnded, clocks, in_threads, served, server

from tasc import Generator
from tasc.cli.console import progress_bars
from tasc.data import load_tokenizer
from tasc.evaluation.machine import machine
from tasc.evaluation.replay_comparison import open_task
from tasc.models import checkpoint

CACHE = ("--cb-max-batch-tokens", "1024", "--cb-num-blocks", "64")
"""Room for 64 pages of 256 tokens. By itself the server takes most of the machine's whole memory, used or not, and fills
it: with less free than that, the kernel ends it at the first request."""


def ways(generator: Generator, inputs: list[str], callers: int, **options: Any) -> dict[str, Answer]:
    """Ways to answer all inputs with one generator, by name."""

    def submitted(text: str) -> str:
        return generator.submit(text, **options).result().text

    def called(text: str) -> str:
        return generator.generate([text], **options)[0].text

    return {
        "submit": lambda: in_threads(submitted, inputs, callers),
        "generate in threads": lambda: in_threads(called, inputs, callers),
        "one call": lambda: [item.text for item in generator.generate(inputs, **options)],
    }


@contextmanager
def transformers_serve(folder: str, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, int]]:
    """Run `transformers serve` for a checkpoint; yields its address and its process."""
    kind = ("--device", str(device), "--dtype", str(dtype).split(".")[-1])
    command = ["serve", folder, "--continuous-batching", *kind, *CACHE]
    script = f"import sys; sys.argv[0] = 'transformers'; {'from transformers.cli.transformers import main; main()'}"
    env = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HUB_OFFLINE": "1"}
    try:
        with server([sys.executable, "-c", script, *command], **env) as (url, process):
            yield f"{url}/v1", process
    except ServerEnded:
        raise SystemExit("transformers serve has ended; is transformers[serving] installed?") from None


def measure(runs: dict[str, Answer], rounds: int, clock: str, processes: list[int]) -> dict[str, Any]:
    """Seconds of each way by a clock, and how many of its outputs are those of one call without drafts."""
    outputs = {name: run() for name, run in runs.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = clocks(processes)
            run()
            ended = clocks(processes)
            taken[name].append((ended[0] - wall, ended[1] - cpu))
    plain = outputs["plain: one call"]
    found = {}
    for name, made in outputs.items():
        wall, cpu = (statistics.median(seconds) for seconds in zip(*taken[name], strict=True))
        same = sum(a == b for a, b in zip(made, plain, strict=True))
        found[name] = {"seconds": {"wall": wall, "cpu": cpu}[clock], "wall": wall, "cpu": cpu, "identical": same}
    return found


def figures(found: dict[str, Any]) -> list[Ratio]:
    """`submit` beside the other ways, with an index and without."""
    least = {"one call": 0.9, "transformers serve": 1.3}
    return [
        Ratio(f"{kind}: seconds of submit", found[f"{kind}: submit"]["seconds"], name, facts["seconds"], lower=True,
              least=least.get(name.removeprefix(f"{kind}: ")))
        for kind in ("plain", "index")
        for name, facts in found.items()
        if name in (f"{kind}: one call", f"{kind}: generate in threads", "transformers serve")
    ]  # fmt: skip


def main() -> None:
    parser = model_arguments(__doc__, limit=8, max_tokens=128)
    parser.add_argument("--callers", type=int, default=8, help="threads, and the most requests in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--serve", action="store_true", help="measure transformers serve too")
    options = parsed(parser)
    with ExitStack() as stack:
        model, tokenizer, data = stack.enter_context(subject(options))
        bar = stack.enter_context(progress_bars())
        task = stack.enter_context(open_task(data, load_tokenizer(tokenizer), limit=options.limit, progress=bar))
        inputs = [row["input"] for row in task.held_out]
        runs: dict[str, Answer] = {}
        processes: list[int] = []
        for kind, index in (("plain", None), ("index", task.index)):
            max_draft = 0 if index is None else None
            generator = Generator(model, tokenizer, index=index, max_draft=max_draft, batch_size=options.callers)
            stack.enter_context(generator)
            asked = {"system": options.system, "max_tokens": options.max_tokens}
            made = ways(generator, inputs, options.callers, **asked)
            runs.update({f"{kind}: {name}": run for name, run in made.items()})
        if options.serve and not options.smoke:
            folder = checkpoint(options.model, options.adapter)
            url, process = stack.enter_context(transformers_serve(folder, model.dtype, model.device))
            processes.append(process)
            runs["transformers serve"] = served(
                url, folder, inputs, options.callers, system=options.system, max_tokens=options.max_tokens
            )
        found = measure(runs, 1 if options.smoke else options.rounds, options.clock, processes)
    if options.smoke:
        assert all(facts["identical"] == options.limit for facts in found.values())
    title = f"{options.limit} requests of {options.callers} callers, greedy"
    report(title, figures(found), options.output, results=found, machine=machine())


if __name__ == "__main__":
    main()
