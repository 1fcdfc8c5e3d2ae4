"""Stats add up, and drafters are told what happened."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tiny_models import Scripted, byte_tokenizer, peer_greedy, random_prompts, tiny_model

from tasc import Generator, NgramDrafter, NullDrafter, Stats, TokenDraft
from tasc.drafting.costs import GivenCosts, MeasuredCosts
from tasc.drafting.policy import DraftThrottle, batch_draft_length
from tasc.drafting.protocol import INDEX_SOURCES, SOURCES
from tasc.errors import InputError

PROMPTS = random_prompts(6, seed=2)
MAX_TOKENS = 18


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("miss", [0.0, 0.3, 1.0])
def test_accounting(batch_size: int, miss: float) -> None:
    model = tiny_model("llama")
    outputs = {tuple(prompt): peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS}
    drafter = Scripted(outputs, miss=miss)
    made = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.02).generate(
        prompts=PROMPTS, max_tokens=MAX_TOKENS
    )
    total = made.stats
    requests = {tuple(request.output): request for request in drafter.requests}
    for item in made:
        request = requests.get(tuple(item.ids), Scripted.Request(drafter, item.ids))  # one paused throughout has none
        told = [token for ids in request.updates for token in ids]
        assert told == item.ids[: len(told)]
        unasked = item.stats.throttled_steps + 1  # a last step may have no room for a draft
        assert len(told) >= len(item.ids) - unasked
        assert item.stats.steps - unasked <= len(request.updates) <= item.stats.steps
        assert item.stats.tokens == len(item.ids)
        assert item.stats.accepted == item.stats.tokens - item.stats.steps
    assert total.requests == len(PROMPTS)
    assert total.prompt_tokens == sum(map(len, PROMPTS))
    for name in ("steps", "tokens", "drafted", "accepted", "tested"):
        assert getattr(total, name) == sum(getattr(item.stats, name) for item in made)
    assert sum(total.drafted_at.values()) == sum(total.drafted_by.values()) == total.drafted
    assert sum(total.accepted_at.values()) == sum(total.accepted_by.values()) == total.accepted
    assert set(total.drafted_by) == {"task"}
    assert total.accepted <= total.tested <= total.drafted
    assert total.tau == total.tokens / total.steps
    assert total.alpha == total.accepted / total.tested
    if miss == 0.0:
        assert total.alpha == 1.0
    if miss == 1.0:
        assert total.accepted_at[0] < total.drafted_at[0] / 5  # a wrong token may be right by chance
    assert total.seconds <= made.wall_seconds
    assert total.seconds > 0.5 * made.wall_seconds
    assert json.loads(json.dumps(total.as_dict()))["drafted_at"][0] == total.drafted_at[0]


def test_plain_steps_count_one_token_each() -> None:
    made = Generator(tiny_model("llama"), drafter=NullDrafter(), batch_size=2).generate(prompts=PROMPTS, max_tokens=5)
    assert made.stats.steps == made.stats.tokens
    assert made.stats.alpha is None
    assert Stats().tau is None


def test_tested_tokens() -> None:
    stats = Stats()
    stats.count_step([0, 0, 1], 1, False)  # one accepted, the second failed, the third was never tested
    stats.count_step([0, 0], 2, False)
    stats.count_step([0, 0, 0], 2, True)  # the second ended the request
    stats.count_step([], 0, False)
    assert (stats.drafted, stats.accepted, stats.tested, stats.steps) == (8, 5, 6, 4)
    assert dict(stats.drafted_by) == {"task": 7, "context": 1}


def test_sources_have_the_codes_of_the_core_first() -> None:
    explained = NgramDrafter().start([7, 8, 9, 7, 8]).explain(4)
    assert SOURCES[: len(INDEX_SOURCES)] == INDEX_SOURCES == tuple(explained[0]["sources"])
    stats = Stats()
    stats.count_step([*(SOURCES.index(name) for name in ("copy", "model", "other")), 255], 4, False)
    assert dict(stats.accepted_by) == {"copy": 1, "model": 1, "other": 2}


def test_given_costs() -> None:
    assert GivenCosts(0.5).costs(3).tolist() == [1.0, 1.5, 2.0, 2.5]
    assert GivenCosts([2.0, 3.0, 4.0]).costs(4).tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert GivenCosts([1.0, 3.0, 2.0]).costs(2).tolist() == [1.0, 3.0, 3.0]
    for bad in (-0.1, [], [0.0], float("nan")):
        with pytest.raises(InputError, match="costs="):
            GivenCosts(bad).costs(4)


def test_measured_costs_follow_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("tasc.drafting.costs.time.perf_counter", lambda: clock[0])

    def run(tokens: int) -> None:
        clock[0] += 1.0 + 0.1 * (tokens - 1)

    curve = MeasuredCosts(run, max_draft=16, num_rows=4)
    np.testing.assert_allclose(curve.costs(16, 1), 1 + 0.1 * np.arange(17))
    np.testing.assert_allclose(curve.costs(16, 4), (1 + 0.1 * (4 * np.arange(1, 18) - 1)) / 1.3)
    for _ in range(400):
        curve.observe(17, 4.0)
    assert abs(curve.costs(16, 1)[16] - 4.0) < 0.1
    assert (np.diff(curve.costs(16, 1)) >= 0).all()
    before = curve.costs(16, 1)[16]
    curve.observe(17, 1e9)  # one stall moves it little
    assert curve.costs(16, 1)[16] < 1.05 * before


def test_costs_measured_in_a_busy_moment_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, factor = [0.0], [1.0]
    monkeypatch.setattr("tasc.drafting.costs.time.perf_counter", lambda: clock[0])

    def seconds(tokens: int) -> float:
        return (1.0 + 0.02 * (tokens - 1)) * (factor[0] if tokens > 1 else 1.0)

    def run(tokens: int) -> None:
        clock[0] += seconds(tokens)

    def steps(count: int) -> float:
        """Decode with drafts of the best length for tokens that are right 19 times of 20; tokens per second."""
        begin, emitted = clock[0], 0.0
        for _ in range(count):
            costs = curve.costs(64)
            drafted = batch_draft_length([[0.95] * 64], costs)
            emitted += sum(0.95**k for k in range(drafted + 1))
            run(1 + drafted)
            curve.observe(1 + drafted, seconds(1 + drafted))
        return emitted / (clock[0] - begin)

    factor[0] = 20.0
    curve = MeasuredCosts(run, max_draft=64, budget=1e3)
    assert steps(10) < 1.01  # nothing pays
    factor[0] = 1.0
    steps(2000)
    best = max(sum(0.95**k for k in range(n + 1)) / seconds(n + 1) for n in range(65))
    assert steps(1000) > 0.95 * best


def test_measuring_again_takes_a_hundredth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("tasc.drafting.costs.time.perf_counter", lambda: clock[0])
    noise = np.random.default_rng(0).lognormal(0.0, 1.0, 10_000).tolist()

    def run(tokens: int) -> None:
        clock[0] += (1.0 + 0.1 * tokens) * noise.pop()

    curve = MeasuredCosts(run, max_draft=64)
    begin = clock[0]
    for _ in range(5_000):
        curve.observe(1, 1.0)
    assert 1.0 < clock[0] - begin < 0.01 * 5_000 + 40.0  # the last one may be long
    assert (np.diff(curve.costs(64)) >= 0).all()


def test_measuring_slow_steps_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("tasc.drafting.costs.time.perf_counter", lambda: clock[0])

    def run(tokens: int) -> None:
        clock[0] += 0.5 + 0.05 * (tokens - 1)

    curve = MeasuredCosts(run, max_draft=64)
    assert clock[0] < 5.5
    np.testing.assert_allclose(curve.costs(64), 1 + 0.1 * np.arange(65))


def test_tokens_of_a_prompts_draft_are_worth_their_share_of_a_full_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("tasc.drafting.costs.time.perf_counter", lambda: clock[0])

    def seconds(tokens: Any) -> Any:
        return 1.0 + 0.1 * tokens

    def run(tokens: int) -> None:
        clock[0] += seconds(tokens)

    curve = MeasuredCosts(run, max_draft=16, num_rows=8)
    drafted = np.arange(17)
    for rows, prompt, in_use in ((1, 1, 1), (8, 1, 8), (1, 30, 1), (1, 500, 8), (3, 20, 8)):
        extra = seconds(rows * (prompt + drafted)) - seconds(rows * prompt)  # of a step
        share = seconds(in_use) / in_use * rows  # of a plain step, for as many tokens as one per row
        np.testing.assert_allclose(curve.costs(16, rows, prompt, in_use), 1.0 + extra / share)
    np.testing.assert_allclose(curve.costs(16, 8), curve.costs(16, 8, 1, 8))


def test_a_curve_that_dips_is_made_to_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("tasc.drafting.costs.time.perf_counter", lambda: clock[0])

    def run(tokens: int) -> None:
        clock[0] += {1: 1.0, 2: 1.4, 3: 1.2}[tokens]

    np.testing.assert_allclose(MeasuredCosts(run, max_draft=2, budget=9.0).costs(2), [1.0, 1.3, 1.3])


def test_a_clock_that_stands_still_gives_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasc.drafting.costs.time.perf_counter", lambda: 1.0)
    curve = MeasuredCosts(lambda tokens: None, max_draft=4)
    curve.observe(1, 0.0)
    assert np.isfinite(curve.costs(4)).all()


def test_a_batch_beyond_the_measured_tokens_goes_on_with_the_last_slope() -> None:
    curve = MeasuredCosts(lambda tokens: None, max_draft=64, num_rows=64)
    assert curve.costs(64, 64).shape == (65,)
    curve.observe(64 * 65, 1.0)


def test_loop_measures_and_drafts_with_the_curve() -> None:
    model = tiny_model("llama")
    outputs = {tuple(prompt): peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS}
    seen = []

    class Watching(Scripted):
        def propose_batch(self, requests, max_tokens, costs=None):  # type: ignore[no-untyped-def]
            seen.append(np.array(costs))
            return super().propose_batch(requests, max_tokens, costs)

    generator = Generator(model, byte_tokenizer(), drafter=Watching(outputs), batch_size=2, max_draft=8)
    generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
    assert all(costs.shape == (9,) and costs[0] == 1.0 and (np.diff(costs) >= 0).all() for costs in seen)


def test_a_drafter_that_never_hits_is_paused() -> None:
    model = tiny_model("llama")
    prompt = PROMPTS[0]
    plain = Generator(model, drafter=NullDrafter()).generate(prompts=[prompt], max_tokens=200, eos=())
    outputs = {tuple(prompt): plain[0].ids}
    generator = Generator(model, drafter=Scripted(outputs, miss=1.0), costs=0.1)
    stats = generator.generate(prompts=[prompt], max_tokens=200, eos=())[0].stats
    assert stats.throttled_steps > 0.8 * stats.steps
    assert 0.1 * stats.drafted < 0.1 * stats.steps  # cost of all drafts, in plain steps
    hits = Generator(model, drafter=Scripted(outputs), costs=0.1).generate(prompts=[prompt], max_tokens=200, eos=())
    assert hits.stats.throttled_steps == 0


def test_requests_of_a_paused_drafter_begin_when_it_is_tried_again() -> None:
    model = tiny_model("llama")
    outputs = {tuple(prompt): peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS}
    drafter = Scripted(outputs, miss=1.0)
    made = Generator(model, drafter=drafter, costs=0.5).generate(prompts=PROMPTS * 4, max_tokens=MAX_TOKENS)
    assert [item.ids for item in made] == list(outputs.values()) * 4
    assert 0 < len(drafter.requests) < len(made)
    assert max(len(ids) for request in drafter.requests for ids in request.updates) > 4  # all of a pause at once


class Lonely(Scripted):
    """Knows the first prompt's output, and drafts for no other."""

    def propose_batch(self, requests: Any, max_tokens: int, costs: Any = None) -> list[Any]:
        return [request.draft(max_tokens) if request.output else TokenDraft() for request in requests]


