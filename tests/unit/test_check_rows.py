"""The split of a check: no input on both sides, the column respected, a function of the rows alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tasc.errors import InputError
from tasc.evaluation.check import split_rows


def rows(number: int, inputs: int) -> list[dict[str, Any]]:
    return [{"input": f"in {k % inputs}", "output": f"out {k}"} for k in range(number)]


def inputs(part: list[dict[str, Any]]) -> set[str]:
    return {row["input"] for row in part}


@pytest.mark.parametrize(("number", "different", "held_out"), [(3, 3, 1), (90, 90, 30), (300, 300, 50), (900, 900, 90)])
def test_a_tenth_is_held_out_within_limits(number: int, different: int, held_out: int) -> None:
    parts = split_rows(rows(number, different))
    assert (len(parts.held_out), len(parts.train), parts.of) == (held_out, number - held_out, number)


def test_no_input_is_on_both_sides() -> None:
    parts = split_rows(rows(1000, 37))
    assert len(parts.train) + len(parts.held_out) == 1000
    assert parts.held_out
    assert not inputs(parts.train) & inputs(parts.held_out)


def test_the_split_depends_on_the_rows_alone() -> None:
    given = rows(200, 200)
    parts = split_rows(given)
    assert split_rows(given) == parts
    shuffled = random.Random(0).sample(given, 200)
    assert inputs(split_rows(shuffled).held_out) == inputs(parts.held_out)


def test_rows_without_an_input_may_repeat_their_output() -> None:
    parts = split_rows({"output": f"label {k % 2}"} for k in range(100))
    assert {row["output"] for row in parts.held_out} == {row["output"] for row in parts.train}


def test_more_rows_than_the_limit_are_sampled() -> None:
    parts = split_rows(rows(500, 500), limit=60)
    assert (len(parts.train), len(parts.held_out), parts.of) == (40, 20, 500)
    assert any(int(row["output"].split()[1]) >= 250 for row in parts.train)  # not the first rows


def test_a_split_column_is_respected() -> None:
    given = [row | {"split": ("train", "test", "dev")[k % 3]} for k, row in enumerate(rows(90, 9))]
    parts = split_rows(given)
    assert (len(parts.train), len(parts.held_out), parts.by) == (30, 30, "column")
    assert {row["split"] for row in parts.held_out} == {"test"}


def test_of_a_split_column_both_parts_are_sampled() -> None:
    given = [row | {"split": "test" if k % 100 == 0 else "train"} for k, row in enumerate(rows(2000, 2000))]
    parts = split_rows(given, limit=60)
    assert (len(parts.train), len(parts.held_out)) == (60, 20)


def test_rows_of_train_alone_are_split_by_hash() -> None:
    given = rows(90, 90)
    parts = split_rows([row | {"split": "train"} for row in given])
    assert (parts.by, inputs(parts.held_out)) == ("hash", inputs(split_rows(given).held_out))


def test_rows_of_another_name_are_held_out() -> None:
    given = [row | {"split": ("train", "dev", "unseen")[k % 3]} for k, row in enumerate(rows(90, 9))]
    parts = split_rows(given)
    assert (len(parts.train), {row["split"] for row in parts.held_out}, parts.by) == (30, {"dev"}, "column")


def test_a_split_column_without_train_rows_is_an_error() -> None:
    with pytest.raises(InputError, match="says 'test' and never 'train'"):
        split_rows([row | {"split": "test"} for row in rows(5, 5)])


@pytest.mark.parametrize(
    ("given", "said"),
    [([], "there are no rows"), (rows(1, 1), "1 row with 1 different"), (rows(50, 1), "50 rows with 1 different")],
)
def test_rows_that_cannot_be_split_are_an_error(given: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InputError, match=f"{said}.*: give more rows"):
        split_rows(given)


@pytest.mark.parametrize("often", range(4))
def test_two_inputs_are_enough_however_often_one_occurs(often: int) -> None:
    given = [{"input": f"in {often}", "output": f"out {k}"} for k in range(99)]
    parts = split_rows([*given, {"input": "seldom", "output": "out"}])
    assert {len(parts.train), len(parts.held_out)} == {99, 1}


def test_a_split_that_is_no_text_is_another_split() -> None:
    odd = [{"output": "x", "split": one} for one in (["train"], {"name": "test"}, 1)]
    parts = split_rows([*odd, *(row | {"split": "train"} for row in rows(9, 9))])
    assert (len(parts.train), len(parts.held_out), parts.of) == (6, 3, 12)
