"""A draft model in a check: how its drafts are accepted, what drafting costs here, and the methods with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tasc.evaluation.acceptance import Acceptance
from tasc.evaluation.bootstrap import estimate
from tasc.evaluation.cost_profile import CostProfile
from tasc.evaluation.forecast import DRAFT_MODEL, DRAFTS_AND_MODEL, Plan
from tasc.evaluation.simulate import KnownRequest, simulate
from tasc.progress import Progress, ProgressBars

if TYPE_CHECKING:
    from tasc.data import Row, TaskTokenizer
    from tasc.decoding.stats import Stats


class TrainDraft(Protocol):
    """Trains a draft model, such as `tasc.training.distill.timed.TimedDistillation`."""

    def __call__(
        self,
        target: Any,
        tokenizer: Any,
        rows: Sequence[Row],
        task: TaskTokenizer,
        system: str | None,
        progress: ProgressBars,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the draft model, and JSON values: `minutes`, `steps`, `rows`, `layers`, `parameters`."""


SHORTEST = 3
"""Tokens of an output from which a pass of the draft model over one token can be measured."""

_LENGTH = 5  # tokens per draft of the measurement, as in `tasc distill`
_TURNS = 8  # requests of the measurement, by requests at once


def measured_draft(
    draft: Any,
    profile: CostProfile,
    requests: Sequence[KnownRequest],
    *,
    eos: frozenset[int],
    loads: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:
    """Run a draft model on known outputs with drafts of 5 tokens, and time its passes.

    Args:
        draft: The draft model.
        profile: Costs of the model in tasc's loop, measured on this machine.
        requests: Requests with the model's outputs; one has at least `SHORTEST` tokens.
        eos: Ids that end an output.
        loads: Requests at once.
        progress: Called with (loads done, loads).

    Returns:
        JSON values. `acceptance`: the share α of the tested tokens that are accepted (value, low, high). `cost`: by
        load, the time of drafting one token per request, in plain steps of as many requests.
    """
    from tasc.decoding.draft_model.drafter import ModelDrafter

    longest_first = sorted(requests, key=lambda one: len(one.output), reverse=True)
    costs: dict[str, float] = {}
    counts: Sequence[Stats] = ()
    for done, load in enumerate(sorted(loads), 1):  # the most requests last: they give the acceptance
        drafter = ModelDrafter(draft, length=_LENGTH)
        part = longest_first[: _TURNS * load]
        run = simulate(profile, part, drafter, load=load, eos=eos, vocab_size=drafter.target.vocab_size)
        assert drafter.controller.pass_seconds is not None
        costs[str(load)] = drafter.controller.pass_seconds / float(profile.seconds(load, 1))
        counts = run.requests
        progress(done, len(loads))
    return {"acceptance": estimate(Acceptance.of(counts).alpha), "cost": costs}


def draft_plans(draft: Any, drafts: Plan, cost: Mapping[str, float]) -> dict[str, Plan]:
    """Return the methods with a draft model. Its drafts take their real time; `cost` decides how long they are.

    Args:
        draft: The draft model.
        drafts: Drafts from an index, of the same requests.
        cost: By load, as `measured_draft` returns it.
    """
    from tasc.decoding.draft_model.drafter import ModelDrafter
    from tasc.decoding.draft_model.hybrid import HybridDrafter

    def alone(load: int) -> ModelDrafter:
        return ModelDrafter(draft, step_cost=cost[str(load)])

    def behind(load: int) -> HybridDrafter:
        assert drafts.drafter is not None
        return HybridDrafter(drafts.drafter(load), alone(load))

    vocab_size = draft.get_input_embeddings().weight.shape[0]
    return {
        DRAFT_MODEL: Plan(drafts.requests, alone, vocab_size),
        DRAFTS_AND_MODEL: Plan(drafts.requests, behind, vocab_size),
    }
