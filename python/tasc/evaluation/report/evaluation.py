"""Page of `tasc eval --html`: quality and speed of a fine-tuned model, compared with tuning without new tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from tasc.evaluation.report import plots
from tasc.evaluation.report.page import facts_shown
from tasc.evaluation.report.templates import write_page
from tasc.evaluation.task_metrics import RARE

FIGURES = {
    "exact_match": ("exact match", True),
    "slot_f1": ("slot F1", True),
    "slot_f1_unseen": ("slot F1, not in training", True),
    "slot_f1_rare": (f"slot F1, in 1 to {RARE} rows of training", True),
    "slot_f1_frequent": ("slot F1, in more", True),
    "rouge_l": ("ROUGE-L", True),
    "bleu": ("BLEU", True),
    "base_tokens_per_step": ("base tokens per step", False),
    "steps_per_output": ("steps per output", False),
    "adoption": ("adoption of new tokens", True),
    "non_canonical_outputs": ("outputs not canonical", True),
    "non_canonical_tokens": ("tokens not canonical", True),
}
"""Label of each figure, and whether it is a share, which is shown in per cent."""

SAMPLES = 8
"""Rows shown with their outputs."""

_DASH = "\N{EN DASH}"


def render_evaluation(results: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the results of `tasc eval --json` as one HTML page that needs no other file.

    Args:
        results: The dictionary of `tasc.evaluation.pairwise_eval.results`; `comparison`, `latency`, `outputs`,
            `settings` and `machine` may be missing.
        path: The page; one that is there is replaced whole, or not at all.

    Returns:
        `path`.

    Raises:
        MissingExtraError: Without ``tasc-lm[report]``.
    """
    drawn = [
        ("Quality", plots.quality(results, FIGURES), "With their intervals over the rows."),
        ("Time per row", plots.row_seconds(results), "The models took turns on the same prompts."),
    ]
    return write_page(
        path,
        "evaluation.html.j2",
        title=results.get("title", "tasc eval: a fine-tuned model measured"),
        verdict=verdict(results),
        sides=list(results["models"]),
        counts={name: facts["counts"] for name, facts in results["models"].items()},
        figures=list(figure_rows(results)),
        compared=bool(results.get("comparison")),
        latency=results.get("latency", []),
        times=lambda facts, form: shown(facts, form=form) if facts else _DASH,
        plots=[(heading, svg, note) for heading, svg, note in drawn if svg],
        samples=results.get("outputs", [])[:SAMPLES],
        count=len(results.get("outputs", [])),
        facts=facts_shown(results),
        next=_next_steps(results),
    )


def _next_steps(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what to do after an evaluation: sentences, each with a command."""
    model, counts = (
        quote(results.get("settings", {}).get("model", "MODEL")),
        next(iter(results["models"].values()))["counts"],
    )
    steps = [("Measure drafts on the model:", f"tasc bench --model {model} --data ROWS --html bench.html")]
    if counts.get("unfinished"):
        steps.insert(0, (f"{counts['unfinished']} outputs were cut: evaluate again with a larger --max-tokens.", ""))
    if not results.get("comparison"):
        steps.append(
            ("Compare with the model that it was tuned from:", f"tasc eval --model {model} --against BASE --data ROWS")
        )
    return steps


def figure_rows(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str], str | None]]:
    """Yield per figure: label, value with interval on each side, and the difference if there are two sides."""
    sides = [facts["measures"] for facts in results["models"].values()]
    comparison = results.get("comparison")
    for name in dict.fromkeys(name for side in sides for name in side):
        label, share = FIGURES.get(name, (name.replace("_", " "), False))
        values = [shown(side.get(name, {}), share=share) for side in sides]
        facts = (comparison or {}).get(name, {})
        difference = facts | {"value": facts.get("difference")}
        yield label, values, None if comparison is None else shown(difference, share=share, form="{:+.2f}", unit="")


def shown(facts: Mapping[str, float | None], *, share: bool = False, form: str = "{:.2f}", unit: str = " %") -> str:
    """Format a value with its interval in brackets, if known; a share in per cent."""
    scale = 100.0 if share else 1.0
    value, low, high = (facts.get(name) for name in ("value", "low", "high"))
    if value is None:
        return _DASH
    text = form.format(scale * value) + (unit if share else "")
    if low is None or high is None:
        return text
    return f"{text} [{form.format(scale * low)}, {form.format(scale * high)}]"


def verdict(results: Mapping[str, Any]) -> str | None:
    """Summarise the comparison in a sentence; None without a comparison."""
    if not (comparison := results.get("comparison")):
        return None
    parts = []
    for facts in results.get("latency", []):
        if (times := facts.get("decode_speedup", {}).get("value")) is not None:
            parts.append(f"{times:.1f} times as fast at batch {facts['batch_size']}")
    name = "slot_f1" if "slot_f1" in comparison else "exact_match"
    facts = comparison.get(name, {})
    if (difference := facts.get("difference")) is not None:
        low, high = facts["low"], facts["high"]
        interval = "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
        parts.append(f"{FIGURES[name][0]} {100 * difference:+.1f} points{interval}")
    return "Decodes " + ", ".join(parts) + "." if len(parts) > 1 else None
