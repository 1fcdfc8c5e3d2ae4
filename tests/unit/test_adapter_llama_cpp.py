"""A draft model for llama-cpp-python: driven as `Llama.generate` drives it, by ids alone."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Generator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engines import Coin

from tasc.adapters.llama_cpp import TascDraft, with_learning
from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter, TokenDraft
from tasc.errors import InputError

PROMPT = [3, 1, 4, 1, 5]
OUTPUT = list(range(40, 64))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that the adapter sees. A step takes as long as a test says, else no time, and nothing is learnt then."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("tasc.adapters.llama_cpp.perf_counter", lambda: clock.now)
    return clock


class Told(Drafter):
    """Keeps every request's prompt and output; drafts what comes, but each fifth token wrong."""

    name = "told"

    def __init__(self) -> None:
        self.requests: list[Told.Request] = []
        self.rows: list[list[int]] = []

    def serve(self, rows: Any) -> None:
        self.rows += [np.asarray(ids).tolist() for _, ids in rows]

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Told.Request:
        self.requests.append(Told.Request(np.asarray(prompt_ids).tolist()))
        return self.requests[-1]

    class Request(protocol.Request):
        def __init__(self, prompt: list[int]) -> None:
            self.prompt, self.output = prompt, list[int]()

        def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
            ahead = OUTPUT[len(self.output) :][: min(7, max_tokens)]
            return TokenDraft.of([9 if token % 5 == 0 else token for token in ahead])

        def update(self, ids: Any) -> None:
            self.output += [int(token) for token in ids]


def decode(draft: TascDraft, prompt: list[int], output: list[int]) -> int:
    """As `Llama.generate`: one token first, then a draft is asked for and verified, in one growing buffer."""
    buffer = np.zeros(200, np.intc)
    history, steps = [*prompt, output[0]], 1
    while len(history) < len(prompt) + len(output):
        buffer[: len(history)] = history
        drafted = draft(buffer[: len(history)])
        assert drafted.dtype == np.intc
        own = output[len(history) - len(prompt) :]
        right = 0
        while right < min(len(drafted), len(own) - 1) and drafted[right] == own[right]:
            right += 1
        history += own[: right + 1]
        steps += 1
    return steps


def test_a_request_is_followed_through_its_ids() -> None:
    drafter = Told()
    steps = decode(TascDraft(drafter=drafter), PROMPT, OUTPUT)
    [request] = drafter.requests
    assert request.prompt == PROMPT
    assert request.output == OUTPUT[: len(request.output)] and len(request.output) > 16
    assert steps < 10


def test_requests_follow_each_other() -> None:
    drafter = Told()
    draft = TascDraft(drafter=drafter)
    chat = [*PROMPT, *OUTPUT, 7, 8, 7]  # the next turn begins with the last one
    for prompt in (PROMPT, [2, 2], PROMPT, chat):
        decode(draft, prompt, OUTPUT)
    assert [request.prompt for request in drafter.requests] == [PROMPT, [2, 2], PROMPT, chat]
    assert all(request.output == OUTPUT[: len(request.output)] for request in drafter.requests)


def test_a_history_that_shrinks_takes_the_request_back() -> None:
    drafter = Told()
    draft = TascDraft(drafter=drafter)
    decode(draft, PROMPT, OUTPUT)
    history = np.array([*PROMPT, *OUTPUT[:6]], np.intc)
    assert draft(history).tolist() == [46, 47, 48, 49, 9, 51, 52]
    assert (drafter.requests[-1].prompt, drafter.requests[-1].output) == (PROMPT, OUTPUT[:6])
    assert draft(history).tolist() == [46, 47, 48, 49, 9, 51, 52] and len(drafter.requests) == 2  # asked again


def test_drafts_are_as_long_as_told() -> None:
    draft = TascDraft(drafter=Told(), max_draft=3)
    assert draft(np.array([1, OUTPUT[0]], np.intc)).tolist() == [41, 42, 43]
    assert len(draft(np.empty(0, np.intc))) == 0


def test_the_cost_of_a_drafted_token_is_learnt_from_the_steps(clock: SimpleNamespace) -> None:
    class Doubtful(Told):
        class Request(Told.Request):
            def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
                ids = np.array(OUTPUT[len(self.output) :][:max_tokens], np.uint32)
                return TokenDraft(ids, np.full(len(ids), 0.8, np.float32), np.zeros(len(ids), np.uint8))

        def start(self, prompt_ids: Any, input_text: str | None = None) -> Told.Request:
            return self.Request(np.asarray(prompt_ids).tolist())

    def lengths(seconds: Any, **options: Any) -> list[int]:
        draft, found = TascDraft(drafter=Doubtful(), max_draft=16, **options), list[int]()
        for number in range(12):
            clock.now += 100.0  # the prompt, which is no plain step
            history = [number, *OUTPUT[:1]]
            while len(history) < 20:
                found.append(len(draft(np.array(history, np.intc))))
                clock.now += seconds(1 + found[-1])
                history = [number, *OUTPUT[: len(history)]]  # one more token, so drafts are not all accepted
        return found

    cheap, dear = lengths(lambda tokens: 1.0), lengths(lambda tokens: 0.4 + 0.6 * tokens)
    assert np.mean(cheap[-20:]) > 2 * np.mean(dear[-20:]) and cheap[:1] == dear[:1]
    assert lengths(lambda tokens: 0.4 + 0.6 * tokens, costs=0.02) == lengths(lambda tokens: 1.0, costs=0.02)


