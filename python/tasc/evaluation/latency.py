"""Latency of models, which alternate on the same prompts, so that a busy machine slows both equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasc.evaluation.decoder import Decoder
from tasc.evaluation.task_eval import EvalOptions
from tasc.progress import Progress


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one model for B batches of one size, in R rounds.

    Attributes:
        request: (R, B) seconds per batch, from prompts to ids.
        decode: (R, B) seconds per batch after the first token.
        rows: Number of rows in all batches.
        steps: Decoding steps of all batches; a batch has as many as its longest output.
        base_tokens: Base tokens of all outputs.
        characters: Characters of all outputs.
    """

    request: NDArray[np.float64]
    decode: NDArray[np.float64]
    rows: int
    steps: int
    base_tokens: int
    characters: int

    def to_dict(self) -> dict[str, float]:
        """Return JSON values; times in seconds, per batch the median over rounds; speeds over the whole request."""
        batches = np.median(self.request, axis=0)
        whole = float(batches.sum())
        return {
            "seconds_per_row": whole / self.rows,
            "decode_seconds_per_row": float(np.median(self.decode, axis=0).sum()) / self.rows,
            "seconds_p50": float(np.median(batches)),
            "steps": self.steps,
            "base_tokens_per_second": self.base_tokens / whole,
            "characters_per_second": self.characters / whole,
        }


def measure(
    sides: Mapping[str, Decoder],
    rows: Sequence[Mapping[str, Any]],
    *,
    options: EvalOptions,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Time the first `latency_rows` rows at each of the `batch_sizes`. Rows are repeated to fill the last batch.

    Returns:
        One JSON-ready dictionary per batch size: `batch_size`, `batches`, `rounds`, `models` (by side, of
        `Timing.to_dict`), and where there are two sides `speedup` and `decode_speedup` (the second's seconds by the
        first's, of whole requests and after the first token), each a result of `speedup`.
    """
    count = min(options.latency_rows, len(rows))
    if count == 0:
        return []
    found = []
    calls = [-(-count // size) for size in options.batch_sizes]
    for k, size in enumerate(options.batch_sizes):
        batches = _batches(sides, rows[:count], size, options.max_tokens)

        def report(share: float, before: int = sum(calls[:k]), here: int = calls[k]) -> None:
            if progress is not None:
                progress(before + share * here, sum(calls))

        timings = _timed(sides, batches, options, report)
        facts: dict[str, Any] = {"batch_size": size, "batches": calls[k], "rounds": options.rounds}
        facts["models"] = {name: timing.to_dict() for name, timing in timings.items()}
        if len(timings) == 2:
            ours, theirs = timings.values()
            facts["speedup"] = speedup(theirs.request, ours.request, options)
            facts["decode_speedup"] = speedup(theirs.decode, ours.decode, options)
        found.append(facts)
    return found


def _batches(
    sides: Mapping[str, Decoder], rows: Sequence[Mapping[str, Any]], size: int, max_tokens: int
) -> dict[str, list[list[list[int]]]]:
    """Return batches of prompts by side."""
    whole = -(-len(rows) // size) * size
    repeated = list(islice(cycle(rows), whole))
    prompts = {name: d.prompts(repeated, max_tokens) for name, d in sides.items()}
    return {name: [ids[at : at + size] for at in range(0, whole, size)] for name, ids in prompts.items()}


def _timed(
    sides: Mapping[str, Decoder],
    batches: Mapping[str, list[list[list[int]]]],
    options: EvalOptions,
    report: Callable[[float], None],
) -> dict[str, Timing]:
    names = list(sides)
    count = len(batches[names[0]])
    seconds = {name: np.zeros((options.rounds, count, 2)) for name in names}  # (rounds, batches, request and prefill)
    outputs: dict[str, list[list[list[int]]]] = {name: [] for name in names}
    for name in names:
        sides[name].decode(batches[name][0], 2)  # warm-up
    for turn in range(options.rounds):
        for k in range(count):
            for name in names if (turn + k) % 2 == 0 else names[::-1]:
                decoder, batch = sides[name], batches[name][k]
                began = time.perf_counter()
                decoder.decode(batch, 1)
                first = time.perf_counter()
                made = decoder.decode(batch, options.max_tokens)
                seconds[name][turn, k] = time.perf_counter() - first, first - began
                if turn == 0:
                    outputs[name].append(made)
            report((turn * count + k + 1) / (options.rounds * count))
    return {name: _timing(sides[name], seconds[name], outputs[name]) for name in names}


def _timing(decoder: Decoder, seconds: NDArray[np.float64], outputs: list[list[list[int]]]) -> Timing:
    outputs_read = [decoder.read(ids) for batch in outputs for ids in batch]
    request, prefill = seconds[..., 0], seconds[..., 1]
    return Timing(
        request=request,
        decode=np.maximum(request - prefill, 0.0),
        rows=len(outputs_read),
        steps=sum(max(map(len, batch)) for batch in outputs),
        base_tokens=sum(len(decoder.task_tokenizer.encode(text)) + finished for text, _, finished in outputs_read),
        characters=sum(len(text) for text, _, _ in outputs_read),
    )


def speedup(theirs: NDArray[np.float64], ours: NDArray[np.float64], options: EvalOptions) -> dict[str, float | None]:
    """Return the time of one model divided by that of the other.

    Args:
        theirs: (R, B) seconds per round and batch.
        ours: (R, B) of the same rounds and batches.
        options: Options of the interval.

    Returns:
        `value`: the ratio of the sums over the batches of medians over the rounds. `low` and `high`: its bootstrap
        interval, with rounds and batches resampled equally for both models; None for a single measurement.
    """
    rounds, batches = theirs.shape
    rng = np.random.default_rng(options.seed)
    drawn = [(rng.integers(rounds, size=rounds), rng.integers(batches, size=batches)) for _ in range(options.resamples)]

    def times(which: tuple[Any, Any]) -> float:
        sums = [float(np.median(seconds[np.ix_(*which)], axis=0).sum()) for seconds in (theirs, ours)]
        return sums[0] / sums[1] if sums[1] > 0 else np.nan

    value = times((range(rounds), range(batches)))
    ends = np.array([times(which) for which in drawn])
    if theirs.size == 1 or np.isnan(ends).any():
        return {"value": None if np.isnan(value) else value, "low": None, "high": None}
    low, high = np.quantile(ends, [(1 - options.confidence) / 2, (1 + options.confidence) / 2])
    return {"value": value, "low": float(low), "high": float(high)}
