"""Figures of `paper.py` for the documentation: SVG that is readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasc.files import atomic_path

_INK = "#7d8899"  # contrast of at least 3.5 on white and on the dark page
COLORS = ("#0d9488", "#d97706", "#7c6cf0", "#3b82f6", "#db4d8d", "#65a30d", "#94713f", "#7d8899")

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _INK,
    "grid.alpha": 0.25,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tasc",  # the same figures give the same bytes
}


def save_svg(path: Path, draw: Callable[[Any], None], title: str, *, width: float = 6.4, height: float = 3.6) -> None:
    """Draw on new axes and write an SVG with a transparent background.

    Args:
        path: File to write.
        draw: Draws on the axes that it is given.
        title: What the figure shows, for readers who do not see it.
        width: Width in inches.
        height: Height in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        with atomic_path(path) as temporary:
            metadata = {"Date": None, "Creator": None, "Title": title}
            figure.savefig(temporary, format="svg", transparent=True, metadata=metadata)
