"""Effect of cutting the drafts of a step to one length: the verify loop with it, with half of it, and without, greedy.

    python benches/python/one_length.py DATA.jsonl.gz --model smollm2 --adapter FOLDER --system TEXT \\
        [--batch 1,8] [--limit 64] [--max-draft 16] [-o OUT.json]
    python benches/python/one_length.py --smoke

DATA has rows {input, output, split}: `train` is indexed, `test` asked, four prompts per row of the batch in a call. The ways take
turns call by call, each with a drafter and a cost curve of its own; all must say the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from on_model import model_arguments, parsed, subject
from ratios import Ratio, report

from tasc import Generator, NgramDrafter
from tasc.cli.console import progress_bars
from tasc.data import load_tokenizer
from tasc.drafting.policy import batch_draft_length, discounted_costs
from tasc.drafting.protocol import Costs
from tasc.evaluation.replay_comparison import open_task

PER_ROW = 4  # prompts of a call


def each_its_own(probs: Sequence[Sequence[float]], costs: Costs) -> int:
    """The longest draft."""
    return max(map(len, probs))


def true_costs(drafter: object, costs: Costs) -> Costs:
    """Cost of drafted tokens, for all drafters."""
    return costs


WAYS: dict[str, tuple[Callable[..., int], Callable[..., Costs]]] = {
    "cut, told a quarter of the costs": (batch_draft_length, discounted_costs),
    "cut": (batch_draft_length, true_costs),
    "told a quarter of the costs": (each_its_own, discounted_costs),
    "neither": (each_its_own, true_costs),
}
OURS = next(iter(WAYS))


@contextmanager
def way(name: str) -> Iterator[None]:
    """The loop does it this way."""
    length, told = WAYS[name]
    with patch("tasc.drafting.policy.batch_draft_length", length), patch("tasc.drafting.policy.discounted_costs", told):
        yield


def measure(model: Any, tokenizer: Any, data: Path, options: Any) -> dict[int, dict[str, dict[str, Any]]]:
    """Seconds of each call, tokens, steps and drafted tokens, by batch size and way."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    with progress_bars() as bar, open_task(data, load_tokenizer(tokenizer), limit=options.limit, progress=bar) as task:
        inputs = [row["input"] for row in task.held_out]
        for batch in map(int, options.batch.split(",")):
            told = bar(f"{batch} at once")
            generators = {
                name: Generator(
                    model,
                    tokenizer,
                    drafter=NgramDrafter(task.index, tokenizer=task.tokenizer),
                    batch_size=batch,
                    max_draft=options.max_draft,
                )
                for name in WAYS
            }
            found[batch] = {name: {"seconds": [], "tokens": 0, "steps": 0, "drafted": 0} for name in WAYS}
            calls = [inputs[:1], *(inputs[at : at + PER_ROW * batch] for at in range(0, len(inputs), PER_ROW * batch))]
            for number, call in enumerate(calls):
                outputs = []
                for turn in range(len(WAYS)):
                    name = list(WAYS)[(number + turn) % len(WAYS)]
                    with way(name):
                        made = generators[name].generate(call, system=options.system, max_tokens=options.max_tokens)
                    outputs.append([item.ids for item in made])
                    if number:  # the first warms up
                        facts = found[batch][name]
                        facts["seconds"].append(made.wall_seconds)
                        for count in ("tokens", "steps", "drafted"):
                            facts[count] += getattr(made.stats, count)
                assert all(ids == outputs[0] for ids in outputs), f"the ways differ on call {number}"
                told(number + 1, len(calls))
    return found


def figures(found: dict[int, dict[str, dict[str, Any]]]) -> list[Ratio]:
    """Tokens per second, and the median of calls' times, against the other ways."""
    ratios = []
    for batch, facts in found.items():
        rate = {name: facts[name]["tokens"] / sum(facts[name]["seconds"]) for name in WAYS}
        for name in list(WAYS)[1:]:
            pairs = zip(facts[OURS]["seconds"], facts[name]["seconds"], strict=True)
            time = statistics.median(ours / theirs for ours, theirs in pairs)
            ratios.append(Ratio(f"{batch} at once: tokens/s", rate[OURS], name, rate[name]))
            ratios.append(Ratio(f"{batch} at once: time of a call, median", time, name, 1.0, lower=True))
    return ratios


def main() -> None:
    parser = model_arguments(__doc__, limit=64)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--max-draft", type=int, default=16)
    options = parsed(parser)
    with subject(options) as (model, tokenizer, data):
        found = measure(model, tokenizer, data, options)
    report("Drafts of a step cut to one length, greedy", figures(found), options.output, results=found)


if __name__ == "__main__":
    main()
