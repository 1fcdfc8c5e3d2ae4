"""Acceptance is defined once: a teacher-forced pass counts what the loop counts, and intervals are over prompts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tiny_models import EOS, VOCAB, byte_tokenizer, random_prompts, tiny_model  # noqa: E402

from tasc import Generator, ModelDrafter  # noqa: E402
from tasc.decoding.draft_model.vocabulary import set_draft_vocabulary  # noqa: E402
from tasc.decoding.stats import Stats  # noqa: E402
from tasc.errors import InputError  # noqa: E402
from tasc.evaluation.acceptance import Acceptance  # noqa: E402
from tasc.evaluation.bootstrap import bootstrap_interval  # noqa: E402
from tasc.training.distill import CachedHiddenStates, OnlineTeacher, acceptance, cut_draft, difference, target_outputs  # noqa: E402
from tasc.training.examples import Example  # noqa: E402


def counted(model: Any, draft: Any, prompts: list[list[int]], length: int, max_tokens: int, eos: Any) -> list[Any]:
    drafter = ModelDrafter(draft, length=length)
    generator = Generator(model, drafter=drafter, max_draft=length, costs=0.0, batch_size=3)
    return generator.generate(prompts=prompts, max_tokens=max_tokens, eos=eos)


@pytest.mark.parametrize("length", [1, 3, 6])
@pytest.mark.parametrize("max_tokens", [9, 40])
@pytest.mark.parametrize("ids", [None, [token for token in range(VOCAB) if token % 5]], ids=["all ids", "some ids"])
def test_alpha_by_teacher_forcing_is_the_loops_exactly(length: int, max_tokens: int, ids: Any) -> None:
    model = tiny_model("llama", spread=0.3)
    draft = tiny_model("llama", spread=0.3)
    with torch.no_grad():
        for weight in draft.parameters():
            weight.add_(torch.randn_like(weight) * 0.01)
    set_draft_vocabulary(draft, ids)
    prompts = random_prompts(12)
    eos = model.generate(torch.tensor([prompts[0]]), max_new_tokens=8, do_sample=False)[0, -1].item()  # one that comes
    made = counted(model, draft, prompts, length, max_tokens, eos)
    outputs = [Example(p, m.ids, len(p) + len(m.ids)) for p, m in zip(prompts, made, strict=True)]
    found = acceptance(draft, outputs, frozenset({eos}), length=length, max_tokens=max_tokens)
    loop = Acceptance.of([m.stats for m in made])
    for name in ("accepted", "tested", "tokens", "steps"):
        assert np.array_equal(getattr(found, name), getattr(loop, name)), name
    assert found.rates == loop.rates
    assert found.alpha.value == made.stats.alpha and found.tau.value == made.stats.tau
    assert 0.05 < made.stats.alpha < 0.95, "the case must say something"
    assert {m.finish_reason for m in made} == {"eos", "length"}


@given(
    st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 7), st.booleans(), st.integers(0, 3)
)  # fmt: skip
@settings(deadline=None)
def test_teacher_forced_counts_are_those_of_a_walk(hits: list[bool], length: int, ended: bool, spare: int) -> None:
    max_tokens = len(hits) + (spare if ended else 0)
    found = Stats.teacher_forced(hits, length, ended=ended, max_tokens=max_tokens)
    place = steps = accepted = tested = 0
    while place < len(hits):
        steps += 1
        drafted = min(length, max_tokens - place - 1)
        run = 0
        while run < drafted and place + run < len(hits) and hits[place + run]:
            run += 1
        if ended and place + run == len(hits):
            accepted, tested, place = accepted + run, tested + run, place + run
        else:
            accepted, tested, place = accepted + run, tested + min(run + 1, drafted), place + run + 1
    assert (found.steps, found.accepted, found.tested) == (steps, accepted, tested)
    assert found.tokens == len(hits) and sum(found.tested_at.values()) == tested


def test_rates_are_of_what_was_tested() -> None:
    found = Stats.teacher_forced([True, True, False, True, False, True], 2, ended=True)
    # rounds: 1 1 (0 comes from the target), 1 0, 1 with the EOS
    assert (found.accepted, found.tested, found.steps) == (4, 5, 3)
    assert found.rates == [1.0, 0.5]
    assert found.as_dict()["rates"] == [1.0, 0.5] and found.as_dict()["tested_at"] == [3, 2]


def test_alpha_exp_is_one_less_the_distance(tmp_path: Path) -> None:
    model, draft = tiny_model("qwen2"), tiny_model("qwen2", seed=1)
    outputs = [Example([5, 9, 7], [3, 8, EOS], 6), Example([2], [4, 4, 4, 4, 6], 6)]
    found = acceptance(draft, outputs, frozenset({EOS}), teacher=OnlineTeacher(model), max_tokens=5)
    expected = 0.0
    for example in outputs:
        ids = torch.tensor([example.prompt + example.completion])
        p, q = (m(ids).logits[0, len(example.prompt) - 1 : -1].double().softmax(-1) for m in (model, draft))
        expected += float(torch.minimum(p, q).sum())
    assert found.alpha_exp is not None and found.alpha_exp.value == pytest.approx(expected / 8, abs=1e-6)
    kept = CachedHiddenStates.compute(model, outputs, tmp_path / "states")
    again = acceptance(draft, outputs, frozenset({EOS}), teacher=kept, max_tokens=5)
    assert again.alpha_exp is not None and again.alpha_exp.value == pytest.approx(expected / 8, abs=1e-6)
    same = acceptance(model, outputs, frozenset({EOS}), teacher=kept, max_tokens=5)
    assert same.alpha_exp is not None and same.alpha_exp.value == pytest.approx(1.0, abs=1e-6)


def test_the_targets_outputs_are_its_greedy_ones() -> None:
    model, tokenizer = tiny_model("llama"), byte_tokenizer()
    rows = [{"input": f"say {n}"} for n in range(5)]
    told: list[tuple[float, float]] = []
    found = target_outputs(model, tokenizer, rows, max_tokens=7, progress=lambda *done: told.append(done))
    plain = Generator(model, tokenizer).generate([row["input"] for row in rows], max_tokens=7)
    assert [e.completion for e in found] == [one.ids for one in plain]
    assert [tokenizer.decode(e.prompt) for e in found] == [f"say {n}\n" for n in range(5)]
    assert told[-1] == (5, 5)


def acceptances(seed: int, prompts: int = 200, rate: float = 0.6) -> Acceptance:
    rng = random.Random(seed)
    hits = [[rng.random() < rate for _ in range(rng.randrange(5, 40))] for _ in range(prompts)]
    overlaps = [np.full(len(row), rate) for row in hits]
    return Acceptance.of([Stats.teacher_forced(row, 4, ended=True) for row in hits], overlaps)


def test_intervals_hold_the_rate_and_say_who_is_ahead() -> None:
    one, other = acceptances(1), acceptances(1, rate=0.5)
    facts = one.summary()
    assert facts["alpha"]["low"] < 0.6 < facts["alpha"]["high"] and facts["prompts"] == 200
    assert facts["alpha_exp"]["value"] == pytest.approx(0.6)
    assert facts["alpha_per_prompt"]["value"] == pytest.approx(np.mean(one.accepted / one.tested))
    less = difference(one, other)
    assert less["alpha"]["low"] > 0 and less["alpha_exp"]["value"] == pytest.approx(0.1)
    interval = bootstrap_interval(one.alpha, against=other.alpha)
    assert interval is not None and less["alpha"]["low"] == interval.low
    wrong = Acceptance.of([Stats.teacher_forced([True], 4, ended=True)])
    assert "alpha_exp" not in wrong.summary()


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="0 requests"):
        Acceptance.of([])
    with pytest.raises(InputError, match="1 requests and 2 overlaps"):
        Acceptance.of([Stats.teacher_forced([True], 4, ended=True)], [[1.0], [1.0]])


def test_a_cut_of_the_target_is_taken_by_the_loop() -> None:
    model = tiny_model("llama")
    draft = cut_draft(model, 1)
    prompts = random_prompts(4)
    plain = Generator(model).generate(prompts=prompts, max_tokens=12)
    assert [m.ids for m in counted(model, draft, prompts, 3, 12, None)] == [m.ids for m in plain]
