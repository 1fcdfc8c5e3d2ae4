"""Tokenization of outputs: steps, base tokens, and the new tokens that were or could have been emitted.

The *canonical* tokenization of a text is that of the labels in fine-tuning: the base tokenizer's ids, segmented into
the fewest tokens of the extended vocabulary. A model may emit other tokens for the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from tasc.data import TaskTokenizer
from tasc.evaluation.bootstrap import Measure, ratio


@dataclass(frozen=True, slots=True)
class Tokenization:
    """Tokenization of one output.

    Attributes:
        steps: Number of tokens decoded, with the end token.
        base_tokens: Number of base tokens of the text, with the end token.
        tokens: Number of tokens decoded, without the end token.
        new: Number of new tokens decoded.
        canonical_new: Number of new tokens in the canonical tokenization.
        canonical: Whether the tokenization is canonical.
        non_canonical: Number of decoded tokens that the canonical tokenization does not have at their place.
        round_trip: Whether the ids and their expansion decode to the same text.
    """

    steps: int
    base_tokens: int
    tokens: int
    new: int
    canonical_new: int
    canonical: bool
    non_canonical: int
    round_trip: bool


def tokenization(ids: Sequence[int], text: str, *, finished: bool, tokenizer: TaskTokenizer) -> Tokenization:
    """Compare the ids of an output with the canonical tokenization of its text.

    Args:
        ids: Decoded ids, without the end token.
        text: Text of `ids`.
        finished: Whether the end token followed.
        tokenizer: Tokenizer of the model. Its `plan` lists the new tokens.
    """
    base = tokenizer.encode(text)
    plan = tokenizer.plan
    canonical = (base if plan is None else plan.segment(base)).tolist()
    first_new = None if plan is None else plan.base_vocab_size
    return Tokenization(
        steps=len(ids) + finished,
        base_tokens=len(base) + finished,
        tokens=len(ids),
        new=_from(ids, first_new),
        canonical_new=_from(canonical, first_new),
        canonical=list(ids) == canonical,
        non_canonical=len(ids) - _in_common(list(ids), canonical),
        round_trip=_round_trip(ids, text, tokenizer),
    )


def tokenization_measures(found: Sequence[Tokenization]) -> dict[str, Measure]:
    """Return the figures of N ≥ 1 outputs by name.

    - `base_tokens_per_step`: base tokens per decoding step; 1 for a base model with canonical tokenization;
    - `steps_per_output`: decoding steps per output;
    - `adoption`: new tokens decoded, divided by the new tokens in the canonical tokenization of the same texts;
    - `non_canonical_outputs`: share of the outputs whose tokenization is not canonical;
    - `non_canonical_tokens`: share of the tokens that the canonical tokenization does not have at their place.
    """
    columns = {name: np.array([getattr(s, name) for s in found], np.float64) for name in Tokenization.__slots__}
    return {
        "base_tokens_per_step": ratio(columns["base_tokens"], columns["steps"]),
        "steps_per_output": ratio(columns["steps"]),
        "adoption": ratio(columns["new"], columns["canonical_new"]),
        "non_canonical_outputs": ratio(1 - columns["canonical"]),
        "non_canonical_tokens": ratio(columns["non_canonical"], columns["tokens"]),
    }


def _from(ids: Sequence[int], first: int | None) -> int:
    return 0 if first is None else sum(token >= first for token in ids)


def _in_common(ids: list[int], canonical: list[int]) -> int:
    """Return the number of tokens in blocks that both sequences have in the same order."""
    matcher = SequenceMatcher(None, ids, canonical, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())


def _round_trip(ids: Sequence[int], text: str, tokenizer: TaskTokenizer) -> bool:
    plan = tokenizer.plan
    if plan is None:
        return True
    if any(token >= plan.base_vocab_size + len(plan) for token in ids):  # a row of a padded matrix, no token
        return False
    return tokenizer.decode(plan.expand(np.array(ids, np.uint32))) == text
