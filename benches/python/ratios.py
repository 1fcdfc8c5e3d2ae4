"""Output of every benchmark: a table of ratios against a peer measured in the same run, and JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasc.cli.console import err, out, print_table


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of ours beside the peer's.

    Attributes:
        what: What was measured, with its unit.
        ours: Our figure.
        peer: The peer's name; empty where there is none to compare with.
        theirs: The peer's figure.
        lower: Whether a lower figure is better.
        limit: What ours must reach in the same unit, if anything.
        least: The ratio that must be reached, if any.
    """

    what: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    lower: bool = False
    limit: float | None = None
    least: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better ours is."""
        if self.theirs is None:
            return None
        over, under = (self.theirs, self.ours) if self.lower else (self.ours, self.theirs)
        return over / max(under, 1e-12)

    @property
    def reached(self) -> bool | None:
        """Whether limit and least ratio are reached; None where neither is set."""
        checks = []
        if self.limit is not None:
            checks.append(self.ours <= self.limit if self.lower else self.ours >= self.limit)
        if self.least is not None and self.ratio is not None:
            checks.append(self.ratio >= self.least)
        return all(checks) if checks else None


def report(title: str, ratios: Sequence[Ratio], output: Path | None, **facts: Any) -> None:
    """Prints the table and writes or prints the JSON.

    Args:
        title: What was measured on what.
        ratios: The figures.
        output: Where the JSON goes; None prints it.
        facts: Further JSON-ready facts of the run.
    """
    print_table(
        title,
        ("what", "tasc", "peer", "its figure", "ratio", "must reach", "reached"),
        [(r.what, r.ours, r.peer or None, r.theirs, r.ratio, _goal(r), r.reached) for r in ratios],
    )
    found = {
        "title": title,
        "ratios": [{**asdict(r), "ratio": r.ratio, "reached": r.reached} for r in ratios],
        "machine": {"python": platform.python_version(), "processor": platform.processor() or platform.machine()},
        **facts,
    }
    text = json.dumps(found, indent=2, ensure_ascii=False)
    if output is None:
        out.print(text, highlight=False, markup=False, soft_wrap=True)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        err.print(f"results: {output}")


def percentiles(nanoseconds: Sequence[float]) -> tuple[float, float]:
    """(p50, p99) in µs."""
    p50, p99 = np.percentile(np.asarray(nanoseconds, np.float64), (50, 99)) / 1e3
    return float(p50), float(p99)


def _goal(r: Ratio) -> str | None:
    sign = "≤" if r.lower else "≥"
    goals = [f"{sign} {r.limit:g}"] if r.limit is not None else []
    goals += [f"≥ {r.least:g}x"] if r.least is not None and r.theirs is not None else []
    return ", ".join(goals) or None
