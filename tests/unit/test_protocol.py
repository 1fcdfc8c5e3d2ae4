"""A drafter is a type: what subclasses inherit, what wrappers forward, and what a guard keeps from a decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tasc
from tasc.drafting.protocol import (
    Draft,
    Drafter,
    DrafterWrapper,
    NullDrafter,
    Request,
    RequestParams,
    SafeDrafter,
    TokenDraft,
    checked_drafter,
)
from tasc.errors import InputError


class Repeat(Drafter):
    """Drafts the last token again; fails where it is told to."""

    name = "repeat"

    def __init__(self, fails: str = "", error: type[BaseException] = RuntimeError) -> None:
        self.fails, self.error = fails, error
        self.served: list[Any] = []

    def start(self, prompt_ids: Any, input_text: str | None = None) -> RepeatRequest:
        self.check("start")
        return RepeatRequest(self, int(prompt_ids[-1]))

    def serve(self, rows: Any) -> None:
        self.served.extend(rows)

    def with_index(self, index: Any) -> Repeat:
        other = Repeat(self.fails)
        other.index = index
        return other

    def check(self, call: str) -> None:
        if call == self.fails:
            raise self.error(call)


class RepeatRequest(Request):
    def __init__(self, drafter: Repeat, last: int) -> None:
        self.drafter, self.last = drafter, last

    def draft(self, max_tokens: int, costs: Any = None) -> Draft:
        self.drafter.check("draft")
        return TokenDraft.of([self.last] * max_tokens)

    def update(self, ids: Any) -> None:
        self.drafter.check("update")
        self.last = int(ids[-1])


def test_a_subclass_needs_a_name_and_start() -> None:
    drafter = Repeat()
    assert not drafter.fixed_length and not drafter.negligible_cost and drafter.index is None
    request = drafter.start([1, 2])
    request.configure(RequestParams())
    assert [draft.tokens.tolist() for draft in drafter.propose_batch([request, request], 2)] == [[2, 2], [2, 2]]
    drafter.check_vocabulary(5)
    with pytest.raises(InputError, match="'plain' has no index to replace"):
        NullDrafter().with_index(None)  # type: ignore[arg-type]


def test_the_core_s_drafter_is_one() -> None:
    drafter = tasc.NgramDrafter()
    assert isinstance(drafter, Drafter) and checked_drafter(drafter) is drafter
    assert drafter.negligible_cost and not drafter.fixed_length and drafter.index is None
    request = drafter.start([1, 2, 1])
    request.configure(RequestParams())
    draft = request.draft(4)
    assert isinstance(draft, Draft) and draft.dists == ()


def test_what_is_no_drafter_is_refused() -> None:
    class Half:
        name = "half"

        def start(self, prompt_ids: Any) -> None: ...

    with pytest.raises(InputError, match=r"Half is no drafter: it lacks fixed_length, .*subclass tasc.Drafter"):
        SafeDrafter(Half())  # type: ignore[arg-type]


def test_a_wrapper_forwards() -> None:
    inner = Repeat()
    inner.fixed_length = inner.negligible_cost = True
    wrapper = DrafterWrapper(inner)
    assert (wrapper.name, wrapper.fixed_length, wrapper.negligible_cost) == ("repeat", True, True)
    wrapper.serve([("a", [1])])
    assert inner.served == [("a", [1])]
    index: Any = object()
    other = wrapper.with_index(index)
    assert type(other) is DrafterWrapper and other.index is index and other.drafter.index is index
    assert wrapper.index is None and wrapper.drafter is inner


@pytest.mark.parametrize("fails", ["start", "draft", "update"])
@pytest.mark.parametrize("error", [RuntimeError, BaseException])
def test_nothing_raises_from_a_guarded_drafter(fails: str, error: type[BaseException]) -> None:
    drafter = SafeDrafter(Repeat(fails, error))
    request = drafter.start([3])
    for _ in range(2):
        drafts = drafter.propose_batch([request], 2)
        assert len(drafts) == 1 and (len(drafts[0].tokens) == 0 or not request.failed)
        request.update([4])
    assert request.failed and len(request.draft(3).tokens) == 0


def test_a_failure_leaves_the_other_requests_alone() -> None:
    inner = Repeat()
    drafter = SafeDrafter(inner)
    first, second = drafter.start([3]), drafter.start([5])
    inner.fails = "update"
    first.update([4])
    inner.fails = ""
    assert first.failed and not second.failed
    drafts = drafter.propose_batch([first, second], 1)
    assert [draft.tokens.tolist() for draft in drafts] == [[], [5]]


def test_too_few_drafts_are_a_failure() -> None:
    class Short(Repeat):
        def propose_batch(self, requests: Any, max_tokens: int, costs: Any = None) -> list[Draft]:
            return []

    drafter = SafeDrafter(Short())
    request = drafter.start([3])
    assert [len(draft.tokens) for draft in drafter.propose_batch([request], 2)] == [0] and request.failed


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_through(error: type[BaseException]) -> None:
    request = SafeDrafter(Repeat("draft", error)).start([3])
    with pytest.raises(error):
        request.draft(1)
    assert not request.failed


def test_rows_that_cannot_be_added_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Repeat):
        def serve(self, rows: Any) -> None:
            raise OSError("no space left")

    SafeDrafter(Full()).serve([("a", [1])])
    assert "1 finished rows could not be added to drafter 'repeat'" in caplog.text


@pytest.mark.parametrize(
    "made",
    [None, 5, TokenDraft(np.array([[1]])), TokenDraft(np.array(["a"])), TokenDraft(np.array([1]), None)],  # type: ignore[arg-type]
)
def test_a_malformed_draft_fails_its_request_alone(made: Any) -> None:
    class Malformed(Repeat):
        def propose_batch(self, requests: Any, max_tokens: int, costs: Any = None) -> list[Any]:
            return [made, *(request.draft(max_tokens) for request in requests[1:])]

    drafter = SafeDrafter(Malformed())
    bad, good = drafter.start([3]), drafter.start([5])
    assert [len(draft.tokens) for draft in drafter.propose_batch([bad, good], 2)] == [0, 2]
    assert bad.failed and not good.failed


def test_classes_and_what_cannot_be_hashed_are_refused() -> None:
    class Unhashable(Repeat):
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(InputError, match="Repeat is the class of a drafter"):
        SafeDrafter(Repeat)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Unhashable is not hashable"):
        SafeDrafter(Unhashable())
