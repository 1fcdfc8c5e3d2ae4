"""The n-gram draft where it is confident, a draft model elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tasc.checks import wrong
from tasc.decoding.draft_model.drafter import ModelDrafter, ModelRequest
from tasc.drafting.policy import discounted_costs
from tasc.drafting.protocol import (
    Costs,
    Draft,
    Drafter,
    DrafterWrapper,
    Request,
    RequestParams,
    TokenIds,
    checked_drafter,
)
from tasc.errors import InputError


class HybridDrafter(DrafterWrapper):
    """Begins with the n-gram draft's tokens and continues with the draft model's.

    The n-gram draft costs next to nothing, so it is always made. `DraftLengthController.split` decides how much of it
    is kept and whether the model drafts after that: it compares the n-grams' own probabilities with the model's recent
    acceptance rate and the cost of its passes. Where the model does not pay it is left out, and tried again now and
    then.

    Args:
        ngram: An `NgramDrafter`, or any drafter of fixed tokens with probabilities.
        model: The draft model, of free length.
        name: The name in reports.

    Raises:
        InputError: The model's drafts have a fixed length.
    """

    def __init__(self, ngram: Drafter, model: ModelDrafter, *, name: str = "combined") -> None:
        super().__init__(checked_drafter(ngram))
        if not isinstance(model, ModelDrafter):
            raise wrong("the draft model", model, "a ModelDrafter")
        if model.fixed_length:
            raise InputError(
                f"the draft model's length is fixed at {model.length}; a combined draft decides it: give "
                "ModelDrafter(…, length=None)"
            )
        self.name = name
        self.negligible_cost = False
        self.reads_states = model.reads_states
        self.model = model

    def check_vocabulary(self, vocab_size: int, tokenizer: Any = None) -> None:
        """Refuse a target of another vocabulary; see `ModelDrafter.check_vocabulary`."""
        self.drafter.check_vocabulary(vocab_size, tokenizer)
        self.model.check_vocabulary(vocab_size, tokenizer)

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> HybridRequest:
        """Start a request with both."""
        return HybridRequest(self, self.drafter.start(prompt_ids, input_text), self.model.start(prompt_ids))

    def propose_batch(
        self, requests: Sequence[HybridRequest], max_tokens: int, costs: Costs | None = None
    ) -> list[Draft]:
        """Draft for several requests at once."""
        told = None if costs is None else discounted_costs(self.drafter, costs)
        prefixes = self.drafter.propose_batch([request.ngram for request in requests], max_tokens, told)
        return self.model.extend([request.model for request in requests], prefixes, max_tokens, costs)


class HybridRequest(Request):
    """Running request of a `HybridDrafter`."""

    def __init__(self, drafter: HybridDrafter, ngram: Request, model: ModelRequest) -> None:
        self.ngram = ngram
        self.model = model
        self._drafter = drafter

    def configure(self, params: RequestParams) -> None:
        """Pass the request's parameters to both."""
        self.ngram.configure(params)
        self.model.configure(params)

    def read_states(self, states: Tensor) -> None:
        """Pass the target's states to the model's request."""
        self.model.read_states(states)

    def draft(self, max_tokens: int, costs: Costs | None = None) -> Draft:
        """Propose the next tokens."""
        return self._drafter.propose_batch([self], max_tokens, costs)[0]

    def update(self, ids: TokenIds) -> None:
        """Take the tokens that verification emitted."""
        self.ngram.update(ids)
        self.model.update(ids)
