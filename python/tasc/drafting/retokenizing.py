"""Drafts for a model that says new tokens, made in the tokens that its task's index knows.

Which words an output copies, and in what order, shows in the base tokens: a new one may hold the end of a word and the
beginning of the next. So the drafter is asked for base tokens, and what it proposes is segmented as the model would
write it (TASC-spec on a TASC-ft model, arXiv 2602.24174).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasc._core import NgramDrafter
from tasc.drafting.costs import GivenCosts, extrapolated
from tasc.drafting.protocol import (
    Costs,
    Draft,
    Drafter,
    DrafterWrapper,
    Request,
    ServedRow,
    TokenDraft,
    TokenIds,
    opened_log,
)
from tasc.errors import TokenizerMismatchError

if TYPE_CHECKING:
    from tasc._core import MergePlan, TaskIndex
    from tasc.data import TaskTokenizer

MEMORY = 0.02
"""Weight of one step in the running mean of base tokens per new one."""


def ngram_drafter(
    index: TaskIndex | None, tokenizer: TaskTokenizer | None, *, served: Path | None = None, **options: Any
) -> NgramDrafter | RetokenizingDrafter:
    """A new drafter over an index of a model's tokens, or of its tokenizer's before it had new ones (`tasc.vocab`).

    Args:
        index: None: each request's own context alone.
        tokenizer: The model's; None: it is not known, and inputs are not looked at beyond what the index knows.
        served: As in `NgramDrafter`; if another drafter or process writes to this log, one beside it (`opened_log`).
        **options: Of `NgramDrafter`.

    Raises:
        TokenizerMismatchError: The index was made with another tokenizer.
        Exception: As `NgramDrafter`.
    """
    if served is not None:
        return opened_log(served, lambda log: _over_log(index, tokenizer, served=log, **options))
    return _over_log(index, tokenizer, **options)


def _over_log(
    index: TaskIndex | None, tokenizer: TaskTokenizer | None, *, served: Path | None = None, **options: Any
) -> NgramDrafter | RetokenizingDrafter:
    if tokenizer is None:
        return NgramDrafter(index, served=served, **options)
    plan = tokenizer.plan
    if plan is not None and (index is None or index.fingerprint == plan.fingerprint):
        speller = None if index is None else BasePieceTokenizer(tokenizer, plan.fingerprint)
        return RetokenizingDrafter(NgramDrafter(index, tokenizer=speller, served=served, **options), plan)
    if index is not None and index.fingerprint != tokenizer.fingerprint:
        raise TokenizerMismatchError(
            f"the index was made with tokenizer {index.fingerprint[:16]}…, the model's is "
            f"{tokenizer.fingerprint[:16]}…; build the index again with the model's tokenizer"
        )
    return NgramDrafter(index, tokenizer=None if index is None else tokenizer, served=served, **options)


class RetokenizingDrafter(DrafterWrapper):
    """Drafts base tokens for a model whose vocabulary a plan has extended.

    Args:
        drafter: Drafts base tokens, such as an `NgramDrafter` over an index made with the model's old tokenizer.
        plan: The model's new tokens.
    """

    def __init__(self, drafter: Drafter, plan: MergePlan) -> None:
        super().__init__(drafter)
        self.plan = plan
        lengths = np.array([len(plan.expansion(k)) for k in range(len(plan))])
        self._lengths = np.concatenate([[1], lengths])
        self.base_per_new = float(np.average(lengths, weights=plan.counts))

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> RetokenizingRequest:
        """Start a request; prompts hold base tokens."""
        return RetokenizingRequest(self, self.drafter.start(prompt_ids, input_text))

    def propose_batch(
        self, requests: Sequence[RetokenizingRequest], max_tokens: int, costs: Costs | None = None
    ) -> list[Draft]:
        """Draft for several requests at once: at most `max_tokens` new tokens each."""
        most = int(np.ceil(max_tokens * self.base_per_new))
        inner = [request.inner for request in requests]
        drafts = self.drafter.propose_batch(inner, most, self._costs(costs, max_tokens, most))
        return [self._segmented(draft, max_tokens) for draft in drafts]

    def _costs(self, costs: Costs | None, max_tokens: int, most: int) -> Costs:
        """(most + 1,) costs by base tokens: a new token costs the same however many base tokens it stands for."""
        curve = GivenCosts().costs(max_tokens) if costs is None else np.asarray(costs, np.float64)
        found: Costs = extrapolated(np.arange(most + 1) / self.base_per_new, np.arange(len(curve)), curve)
        return found

    def _segmented(self, draft: Draft, max_tokens: int) -> Draft:
        """The draft in the model's tokens; what depends on the text after it is left out, unless that is everything."""
        if len(draft.tokens) == 0:
            return draft
        stream = self.plan.stream()
        tokens = stream.push(draft.tokens)
        if len(tokens) == 0:
            tokens = stream.finish()
        tokens = tokens[:max_tokens]
        ends = np.cumsum(self._lengths[np.maximum(tokens.astype(np.int64) - (self.plan.base_vocab_size - 1), 0)])
        begins = np.concatenate([[0], ends[:-1]])
        logs = np.concatenate([[0.0], np.cumsum(np.log(np.maximum(draft.probs, 1e-30), dtype=np.float64))])
        probs = np.exp(logs[ends] - logs[begins]).astype(np.float32)
        return TokenDraft(np.asarray(tokens, np.uint32), probs, np.asarray(draft.sources)[begins])

    def serve(self, rows: Sequence[ServedRow]) -> None:
        """Add finished rows, in base tokens, to the drafter inside."""
        self.drafter.serve([(row[0], self.plan.expand(row[1]), *row[2:]) for row in rows])

    def observe(self, new: int, old: int) -> None:
        """Take note of a step's tokens."""
        self.base_per_new += MEMORY * (old / new - self.base_per_new)


@dataclass(frozen=True)
class BasePieceTokenizer:
    """Spells words of inputs for an index that was made before the tokenizer had new tokens."""

    task: TaskTokenizer
    fingerprint: str
    """Of the tokenizer as it was, whose ids `encode` and `spell` still give."""

    def spell(self, pieces: Sequence[str]) -> list[list[int]]:
        """Ids of pieces of text as they stand inside a text."""
        return self.task.spell(pieces)


class RetokenizingRequest(Request):
    """Running request of a `RetokenizingDrafter`."""

    def __init__(self, drafter: RetokenizingDrafter, inner: Request) -> None:
        self.inner = inner
        self._drafter = drafter

    def draft(self, max_tokens: int, costs: Costs | None = None) -> Draft:
        """Propose at most `max_tokens` new tokens."""
        return self._drafter.propose_batch([self], max_tokens, costs)[0]

    def update(self, ids: TokenIds) -> None:
        """Take the tokens that verification has emitted."""
        old = self._drafter.plan.expand(ids)
        if len(ids):
            self._drafter.observe(len(ids), len(old))
        self.inner.update(old)
