"""Page of `tasc replay --html`: comparison of drafters, ablation of sources, explanation of a row."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from tasc.drafting.protocol import INDEX_SOURCES
from tasc.evaluation.ablation import NAMES
from tasc.evaluation.report.page import WORTHWHILE, facts_shown
from tasc.evaluation.report.templates import write_page


def render_replay(results: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the results of `tasc replay --json` as one HTML page that needs no other file.

    Args:
        results: `rows`, `k`, `cost`, `drafters` (name →
            `tasc.evaluation.replay.ReplayResult.as_dict`), and optionally `ablations` (of
            `tasc.evaluation.ablation`) and `explained` (of `tasc.evaluation.explain`).
        path: The page; one that is there is replaced whole, or not at all.

    Returns:
        `path`.

    Raises:
        MissingExtraError: Without ``tasc-lm[report]``.
    """
    return write_page(
        path,
        "replay.html.j2",
        rows=results.get("rows"),
        k=results["k"],
        cost=results["cost"],
        drafters=results.get("drafters", {}),
        ablations=results.get("ablations", {}),
        explained=results.get("explained"),
        names=NAMES,
        sources={name: words for name, words in NAMES.items() if name in INDEX_SOURCES},
        facts=facts_shown(results),
        next=_next_steps(results),
    )


def _next_steps(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what to do after a replay: sentences, each with a command or nothing."""
    if (ours := results.get("drafters", {}).get("tasc")) is None:
        return []
    facts = results.get("provenance", {})
    tokenizer = quote(facts.get("tokenizer", {}).get("name", "MODEL"))
    index = facts.get("index", {}).get("path")
    if ours["speedup"] < WORTHWHILE:
        return [("Drafts hardly pay on these rows. Look at a row, token by token:",
                 f"tasc replay ROWS --tokenizer {tokenizer} --explain 1")]  # fmt: skip
    build = [] if index else [("Build the index:", f"tasc index build ROWS --tokenizer {tokenizer} -o task.tasc")]
    deployed = f" --index {quote(index)}" if index else ""
    measure = f"tasc bench --model {tokenizer} --data ROWS{deployed} -o bench.json --html bench.html"
    return [
        *build,
        ("Measure the speed-up on the model; the replay assumes that the model says what the rows say:", measure),
    ]
