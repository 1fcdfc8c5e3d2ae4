"""The length that drafts verified together are cut to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import Scripted, peer_greedy, random_prompts, tiny_model

from tasc import Generator, NgramDrafter, TokenDraft
from tasc.drafting.costs import GivenCosts
from tasc.drafting.policy import batch_draft_length, discounted_costs

PROMPTS = random_prompts(4, seed=4)
MAX_TOKENS = 20

chances = st.lists(st.lists(st.floats(0, 1), max_size=6), min_size=1, max_size=5)
slopes = st.lists(st.floats(0, 2), min_size=6, max_size=6)


@given(chances, slopes)
def test_no_other_length_brings_more_for_its_time(probs: list[list[float]], slopes: list[float]) -> None:
    costs = np.cumsum([1.0, *slopes])
    rates = []
    for k in range(max(map(len, probs)) + 1):
        emitted = 0.0
        for row in probs:
            for j in range(min(k, len(row)) + 1):
                emitted += float(np.prod(row[:j]))
        rates.append(emitted / costs[k])
    chosen = batch_draft_length(probs, costs)
    assert rates[chosen] >= max(rates) * (1 - 1e-9)
    assert max(rates[:chosen], default=0.0) < rates[chosen] * (1 + 1e-9)


def test_what_is_no_probability_counts_as_one_or_none() -> None:
    assert batch_draft_length([[float("nan"), 1.0]], GivenCosts(0.1).costs(4)) == 0
    assert batch_draft_length([[7.0, -1.0]], GivenCosts(0.1).costs(4)) == 1
    assert batch_draft_length([[], []], GivenCosts(0.1).costs(4)) == 0


class Weighing(Scripted):
    """Drafts the truth, and says that it is right with some probability."""

    def __init__(self, outputs: dict[tuple[int, ...], list[int]], chance: float, **attributes: Any) -> None:
        super().__init__(outputs)
        self.chance, self.costs = chance, []
        vars(self).update(attributes)

    def propose_batch(self, requests: Any, max_tokens: int, costs: Any = None) -> list[Any]:
        self.costs.append(costs)
        drafts = [request.draft(max_tokens) for request in requests]
        return [TokenDraft(d.tokens, np.full(len(d.tokens), self.chance, np.float32), d.sources) for d in drafts]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_loop_cuts_what_does_not_pay(batch_size: int) -> None:
    model = tiny_model("llama")
    outputs = {tuple(prompt): peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS}

    def drafted(chance: float, **attributes: Any) -> int:
        drafter = Weighing(outputs, chance, **attributes)
        made = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.3).generate(
            prompts=PROMPTS, max_tokens=MAX_TOKENS
        )
        assert [item.ids for item in made] == list(outputs.values())
        return max(made.stats.drafted_at, default=-1) + 1

    assert drafted(1.0) == 7
    assert drafted(0.5) == 1  # 1.5 / 1.3, but 1.75 / 1.6
    assert drafted(0.2) == 0
    assert drafted(0.2, fixed_length=True) == 7


def test_drafts_that_say_nothing_of_their_chances_are_left_whole() -> None:
    class Silent(Scripted):
        def propose_batch(self, requests: Any, max_tokens: int, costs: Any = None) -> list[Any]:
            drafts = [request.draft(max_tokens) for request in requests]
            return [TokenDraft(draft.tokens, sources=draft.sources) for draft in drafts]

    model = tiny_model("llama")
    outputs = {tuple(prompt): peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS}
    made = Generator(model, drafter=Silent(outputs), costs=0.3).generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
    assert [item.ids for item in made] == list(outputs.values())
    assert max(made.stats.drafted_at) + 1 == 7


def test_a_drafter_that_takes_no_time_is_asked_for_more() -> None:
    model = tiny_model("llama")
    outputs = {tuple(PROMPTS[0]): peer_greedy(model, PROMPTS[0], MAX_TOKENS)}
    for negligible_cost in (False, True):
        drafter = Weighing(outputs, 1.0, negligible_cost=negligible_cost)
        Generator(model, drafter=drafter, costs=0.3).generate(prompts=PROMPTS[:1], max_tokens=MAX_TOKENS)
        expected = GivenCosts(0.3).costs(64)
        np.testing.assert_array_equal(drafter.costs[0], discounted_costs(drafter, expected))
        assert (drafter.costs[0][1] < expected[1]) == negligible_cost
    assert NgramDrafter().negligible_cost
