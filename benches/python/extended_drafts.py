"""Drafts for a model with new tokens, by replay of held-out rows: an index of base tokens beside one of new tokens.

    python benches/python/extended_drafts.py DATA --base MODEL --extended DIR [--k 64] [--cost 0.02] [-o OUT.json]
    python benches/python/extended_drafts.py --smoke

DATA holds rows {input, output, split}; DIR is what `tasc vocab apply` wrote of MODEL.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from tasc import NgramDrafter, NullDrafter, extend_tokenizer, learn_vocabulary
from tasc.cli.console import print_table, progress_bars
from tasc.data import TaskTokenizer, load_tokenizer
from tasc.drafting.retokenizing import RetokenizingDrafter
from tasc.evaluation.replay import ReplayResult, encode_rows, replay
from tasc.evaluation.replay_comparison import open_task


def measure(data: Path, base: TaskTokenizer, extended: TaskTokenizer, k: int, cost: float) -> dict[str, ReplayResult]:
    """Replays of the held-out rows, in the tokens of the plain and of the extended model."""
    assert extended.plan is not None
    found = {}
    with progress_bars() as bar:
        with open_task(data, base, progress=bar) as task:
            plain, new = (encode_rows(task.held_out, t, eos=task.eos) for t in (base, extended))
            drafter = NgramDrafter(task.index, tokenizer=base)
            found["plain model, index"] = replay(drafter, plain, max_tokens=k, cost=cost)
            found["new tokens alone"] = replay(NullDrafter(), new, max_tokens=k, cost=cost)
            drafter = NgramDrafter(task.index, tokenizer=base)
            both = replay(RetokenizingDrafter(drafter, extended.plan), new, max_tokens=k, cost=cost)
            found["both, index of base tokens"] = both
        with open_task(data, extended, progress=bar) as task:
            drafter = NgramDrafter(task.index, tokenizer=extended)
            found["both, index of new tokens"] = replay(drafter, new, max_tokens=k, cost=cost)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--base", help="the plain model, or its tokenizer")
    parser.add_argument("--extended", help="the extended model")
    parser.add_argument("--k", type=int, default=64, help="most tokens drafted")
    parser.add_argument("--cost", type=float, default=0.02, help="of verifying one drafted token, in plain steps")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a generated task")
    options = parser.parse_args()
    if options.smoke:
        found = smoke()
    elif options.data and options.base and options.extended:
        base, extended = load_tokenizer(options.base), load_tokenizer(options.extended)
        found = measure(options.data, base, extended, options.k, options.cost)
    else:
        parser.error("give DATA, --base and --extended, or --smoke")
    columns = ("method", "steps/output", "drafted/step", "cost/output")
    print_table("Replay of held-out rows", columns, [(name, *figures(r)) for name, r in found.items()])
    if options.output is not None:
        options.output.write_text(json.dumps({name: r.as_dict() for name, r in found.items()}, indent=2) + "\n")


def figures(result: ReplayResult) -> tuple[float, ...]:
    """Steps per output, tokens drafted per step, and what an output costs in plain steps."""
    cost = result.steps + result.cost * result.drafted
    return result.steps / result.rows, result.drafted_per_step, cost / result.rows


def smoke() -> dict[str, Any]:
    """All of it on a generated task."""
    from smoke_task import write_rows, write_tokenizer

    with tempfile.TemporaryDirectory() as name:
        data = write_rows(Path(name))
        base = load_tokenizer(write_tokenizer(Path(name), data))
        plan = learn_vocabulary(data, base, Path(name) / "task.plan", size=20, split="train")
        found = measure(data, base, extend_tokenizer(base, plan), 16, 0.02)
    assert found["both, index of base tokens"].steps <= found["new tokens alone"].steps
    return found


if __name__ == "__main__":
    main()