@pytest.mark.parametrize(
    ("length", "costs", "miss", "in_all"),
    [
        (2, 0.3, 0.0, "drafted"),  # two tokens of one row for 0.6 steps of four: all drafts are cut to nothing
        (1, 0.2, 0.5, "paused"),  # one for 0.2 seems to pay, but every other is wrong
    ],
)
def test_a_draft_is_paid_by_all_rows_of_its_step(length: int, costs: float, miss: float, in_all: str) -> None:
    model = tiny_model("llama")
    known = Generator(model, drafter=NullDrafter()).generate(prompts=PROMPTS[:1], max_tokens=60, eos=())[0].ids
    outputs: dict[tuple[int, ...], list[int]] = {tuple(prompt): [] for prompt in PROMPTS[:4]}
    outputs[tuple(PROMPTS[0])] = known

    def stats(prompts: list[list[int]]) -> Stats:
        drafter = Lonely(outputs, miss=miss, length=length)
        generator = Generator(model, drafter=drafter, costs=costs, batch_size=len(prompts))
        return generator.generate(prompts=prompts, max_tokens=60, eos=()).stats

    alone, together = stats(PROMPTS[:1]), stats(PROMPTS[:4])
    assert alone.drafted > 0
    assert alone.throttled_steps == 0
    assert (together.drafted == 0, together.throttled_steps > 0) == (in_all == "drafted", in_all == "paused")


