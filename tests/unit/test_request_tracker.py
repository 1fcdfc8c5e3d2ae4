"""A batch's requests are followed by their tokens alone, drafted for together, and learnt from when they end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engines import Asked, Coin, Engine
from hypothesis import given, settings
from hypothesis import strategies as st

from tasc.drafting import protocol
from tasc.drafting.costs import LearnedCosts
from tasc.drafting.protocol import Drafter, TokenDraft
from tasc.serving import Metrics, RequestTracker, TaskDrafts
from tasc.serving.tracker import BatchRequests

EOS = 2


class Told(Drafter):
    """Knows what follows each prompt; drafts it, every third token wrong. Keeps what it is told."""

    name = "told"

    def __init__(self, says: dict[tuple[int, ...], list[int]], fails: str = "") -> None:
        self.says, self.fails = says, fails
        self.begun: list[Told.Request] = []

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Told.Request:
        if self.fails == "start":
            raise RuntimeError("no")
        self.begun.append(Told.Request(self, np.asarray(prompt_ids).tolist()))
        return self.begun[-1]

    class Request(protocol.Request):
        def __init__(self, drafter: Told, prompt: list[int]) -> None:
            self.drafter, self.prompt, self.output = drafter, prompt, list[int]()

        def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
            if self.drafter.fails == "draft":
                raise RuntimeError("no")
            ahead = self.drafter.says[tuple(self.prompt)][len(self.output) :][: min(5, max_tokens)]
            return TokenDraft.of([token if token % 3 else token + 1 for token in ahead], "task")

        def update(self, ids: Any) -> None:
            if self.drafter.fails == "update":
                raise RuntimeError("no")
            self.output += np.asarray(ids).tolist()


class Learning(TaskDrafts):
    """Keeps what it is to learn from."""

    def __init__(self, drafter: Told) -> None:
        super().__init__(drafter=drafter)
        self.rows: list[list[int]] = []

    def finished(self, input: str | None, ids: Any, steps: int = 0) -> None:
        assert 1 <= steps <= len(ids)
        self.rows.append(np.asarray(ids).tolist())


def make(drafts: TaskDrafts, **options: Any) -> tuple[RequestTracker, Metrics]:
    metrics = Metrics()
    given = {
        "max_draft": 8,
        "max_length": 4096,
        "vocab_size": 1000,
        "eos": frozenset([EOS]),
        "curve": LearnedCosts(1e-6),
    }
    return RequestTracker(lambda *_: drafts, metrics=metrics, **{**given, **options}), metrics


def requests(sizes: list[tuple[int, int, int]], alike: bool) -> list[Asked]:
    """(tokens of the prompt, tokens of the output, step it comes at) of each."""
    made = []
    for number, (prompt, output, at) in enumerate(sizes):
        begin = [5] if alike else [100 + number]
        says = [10 + (7 * k + len(begin) * number * (not alike)) % 80 for k in range(output - 1)]
        made.append(Asked(begin * prompt, [*says, EOS], at))
    return made


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 30), st.integers(0, 12)), min_size=1, max_size=9),
    st.booleans(),
    st.integers(1, 4),
    st.lists(st.integers(0, 2), max_size=15),
    st.lists(st.integers(0, 2), min_size=1, max_size=3),
)
def test_every_request_is_followed_through_moves_and_pauses(
    sizes: list[tuple[int, int, int]], alike: bool, rows: int, pauses: list[int], chunks: list[int]
) -> None:
    asked = requests(sizes, alike)
    if alike:  # the same prompt says the same, cut off at other lengths
        longest = max((one.says for one in asked), key=len)
        for one in asked:
            one.says = longest[: len(one.says)]
    says = {tuple(one.prompt): one.says for one in asked}
    if alike:
        says = {tuple(one.prompt): longest for one in asked}
    drafter = Told(says)
    drafts = Learning(drafter)
    batch, metrics = make(drafts)
    Engine(batch.propose, rows, pauses, chunks).run(asked)
    assert all(one.output == one.says for one in asked)
    counted = metrics.as_dict()["indexes"]["told"]
    assert counted["requests"] == len(asked)
    assert counted["tokens"] == sum(len(one.says) for one in asked)
    assert counted["steps"] == sum(one.steps for one in asked)
    ended = [one.says for one in asked if one.says[-1] == EOS]
    assert sorted(drafts.rows) == sorted(ended)
    told = sorted((tuple(one.prompt), tuple(one.output)) for one in drafter.begun)
    assert told == sorted((tuple(one.prompt), tuple(one.says)) for one in asked)


def test_drafts_are_used_and_counted() -> None:
    asked = requests([(3, 40, 0)], alike=False)
    drafts = Learning(Told({tuple(asked[0].prompt): asked[0].says}))
    batch, metrics = make(drafts)
    steps = Engine(batch.propose).run(asked)
    found = metrics.as_dict()["indexes"]["told"]
    assert steps < 30
    assert found["tau"] == 40 / steps
    assert found["accepted"]["task"] == 40 - steps
    assert found["drafted"]["task"] > found["accepted"]["task"]


@pytest.mark.parametrize("where", ["start", "draft", "update"])
def test_a_drafter_that_fails_is_left_out_and_the_text_is_right(where: str) -> None:
    asked = requests([(3, 20, 0), (2, 9, 1)], alike=False)
    drafts = Learning(Told({tuple(one.prompt): one.says for one in asked}, fails=where))
    batch, metrics = make(drafts)
    Engine(batch.propose).run(asked)
    assert all(one.output == one.says for one in asked)
    counted = metrics.as_dict()["indexes"]["told"]
    assert counted["failures"] + counted["plain_requests"] == 2
    assert counted["turned_off"] == 1


def test_drafts_end_before_ids_that_the_model_does_not_have_and_before_its_context_is_full() -> None:
    says = [11, 13, 5000, 14, 16]
    drafts = TaskDrafts(drafter=Told({(7, 7): says}))
    batch, _ = make(drafts)
    tokens = np.zeros((1, 64), np.int32)
    tokens[0, :3] = 7, 7, 11
    assert batch.propose([[11]], np.array([3]), tokens) == [[13]]
    batch, _ = make(TaskDrafts(drafter=Told({(7, 7): [*says[:2], 17, 19, 20, 22]})), max_length=6)
    assert batch.propose([[11]], np.array([3]), tokens) == [[13, 17]]


def test_an_output_that_goes_on_behind_its_end_token_is_learnt_once_and_still_followed() -> None:
    says = [11, EOS, 12, 14, EOS, 16]
    drafts = Learning(Told({(7,): says}))
    batch, metrics = make(drafts)
    asked = [Asked([7], says)]
    Engine(batch.propose).run(asked)
    assert drafts.rows == [[11, EOS]]
    assert metrics.as_dict()["indexes"]["told"]["requests"] == 1


def test_requests_that_vanish_are_forgotten() -> None:
    drafts = TaskDrafts(drafter=Told({(k,): [11, 13, 14] for k in range(100, 900)}))
    batch, _ = make(drafts)
    tokens = np.zeros((1, 8), np.int32)
    for k in range(100, 900):
        tokens[0, :2] = k, 11
        batch.propose([[11]], np.array([2]), tokens)
    assert len(batch._absent) <= 256


class Unsure(Told):
    """Says that its drafts are right with a probability; keeps the costs that it is told."""

    negligible_cost = True

    def __init__(self, says: dict[tuple[int, ...], list[int]], chance: dict[tuple[int, ...], float]) -> None:
        super().__init__(says)
        self.chance, self.costs = chance, list[Any]()

    def propose_batch(self, requests: Any, max_tokens: int, costs: Any = None) -> list[TokenDraft]:
        self.costs.append(costs)
        drafts = [(request.draft(max_tokens), self.chance[tuple(request.prompt)]) for request in requests]
        return [TokenDraft(d.tokens, np.full(len(d.tokens), chance, np.float32), d.sources) for d, chance in drafts]


def test_a_packed_step_is_cut_by_each_tokens_survival() -> None:
    says = {(5,): list(range(10, 20)), (6,): list(range(20, 30))}
    batch, _ = make(Learning(Unsure(says, {(5,): 0.9, (6,): 0.2})), curve=LearnedCosts(0.5))
    drafts = batch.propose([[10], [20]], np.array([2, 2]), np.array([[5, 10], [6, 20]], np.int32))
    # two rows cost 1.5, a token more 0.5: (2 + 0.9 + … ) / (1 + m / 3)
    rates = [(2 + sum(0.9**k for k in range(1, m + 1))) / (1 + m / 3) for m in range(6)]
    assert [len(draft) for draft in drafts] == [int(np.argmax(rates)), 0]


def test_the_time_of_a_plain_step_is_learnt_though_all_steps_could_have_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, random = 0.0, np.random.default_rng(1)
    monkeypatch.setattr("tasc.serving.tracker.time", SimpleNamespace(perf_counter=lambda: now))
    tracker, _ = make(TaskDrafts(drafter=Coin()), curve=LearnedCosts())
    rows: list[list[int]] = [[1], [3]]
    emitted, tokens, seconds, any_drafted = [[8], [8]], 0, 0.0, False
    for step in range(400):
        rows = [ids + new for ids, new in zip(rows, emitted, strict=True)]
        buffer = np.zeros((2, 4096), np.int32)
        for at, ids in enumerate(rows):
            buffer[at, : len(ids)] = ids
        drafted = [len(ids) for ids in tracker.propose(emitted, [len(ids) for ids in rows], buffer)]
        any_drafted = any_drafted or any(drafted)
        took = 2.0 + 0.15 * sum(drafted) if any(drafted) else 1.0  # the first drafted token costs more than it brings
        emitted = [Coin().said(k, random) for k in drafted]
        now += took
        if step >= 100:
            tokens, seconds = tokens + sum(map(len, emitted)), seconds + took
    assert any_drafted and tokens / 2 / seconds > 0.9


def test_a_request_that_is_first_seen_in_its_middle_is_learnt_whole() -> None:
    """So it is after an engine has dropped tokens of a preempted request, and after drafting had failed."""
    prompt, says = [5, 5], [11, 13, 14, 16, EOS]
    drafter = Told({tuple(prompt): says})
    drafts = Learning(drafter)
    drafts.finished = lambda _, ids, steps: drafts.rows.append([*ids.tolist(), steps])  # type: ignore[method-assign]
    batch, _ = make(drafts)
    shown = BatchRequests(["it"], {"it"}, lambda _: None, lambda _: len(prompt))
    for so_far, new in ((1, 1), (4, 3), (2, 1)):  # the engine has forgotten the second step
        tokens = np.array([[*prompt, *says[:so_far]]], np.int32)
        drafted = batch.propose([says[so_far - new : so_far]], [2 + so_far], tokens, shown)
    assert [one.prompt for one in drafter.begun] == [prompt, prompt]
    assert drafter.begun[-1].output == says[:2] and drafted == [[14, 16, EOS]]
    batch.propose([says[2:]], [2 + len(says)], np.array([[*prompt, *says]], np.int32), shown)
    assert drafts.rows == [[*says, 0]]  # the number of its steps is not known


def drain(curve: LearnedCosts, rows: int, each: int) -> tuple[int, int]:
    """Plain steps, and all steps, of requests that end one by one; a step with drafts computes nine tokens a row."""
    plain = 0
    for running in range(rows, 0, -1):
        for _ in range(each):
            is_plain = curve.lacks_plain_steps(running)
            plain += is_plain
            curve.observe(running * (1 if is_plain else 9), 1.0)
    return plain, rows * each


def test_requests_that_end_one_by_one_need_few_plain_steps() -> None:
    curve = LearnedCosts()
    plain, steps = drain(curve, rows=64, each=2)
    assert 0 < plain < 0.4 * steps
    plain, steps = drain(curve, rows=64, each=4)
    assert plain < 0.2 * steps
    assert not LearnedCosts(0.1).lacks_plain_steps()


def test_drafts_do_not_wait_for_a_plain_step_that_is_never_seen() -> None:
    """Where every step has a prompt, none is timed."""
    curve = LearnedCosts()
    for _ in range(16):
        curve.observe(9, 1.0)
    assert sum(curve.lacks_plain_steps() for _ in range(1000)) < 30
    curve.observe(9, 1.0)
    assert curve.lacks_plain_steps()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 70000), st.floats()), max_size=60))
def test_no_clock_spoils_the_costs(steps: list[tuple[int, float]]) -> None:
    curve = LearnedCosts()
    for tokens, seconds in steps:
        curve.observe(tokens, seconds)
        for rows in (1, 32):
            found = curve.costs(20, rows)
            assert found[0] == 1.0 and np.isfinite(found).all() and (np.diff(found) >= 0).all()
