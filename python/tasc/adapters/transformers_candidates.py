"""Candidates for transformers' assisted decoding, made of tasc's drafts, as long as they pay.

A draft is a chain of fixed tokens. The loop draws a token per position from the model's processed distribution, or
takes its argmax, and keeps the draft as far as the draws agree with it: plain sampling, whatever is drafted
(docs/verify.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.batch_length import common_length, told_costs
from tasc.drafting.costs import CostCurve, given_costs
from tasc.drafting.protocol import Request, TokenIds
from tasc.drafting.throttle import Brake
from tasc.errors import MissingExtraError

try:
    import torch
    from transformers import EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria
    from transformers.generation.candidate_generator import CandidateGenerator
except ImportError as error:
    raise MissingExtraError("tasc.adapters.transformers", "hf") from error

_log = logging.getLogger(__name__)

MOST_DRAFTED = 64
"""Longest draft, unless told otherwise."""

PLAIN_ENDS = (MaxLengthCriteria, MaxTimeCriteria, EosTokenCriteria)
"""Stopping criteria that drafts need not be asked about."""


class Starter(Protocol):
    """Begins requests: a `TaskDrafts` or any `Drafter`."""

    def start(self, prompt_ids: TokenIds, input: str | None = None) -> Any:
        """A request whose output follows (L,) `prompt_ids`."""


class ModelCosts:
    """How far drafting pays on one model: the cost of verifying, and a brake for drafts that do not pay.

    Args:
        costs: Cost of verifying: a slope c for 1 + c·k, or an array [k] (see `tasc.drafting.costs.given_costs`).
        model: Measured instead, before the first draft, and followed then.
        max_draft: Longest draft, ≥ 1.
    """

    def __init__(self, costs: float | Sequence[float] | None = None, *, model: Any = None, max_draft: int) -> None:
        self.brake = Brake()
        self._given = given_costs(0.02 if costs is None else costs, max_draft)
        self._curve = CostCurve(_passes(model), max_draft) if costs is None and model is not None else None

    @property
    def costs(self) -> NDArray[np.float64]:
        """(max_draft + 1,) float64: cost of verifying k drafted tokens in plain steps."""
        return self._given if self._curve is None else self._curve.costs()

    def observe(self, drafted: int, accepted: int, seconds: float | None) -> None:
        """Take a step; `seconds` None where it held a prompt too."""
        if drafted:
            self.brake.observe(accepted, float(self.costs[drafted]) - 1.0)
        if self._curve is not None and seconds is not None:
            self._curve.observe(drafted + 1, seconds)


class TascCandidateGenerator(CandidateGenerator):
    """Candidates of one request for transformers' assisted decoding.

    Drafts end before what would end the output (an EOS, a stopping criterion): that token is the model's own then, so
    that nothing is accepted beyond it. A drafter that raises is logged, and the request goes on plainly.

    Args:
        drafts: A `TaskDrafts`, or any `Drafter`.
        model_costs: Costs and brake, shared by the requests of a model; None: 1 + 0.02·k.
        max_draft: Longest draft.
        max_length: Most ids of prompt and output together; None: not known.
        vocab_size: Ids from here on are not drafted.
        eos: Ids that end the output.
        stopping_criteria: What else ends it. Each is asked about beginnings of the draft and must depend on the ids
            alone.
        input: The input's text; None: found in the prompt where that is possible.
    """

    def __init__(
        self,
        drafts: Starter,
        *,
        model_costs: ModelCosts | None = None,
        max_draft: int = MOST_DRAFTED,
        max_length: int | None = None,
        vocab_size: int | None = None,
        eos: Sequence[int] = (),
        stopping_criteria: Sequence[Any] = (),
        input: str | None = None,
    ) -> None:
        self._drafts, self._input = drafts, input
        self._model_costs = ModelCosts(max_draft=max_draft) if model_costs is None else model_costs
        self._max_draft, self._max_length, self._vocab_size = max_draft, max_length, vocab_size
        self._eos = frozenset(eos)
        self._ends = [criterion for criterion in stopping_criteria if not isinstance(criterion, PLAIN_ENDS)]
        self._request: Request | None = None
        self._seen = self._drafted = self._steps = 0
        self._failed = False
        self._begin = 0.0

    def get_candidates(self, input_ids: Any, **_: Any) -> tuple[Any, Any]:
        """(1, L) ids so far → (1, L + K) ids with the draft behind them, and no logits: a fixed chain."""
        ids = self._usable(input_ids, self._draft(input_ids))
        self._drafted = len(ids)
        self._begin = time.perf_counter()
        return torch.cat([input_ids, input_ids.new_tensor([ids])], dim=-1) if ids else input_ids, None

    def update_candidate_strategy(self, input_ids: Any, scores: Any, num_matches: int) -> None:
        """Take what verification has made of the last draft: (1, L) ids so far, `num_matches` of it accepted."""
        self._model_costs.observe(
            self._drafted, int(num_matches), time.perf_counter() - self._begin if self._steps else None
        )
        self._steps += 1
        self._safely(self._take, input_ids)

    def _draft(self, input_ids: Any) -> list[int]:
        """What the drafter proposes here."""
        self._safely(self._take, input_ids)
        room = self._max_draft if self._max_length is None else self._max_length - input_ids.shape[1] - 1
        if self._failed or room < 1 or self._model_costs.brake.holds():
            return []
        longest = min(self._max_draft, room)
        request: Any = self._request
        costs = self._model_costs.costs
        draft = self._safely(request.draft, longest, told_costs(self._drafts, costs))
        if draft is None:
            return []
        ids: list[int] = np.asarray(draft.tokens).astype(np.int64)[:longest].tolist()
        probs = getattr(draft, "probs", ())[:longest]
        known = len(probs) == len(ids) and not getattr(self._drafts, "always_drafts", False)
        return ids[: common_length([probs], costs)] if known else ids

    def _take(self, input_ids: Any) -> None:
        """Tell the request the ids it does not know yet."""
        new = input_ids[0, self._seen :].tolist()
        self._seen = input_ids.shape[1]
        if self._request is None:
            self._request = self._drafts.start(new, self._input)
        elif new:
            self._request.update(new)

    def _safely(self, call: Any, *args: Any) -> Any:
        """What a call of the drafter returns; None, and no drafts from then on, once one has failed."""
        if self._failed:
            return None
        try:
            return call(*args)
        except Exception:
            _log.warning("a drafter failed; the request goes on without drafts", exc_info=True)
            self._failed = True
            return None

    def _usable(self, input_ids: Any, ids: list[int]) -> list[int]:
        """The draft up to an id that the model does not have, or to a token that would end the output."""
        for at, token in enumerate(ids):
            if token in self._eos or token < 0 or (self._vocab_size is not None and token >= self._vocab_size):
                ids = ids[:at]
                break
        if self._ends:
            ahead = torch.cat([input_ids, input_ids.new_tensor([ids])], dim=-1)
            for at in range(len(ids)):
                if any(bool(end(ahead[:, : input_ids.shape[1] + at + 1], None).any()) for end in self._ends):
                    return ids[:at]
        return ids


def _passes(model: Any) -> Any:
    """Runs the model over n tokens, to be timed."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def run(tokens: int) -> None:
        ids = torch.zeros((1, min(tokens, limit or tokens)), dtype=torch.long, device=model.device)
        with torch.no_grad():
            model(input_ids=ids, use_cache=False).logits[0, -1].argmax().item()

    return run
