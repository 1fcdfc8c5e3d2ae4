"""Indexes from files: one per generator, per call or per prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import byte_tokenizer, random_prompts, tiny_model

from tasc import Drafter, Generator, NullDrafter, TaskIndex
from tasc.data import TokenStore
from tasc.drafting.protocol import salt_digest, served_log
from tasc.errors import InputError

TOKENIZER = byte_tokenizer()
PROMPTS = random_prompts(4, seed=5)


def build(folder: Path, name: str, outputs: list[str]) -> TaskIndex:
    rows = folder / f"{name}.jsonl"
    rows.write_text("".join(json.dumps({"output": output}) + "\n" for output in outputs))
    store = TokenStore.build([rows], TOKENIZER, folder / f"{name}.store")
    return TaskIndex.build(store, folder / f"{name}.tasc")


@pytest.fixture(scope="module")
def model() -> Any:
    """Says the bytes of "abc…" whatever is asked, so that its output is text that an index can hold."""
    made = tiny_model("llama")
    cycle = TOKENIZER("the slot is filled; ")["input_ids"]
    return Reciting(made, cycle)


class Reciting:
    def __init__(self, model: Any, cycle: list[int]) -> None:
        self._model, self._cycle = model, cycle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **options: Any) -> Any:
        output = self._model(**options)
        keep = output.logits.shape[1]
        for row, positions in enumerate(options["position_ids"][:, -keep:].tolist()):
            for at, position in enumerate(positions):
                output.logits[row, at, self._cycle[position % len(self._cycle)]] = 1e4
        return output


def test_indexes_per_generator_call_and_prompt(model: Any, tmp_path: Path) -> None:
    plain = Generator(model, TOKENIZER, drafter=NullDrafter(), probe=False).generate(prompts=PROMPTS, max_tokens=60)
    expected = [item.ids for item in plain]
    good = build(tmp_path, "good", [item.text for item in plain] * 3)
    other = build(tmp_path, "other", [f"nothing of the kind {n}" for n in range(12)])

    generator = Generator(model, TOKENIZER, index=good, batch_size=3, costs=0.02, probe=False)
    first = generator.generate(prompts=PROMPTS, max_tokens=60)
    assert [item.ids for item in first] == expected
    assert first.stats.accepted_by["task"] > 0
    assert first.stats.tau > 4

    chosen = generator.generate(prompts=PROMPTS, max_tokens=60, index=[good, other, None, str(tmp_path / "good.tasc")])
    assert [item.ids for item in chosen] == expected
    assert chosen[0].stats.accepted > 0
    assert generator.generate(prompts=PROMPTS, max_tokens=60, index=other)[1].ids == expected[1]


def test_index_path_and_one_drafter_per_index(model: Any, tmp_path: Path) -> None:
    good = build(tmp_path, "good", ["the slot is filled; " * 4] * 3)
    generator = Generator(model, TOKENIZER, index=tmp_path / "good.tasc", costs=0.02, probe=False)
    generator.generate(prompts=PROMPTS, max_tokens=5, index=[good] * 4)
    generator.generate(prompts=PROMPTS, max_tokens=5, index=tmp_path / "good.tasc")
    assert len(generator._drafters) == 2


def test_a_salt_has_a_drafter_and_a_log_of_its_own(model: Any, tmp_path: Path) -> None:
    index = build(tmp_path, "task", [f"nothing of the kind {n}" for n in range(12)])
    plain = Generator(model, TOKENIZER, drafter=NullDrafter(), probe=False).generate(prompts=PROMPTS[:1], max_tokens=60)
    end = plain[0].ids[-1]
    said = plain[0].ids[: plain[0].ids.index(end) + 1]

    def accepted(generator: Generator, salt: Any = None) -> int:
        """Tokens that were drafted from rows, the index's and those served since."""
        [found] = generator.generate(prompts=PROMPTS[:1], max_tokens=60, eos=end, salt=salt)
        assert found.ids == said
        return found.stats.accepted_by["task"]

    with Generator(model, TOKENIZER, index=index.path, costs=0.02, probe=False, served=True) as generator:
        alone = accepted(generator, "one")
        assert accepted(generator, "one") > alone + 3
        assert accepted(generator, ["two"]) == accepted(generator) == alone
        assert accepted(generator, [None]) > alone + 3
    logs = {file.name for file in tmp_path.glob("task.tasc.served*")}
    assert logs == {f"task.tasc.served{end}" for end in ("", f".{salt_digest('one')}", f".{salt_digest('two')}")}
    with Generator(model, TOKENIZER, index=index.path, costs=0.02, probe=False, served=True) as generator:
        assert accepted(generator, "one") > alone + 3  # from its log
        for number in range(100):
            generator.generate(prompts=PROMPTS[:1], max_tokens=1, salt=str(number))
        assert len(generator._drafters) == 65
        assert accepted(generator, "one") > alone + 3  # from its log again
        many = [str(number) for number in range(70)]
        generator.generate(prompts=PROMPTS[:1] * 140, max_tokens=1, salt=many * 2)
        index.compact(tmp_path / f"task.tasc.{salt_digest('two')}", served=[served_log(index, salt_digest("two"))])
        assert accepted(generator, "two") > alone + 3


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_salt_shares_no_keys_and_values_with_others(model: Any, tmp_path: Path, batch_size: int) -> None:
    index = build(tmp_path, "task", ["the slot is filled"] * 8)
    generator = Generator(model, TOKENIZER, index=index, batch_size=batch_size, costs=0.02, probe=False)
    prompt = [*PROMPTS[0], *range(5, 60)]
    all_but_one = len(prompt) - 1

    def reused(*salts: str | None) -> list[int]:
        answers = generator.generate(prompts=[prompt] * len(salts), max_tokens=4, salt=list(salts))
        return [answer.stats.reused_tokens for answer in answers]

    assert reused("one", "two", None) == [0, 0, 0]
    assert reused("three") == [0]
    assert reused("three", "three") == [all_but_one] * 2
    assert reused(None, "four", None)[1] == 0


def test_what_is_wrong_with_salts(model: Any, tmp_path: Path) -> None:
    generator = Generator(model, TOKENIZER, drafter=Repeat(), probe=False)
    for salt, message in (
        ("a", "this generator was given drafter="),
        (["a"] * 3, "lists 3 salts for 4 prompts"),
        (7, "salt is 7; it must be a string, or a list"),
        ([7] * 4, "it must be a string, or a list"),
    ):
        with pytest.raises(InputError, match=message):
            generator.generate(prompts=PROMPTS, max_tokens=2, salt=salt)
    with pytest.raises(InputError, match="give salt= or drafter=, not both"):
        generator.generate(prompts=PROMPTS, max_tokens=2, salt="a", drafter=NullDrafter())
    generator.close()
    assert len(generator.generate(prompts=PROMPTS, max_tokens=2, salt="a")) == 4


class Repeat(Drafter):
    """Another drafter than none."""

    name = "repeat"

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Any:
        return NullDrafter().start(prompt_ids)
