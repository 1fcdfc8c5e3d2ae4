"""Compares what an index was worth when it was built with its drafts for the last requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasc._core import NgramDrafter
from tasc.data import Row
from tasc.data.endings import required_eos
from tasc.drafting.defaults import DEFAULT_SLOPE
from tasc.errors import InputError
from tasc.evaluation.check.drafts import DraftFigures, draft_figures
from tasc.evaluation.replay import ReplayRow, encode_rows
from tasc.printable import counted
from tasc.progress import ProgressBars, no_bars
from tasc.serving.drift import FALL, FIT_MAX_DRAFT, built_tau

if TYPE_CHECKING:
    from tasc._core import TaskIndex
    from tasc.data import TaskTokenizer

LAST = 1000
"""Number of last requests that are replayed, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class DriftResult:
    """An index beside the last requests.

    Attributes:
        index: Path of the index.
        rows: Number of requests replayed.
        earlier: Number of requests of the log before them.
        built_tau: Tokens per step on held-out rows when the index was built; None: it was not fitted then.
        built_speedup: s(0.02) then, with at most 16 drafted tokens.
        recent: Replay of the last requests on the index alone, under the same conditions.
        with_log: The same with the earlier requests of the log added to the index; None if there are none.
        fallen: Whether the last requests have clearly fewer tokens per step than when the index was built: the upper
            end of the interval is below 0.75 times the figure from build time.
    """

    index: str
    rows: int
    earlier: int
    built_tau: float | None
    built_speedup: float | None
    recent: DraftFigures
    with_log: DraftFigures | None
    fallen: bool

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def in_words(self) -> list[str]:
        """Return the result as sentences."""
        requests = "one request has" if self.rows == 1 else f"{self.rows:,} requests have"
        said = f"the last {requests} {_span(self.recent.tau)} tokens per step on the index alone"
        if self.built_tau is None:
            return [f"The index holds no figures: nothing was fitted when it was built. Now {said}"]
        found = [f"τ was {self.built_tau:.1f} when the index was built; {said}"]
        if self.with_log is not None:
            earlier = counted(self.earlier, "request")
            found.append(f"With the {earlier} before them they have {_span(self.with_log.tau)}")
        return [*found, self._advice(self.built_tau)]

    def _advice(self, built: float) -> str:
        """Return what to do, judged by the whole interval."""
        low = self.recent.tau["low"]
        if self.fallen:
            return "Build the index again"
        if low is None:
            return "One request gives no interval: check again after more requests"
        if low < FALL * built:
            return f"{counted(self.rows, 'request')} are too few to tell: check again after more requests"
        return "The index is as good as it was: nothing to do"


def check_index(
    index: TaskIndex,
    tokenizer: TaskTokenizer,
    *,
    log: Path | None = None,
    rows: Iterable[Row] | None = None,
    last: int = LAST,
    progress: ProgressBars = no_bars,
) -> DriftResult:
    """Replay the last requests on an index and compare the figures with those from build time.

    Args:
        index: The index.
        tokenizer: The tokenizer that made it.
        log: Log of online rows; its rows are in the order in which they were served.
        rows: Rows instead of a log, the last ones last.
        last: Number of requests to replay. The log's rows before them are the earlier ones.
        progress: Called with the title of a job; returns its progress callback.

    Raises:
        InputError: There are no requests, or neither log nor rows are given.
        FormatError: It is no log, or damaged.
        TokenizerMismatchError: Another tokenizer made the index or the log.
    """
    earlier: list[tuple[str | None, Any]] = []
    if rows is not None:
        recent = encode_rows(deque(rows, maxlen=last), tokenizer, eos=required_eos(tokenizer))
    elif log is not None:
        served = index.read_log(log)
        if not served:
            raise InputError(f"{log} holds no whole row: serve requests first, or give rows")
        earlier, served = served[:-last], served[-last:]
        contexts = tokenizer.encode_batch([f"{text}\n" if text else "" for text, _ in served])
        recent = [
            ReplayRow(np.asarray(context, np.uint32), ids, text)
            for context, (text, ids) in zip(contexts, served, strict=True)
        ]
    else:
        raise InputError("give a log or rows to compare the index with")

    def figures(before: list[tuple[str | None, Any]]) -> DraftFigures:
        drafter = NgramDrafter(index, tokenizer=tokenizer)
        drafter.serve(before)
        [found] = draft_figures(
            lambda: drafter, recent, costs=[DEFAULT_SLOPE], max_tokens=FIT_MAX_DRAFT, progress=progress
        )
        return found

    alone, fit, built = figures([]), index.info()["fit"], built_tau(index)
    high = alone.tau["high"]
    return DriftResult(
        index=str(index.path),
        rows=len(recent),
        earlier=len(earlier),
        built_tau=built,
        built_speedup=None if built is None else fit["speedup"],
        recent=alone,
        with_log=figures(earlier) if earlier else None,
        fallen=built is not None and high is not None and high < FALL * built,
    )


def _span(tau: dict[str, float | None]) -> str:
    if tau["low"] is None:
        return f"{tau['value']:.1f}"
    return f"{tau['value']:.1f} ({tau['low']:.1f} to {tau['high']:.1f})"
