"""The requests of callers as the verify loop sees them, and their drafts once they are checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import Tensor

from tasc.decoding.detokenize import IncrementalDetokenizer
from tasc.decoding.sampling import Sampler
from tasc.decoding.stats import Stats
from tasc.drafting.protocol import Draft, RequestParams, SafeDrafter, SafeRequest

if TYPE_CHECKING:
    from tasc.decoding.grammar import GrammarState

T = TypeVar("T")


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """State of one request from its prompt to its last token.

    Attributes:
        index: Position of the request in the call.
        tokens: Prompt and output ids.
        num_prompt: Prompt ids among them.
        max_tokens: Most output ids.
        rope_switch: Number of tokens that a draft must not carry a shorter sequence across; None: none.
        eos: Ids that end the output and are part of it.
        drafter: Drafts for it; None decodes plainly.
        input_text: The input's text, where known: for the drafter.
        salt: Keys and values of a prefix are shared with jobs of the same salt alone.
        sampler: None takes the argmax.
        grammar: What the output may be; None: anything.
        detokenizer: Detokenizes the output on the way, where text is needed; else None.
        emit: Called with new ids and new text.
        cached: Tokens whose keys and values are in the request's cache row.
        request: The drafter's side of the request; None before the first draft and after the end.
        synced_tokens: Tokens that the request knows.
        stats: Counts of the request.
        finish_reason: "eos", "stop" (a stop string) or "length" once it has ended.
        error: What ended it instead.
        is_cancelled: Whether its caller does not want it any more; it leaves the loop at the next step.
    """

    index: int
    tokens: list[int]
    num_prompt: int
    max_tokens: int
    eos: frozenset[int]
    rope_switch: int | None = None
    drafter: SafeDrafter | None = None
    input_text: str | None = None
    salt: str | None = None
    sampler: Sampler | None = None
    grammar: GrammarState | None = None
    detokenizer: IncrementalDetokenizer | None = None
    emit: Callable[[int, list[int], str], None] | None = None
    cached: int = 0
    request: SafeRequest | None = None
    synced_tokens: int = 0
    stats: Stats = field(default_factory=lambda: Stats(requests=1))
    finish_reason: str | None = None
    error: Exception | None = None
    is_cancelled: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether the loop has no more to do for it."""
        return self.finish_reason is not None or self.error is not None or self.is_cancelled

    @property
    def output(self) -> list[int]:
        """Output ids so far."""
        return self.tokens[self.num_prompt :]

    @property
    def max_draft_tokens(self) -> int:
        """Longest useful draft: the target's own token after it fills the last place."""
        useful = self.num_prompt + self.max_tokens - len(self.tokens) - 1
        if self.rope_switch is not None and len(self.tokens) <= self.rope_switch:
            return min(useful, self.rope_switch - len(self.tokens))
        return useful

    @property
    def can_draft(self) -> bool:
        """Whether a draft is possible and useful."""
        return self.drafter is not None and not self.stats.drafter_errors and self.max_draft_tokens > 0

    def sync_request(self, vocab_size: int) -> None:
        """Start the request with the prompt, and pass it the tokens that it does not know yet."""
        assert self.drafter is not None
        if self.request is None:
            self.request = self.drafter.start(self.tokens[: self.num_prompt], self.input_text)
            self.synced_tokens = self.num_prompt
            sampler = None if self.sampler is None else self.sampler.draft_sampler()
            self.request.configure(
                RequestParams(max_tokens=self.max_tokens, eos=self.eos, vocab_size=vocab_size, sampler=sampler)
            )
        if self.synced_tokens < len(self.tokens):
            self.request.update(self.tokens[self.synced_tokens :])
            self.synced_tokens = len(self.tokens)

    def checked(self, draft: Draft, max_tokens: int, vocab_size: int) -> CheckedDraft:
        """Return the part of a draft that can be verified: ids of the vocabulary, up to the length limit or an EOS."""
        tokens = np.asarray(draft.tokens).astype(np.int64, copy=False)[:max_tokens]
        unknown = (tokens < 0) | (tokens >= vocab_size)
        if unknown.any():
            self.stats.out_of_vocab_tokens += int(len(tokens) - unknown.argmax())
            tokens = tokens[: unknown.argmax()]
        ids: list[int] = tokens[: self.max_draft_tokens].tolist()
        end = next((position for position, token in enumerate(ids) if token in self.eos), len(ids))
        del ids[end + 1 :]
        dists = tuple(draft.dists)[: len(ids)]
        for position, (token, q) in enumerate(zip(ids, dists, strict=False)):
            # a token that its own distribution cannot give, or a distribution that is none, ends the draft and drafting
            if q is not None and not (len(q) == vocab_size and float(q[token]) > 0 and bool(q.sum().isfinite())):
                self.stats.drafter_errors += 1
                ids, dists = ids[:position], dists[:position]
                break
        return CheckedDraft(ids, _per_token(ids, draft.sources, 255), _per_token(ids, draft.probs, 1.0), dists)


@dataclass(frozen=True, slots=True)
class CheckedDraft:
    """A draft ready for verification, (K,) each: token ids, source codes, probabilities, and their distributions."""

    tokens: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)
    dists: Sequence[Tensor | None] = ()

    def cut(self, length: int) -> CheckedDraft:
        """Return its first tokens."""
        if len(self.tokens) <= length:
            return self
        return CheckedDraft(self.tokens[:length], self.sources[:length], self.probs[:length], self.dists[:length])

    def followed_by(self, tokens: list[int], source: int) -> CheckedDraft:
        """Return it with more tokens of one source behind it, which are taken to be right."""
        count = len(tokens)
        return replace(
            self, tokens=self.tokens + tokens, sources=self.sources + [source] * count, probs=self.probs + [1.0] * count
        )

    def count_without(self, source: int) -> int:
        """Return the number of its tokens that are not of a source."""
        return len(self.sources) - self.sources.count(source)


def _per_token(ids: Sequence[int], given: Any, otherwise: T) -> list[T]:
    """A draft's values for its tokens, as a list; `otherwise` for each where the draft has another number of them."""
    values: list[T] = np.asarray(given)[: len(ids)].tolist()
    return values if len(values) == len(ids) else [otherwise] * len(ids)
