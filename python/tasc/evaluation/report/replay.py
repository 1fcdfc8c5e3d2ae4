"""Page of `tasc replay --html`: comparison of drafters, ablation of sources, explanation of a row."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasc.evaluation.ablation import NAMES
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
    )