def test_a_prompts_draft_counts_by_its_share_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []
    monkeypatch.setattr(DraftThrottle, "record", lambda throttle, accepted, extra: seen.append((accepted, extra)))
    model = tiny_model("llama")
    prompts = [PROMPTS[0] * 9 + prompt for prompt in PROMPTS[:4]]  # the first goes alone, for what they have in common
    outputs = {tuple(prompt): peer_greedy(model, prompt, 6) for prompt in prompts}
    Generator(model, drafter=Scripted(outputs, length=2), costs=0.5, batch_size=4).generate(
        prompts=prompts, max_tokens=6
    )
    assert seen == [(0.5, 0.25), (1.5, 0.75), (2.0, 1.0)]  # 1, 3 and 4 rows of two right tokens


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
def test_the_time_of_drafting_counts(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Scripted):
        """Drafts nothing."""

        def propose_batch(self, requests: Any, max_tokens: int, costs: Any = None) -> list[Any]:
            return [TokenDraft()] * len(requests)

    monkeypatch.setattr(MeasuredCosts, "plain_seconds", lambda curve, num_rows: seconds)
    outputs = {tuple(PROMPTS[0]): [1]}
    for costs, expected in ((None, seconds < 1), (0.1, False)):  # where costs are given, no time is known
        generator = Generator(tiny_model("llama"), drafter=Silent(outputs), costs=costs)
        stats = generator.generate(prompts=PROMPTS[:1], max_tokens=100, eos=()).stats
        assert (stats.throttled_steps > 80) == expected, stats.throttled_steps
        assert expected or stats.throttled_steps == 0


def test_throttle() -> None:
    throttle = DraftThrottle()
    assert not throttle.should_skip()
    throttle.record(0, 2.5)
    held = 0
    while throttle.should_skip():
        held += 1
    assert held == 4
    throttle.record(3, 0.5)  # pays again
    assert not throttle.should_skip()
    for expected in (4, 8, 16, 32, 64, 64):
        throttle.record(0, 10.0)
        assert sum(iter(throttle.should_skip, False)) == expected
