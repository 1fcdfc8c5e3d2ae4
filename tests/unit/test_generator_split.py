"""Prompts that several calls share, and outputs that are reported as they end."""

from __future__ import annotations

import pytest
from tiny_models import byte_tokenizer, tiny_model

from tasc import Generation, Generator, NullDrafter
from tasc.errors import InputError, PromptError

PROMPTS = ["flights to boston", "fares", "flights to boston", "list the airlines that fly to denver", "fares"]
SAMPLED = {"max_tokens": 8, "temperature": 1.0, "seed": 3}


def generator(batch_size: int) -> Generator:
    return Generator(tiny_model("llama", positions=64), byte_tokenizer(), drafter=NullDrafter(), batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_positions_make_several_calls_equal_to_one(batch_size: int) -> None:
    whole = [item.ids for item in generator(3).generate(prompts=PROMPTS, **SAMPLED)]
    assert whole[0] != whole[2] and whole[1] != whole[4]
    split = generator(batch_size)
    for positions in ([4, 1], [0, 2, 3]):
        part = split.generate(prompts=[PROMPTS[k] for k in positions], positions=positions, **SAMPLED)
        assert [item.ids for item in part] == [whole[k] for k in positions]


def test_positions_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="lists 1 positions for 2 prompts; give one per prompt"):
        generator(1).generate(prompts=["a", "b"], positions=[3])
    with pytest.raises(InputError, match="positions is -1; it must be at least 0"):
        generator(1).generate(prompts=["a"], positions=[-1])


def test_outputs_are_reported_as_they_end() -> None:
    model = generator(2)
    prompts = ["a", "b" * 60, "c", "d" * 62]  # a longer prompt leaves room for fewer tokens
    ended: list[tuple[int, Generation]] = []
    streamed: list[int] = []

    def finished(number: int, made: Generation) -> None:
        assert streamed.count(number) == made.stats.steps
        ended.append((number, made))

    made = model.generate(
        prompts=prompts, max_tokens=12, stream=lambda number, ids, text: streamed.append(number), finished=finished
    )
    assert [number for number, _ in ended] == [1, 0, 3, 2]
    assert [item for _, item in sorted(ended, key=lambda pair: pair[0])] == list(made)


def test_a_bad_prompt_is_named_before_any_is_answered() -> None:
    ended: list[int] = []
    with pytest.raises(PromptError, match=r"^prompt 1 has 70 tokens, but the model's context holds 64") as caught:
        generator(1).generate(prompts=["a", "b" * 70], finished=lambda number, made: ended.append(number))
    assert (caught.value.number, ended) == (1, [])
    assert caught.value.reason.startswith("has 70 tokens")
