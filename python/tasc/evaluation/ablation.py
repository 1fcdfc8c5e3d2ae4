"""Ablation of the sources of a draft on a task, in figures and in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tasc._core import NgramDrafter
from tasc.drafting.protocol import INDEX_SOURCES, DrafterWrapper, TokenIds
from tasc.evaluation.replay import ReplayResult

if TYPE_CHECKING:
    from tasc.evaluation.replay_comparison import Task

INPUTS = "inputs"
"""Stands for all sources that need an input."""

NAMES = {
    "task": "the task's n-grams",
    "context": "the running context",
    "retrieved": "outputs of similar inputs",
    "coverage": "input words that are not copied yet",
    "copy": "words copied from the input",
    INPUTS: "the input (all three that need it)",
}
"""What to call a source in a sentence."""

LEAST_ROWS = 20
"""Distinct rows with an input that a fit needs: it leaves a fifth of them out, and no fewer than four."""

_PREFIX = "tasc-without-"
_SAME = 0.005  # a loss below this is none


class Ablated(DrafterWrapper):
    """tasc without one source, or without the input.

    Args:
        task: The task.
        without: One of `INDEX_SOURCES`, or `INPUTS`.
    """

    def __init__(self, task: Task, without: str) -> None:
        self._without_input = without == INPUTS
        sources = None if self._without_input else [without]
        super().__init__(NgramDrafter(task.index, tokenizer=task.tokenizer, without=sources))
        self.name = f"{_PREFIX}{without}"

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> Any:
        """Start a request; its input is not passed on where inputs are left out."""
        return super().start(prompt_ids, None if self._without_input else input_text)


def ablated(task: Task) -> Iterator[Ablated]:
    """tasc without the input, then without each source, one at a time."""
    for without in (INPUTS, *INDEX_SOURCES):
        yield Ablated(task, without)


def ablations(results: Iterable[ReplayResult]) -> dict[str, dict[str, float]]:
    """Return the loss without each source, the greatest loss first.

    Args:
        results: Replays of `tasc` and of `ablated` drafters.

    Returns:
        By source: `speedup` without it, and `lost`, the share of tasc's speed-up that is gone.
    """
    found = {r.name: r.speedup for r in results}
    whole = found.get("tasc", 0.0)
    without = {name.removeprefix(_PREFIX): s for name, s in found.items() if name.startswith(_PREFIX)}
    lost = {source: {"speedup": s, "lost": 1 - s / whole if whole else 0.0} for source, s in without.items()}
    return dict(sorted(lost.items(), key=lambda item: -item[1]["lost"]))


def fit_in_words(info: Mapping[str, Any]) -> list[str]:
    """Describe the fit of an index, one sentence per finding.

    Args:
        info: Of `TaskIndex.info`.
    """
    fit = info.get("fit")
    if fit is None:
        return [f"weights: the general ones, as nothing was fitted: {_why_not(info['inputs'])}"]
    general, fitted = fit["nats"]
    said = [
        f"weights: fitted to {fit['tokens']:,} tokens of {fit['rows']:,} rows that were left out meanwhile: "
        f"{fitted:.3f} nats per token, with general weights {general:.3f}",
        f"on rows held out of the fit too: {fit['tau']:.1f} tokens per step, s(0.02) {fit['speedup']:.1f} with at "
        "most 16 drafted",
    ]
    worth = sorted(fit["without"], key=lambda pair: pair[1])
    said += [_worth(source, fit["speedup"], without) for source, without in worth]
    points = 100 * fit["calibration_error"]
    return [*said, f"probabilities are right within {points:.1f} points on held-out rows"]


def _worth(source: str, speedup: float, without: float) -> str:
    """Describe the loss without one source."""
    name = NAMES.get(source, source)
    change = without / speedup - 1 if speedup else 0.0
    if abs(change) < _SAME:
        return f"{name}: s(0.02) is the same without, {without:.1f}"
    verb = "falls" if change < 0 else "rises"
    sign = "\N{MINUS SIGN}" if change < 0 else "+"
    return f"{name}: without, s(0.02) {verb} from {speedup:.1f} to {without:.1f} ({sign}{abs(change):.0%})".replace(
        "%)", " %)"
    )


def _why_not(inputs: int) -> str:
    if inputs == 0:
        return "the index holds no inputs (its rows have none, or it was built with --no-inputs)"
    if inputs < LEAST_ROWS:
        return f"it has {inputs} distinct rows with an input, and a fit needs {LEAST_ROWS}"
    return "it was built with --no-fit"
