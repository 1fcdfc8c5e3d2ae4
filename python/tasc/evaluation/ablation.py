"""Ablation: the speed-up that each source of a draft contributes on a task, as figures and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tasc._core import NgramDrafter
from tasc.drafting.protocol import INDEX_SOURCES, DrafterWrapper, TokenIds
from tasc.evaluation.replay import ReplayResult

if TYPE_CHECKING:
    from tasc.evaluation.replay_comparison import Task

INPUTS = "inputs"
"""Name for all sources that need an input."""

NAMES = {
    "task": "the task's n-grams",
    "context": "the running context",
    "retrieved": "outputs of similar inputs",
    "coverage": "pending words of the input",
    "copy": "words copied from the input",
    INPUTS: "the input (all three that need it)",
}
"""Name of each source in a sentence."""

MIN_ROWS = 20
"""Minimum number of distinct rows with an input for a fit, which holds out a fifth of them and at least four."""

_PREFIX = "tasc-without-"
_MIN_CHANGE = 0.005  # a smaller relative change is reported as none


class Ablated(DrafterWrapper):
    """Drafter of tasc without one source, or without the input.

    Args:
        task: Task to draft for.
        without: One of `INDEX_SOURCES`, or `INPUTS`.
    """

    def __init__(self, task: Task, without: str) -> None:
        self._without_input = without == INPUTS
        sources = None if self._without_input else [without]
        super().__init__(NgramDrafter(task.index, tokenizer=task.tokenizer, without=sources))
        self.name = f"{_PREFIX}{without}"

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> Any:
        """Start a request, without its input if inputs are ablated."""
        return super().start(prompt_ids, None if self._without_input else input_text)


def ablated(task: Task) -> Iterator[Ablated]:
    """Yield tasc without the input, then without each source, one at a time."""
    for without in (INPUTS, *INDEX_SOURCES):
        yield Ablated(task, without)


def ablations(results: Iterable[ReplayResult]) -> dict[str, dict[str, float]]:
    """Compute the loss without each source, the largest loss first.

    Args:
        results: Replay results of `tasc` and of `ablated` drafters.

    Returns:
        By source: `speedup` without it, and `lost`, the lost share of tasc's speed-up.
    """
    found = {r.name: r.speedup for r in results}
    whole = found.get("tasc", 0.0)
    without = {name.removeprefix(_PREFIX): s for name, s in found.items() if name.startswith(_PREFIX)}
    lost = {source: {"speedup": s, "lost": 1 - s / whole if whole else 0.0} for source, s in without.items()}
    return dict(sorted(lost.items(), key=lambda item: -item[1]["lost"]))


def fit_in_words(info: Mapping[str, Any]) -> list[str]:
    """Describe the fit of an index, one fact per sentence.

    Args:
        info: Result of `TaskIndex.info`.
    """
    fit = info.get("fit")
    if fit is None:
        return [f"mixture weights: the general ones, because nothing was fitted: {_why_not(info['inputs'])}"]
    general, fitted = fit["nats"]
    ablations = sorted(fit["without"], key=lambda pair: pair[1])
    return [
        f"mixture weights: fitted to {fit['tokens']:,} tokens of {fit['rows']:,} held-out rows: "
        f"{fitted:.3f} nats per token, with general weights {general:.3f}",
        f"on rows held out of the fit too: {fit['tau']:.1f} tokens per step, s(0.02) {fit['speedup']:.1f} with at "
        "most 16 drafted",
        *(_ablation_sentence(source, fit["speedup"], without) for source, without in ablations),
        f"calibration error on held-out rows: {100 * fit['calibration_error']:.1f} points",
    ]


def _ablation_sentence(source: str, speedup: float, without: float) -> str:
    name = NAMES.get(source, source)
    change = without / speedup - 1 if speedup else 0.0
    if abs(change) < _MIN_CHANGE:
        return f"{name}: s(0.02) without it is unchanged, {without:.1f}"
    verb = "falls" if change < 0 else "rises"
    sign = "\N{MINUS SIGN}" if change < 0 else "+"
    percent = f"{sign}{100 * abs(change):.0f} %"
    return f"{name}: without it, s(0.02) {verb} from {speedup:.1f} to {without:.1f} ({percent})"


def _why_not(inputs: int) -> str:
    if inputs == 0:
        return "the index holds no inputs (its rows have none, or it was built with --no-inputs)"
    if inputs < MIN_ROWS:
        return f"it has {inputs} distinct rows with an input, and a fit needs {MIN_ROWS}"
    return "it was built with --no-fit"
