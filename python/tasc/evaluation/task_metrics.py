"""Task metrics of texts beside their references, each with a bootstrap interval.

Every figure here depends on the rows through sums alone: right rows, common slots, matching n-grams; so each is a
`tasc.evaluation.bootstrap.Measure`. All are from 0 to 1; BLEU and ROUGE-L are those of sacrebleu and rouge-score.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from tasc.errors import InputError, MissingExtraError
from tasc.evaluation.bootstrap import Floats, Measure, divided, ratio

Slot: TypeAlias = tuple[tuple[str, ...], str]
"""The names that lead to a leaf of a JSON text, and the leaf as JSON."""


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """Share of the predictions that are their reference, white space around both aside.

    Raises:
        InputError: If there is no row, or not one reference for each prediction.

    Examples:
        >>> exact_match(["a ", "b"], ["a", "c"]).value
        0.5
    """
    return ratio([p.strip() == r.strip() for p, r in _pairs(predictions, references)])


def slots(text: str) -> Counter[Slot] | None:
    """The slots of a JSON text: its leaves with the names that lead to them; None for a text that is no object or list.

    An object with `slots` has those alone (its other members, such as an intent, are none). An object of a `name` and a
    `value` is one slot of that name. The order of a list does not matter; how often a slot is there does.

    Examples:
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
        return np.where(sums[..., 1] == 0, 1.0, divided(2 * sums[..., 0], sums[..., 1]))

    return Measure(np.array(counted, np.float64), f1)


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """Mean over the rows of the F-measure of rouge-score's `rougeL` (words in lower case, no stemming).

    Raises:
        InputError: If there is no row, or not one reference for each prediction.
        MissingExtraError: Without ``tasc-lm[eval]``.
    """
    check_installed()
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    return ratio([scorer.score(r, p)["rougeL"].fmeasure for p, r in _pairs(predictions, references)])


def bleu(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """BLEU of all rows together as sacrebleu computes it (words of `13a`, up to 4 of them, smoothing `exp`), by 100.

    Raises:
        InputError: If there is no row, or not one reference for each prediction.
        MissingExtraError: Without ``tasc-lm[eval]``.
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
