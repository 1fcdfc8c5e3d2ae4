"""Replay accounting: a case worked out by hand, and a slow twin over random drafts."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from chats import USER, answer, row, task_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models

from tasc.data import load_tokenizer
from tasc.data.endings import required_eos
from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter, TokenDraft
from tasc.errors import InputError
from tasc.evaluation.replay import ReplayRow, encode_rows, replay


def ids(values: Sequence[int]) -> NDArray[np.uint32]:
    return np.asarray(values, np.uint32)


class Scripted(Drafter, protocol.Request):
    """Drafts what it is told to, whatever the context, and keeps what it was told."""

    name = "scripted"

    def __init__(self, drafts: Sequence[Sequence[int]]) -> None:
        self.drafts: Iterator[Sequence[int]] = iter(drafts)
        self.costs: list[list[float]] = []
        self.updates: list[list[int]] = []
        self.prompts: list[list[int]] = []

    def start(self, prompt_ids: NDArray[np.uint32], input: str | None = None) -> "Scripted":
        self.prompts.append(prompt_ids.tolist())
        return self

    def draft(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> TokenDraft:
        assert costs is not None
        self.costs.append(costs.tolist())
        return TokenDraft.of(next(self.drafts, []))

    def update(self, new: NDArray[np.uint32]) -> None:
        self.updates.append(new.tolist())


def test_hand_counted_example() -> None:
    # step 1: 3 drafted, 2 right, emits 5 6 7; step 2: nothing drafted, emits 8; step 3: 2 drafted, the one that is
    # left is right and ends the output, so nothing comes after it
    drafter = Scripted([[5, 6, 0], [], [9, 1]])
    result = replay(drafter, [ReplayRow(ids([1, 2]), ids([5, 6, 7, 8, 9]))], max_tokens=3, cost=0.1)
    assert (result.rows, result.tokens, result.steps, result.drafted, result.hits) == (1, 5, 3, 5, 3)
    assert drafter.updates == [[5, 6, 7], [8], [9]]
    assert drafter.prompts == [[1, 2]]
    assert drafter.costs == [pytest.approx([1.0, 1.1, 1.2, 1.3])] * 3
    assert result.hits_at == [2, 1, 0]
    assert result.tested_at == [2, 2, 1]
    assert result.tau == pytest.approx(5 / 3)
    assert result.drafted_per_step == pytest.approx(5 / 3)
    assert result.accepted == pytest.approx(3 / 5)
    assert result.speedup == pytest.approx(5 / (1.3 + 1.0 + 1.2))
    assert result.speedup_at(0.0) == pytest.approx(result.tau)


def naive_costs(drafts: list[list[int]], output: list[int], cost: float) -> tuple[int, float]:
    """Steps and their cost, one token at a time."""
    left, steps, total = list(output), 0, 0.0
    while left:
        draft = drafts[steps] if steps < len(drafts) else []
        total += 1 + cost * len(draft)
        steps += 1
        for token in draft:
            if left and token == left[0]:
                left.pop(0)
            else:
                break
        if left:
            left.pop(0)
    return steps, total


token = st.integers(0, 2)


@given(st.lists(st.lists(token, max_size=4), max_size=12), st.lists(token, min_size=1, max_size=20), st.floats(0, 0.5))
def test_agrees_with_the_slow_twin(drafts: list[list[int]], output: list[int], cost: float) -> None:
    result = replay(Scripted(drafts), [ReplayRow(ids([]), ids(output))], max_tokens=4, cost=cost)
    steps, total = naive_costs(drafts, output, cost)
    assert result.tokens == len(output)
    assert result.steps == steps
    assert result.speedup == pytest.approx(len(output) / total)
    assert sum(result.hits_at) == result.hits
    assert all(h <= t for h, t in zip(result.hits_at, result.tested_at, strict=True))


def test_counts_add_up_over_rows_and_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    rows = [ReplayRow(ids([]), ids([1, 2])), ReplayRow(ids([]), ids([3]))]
    result = replay(Scripted([]), rows, progress=lambda done, total: seen.append((done, total)))
    assert (result.tokens, result.steps, result.tau) == (3, 3, 1.0)
    assert seen == [(1, 2), (2, 2)]


def test_the_dictionary_has_the_published_names() -> None:
    row = ReplayRow(ids([]), ids([1]))
    assert {"tau", "drafted_per_step", "accepted", "speedup"} <= replay(Scripted([]), [row]).as_dict().keys()


def test_a_draft_that_is_too_long_is_refused() -> None:
    with pytest.raises(InputError, match=r"'scripted' drafted 3 tokens; the limit was 2"):
        replay(Scripted([[1, 2, 3]]), [ReplayRow(ids([]), ids([1]))], max_tokens=2)


def test_negative_options_are_refused() -> None:
    with pytest.raises(InputError, match="must not be negative"):
        replay(Scripted([]), [], cost=-0.1)


LETTERS = load_tokenizer(Tokenizer(models.BPE({letter: k for k, letter in enumerate("abcd\n")}, [])))


def test_rows_are_encoded_with_newline_and_eos() -> None:
    rows = encode_rows([{"input": "a", "output": "bc"}, {"output": "d"}], LETTERS, eos=7)
    assert [r.prompt.tolist() for r in rows] == [[0, 4], []]
    assert [r.output.tolist() for r in rows] == [[1, 2, 7], [3, 7]]


def test_rows_with_messages_have_the_prompt_and_the_output_of_the_template() -> None:
    task = task_tokenizer("qwen3")
    [found] = encode_rows([row(USER, answer("Yes."))], task, eos=required_eos(task))
    prompt, output = (
        task.tokenizer.decode(i.tolist(), skip_special_tokens=False) for i in (found.prompt, found.output)
    )
    assert prompt == "<|im_start|>user\nTo Zürich?<|im_end|>\n<|im_start|>assistant\n"
    assert output == "<think>\n\n</think>\n\nYes.<|im_end|>"
    assert found.input == "To Zürich?"


def test_no_rows_is_an_error() -> None:
    with pytest.raises(InputError, match="no rows to replay"):
        encode_rows([], LETTERS, eos=7)
