"""Comparison of two results of `tasc bench`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasc.evaluation.provenance import flat
from tasc.evaluation.report.schema import checked

FIGURES = ("tokens_per_second", "speedup", "latency_p50", "latency_p90", "tau", "accepted")
"""Figures that are compared. The times are in seconds."""

_OF_THE_RUN = ("date", "command")


def compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two results of `tasc bench`.

    Args:
        a: What `tasc bench -o FILE` writes.
        b: The same of another run.

    Returns:
        JSON values: `methods` (by method that both have, by figure: `a`, `b` and `ratio`, b by a), `differences` (by
        setting, fact of the machine or of the provenance that differs, such as `machine gpu`: both values), `only`
        (methods that one side alone has, by side).

    Raises:
        InputError: One of them is no such result.

    Examples:
        >>> one, other = ({"methods": {"tasc": {"tokens_per_second": speed}}} for speed in (50.0, 75.0))
        >>> compared(one, other)["methods"]["tasc"]["tokens_per_second"]
        {'a': 50.0, 'b': 75.0, 'ratio': 1.5}
    """
    ours, theirs = checked(a)["methods"], checked(b)["methods"]
    pairs: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        name: (ours[name], theirs[name]) for name in ours if name in theirs
    }
    sides = (("a", ours, theirs), ("b", theirs, ours))
    return {
        "methods": {name: dict(_ratios(*facts)) for name, facts in pairs.items()},
        "differences": dict(_differences(a, b)),
        "only": {side: missing for side, own, other in sides if (missing := [n for n in own if n not in other])},
    }


def _ratios(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float | None]]]:
    for name in FIGURES:
        one, other = a.get(name), b.get(name)
        if one is not None and other is not None:
            yield name, {"a": one, "b": other, "ratio": other / one if one else None}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for part in ("settings", "machine", "provenance"):
        one, other = (dict(flat(side.get(part, {}))) for side in (a, b))
        for name in dict.fromkeys([*one, *other]):
            if name not in _OF_THE_RUN and one.get(name) != other.get(name):
                yield f"{part} {name}", (one.get(name), other.get(name))
