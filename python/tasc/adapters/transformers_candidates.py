"""Candidates for transformers' assisted decoding, made of tasc's drafts.

A draft is a chain of fixed tokens. transformers samples a token per position from the model's processed distribution,
or takes the argmax, and keeps the draft as far as these tokens agree with it. The result is plain sampling, whatever
the draft is (docs/verify.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tasc.drafting.costs import CostCurve, GivenCosts, MeasuredCosts
from tasc.drafting.defaults import DEFAULT_SLOPE, MAX_DRAFT
from tasc.drafting.policy import DraftPolicy
from tasc.drafting.protocol import guarded
from tasc.errors import MissingExtraError
from tasc.serving.tasks import StartedRequest, TaskDrafts

try:
    import torch
    from transformers import EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria
    from transformers.generation.candidate_generator import CandidateGenerator
except ImportError as error:
    raise MissingExtraError("tasc.adapters.transformers", "hf") from error

PLAIN_ENDS = (MaxLengthCriteria, MaxTimeCriteria, EosTokenCriteria)
"""Stopping criteria that are not evaluated on drafts."""


class ModelPolicy:
    """Draft policy of one model: the cost of verification, and the pauses of its drafters.

    Args:
        costs: Cost of verifying: a slope c for 1 + c·k, or an array [k] (see `tasc.drafting.costs.GivenCosts`).
        model: Measured instead, before the first draft, and followed then.
        max_draft: Longest draft, ≥ 1.
    """

    def __init__(self, costs: float | Sequence[float] | None = None, *, model: Any = None, max_draft: int) -> None:
        self.policy = DraftPolicy("padded")
        self.curve: CostCurve = GivenCosts(DEFAULT_SLOPE if costs is None else costs)
        if costs is None and model is not None:
            self.curve = MeasuredCosts(_passes(model), max_draft)


class TascCandidateGenerator(CandidateGenerator):
    """Candidates of one request for transformers' assisted decoding.

    A draft ends before a token that would end the output (an EOS, a stopping criterion). The model emits that token
    itself, so nothing is accepted beyond it. A drafter that raises is logged, the request continues plainly, and so do
    requests that start soon after (`TaskDrafts.failed`). An output whose last token is an EOS is passed to
    `TaskDrafts.finished`, once; an output that ended otherwise is not, nor one whose EOS was forced at its greatest
    length.

    Args:
        drafts: A `TaskDrafts`.
        model_policy: Costs and pauses, shared by the requests of a model; None: 1 + 0.02·k.
        max_draft: Longest draft.
        max_length: Most ids of prompt and output together; None: not known.
        vocab_size: Ids of the model; larger ids are not drafted.
        eos: Ids that end the output.
        forces_eos: Whether the last token of an output of the greatest length is an EOS whatever the model says
            (`forced_eos_token_id`).
        stopping_criteria: Further criteria. Each is evaluated on every prefix of the draft, and must depend on the ids
            alone.
        input_text: The input's text; None: found in the prompt where that is possible.
    """

    def __init__(
        self,
        drafts: TaskDrafts,
        *,
        model_policy: ModelPolicy | None = None,
        max_draft: int = MAX_DRAFT,
        max_length: int | None = None,
        vocab_size: int | None = None,
        eos: Sequence[int] = (),
        forces_eos: bool = False,
        stopping_criteria: Sequence[Any] = (),
        input_text: str | None = None,
    ) -> None:
        self._drafts, self._input_text = drafts, input_text
        model_policy = ModelPolicy(max_draft=max_draft) if model_policy is None else model_policy
        self._policy, self._curve = model_policy.policy, model_policy.curve
        self._max_draft, self._max_length, self._vocab_size = max_draft, max_length, vocab_size
        self._eos = frozenset(eos)
        self._forced_at = max_length if forces_eos else None
        self._ends = [criterion for criterion in stopping_criteria if not isinstance(criterion, PLAIN_ENDS)]
        self._started: StartedRequest | None = None
        self._seen = self._drafted = self._steps = self._num_prompt = 0
        self._has_ended = False
        self._begin = 0.0

    def get_candidates(self, input_ids: Any, **_: Any) -> tuple[Any, Any]:
        """(1, L) ids so far → (1, L + K) ids with the draft behind them, and no logits: a fixed chain."""
        ids = self._usable(input_ids, self._draft(input_ids))
        self._drafted = len(ids)
        self._begin = time.perf_counter()
        return torch.cat([input_ids, input_ids.new_tensor([ids])], dim=-1) if ids else input_ids, None

    def update_candidate_strategy(self, input_ids: Any, scores: Any, num_matches: int) -> None:
        """Take the result of verification: (1, L) ids so far, `num_matches` drafted tokens accepted."""
        accepted = int(num_matches)
        if self._drafted and self._started is not None:
            extra = float(self._curve.costs(self._max_draft)[self._drafted]) - 1.0
            self._policy.record(self._started.drafter, accepted, extra)
        if self._steps:  # the first one held the prompt
            self._curve.observe(self._drafted + 1, time.perf_counter() - self._begin)
        self._steps += 1
        self._sync(input_ids)
        self._learn(input_ids)

    def _learn(self, input_ids: Any) -> None:
        """Pass the output to the task once its last token is an EOS. A draft holds none, so an EOS is always last."""
        if self._started is None or self._has_ended or int(input_ids[0, -1]) not in self._eos:
            return
        self._has_ended = True
        if input_ids.shape[1] == self._forced_at:
            return
        text, output = self._started.input_text, input_ids[0, self._num_prompt :].tolist()
        guarded((), lambda: self._drafts.finished(text, output, self._steps), "a finished output was not learnt")

    def _draft(self, input_ids: Any) -> list[int]:
        """Return the drafter's proposal."""
        drafter, request, _ = self._sync(input_ids)
        room = self._max_draft if self._max_length is None else self._max_length - input_ids.shape[1] - 1
        if request.failed or room < 1:
            return []
        costs = self._curve.costs(self._max_draft)
        budget = self._policy.budget(drafter, costs)
        if budget is None:
            return []
        longest = min(self._max_draft, room)
        draft = request.draft(longest, budget)
        ids: list[int] = np.asarray(draft.tokens).astype(np.int64)[:longest].tolist()
        probs: list[float] = np.asarray(draft.probs)[:longest].tolist()
        if drafter.fixed_length or len(probs) != len(ids):
            return ids
        return ids[: self._policy.cut([probs], costs)[0]]

    def _sync(self, input_ids: Any) -> StartedRequest:
        """Start the request, or pass it the ids that it does not know yet."""
        new = input_ids[0, self._seen :].tolist()
        self._seen = input_ids.shape[1]
        if self._started is None:
            self._num_prompt = self._seen
            self._started = self._drafts.start(new, self._input_text)
        elif new:
            self._started.request.update(new)
        return self._started

    def _usable(self, input_ids: Any, ids: list[int]) -> list[int]:
        """Return the draft up to an unknown id, or to a token that would end the output."""
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
    """Return a function that runs the model over n tokens, for timing."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def run(tokens: int) -> None:
        ids = torch.zeros((1, min(tokens, limit or tokens)), dtype=torch.long, device=model.device)
        with torch.no_grad():
            model(input_ids=ids, use_cache=False).logits[0, -1].argmax().item()

    return run
