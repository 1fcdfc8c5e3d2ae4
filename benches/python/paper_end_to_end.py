"""End-to-end decoding of ATIS slots for `paper.py drafts`: the paper's drafter beside tasc's, in tasc's loop."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from tasc import Generator, NullDrafter
from tasc.cli.console import progress_bars
from tasc.data import load_tokenizer
from tasc.drafting.retokenizing import ngram_drafter
from tasc.evaluation.baselines import PromptLookupDrafter
from tasc.evaluation.bootstrap import estimate, ratio
from tasc.evaluation.ngram_baselines import NgramSuccessors, TascPaperDrafter
from tasc.evaluation.replay_comparison import Task, open_task
from tasc.models import load_checkpoint, use_threads

GAMMAS = (4, 8, 16, 32)


def drafters(task: Task, seam: list[int], n_max: int, p_min: int) -> dict[str, tuple[Any, int]]:
    """Drafter and most drafted tokens of each method."""
    counts = NgramSuccessors([np.array([*seam, *output]) for output in task.outputs()], n_max, p_min)
    paper: dict[str, tuple[Any, int]] = {
        f"tasc-paper, γ = {gamma}": (TascPaperDrafter(counts, task.eos, n_max=n_max, gamma=gamma), gamma)
        for gamma in GAMMAS
    }
    return {
        "plain": (NullDrafter(), 0),
        "prompt-lookup": (PromptLookupDrafter(), 10),
        **paper,
        "tasc-paper-length": (TascPaperDrafter(counts, task.eos, n_max=n_max, gamma=None), 64),
        "tasc": (ngram_drafter(task.index, task.tokenizer), 64),
    }


def measure(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Decode prompts greedily, one at a time, with every method in turns; time is CPU time of one thread.

    Returns:
        By method: `rows`, each (tokens, steps, drafted tokens, CPU seconds) of one prompt. All outputs are compared with
        those of plain decoding.
    """
    from paper_drafts import common_suffix

    use_threads(1)
    model, tokenizer = load_checkpoint(options.model, adapter=options.adapter)
    with (
        progress_bars() as bar,
        open_task(data, load_tokenizer(tokenizer), limit=options.prompts, progress=bar) as task,
    ):
        asked = [row["input"] for row in task.held_out]
        chats = [[{"role": "user", "content": text}] for text in asked[:8]]
        templated = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
        seam = common_suffix([tokenizer(text, add_special_tokens=False)["input_ids"] for text in templated])[-5:]
        methods = {
            name: (Generator(model, tokenizer, drafter=drafter, max_draft=most), [])
            for name, (drafter, most) in drafters(task, seam, n_max=6, p_min=1).items()
        }
        move = bar("decoding")
        for turn, text in enumerate([asked[-1][::-1], *asked]):  # the first warms up
            order = list(methods.items())
            for generator, rows in (value for _, value in order[turn % len(order) :] + order[: turn % len(order)]):
                start = time.process_time()
                [made] = generator.generate([text], system=options.system)
                rows.append((made, time.process_time() - start))
            assert len({tuple(rows[-1][0].ids) for _, rows in methods.values()}) == 1, "outputs differ"
            move(turn + 1, len(asked) + 1)
    return {
        name: {"rows": [[len(m.ids), m.stats.steps, m.stats.drafted, seconds] for m, seconds in rows[1:]]}
        for name, (_, rows) in methods.items()
    }


def lines(found: dict[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and lines of the table: τ, tokens per CPU second, and the speed-up over plain decoding."""
    plain = np.array(found["plain"]["rows"], np.float64)
    table = []
    for name, facts in found.items():
        rows = np.array(facts["rows"], np.float64)
        tokens, steps, drafted, seconds = rows.sum(0)
        over = estimate(ratio(plain[:, 3], rows[:, 3]))
        table.append(
            [
                name,
                f"{tokens / steps:.2f}",
                f"{drafted / steps:.1f}",
                f"{tokens / seconds:.1f}",
                f"{over['value']:.2f} [{over['low']:.2f}, {over['high']:.2f}]",
            ]
        )
    return ("method", "τ", "drafted/step", "tokens/s (CPU time)", "speed-up"), table
