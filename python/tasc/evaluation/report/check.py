"""Page of `tasc check --html`: verdict, figures, and what to do next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasc.evaluation.report.page import facts_shown
from tasc.evaluation.report.templates import write_page


def render_check(summary: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the summary of a check as one HTML page that needs no other file.

    Args:
        summary: Fields of `tasc.evaluation.check.summary.Summary`, and `results`: JSON values with `machine` and
            `provenance`, which may be missing.
        path: The page; one that is there is replaced whole, or not at all.

    Returns:
        `path`.

    Raises:
        MissingExtraError: Without ``tasc-lm[report]``.
    """
    steps = [("", command) for command in summary["next_commands"]] or [("Nothing: the verdict says why.", "")]
    return write_page(path, "check.html.j2", **summary, made_of=facts_shown(summary.get("results", {})), next=steps)
