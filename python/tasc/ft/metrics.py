"""Task metrics of texts beside their references, each with a bootstrap interval.

Every figure here depends on the rows through sums alone: right rows, common slots, matching n-grams. A `Measure` keeps
what each row adds, so any resample of the rows has its figure without reading a text again. All are from 0 to 1; BLEU
and ROUGE-L are those of sacrebleu and rouge-score.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc.errors import InputError, MissingExtraError

Floats: TypeAlias = NDArray[np.float64]

Slot: TypeAlias = tuple[tuple[str, ...], str]
"""The names that lead to a leaf of a JSON text, and the leaf as JSON."""

RESAMPLES = 1000
"""Resamples of a bootstrap interval."""

_AT_ONCE = 64
"""Resamples drawn together."""


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """A figure of N rows that is a function of S sums over them.

    Attributes:
        rows: (N, S) float64, what each row adds to the sums.
        score: From sums (…, S) to figures (…,); NaN where there is none, such as a share of nothing.
    """

    rows: Floats
    score: Callable[[Floats], Floats]

    @property
    def value(self) -> float | None:
        """The figure of all rows; None where there is none."""
        return _number(self.score(self.rows.sum(axis=0)))


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure lies from `low` to `high` with the confidence asked for."""

    low: float
    high: float


def ratio(numerators: Any, denominators: Any = None) -> Measure:
    """The sum of (N,) `numerators` over that of (N,) `denominators`; without these, the mean."""
    above = np.asarray(numerators, np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, np.float64)
    return Measure(np.stack([above, below], axis=-1), lambda sums: _divided(sums[..., 0], sums[..., 1]))


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """Share of the predictions that are their reference, white space around both aside.

    Raises:
        InputError: If there is no row, or not one reference for each prediction.

    Example:
        >>> exact_match(["a ", "b"], ["a", "c"]).value
        0.5
    """
    return ratio([p.strip() == r.strip() for p, r in _pairs(predictions, references)])


def slots(text: str) -> Counter[Slot] | None:
    """The slots of a JSON text: its leaves with the names that lead to them; None for a text that is no object or list.

    An object with `slots` has those alone (its other members, such as an intent, are none). An object of a `name` and a
    `value` is one slot of that name. The order of a list does not matter; how often a slot is there does.

    Example:
        >>> slots('{"intent": "fly", "slots": [{"name": "to", "value": "boston"}]}')
        Counter({(('to',), '"boston"'): 1})
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict | list):
        return None
    return Counter(_leaves(value["slots"] if isinstance(value, dict) and "slots" in value else value))


def slot_f1(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """F1 of the `slots`, counted over all rows (micro): twice the slots in common by all slots of both.

    A text that is no JSON object or list has no slots. 1 where neither side has any.

    Raises:
        InputError: If there is no row, or not one reference for each prediction.
    """
    counted = []
    for prediction, reference in _pairs(predictions, references):
        said, wanted = slots(prediction) or Counter(), slots(reference) or Counter()
        counted.append([(said & wanted).total(), said.total() + wanted.total()])

    def f1(sums: Floats) -> Floats:
        return np.where(sums[..., 1] == 0, 1.0, _divided(2 * sums[..., 0], sums[..., 1]))

    return Measure(np.array(counted, np.float64), f1)


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """Mean over the rows of the F-measure of rouge-score's `rougeL` (words in lower case, no stemming).

    Raises:
        InputError: If there is no row, or not one reference for each prediction.
        MissingExtraError: Without ``tasc[eval]``.
    """
    check_installed()
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    return ratio([scorer.score(r, p)["rougeL"].fmeasure for p, r in _pairs(predictions, references)])


def bleu(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """BLEU of all rows together as sacrebleu computes it (words of `13a`, up to 4 of them, smoothing `exp`), by 100.

    Raises:
        InputError: If there is no row, or not one reference for each prediction.
        MissingExtraError: Without ``tasc[eval]``.
    """
    check_installed()
    from sacrebleu.metrics.bleu import BLEU

    counter = BLEU(effective_order=True)  # for single rows; their counts are the same without
    found = [counter.sentence_score(p, [r]) for p, r in _pairs(predictions, references)]
    rows = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in found], np.float64)

    def score(sums: Floats) -> Floats:
        numbers = sums.reshape(-1, 10).astype(int).tolist()
        scores = [BLEU.compute_bleu(n[:4], n[4:8], n[8], n[9], smooth_method="exp").score / 100 for n in numbers]
        return np.array(scores).reshape(sums.shape[:-1])

    return Measure(rows, score)


def bootstrap_interval(
    measure: Measure,
    *,
    against: Measure | None = None,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Where a figure would lie if the rows were drawn anew from those that are there (percentile bootstrap).

    Args:
        measure: The figure of the rows.
        against: The figure of the same rows answered by another model: the interval is of the difference `measure`
            less `against`, both from the same drawn rows (paired).
        resamples: Draws; the time and the precision of the ends grow with it.
        confidence: Share of the draws inside the interval.
        seed: The same seed gives the same interval.

    Returns:
        The interval; None where no draw has a figure. It is a point where all rows say the same, as with 300 of 300
        right: few rows then still leave doubt, which a bootstrap does not see.

    Raises:
        InputError: If there is no row or no draw, the confidence is not between 0 and 1, or the two measures have
            different numbers of rows.

    Complexity:
        Time O(`resamples` · N), memory O(N).
    """
    count = len(measure.rows)
    if count == 0 or resamples < 1 or not 0 < confidence < 1:
        raise InputError(
            f"an interval of {count} rows, {resamples} resamples and confidence {confidence}: "
            "at least one of each, and a confidence between 0 and 1, are needed"
        )
    if against is not None and len(against.rows) != count:
        raise InputError(f"{count} rows against {len(against.rows)}: a paired interval needs the same rows")
    rng = np.random.default_rng(seed)
    figures = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = rng.multinomial(count, [1 / count] * count, size=min(_AT_ONCE, resamples - start))
        figure = measure.score(drawn @ measure.rows)
        figures.append(figure if against is None else figure - against.score(drawn @ against.rows))
    known = np.concatenate(figures)
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def check_installed() -> None:
    """Nothing, where rouge-score and sacrebleu can be imported.

    Raises:
        MissingExtraError: Where they cannot.
    """
    try:
        import rouge_score.rouge_scorer  # noqa: F401
        import sacrebleu  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("ROUGE and BLEU", "eval") from error


def _leaves(value: Any) -> Iterator[Slot]:
    open_: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while open_:
        path, node = open_.pop()
        if isinstance(node, list):
            open_ += [(path, inner) for inner in node]
        elif isinstance(node, dict) and node.keys() == {"name", "value"} and isinstance(node["name"], str):
            open_.append(((*path, node["name"]), node["value"]))
        elif isinstance(node, dict):
            open_ += [((*path, name), inner) for name, inner in node.items()]
        else:
            yield path, json.dumps(node)


def _pairs(predictions: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    if len(predictions) != len(references) or not references:
        raise InputError(
            f"{len(predictions)} predictions for {len(references)} references: one for each is needed, and at least one"
        )
    return list(zip(predictions, references, strict=True))


def _divided(above: Floats, below: Floats) -> Floats:
    """`above` by `below`, NaN where that is 0."""
    out: Floats = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=out, where=below != 0)
    return out


def _number(figure: Any) -> float | None:
    return None if np.isnan(figure) else float(figure)
