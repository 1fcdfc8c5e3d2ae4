"""n-grams and a draft model together: the same text, each where it is worth more, and no loss where one is useless."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model_drafter import near
from tiny_models import ARCHITECTURES, PromptLookup, Scripted, peer_greedy, random_prompts, tiny_model

from tasc import Generator, HybridDrafter, ModelDrafter, NgramDrafter, NullDrafter, TokenDraft
from tasc.decoding.draft_model.controller import Calibration, DraftLengthController
from tasc.errors import InputError

MAX_TOKENS = 14
PROMPTS = random_prompts(4, seed=6)
EOS_FREE: dict[str, Any] = {"max_tokens": 40, "eos": ()}


def combined(draft: Any, ngram: Any = None, step_cost: float = 0.1) -> HybridDrafter:
    return HybridDrafter(ngram or NgramDrafter(None), ModelDrafter(draft, step_cost=step_cost))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_output_is_plain_decoding_s(architecture: str) -> None:
    model = tiny_model(architecture)
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    known = {tuple(prompt): output for prompt, output in zip(PROMPTS, expected, strict=True)}
    for ngram in (NgramDrafter(None), Scripted(known, miss=0.3, length=2), PromptLookup()):
        for batch_size, draft in ((1, tiny_model("gpt2", seed=1)), (3, tiny_model(architecture))):
            generator = Generator(model, drafter=combined(draft, ngram), batch_size=batch_size, costs=0.02)
            made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
            assert [item.ids for item in made] == expected
            assert made.stats.drafter_errors == 0
            assert made.stats.drafted_by["model"] > 0


class Half(Scripted):
    """Knows the first two tokens of every four, and says so."""

    class Request(Scripted.Request):
        def draft(self, max_tokens: int, costs: Any = None) -> Any:
            sure = max(0, 2 - self.seen % 4)
            made = super().draft(min(max_tokens, sure), costs)
            return made

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Half.Request:
        return Half.Request(self, self.outputs[tuple(prompt_ids)])


def test_each_drafts_what_it_knows() -> None:
    model = tiny_model("llama")
    expected = {tuple(p): peer_greedy(model, p, 40, eos_token_id=None) for p in PROMPTS}
    total = {}
    for name, drafter in (
        ("ngram", Half(expected)),
        ("model", ModelDrafter(near(model), step_cost=0.1)),
        ("both", combined(near(model), Half(expected))),
    ):
        made = Generator(model, drafter=drafter, costs=0.01).generate(prompts=PROMPTS, **EOS_FREE)
        assert [item.ids for item in made] == list(expected.values())
        total[name] = made.stats
    assert total["both"].steps < min(total["ngram"].steps, total["model"].steps)
    assert total["both"].accepted_by["task"] > 0
    assert total["both"].accepted_by["model"] > 0


def test_a_model_that_is_never_right_costs_next_to_nothing() -> None:
    model = tiny_model("llama", positions=1024).double()  # 400 tokens hold ties that fp32 breaks either way
    prompt = PROMPTS[0]
    output = Generator(model, drafter=NullDrafter()).generate(prompts=[prompt], max_tokens=400, eos=())[0].ids
    drafter = combined(tiny_model("gpt2", seed=1, positions=1024), Half({tuple(prompt): output}))
    made = Generator(model, drafter=drafter, costs=0.02).generate(prompts=[prompt], max_tokens=400, eos=())
    alone = Generator(model, drafter=Half({tuple(prompt): output}), costs=0.02).generate(
        prompts=[prompt], max_tokens=400, eos=()
    )
    assert made[0].ids == output
    assert made.stats.steps == alone.stats.steps
    assert made.stats.drafted_by["task"] == alone.stats.drafted_by["task"]
    assert made.stats.drafted_by["model"] < 0.15 * made.stats.steps


def test_a_model_behind_heads_that_are_always_wrong_is_paused() -> None:
    """Its tokens are never reached, so nothing but the account says that they do not pay."""
    drafter = combined(tiny_model("llama"), OverSure())
    request = drafter.start([5, 6, 7])
    drafted = 0
    for _ in range(100):
        drafted += sum(source == 5 for source in request.draft(8, 1.0 + 0.02 * np.arange(9)).sources)
        request.update([9])
    assert 0 < drafted < 120


class OverSure(PromptLookup):
    """Sure of a token that never comes."""

    class Request(PromptLookup.Request):
        def draft(self, max_tokens: int, costs: Any = None) -> Any:
            return TokenDraft.of([4][:max_tokens], "task")

    def start(self, prompt_ids: Any, input_text: str | None = None) -> OverSure.Request:
        return OverSure.Request(list(prompt_ids))


def test_the_index_and_served_rows_are_the_ngram_drafters() -> None:
    served = []

    class Indexed(Scripted):
        index = "the index"

        def serve(self, rows: Any) -> None:
            served.extend(rows)

    drafter = combined(tiny_model("llama"), Indexed({}))
    assert drafter.index == "the index"
    drafter.serve([("in", [1, 2])])
    assert served == [("in", [1, 2])]
    bare = combined(tiny_model("llama"), PromptLookup())
    assert bare.index is None
    bare.serve([("in", [1])])
    with pytest.raises(InputError, match="length is fixed at 3"):
        HybridDrafter(NgramDrafter(None), ModelDrafter(tiny_model("llama"), length=3))
    with pytest.raises(InputError, match="the draft model has 99 ids"):
        Generator(tiny_model("llama"), drafter=combined(tiny_model("llama", vocab=99)))


def test_a_generator_puts_a_draft_model_behind_its_n_grams() -> None:
    model = tiny_model("llama")
    generator = Generator(model, draft=ModelDrafter(tiny_model("llama"), step_cost=0.1), costs=0.02)
    made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
    assert [item.ids for item in made] == [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    assert made.stats.accepted_by["model"] > 0
    with pytest.raises(InputError, match=r"give draft= .* or drafter=.*, not both"):
        Generator(model, drafter=PromptLookup(), draft=ModelDrafter(tiny_model("llama")))
    with pytest.raises(InputError, match="the draft model has 99 ids"):
        Generator(model, draft=ModelDrafter(tiny_model("llama", vocab=99)))


def test_sampling_with_both() -> None:
    model = tiny_model("llama")
    made = Generator(model, drafter=combined(tiny_model("llama")), batch_size=2, costs=0.01).generate(
        prompts=PROMPTS, max_tokens=20, temperature=0.8, repetition_penalty=1.2, seed=1
    )
    assert made.stats.drafter_errors == 0
    assert made.stats.accepted_by["model"] > 0


def gain_of(controller: DraftLengthController, kept: list[float], more: int, costs: Any, feed: float) -> float:
    """What keeping these tokens and drafting `more` with the model is expected to bring, word by word."""
    survival, gain = 1.0, 0.0
    for prob in kept:
        survival *= prob
        gain += survival
    for _ in range(more):
        survival *= controller.alpha
        gain += survival
    passes = more - 1 + feed if more else 0.0
    return gain - controller.rate * (float(costs[len(kept) + more] - costs[0]) + controller.step_cost * passes)


@settings(deadline=None)
@given(
    st.lists(st.floats(0.05, 1.0), max_size=5),
    st.lists(st.floats(0.0, 0.3), min_size=6, max_size=6),
    st.floats(0.0, 1.0),
    st.floats(1.0, 4.0),
    st.booleans(),
)
def test_split_against_trying_all(
    probs: list[float], steps: list[float], step_cost: float, feed: float, extendable: bool
) -> None:
    controller = DraftLengthController(step_cost)
    costs = 1.0 + np.cumsum([0.0, *steps])
    best, found = -np.inf, (len(probs), False)
    for kept in range(len(probs) + 1):
        may = extendable if kept == len(probs) else probs[kept] < controller.alpha
        for more in range(7 - kept if may else 1):
            gain = gain_of(controller, probs[:kept], more, costs, feed)
            if gain > best:
                best, found = gain, (kept, more > 0)
    kept, goes = controller.split(probs, costs, feed, extendable)
    if goes:
        reached = max(gain_of(controller, probs[:kept], more, costs, feed) for more in range(1, 7 - kept))
        assert reached == pytest.approx(best, abs=1e-9)
    else:
        assert kept == len(probs)
        assert not found[1] or best == pytest.approx(gain_of(controller, probs[: found[0]], 0, costs, feed), abs=1e-9)


def test_a_calibration_follows_what_was_right() -> None:
    calibration = Calibration()
    assert calibration(0.3) == pytest.approx(0.3)
    rng = np.random.default_rng(0)
    for _ in range(4000):
        p = float(rng.uniform(0.1, 0.9))
        calibration.learn(p, bool(rng.random() < p**3))
    for p in (0.3, 0.5, 0.8):
        assert calibration(p) == pytest.approx(p**3, abs=0.12)


def test_costs_of_passes_are_measured() -> None:
    controller = DraftLengthController()
    assert controller.step_cost > 0
    for _ in range(50):
        controller.record_time(draft=0.01)
        controller.record_time(plain=0.05)
    assert controller.step_cost == pytest.approx(0.2)
    controller.record_time(draft=100.0)  # one stall moves it little
    assert controller.step_cost < 0.25
