"""End-to-end decoding of ATIS slots for `paper.py drafts`: the paper's drafter beside tasc's, in tasc's loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from tasc import Generator, NullDrafter
from tasc.cli.console import progress_bars
from tasc.data import load_tokenizer
from tasc.decoding.prompts import prompt_ids
from tasc.drafting.retokenizing import ngram_drafter
from tasc.evaluation.baselines import (
    PromptLookupDrafter,
    SuffixDecodingDrafter,
    suffix_decoding_installed,
    suffix_depth,
)
from tasc.evaluation.bootstrap import estimate, ratio
from tasc.evaluation.ngram_baselines import NgramSuccessors, TascPaperDrafter
from tasc.evaluation.replay_comparison import Task, open_task
from tasc.models import use_threads

GAMMAS = (4, 8, 16, 32)
MAX_DRAFT = 64
LEAST = (0.3, 0.6)
"""Least probability of SuffixDecoding, best on slu_atis at c = 0.02 and at c = 0.2; its factor is 16 at both."""


def drafters(task: Task, prompt_suffix: list[int], n_max: int, p_min: int) -> dict[str, tuple[Any, int]]:
    """Drafter and most drafted tokens of each method."""
    counts = NgramSuccessors([np.array([*prompt_suffix, *output]) for output in task.outputs()], n_max, p_min)
    paper: dict[str, tuple[Any, int]] = {
        f"tasc-paper, γ = {gamma}": (TascPaperDrafter(counts, task.eos, n_max=n_max, gamma=gamma), gamma)
        for gamma in GAMMAS
    }
    suffix: dict[str, tuple[Any, int]] = {}
    for least in LEAST if suffix_decoding_installed() else ():
        cache = SuffixDecodingDrafter(task.outputs(), factor=16.0, depth=suffix_depth(MAX_DRAFT), min_token_prob=least)
        suffix[f"SuffixDecoding, least {least}"] = (cache, MAX_DRAFT)
    return {
        "plain": (NullDrafter(), 0),
        "prompt-lookup": (PromptLookupDrafter(), 10),
        **suffix,
        **paper,
        "tasc-paper-length": (TascPaperDrafter(counts, task.eos, n_max=n_max, gamma=None), MAX_DRAFT),
        "tasc": (ngram_drafter(task.index, task.tokenizer), MAX_DRAFT),
    }


def measure(
    data: Path, model: Any, tokenizer: Any, *, prompts: int, system: str | None = None, max_tokens: int = 256
) -> dict[str, Any]:
    """Decode prompts greedily, one at a time, with every method in turns; time is CPU time of one thread.

    Args:
        data: Rows {input, output, split}.
        model: Model, on a CPU.
        tokenizer: Hugging Face tokenizer of the model.
        prompts: Number of test rows whose inputs are decoded.
        system: System prompt of every request.
        max_tokens: Most tokens of an output.

    Returns:
        By method: `rows`, each (tokens, steps, drafted tokens, CPU seconds) of one prompt. All outputs are compared with
        those of plain decoding.
    """
    from paper_drafts import common_suffix

    use_threads(1)
    with (
        progress_bars() as bar,
        open_task(data, load_tokenizer(tokenizer), limit=prompts, progress=bar) as task,
    ):
        asked = [row["input"] for row in task.held_out]
        prompt_suffix = common_suffix([prompt_ids(tokenizer, [text], None, system)[0] for text in asked])[-5:]
        methods: dict[str, tuple[Generator, list[Any]]] = {
            name: (Generator(model, tokenizer, drafter=drafter, max_draft=most), [])
            for name, (drafter, most) in drafters(task, prompt_suffix, n_max=6, p_min=1).items()
        }
        move = bar("decoding")
        for turn, text in enumerate([asked[-1][::-1], *asked]):  # the first warms up
            order = list(methods.items())
            for generator, rows in (value for _, value in order[turn % len(order) :] + order[: turn % len(order)]):
                start = time.process_time()
                [made] = generator.generate([text], system=system, max_tokens=max_tokens)
                rows.append((made, time.process_time() - start))
            assert len({tuple(rows[-1][0].ids) for _, rows in methods.values()}) == 1, "outputs differ"
            move(turn + 1, len(asked) + 1)
    return {
        name: {"rows": [[len(m.ids), m.stats.steps, m.stats.drafted, seconds] for m, seconds in rows[1:]]}
        for name, (_, rows) in methods.items()
    }


def lines(found: dict[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and lines of the table: τ, tokens per CPU second, and speed-ups over plain decoding and of tasc over it."""
    seconds = {name: np.array(facts["rows"], np.float64)[:, 3] for name, facts in found.items()}

    def faster(slow: str, fast: str) -> str:
        over = estimate(ratio(seconds[slow], seconds[fast]))
        return f"{over['value']:.2f} [{over['low']:.2f}, {over['high']:.2f}]"

    table = []
    for name, facts in found.items():
        tokens, steps, drafted, _ = np.array(facts["rows"], np.float64).sum(0)
        figures = [f"{tokens / steps:.2f}", f"{drafted / steps:.1f}", f"{tokens / seconds[name].sum():.1f}"]
        table.append([name, *figures, faster("plain", name), "" if name == "tasc" else faster(name, "tasc")])
    return ("method", "τ", "drafted/step", "tokens/s (CPU time)", "speed-up", "tasc over it"), table
