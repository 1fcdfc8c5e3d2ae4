"""Tokenization of outputs: steps, base tokens, and the new tokens that were used or could have been used.

The *canonical* spelling of a text is what the labels of fine-tuning have: the base tokenizer's ids, written
with the fewest tokens of the extended vocabulary. A model may spell the same text otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from tasc.data import TaskTokenizer
from tasc.evaluation.bootstrap import Measure, ratio


@dataclass(frozen=True, slots=True)
class Spelling:
    """Tokenization of one output.

    Attributes:
        steps: Tokens decoded, the end token included.
        base_tokens: Ids that the base tokenizer has for the text, and the end token.
        tokens: Tokens decoded, without the end token.
        new: New tokens among them.
        chances: New tokens in the canonical spelling.
        canonical: Whether it is the canonical spelling.
        odd: Tokens that the canonical spelling has not in their place.
        round_trip: Whether the text of the ids is the text of their expansion.
    """

    steps: int
    base_tokens: int
    tokens: int
    new: int
    chances: int
    canonical: bool
    odd: int
    round_trip: bool


def spelling(ids: Sequence[int], text: str, *, finished: bool, tokenizer: TaskTokenizer) -> Spelling:
    """Count the tokens of one output.

    Args:
        ids: The ids decoded, without the end token.
        text: Their text.
        finished: Whether the end token followed.
        tokenizer: The model's; its `plan` says which tokens are new.
    """
    base = tokenizer.encode(text)
    plan = tokenizer.plan
    canonical = (base if plan is None else plan.segment(base)).tolist()
    first_new = None if plan is None else plan.base_vocab_size
    return Spelling(
        steps=len(ids) + finished,
        base_tokens=len(base) + finished,
        tokens=len(ids),
        new=_from(ids, first_new),
        chances=_from(canonical, first_new),
        canonical=list(ids) == canonical,
        odd=len(ids) - _in_common(list(ids), canonical),
        round_trip=_round_trip(ids, text, tokenizer),
    )


def spelling_measures(found: Sequence[Spelling]) -> dict[str, Measure]:
    """The figures of N ≥ 1 outputs, by name:

    - `base_tokens_per_step`: what a decoding step says; 1 for a base model that spells canonically;
    - `steps_per_output`;
    - `adoption`: new tokens decoded by new tokens in the canonical spelling of the same texts;
    - `non_canonical_outputs`: share of the outputs that are spelled otherwise;
    - `non_canonical_tokens`: share of the tokens that the canonical spelling has not in their place.
    """
    columns = {name: np.array([getattr(s, name) for s in found], np.float64) for name in Spelling.__slots__}
    return {
        "base_tokens_per_step": ratio(columns["base_tokens"], columns["steps"]),
        "steps_per_output": ratio(columns["steps"]),
        "adoption": ratio(columns["new"], columns["chances"]),
        "non_canonical_outputs": ratio(1 - columns["canonical"]),
        "non_canonical_tokens": ratio(columns["odd"], columns["tokens"]),
    }


def _from(ids: Sequence[int], first: int | None) -> int:
    return 0 if first is None else sum(token >= first for token in ids)


def _in_common(ids: list[int], canonical: list[int]) -> int:
    """Tokens in blocks that both spellings have, in order."""
    matcher = SequenceMatcher(None, ids, canonical, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())


def _round_trip(ids: Sequence[int], text: str, tokenizer: TaskTokenizer) -> bool:
    plan = tokenizer.plan
    if plan is None:
        return True
    if any(token >= plan.base_vocab_size + len(plan) for token in ids):  # a row of a padded matrix, no token
        return False
    return tokenizer.decode(plan.expand(np.array(ids, np.uint32))) == text
