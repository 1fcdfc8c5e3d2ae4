"""Task metrics of texts and their references, each with a bootstrap interval.

Every metric depends on the rows only through sums (correct rows, common slots, matching n-grams), and is therefore a
`tasc.evaluation.bootstrap.Measure`. All are from 0 to 1. BLEU and ROUGE-L come from sacrebleu and rouge-score.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tasc.errors import InputError, import_optional
from tasc.evaluation.bootstrap import Floats, Measure, divided, ratio

Slot: TypeAlias = tuple[tuple[str, ...], str]
"""Path of names to a leaf of a JSON text, and the leaf as JSON."""


RARE = 5
"""Most outputs of training that contain a rare slot."""


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """Compute the share of predictions equal to their reference, without surrounding white space.

    Raises:
        InputError: If there is no row, or not one reference for each prediction.

    Examples:
        >>> exact_match(["a ", "b"], ["a", "c"]).value
        0.5
    """
    return ratio([p.strip() == r.strip() for p, r in _pairs(predictions, references)])


def slots(text: str) -> Counter[Slot] | None:
    """Return the slots of a JSON text: its leaves with their paths of names; None if it is no JSON object or list.

    In an object with `slots`, only these are slots (not other members, such as an intent). An object of a `name` and a
    `value` is one slot of that name. The order of a list does not matter; the number of equal slots does.

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
    """Compute F1 of the `slots` over all rows (micro-average): twice the common slots by all slots of both sides.

    A text that is no JSON object or list has no slots. F1 is 1 if neither side has slots.

    Raises:
        InputError: If there is no row, or not one reference for each prediction.
    """
    counted = []
    for prediction, reference in _pairs(predictions, references):
        found, expected = slots(prediction) or Counter(), slots(reference) or Counter()
        counted.append([(found & expected).total(), found.total() + expected.total()])

    def f1(sums: Floats) -> Floats:
        return np.where(sums[..., 1] == 0, 1.0, divided(2 * sums[..., 0], sums[..., 1]))

    return Measure(np.array(counted, np.float64), f1)


def seen_slots(outputs: Iterable[str]) -> Counter[Slot]:
    """Count the outputs of training that contain each slot.

    Examples:
        >>> seen_slots(['{"to": "boston"}', '{"to": "boston"}'])
        Counter({(('to',), '"boston"'): 2})
    """
    return Counter(slot for output in outputs for slot in slots(output) or ())


def slot_f1_by_seen(
    predictions: Sequence[str], references: Sequence[str], seen: Mapping[Slot, int]
) -> dict[str, Measure]:
    """Compute `slot_f1` of the slots that training never had, had in 1 to `RARE` outputs, and had in more.

    Each slot counts in its own group, predicted or expected: a value that is often trained and predicted in place of
    one that was never seen lowers both groups. F1 of a group is undefined where neither side has slots of it.

    Args:
        predictions: One text per row.
        references: Expected texts.
        seen: Outputs of training by slot, as `seen_slots` counts them.

    Returns:
        Measures `slot_f1_unseen`, `slot_f1_rare` and `slot_f1_frequent`.

    Raises:
        InputError: If there is no row, or not one reference for each prediction.
    """
    names = ("slot_f1_unseen", "slot_f1_rare", "slot_f1_frequent")
    rows = np.zeros((len(names), len(references), 2))
    for row, (prediction, reference) in enumerate(_pairs(predictions, references)):
        found, expected = slots(prediction) or Counter(), slots(reference) or Counter()
        for column, counted in enumerate((found & expected, found + expected)):
            for slot, times in counted.items():
                outputs = seen.get(slot, 0)
                rows[(outputs > 0) + (outputs > RARE), row, column] += times
    return {
        name: Measure(rows[group], lambda sums: divided(2 * sums[..., 0], sums[..., 1]))
        for group, name in enumerate(names)
    }


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """Compute the mean over rows of the F-measure of rouge-score's `rougeL` (words in lower case, no stemming).

    Raises:
        InputError: If there is no row, or not one reference for each prediction.
        MissingExtraError: Without ``tasc-lm[eval]``.
    """
    scorer = import_optional("rouge_score.rouge_scorer", "eval").RougeScorer(["rougeL"])
    return ratio([scorer.score(r, p)["rougeL"].fmeasure for p, r in _pairs(predictions, references)])


def bleu(predictions: Sequence[str], references: Sequence[str]) -> Measure:
    """Compute corpus BLEU as sacrebleu does (tokenizer `13a`, n-grams up to 4, smoothing `exp`), divided by 100.

    Raises:
        InputError: If there is no row, or not one reference for each prediction.
        MissingExtraError: Without ``tasc-lm[eval]``.
    """
    BLEU = import_optional("sacrebleu.metrics.bleu", "eval").BLEU
    counter = BLEU(effective_order=True)  # for the score of single rows; counts do not depend on it
    found = [counter.sentence_score(p, [r]) for p, r in _pairs(predictions, references)]
    rows = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in found], np.float64)

    def score(sums: Floats) -> Floats:
        numbers = sums.reshape(-1, 10).astype(int).tolist()
        scores = [BLEU.compute_bleu(n[:4], n[4:8], n[8], n[9], smooth_method="exp").score / 100 for n in numbers]
        return np.array(scores).reshape(sums.shape[:-1])

    return Measure(rows, score)


def check_installed() -> None:
    """Check that rouge-score and sacrebleu can be imported.

    Raises:
        MissingExtraError: If they cannot.
    """
    for module in ("rouge_score.rouge_scorer", "sacrebleu"):
        import_optional(module, "eval")


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
