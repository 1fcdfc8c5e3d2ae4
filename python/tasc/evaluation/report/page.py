"""The page itself: results in, one HTML file out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from tasc.evaluation.ablation import NAMES
from tasc.evaluation.provenance import flat
from tasc.evaluation.report import plots
from tasc.evaluation.report.schema import Results, checked
from tasc.evaluation.report.templates import write_page

SAMPLES = 8
"""Requests shown with their outputs."""

_PLOTS = (
    ("Speed", plots.speed, "All methods answered the same prompts in the same run, taking turns."),
    ("Latency", plots.latency, "The whole request, from text to text. Further left is faster."),
    ("Acceptance", plots.acceptance, "Of the tokens drafted at a position, those that the model would have text."),
    ("Where the time goes", plots.time_split, "Prefill reads the prompt, verify runs the model, draft is our guess."),
)


def render(results: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Writes a report as one HTML page that needs no other file.

    Args:
        results: What `tasc bench` writes; see `tasc.evaluation.report.schema.Results`.
        path: The page; one that is there is replaced whole, or not at all.

    Returns:
        `path`.

    Raises:
        InputError: If the results hold no method with a speed.
        MissingExtraError: Without ``tasc-lm[report]``.

    Examples:
        >>> facts = {"plain": {"tokens_per_second": 18.0}, "tasc": {"tokens_per_second": 94.0, "speedup": 5.2}}
        >>> render({"methods": facts}, "report.html")  # doctest: +SKIP
    """
    results = checked(results)
    drawn = [(heading, draw(results), note) for heading, draw, note in _PLOTS]
    return write_page(
        path,
        "page.html.j2",
        title=results.get("title", "tasc: decoding compared"),
        verdict=_verdict(results),
        cards=_cards(results),
        methods=results["methods"],
        count=len(results.get("requests", [])) or None,
        plots=[(heading, svg, note) for heading, svg, note in drawn if svg],
        sources=_sources(results),
        samples=results.get("requests", [])[:SAMPLES],
        explained=NAMES if _sources(results) else {},
        facts=facts_shown(results),
        next=_next_steps(results),
    )


def facts_shown(results: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the facts at the end of a page, by their headings."""
    names = {"settings": "settings", "machine": "machine", "provenance": "made of"}
    return [(heading, dict(flat(results.get(name, {})))) for name, heading in names.items()]


def _next_steps(results: Results) -> list[tuple[str, str]]:
    """Return what to do after a benchmark: sentences, each with a command or nothing."""
    ours: Mapping[str, Any] = results["methods"].get("tasc", {})
    facts = results.get("provenance", {})
    if (speedup := ours.get("speedup")) is None:
        return []
    model = quote(facts.get("model", {}).get("name", "MODEL"))
    index = quote(facts.get("index", {}).get("path", "task.tasc"))
    steps = []
    exact, requests = ours.get("exact"), ours.get("requests")
    if speedup < WORTHWHILE:
        steps.append(("Drafts hardly pay here. See which sources help, and where drafts fail:", _REPLAY.format(model)))
        if exact is not None and requests and exact < requests / 2:
            share = f"{exact} of {requests} outputs are those of the rows"
            tune = f"tasc tune --model {model} --data ROWS -o tuned"
            steps.append((f"Only {share}: drafts come from the rows, so tune the model on them first.", tune))
        return steps
    if "path" not in facts.get("index", {}):
        steps.append(("Build the index:", f"tasc index build ROWS --tokenizer {model} -o {index}"))
    steps.append(("Generate with it:", f"tasc generate PROMPTS --model {model} --index {index} -o out.jsonl"))
    steps.append(("After a change, compare with this run (both written with -o):", "tasc bench --compare BEFORE AFTER"))
    return steps


WORTHWHILE = 1.2
"""Speed-up below which a page says that drafts hardly pay."""

_REPLAY = "tasc replay ROWS --tokenizer {} --ablate --explain 1 --html replay.html"


def _verdict(results: Results) -> str | None:
    """Summarise the result in a sentence."""
    ours: Mapping[str, Any] = results["methods"].get("tasc", {})
    speedup, identical, requests = ours.get("speedup"), ours.get("identical"), ours.get("requests")
    if speedup is None:
        return None
    text = f"tasc generated {speedup:.1f} times as fast as plain decoding"
    if identical is None or requests is None:
        return f"{text}."
    same = "every text is identical" if identical == requests else f"{identical} of {requests} texts are identical"
    return f"{text}; {same}."


def _cards(results: Results) -> list[tuple[str, str]]:
    """Return the four main figures, those that are known."""
    ours: Mapping[str, Any] = results["methods"].get("tasc", {})
    cards = [
        ("speed-up", "{:.2f}\N{MULTIPLICATION SIGN}", "speedup", 1.0),
        ("tokens per step (τ)", "{:.2f}", "tau", 1.0),
        ("median request", "{:.0f} ms", "latency_p50", 1e3),
        ("drafted tokens accepted", "{:.0f} %", "accepted", 100.0),
    ]
    return [(name, form.format(scale * ours[key])) for name, form, key, scale in cards if ours.get(key) is not None]


def _sources(results: Results) -> dict[str, dict[str, float]]:
    """Share of the accepted tokens by source, for each method that tells."""
    shares = {}
    for name, facts in results["methods"].items():
        accepted = facts.get("accepted_by_source", {})
        if total := sum(accepted.values()):
            shares[name] = {source: count / total for source, count in accepted.items() if count}
    return shares