def test_the_cost_of_a_plain_step_is_learnt_though_all_steps_have_drafts(clock: SimpleNamespace) -> None:
    draft, random = TascDraft(drafter=Coin(), max_draft=16), np.random.default_rng(1)
    history, tokens, seconds, any_drafted = [0, 1], 0, 0.0, False
    for step in range(400):
        drafted = len(draft(np.array(history, np.intc)))
        any_drafted = any_drafted or drafted > 0
        took = 1.5 + 0.3 * drafted if drafted else 1.0  # the first drafted token costs more than it brings
        emitted = Coin().said(drafted, random)
        clock.now += took
        history += emitted
        if step >= 100:
            tokens, seconds = tokens + len(emitted), seconds + took
    assert any_drafted and tokens / seconds > 0.9


END = 2


class Llama:
    """As much of `Llama` as `TascDraft` sees: `generate` yields the tokens of a step, then asks for a draft."""

    def __init__(self, draft: TascDraft, output: list[int]) -> None:
        self.draft_model, self.output = draft, output
        self._model = SimpleNamespace(vocab="vocabulary")

    def generate(self, tokens: Sequence[int], temp: float = 0.8) -> Generator[int, Any, None]:
        assert temp == 0.0
        history, drafted, said = list(tokens), list[int](), list[int]()
        while True:
            step, own = list[int](), self.output[len(said) :]
            while len(step) <= len(drafted) and (not step or step[-1] == drafted[len(step) - 1]):
                if not own[len(step) :]:
                    return
                step.append(own[len(step)])
                said.append(step[-1])
                step += list((yield step[-1]) or ())
            history += step
            drafted = self.draft_model(np.array(history, np.intc)).tolist()


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = SimpleNamespace(llama_vocab_is_eog=lambda vocab, token: vocab == "vocabulary" and token == END)
    monkeypatch.setitem(sys.modules, "llama_cpp", ends)


def complete(llama: Any, prompt: list[int], most: int = 100, stop: int | None = None) -> list[int]:
    """As `Llama.create_completion`: leaves at an end token, at a stop string, and at the longest length."""
    said = list[int]()
    for token in llama.generate(prompt, temp=0.0):
        if token == END:
            break
        said.append(token)
        if token == stop or len(said) >= most:
            break
    return said


@pytest.mark.usefixtures("bindings")
def test_outputs_that_ended_are_learnt_and_no_others() -> None:
    drafter = Told()
    draft = TascDraft(drafter=drafter, learn=True)
    llama = with_learning(Llama(draft, [*OUTPUT, END]))
    assert with_learning(llama) is llama
    assert complete(llama, PROMPT) == OUTPUT
    assert complete(llama, PROMPT, most=len(OUTPUT)) == OUTPUT  # cut off before its end token
    assert complete(llama, PROMPT, stop=OUTPUT[8]) == OUTPUT[:9]
    assert complete(llama, [*PROMPT, *OUTPUT]) == OUTPUT  # begins as the request before
    llama.output = OUTPUT
    assert complete(llama, [6]) == OUTPUT  # a stopping criterion of the caller ends `generate`
    llama.output = [END, 5, END]
    assert list(llama.generate([7], temp=0.0)) == [END, 5, END]  # a caller that goes on after the end
    sent = llama.generate([8], temp=0.0)
    llama.output = [5, END]
    assert [next(sent), sent.send([9])] == [5, END]  # not all of it is the model's
    draft.drafts.close()
    assert drafter.rows == [[*OUTPUT, END], [*OUTPUT, END], [END]]
    prompts = [PROMPT] * 3 + [[*PROMPT, *OUTPUT], [6], [7], [8]]
    assert [request.prompt for request in drafter.requests[: len(prompts)]] == prompts
    assert all(request.output == OUTPUT[: len(request.output)] for request in drafter.requests[:5])


@pytest.mark.usefixtures("bindings")
def test_the_time_of_a_caller_between_tokens_is_not_the_step_s(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, seen = TascDraft(drafter=Told(), learn=True), list[tuple[int, float]]()
    monkeypatch.setattr(draft._curve, "observe", lambda *step: seen.append(step))

    class Timed(Llama):
        def generate(self, tokens: Sequence[int], temp: float = 0.8) -> Generator[int, Any, None]:
            for token in super().generate(tokens, temp):
                clock.now += 0.25
                yield token

    for _ in with_learning(Timed(draft, [*OUTPUT, END])).generate(PROMPT, temp=0.0):
        clock.now += 100.0
    assert [seconds for _, seconds in seen] == [0.25 * emitted for emitted in (5, 5, 5, 5, 4)]


@pytest.mark.usefixtures("bindings")
def test_a_drafter_that_fails_does_not_reach_the_engine() -> None:
    draft = TascDraft(drafter=Told(), learn=True)
    draft.drafts.start = draft.drafts.finished = None  # type: ignore[assignment,method-assign]
    assert complete(with_learning(Llama(draft, [*OUTPUT, END])), PROMPT) == OUTPUT


@pytest.mark.usefixtures("bindings")
def test_what_learning_needs_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="learn=True"):
        with_learning(Llama(TascDraft(drafter=Told()), OUTPUT))
    unseen = Llama(TascDraft(drafter=Told(), learn=True), [*OUTPUT, END])
    with caplog.at_level(logging.WARNING):
        assert complete(unseen, PROMPT) == complete(unseen, PROMPT) == OUTPUT
    assert [record.getMessage() for record in caplog.records] == [
        "learn=True has no effect before tasc.adapters.llama_cpp.with_learning(llama)"
    ]


@pytest.mark.parametrize(("options", "said"), [({"max_draft": 0}, "max_draft is 0"), ({"costs": -0.1}, "costs=-0.1")])
def test_bad_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TascDraft(**options)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, tasc, tasc.adapters, tasc.adapters.llama_cpp, tasc.adapters.llama_lookup;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
