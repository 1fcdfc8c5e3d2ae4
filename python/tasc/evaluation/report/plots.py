"""Plots of a report, each as SVG text for the page; None if its figures are missing."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from tasc.errors import import_optional
from tasc.evaluation.report.schema import MethodFacts, Results
from tasc.printable import printable

_COLORS = {"tasc": "#0f766e", "plain": "#94a3b8"}
_OTHERS = ("#b45309", "#6d28d9", "#1d4ed8", "#be185d", "#4d7c0f", "#0e7490")
_PARTS = {"prefill": "#cbd5e1", "draft": "#d97706", "verify": "#0f766e", "rest": "#64748b"}
_SIDES = ("#0f766e", "#94a3b8")
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": "#334155",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "xtick.color": "#334155",
    "ytick.color": "#334155",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "svg.hashsalt": "tasc",  # the same figures give the same bytes
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}


def colors(names: list[str]) -> dict[str, str]:
    """Return a colour for each method, the same in all plots."""
    others = [name for name in names if name not in _COLORS]
    return _COLORS | {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}


def speed(results: Results) -> str | None:
    """Tokens per second by method, with the speed-up over plain decoding."""
    methods = results["methods"]
    names = list(methods)
    painted = colors(names)

    def draw(axes: Any) -> None:
        speeds = [methods[name]["tokens_per_second"] for name in names]
        axes.barh(names, speeds, color=[painted[name] for name in names], height=0.66)
        for place, name in enumerate(names):
            repeats = methods[name].get("repeats", [])
            axes.plot(repeats, [place] * len(repeats), "|", color="#0f172a", markersize=9)
            times = methods[name].get("speedup")
            label = f"{speeds[place]:.1f}" + (f" ({times:.2f}\N{MULTIPLICATION SIGN})" if times is not None else "")
            axes.annotate(label, (speeds[place], place), (6, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, max([*speeds, 1e-9]) * 1.28)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("tokens per second")

    speeds = {name: f"{methods[name]['tokens_per_second']:.1f}" for name in names}
    return _svg(draw, _alt("Tokens per second", speeds), height=max(2.2, 0.9 + 0.42 * len(names)))


def latency(results: Results) -> str | None:
    """Share of requests answered within a time."""
    taken: dict[str, list[float]] = {}
    for request in results.get("requests", []):
        for name, seconds in request.get("seconds", {}).items():
            taken.setdefault(name, []).append(seconds)
    if not taken:
        return None
    painted = colors(list(results["methods"]))

    def draw(axes: Any) -> None:
        for name, values in taken.items():
            axes.ecdf(values, label=name, color=painted.get(name), linewidth=2)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds per request")
        axes.set_ylabel("share of requests answered")
        _legend_above(axes, columns=3)

    medians = {name: f"{np.median(values):.3f}" for name, values in taken.items()}
    return _svg(draw, _alt("Median seconds per request", medians), height=3.3 + 0.22 * (len(taken) // 3))


def acceptance(results: Results) -> str | None:
    """Share of drafted tokens that the model accepted, by position in the draft."""
    shares = {name: _by_position(facts) for name, facts in results["methods"].items()}
    shares = {name: share for name, share in shares.items() if share}
    if not shares:
        return None
    painted = colors(list(results["methods"]))

    def draw(axes: Any) -> None:
        for name, share in shares.items():
            axes.plot(range(1, len(share) + 1), share, "o-", label=name, color=painted[name], markersize=4, linewidth=2)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("position in the draft")
        axes.set_ylabel("accepted of those drafted")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend_above(axes, columns=3)

    firsts = {name: f"{share[0]:.0%}" for name, share in shares.items()}
    return _svg(draw, _alt("Accepted of the tokens drafted first", firsts))


def time_split(results: Results) -> str | None:
    """Time of a request by part, in milliseconds."""
    timed = {name: facts for name, facts in results["methods"].items() if facts.get("time") and facts.get("requests")}
    seconds = {
        part: (color, [facts["time"].get(part, 0.0) / facts["requests"] for facts in timed.values()])
        for part, color in _PARTS.items()
    }
    return _stacked_bars(list(timed), seconds, "milliseconds per request")


def quality(results: Mapping[str, Any], figures: Mapping[str, tuple[str, bool]]) -> str | None:
    """Shares among the `figures` (name → label, whether it is a share) of each model, with their intervals."""
    sides = {name: facts["measures"] for name, facts in results["models"].items()}
    names = [name for name, (_, share) in figures.items() if share and any(_known(s, name) for s in sides.values())]
    if not names:
        return None

    def draw(axes: Any) -> None:
        for place, (side, measures) in enumerate(sides.items()):
            mine = [name for name in names if _known(measures, name)]
            low, values, high = (np.array([measures[n][part] for n in mine]) for part in ("low", "value", "high"))
            spread = np.maximum(0.0, [values - low, high - values])
            places = [names.index(name) + 0.24 * (place - (len(sides) - 1) / 2) for name in mine]
            axes.errorbar(values, places, xerr=spread, fmt="o", color=_SIDES[place % 2], label=side, capsize=3)
        axes.set_yticks(range(len(names)), [figures[name][0] for name in names])
        axes.set_xlim(-0.02, 1.02)
        axes.invert_yaxis()
        _legend_above(axes, columns=2)

    values = {
        f"{side}, {figures[name][0]}": f"{measures[name]['value']:.0%}"
        for side, measures in sides.items()
        for name in names
        if _known(measures, name)
    }
    return _svg(draw, _alt("Quality", values), height=1.2 + 0.42 * len(names))


def row_seconds(results: Mapping[str, Any]) -> str | None:
    """Milliseconds per row by batch size and model: until the first token, and after it."""
    bars = {
        f"batch {timed['batch_size']}: {side}": (facts["seconds_per_row"], facts["decode_seconds_per_row"])
        for timed in results.get("latency", [])
        for side, facts in timed["models"].items()
    }
    seconds = {
        "until the first token": (_PARTS["prefill"], [whole - decode for whole, decode in bars.values()]),
        "decode": (_PARTS["verify"], [decode for _, decode in bars.values()]),
    }
    return _stacked_bars(list(bars), seconds, "milliseconds per row")


def _stacked_bars(labels: list[str], seconds: Mapping[str, tuple[str, list[float]]], unit: str) -> str | None:
    """Draw one bar per label, of parts with their colour and their seconds; None without labels."""
    if not labels:
        return None

    def draw(axes: Any) -> None:
        left = np.zeros(len(labels))
        for part, (color, values) in seconds.items():
            axes.barh(labels, 1e3 * np.array(values), left=left, color=color, label=part, height=0.6)
            left += 1e3 * np.array(values)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.xaxis.get_major_locator().set_params(nbins=6)
        axes.set_xlabel(unit)
        _legend_above(axes, columns=len(seconds))

    parts = {
        label: ", ".join(f"{part} {1e3 * values[place]:.1f}" for part, (_, values) in seconds.items())
        for place, label in enumerate(labels)
    }
    return _svg(draw, _alt(unit.capitalize(), parts), height=max(2.6, 1.4 + 0.42 * len(labels)))


def _alt(title: str, values: Mapping[str, str]) -> str:
    """Return a plot in words."""
    return f"{title}: {'; '.join(f'{name} {value}' for name, value in values.items())}"


def _known(measures: Mapping[str, Any], name: str) -> bool:
    """Return whether a figure has both a value and an interval."""
    return None not in (measures.get(name, {}).get(part) for part in ("value", "low", "high"))


def _by_position(facts: MethodFacts) -> list[float]:
    drafted, accepted = facts.get("drafted_by_position", []), facts.get("accepted_by_position", [])
    return [a / d for a, d in zip(accepted, drafted, strict=False) if d]


def _legend_above(axes: Any, *, columns: int) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, columnspacing=1.2, handlelength=1.4)


def _svg(draw: Any, alt: str, *, height: float = 3.3) -> str:
    """Draw on new axes, 6 inches wide, without changing matplotlib's global state; `alt` says what is seen."""
    matplotlib = import_optional("matplotlib", "report")
    with matplotlib.rc_context(_STYLE):
        figure = import_optional("matplotlib.figure", "report").Figure(figsize=(6.0, height), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = _with_own_ids(text.getvalue(), f"i{zlib.crc32(alt.encode()):08x}-")
    return f'<svg role="img" aria-label="{escape(printable(alt), quote=True)}"' + svg[svg.index("<svg") + 4 :]


def _with_own_ids(svg: str, prefix: str) -> str:
    """Return a plot whose ids begin with `prefix`, because matplotlib gives all plots of a page the same ids."""
    return re.sub("<[^>]*>", lambda tag: _ID.sub(prefix, tag[0]), svg)


_ID = re.compile(r'(?<= id=")|(?<=url\(#)|(?<=href="#)')
