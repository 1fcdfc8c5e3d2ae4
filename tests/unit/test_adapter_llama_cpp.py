"""A draft model for llama-cpp-python: driven as `Llama.generate` drives it, by ids alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tasc.adapters.llama_cpp import TascDraft
from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter, TokenDraft
from tasc.errors import InputError

PROMPT = [3, 1, 4, 1, 5]
OUTPUT = list(range(40, 64))


class Told(Drafter):
    """Keeps every request's prompt and output; drafts what comes, but each fifth token wrong."""

    name = "told"

    def __init__(self) -> None:
        self.requests: list[Told.Request] = []

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
