"""The n-gram draft where it is confident, a draft model elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasc.decoding.draft_model.drafter import ModelDrafter, ModelRequest
from tasc.drafting.batch_length import told_costs
from tasc.drafting.protocol import Draft, Drafter, Request, RequestParams, TokenIds
from tasc.errors import InputError

if TYPE_CHECKING:
    from tasc._core import TaskIndex


class HybridDrafter:
    """Begins with the n-gram draft's tokens and goes on with the draft model's.

    The n-gram draft costs next to nothing, so it is always made. How much of it is kept, and whether the model drafts
    after that, is what promises most tokens for the time (`DraftLengthController.split`): its own probabilities
    against how often the model's tokens were right lately and what they cost. Where the model does not pay it is
    left alone, and tried again
    now and then.

    Args:
        ngram: An `NgramDrafter`, or any drafter of fixed tokens with probabilities.
        model: The draft model, of free length.
        name: What reports call it.

    Raises:
        InputError: The model's drafts have a fixed length.
    """

    def __init__(self, ngram: Drafter, model: ModelDrafter, *, name: str = "combined") -> None:
        if model.length is not None:
            raise InputError(
                f"the draft model's length is fixed at {model.length}; a combined draft decides it: give "
                "ModelDrafter(…, length=None)"
            )
        self.name = name
        self.ngram = ngram
        self.model = model

    @property
    def index(self) -> TaskIndex | None:
        """The index that the n-gram drafter draws on."""
        found: TaskIndex | None = getattr(self.ngram, "index", None)
        return found

    def check_vocabulary(self, vocab_size: int, tokenizer: Any = None) -> None:
        """Refuse a target of another vocabulary; see `ModelDrafter.check_vocabulary`."""
        self.model.check_vocabulary(vocab_size, tokenizer)

    def serve(self, rows: Sequence[tuple[str | None, Any]]) -> None:
        """Add served rows where the n-gram drafter takes them."""
        serve: Any = getattr(self.ngram, "serve", None)
        if serve is not None:
            serve(rows)

    def start(self, prompt_ids: TokenIds, input: str | None = None) -> HybridRequest:
        """Begin a request with both."""
        return HybridRequest(self, self.ngram.start(prompt_ids, input), self.model.start(prompt_ids))

    def propose_batch(
        self, requests: Sequence[HybridRequest], max_tokens: int, costs: NDArray[np.float64] | None = None
    ) -> list[Draft]:
        """Draft for several requests at once."""
        told = None if costs is None else told_costs(self.ngram, costs)
        heads = self.ngram.propose_batch([request.ngram for request in requests], max_tokens, told)
        return self.model.extend([request.model for request in requests], heads, max_tokens, costs)


class HybridRequest:
    """One running request of a `HybridDrafter`."""

    def __init__(self, drafter: HybridDrafter, ngram: Request, model: ModelRequest) -> None:
        self.ngram = ngram
        self.model = model
        self._drafter = drafter

    def configure(self, terms: RequestParams) -> None:
        """Tell the model's side how the request ends and how proposals are made."""
        self.model.configure(terms)

    def draft(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> Draft:
        """Propose what comes next."""
        return self._drafter.propose_batch([self], max_tokens, costs)[0]

    def update(self, ids: TokenIds) -> None:
        """Take the tokens that verification has emitted."""
        self.ngram.update(ids)
        self.model.update(ids)
