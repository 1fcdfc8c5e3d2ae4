"""Predictors of the speed-up that need no drafts: entropies, repetition, and the share copied from the input."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tasc._core import MergePlan
from tasc.data import Row

WORD = re.compile(r"\w+")

NGRAM = 8
"""Length of the n-grams by which repetition counts."""

PAPER_TASKS = (
    ("sentiment", -0.85),
    ("yes or no", -0.80),
    ("part of speech", -0.58),
    ("intent and slots", -0.37),
    ("EUR-LEX", -0.12),
    ("summaries", -0.08),
    ("creative writing", 0.30),
)
"""Entropy of the word bigrams of outputs relative to inputs, by task (arXiv 2602.24174; summaries: −0.05 to −0.11)."""


@dataclass(frozen=True, slots=True)
class Predictors:
    """Figures of a task's texts.

    Attributes:
        renyi: H₂ of the output tokens, in bits.
        renyi_extended: H₂ of the output tokens in the recommended vocabulary, in bits; None without one.
        input_entropy: Shannon entropy of the inputs' word bigrams, in bits; None without inputs.
        output_entropy: Shannon entropy of the outputs' word bigrams, in bits; None if no output has two words.
        relative_entropy: `output_entropy` divided by `input_entropy`, less 1.
        repeated: Share of the held-out output tokens in n-grams of `NGRAM` tokens that a training output contains.
        copied: Share of the words of held-out outputs that occur in their own input; None without inputs.
    """

    renyi: float
    renyi_extended: float | None
    input_entropy: float | None
    output_entropy: float | None
    relative_entropy: float | None
    repeated: float
    copied: float | None


def predictors(
    rows: Sequence[Row],
    held_out: Sequence[Row],
    train_ids: Sequence[NDArray[np.uint32]],
    held_out_ids: Sequence[NDArray[np.uint32]],
    plan: MergePlan | None = None,
) -> Predictors:
    """Compute the predictors of a task.

    Args:
        rows: Training rows.
        held_out: Held-out rows.
        train_ids: (T,) ids of each distinct training output.
        held_out_ids: (T,) ids of each held-out output.
        plan: Recommended vocabulary.
    """
    everything = [*rows, *held_out]
    inputs = [row["input"] for row in everything if row.get("input")]
    before, after = bigram_entropy(inputs), bigram_entropy(row["output"] for row in everything)
    return Predictors(
        renyi=renyi_entropy(held_out_ids),
        renyi_extended=None if plan is None else renyi_entropy(plan.segment_batch(list(held_out_ids))),
        input_entropy=before,
        output_entropy=after,
        relative_entropy=after / before - 1 if before and after is not None else None,
        repeated=repeated_share(train_ids, held_out_ids),
        copied=copied_share(held_out),
    )


def renyi_entropy(outputs: Iterable[NDArray[np.uint32]]) -> float:
    """Compute the 2-Rényi entropy H₂ = −log₂ Σ p² of the tokens of outputs, in bits (arXiv 2602.24174).

    Examples:
        >>> import numpy as np
        >>> renyi_entropy([np.array([1, 2], np.uint32), np.array([3, 4], np.uint32)])
        2.0
    """
    counts = np.bincount(np.concatenate(list(outputs)).astype(np.int64)).astype(np.float64)
    return -float(np.log2(np.square(counts / counts.sum()).sum())) + 0.0  # no −0.0


def bigram_entropy(texts: Iterable[str]) -> float | None:
    """Compute the Shannon entropy of the word bigrams of texts, in bits; None if there is no bigram."""
    found = Counter(pair for text in texts for pair in pairwise(words(text)))
    if not found:
        return None
    p = np.fromiter(found.values(), np.float64) / found.total()
    return -float((p * np.log2(p)).sum()) + 0.0


def repeated_share(train: Iterable[NDArray[np.uint32]], held_out: Sequence[NDArray[np.uint32]]) -> float:
    """Compute the share of the held-out tokens that lie in an n-gram of `NGRAM` tokens of a training output.

    Outputs with fewer tokens count as repeated if they are a training output.
    """
    known = np.unique(np.concatenate([_hashes(ids) for ids in train]))
    hashes = [_hashes(ids) for ids in held_out]
    found = np.isin(np.concatenate(hashes), known)
    marks = [np.zeros(len(ids), bool) for ids in held_out]
    ends = np.cumsum([len(one) for one in hashes])[:-1]
    for one, starts in zip(marks, np.split(found, ends), strict=True):
        for start in np.flatnonzero(starts).tolist():
            one[start : start + NGRAM] = True
    return float(np.concatenate(marks).mean())


def _hashes(ids: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return a hash of each n-gram of `NGRAM` ids; of all ids, if there are fewer."""
    n = min(NGRAM, len(ids))
    found = np.full(len(ids) - n + 1 if n else 0, n, np.uint64)
    for k in range(n):
        found = found * np.uint64(0x9E3779B97F4A7C15) + ids[k : len(ids) - n + 1 + k]
        found ^= found >> np.uint64(29)
    return found


def copied_share(rows: Iterable[Row]) -> float | None:
    """Compute the share of the words of outputs that occur in their own input, upper and lower case alike.

    Returns:
        The share; None if no row has an input and words in its output.
    """
    copied = total = 0
    for row in rows:
        if row.get("input"):
            known = set(words(row["input"]))
            said = list(words(row["output"]))
            copied, total = copied + sum(word in known for word in said), total + len(said)
    return copied / total if total else None


def words(text: str) -> Iterator[str]:
    """Yield the words of a text, in lower case."""
    return (found[0].lower() for found in WORD.finditer(text))
