"""Wrong arguments outside `Generator`: one line with the name, the value and what it must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, tiny_model

from tasc import (
    DistillOptions,
    HybridDrafter,
    NgramTable,
    NullDrafter,
    TokenStore,
    TuneOptions,
    distill,
    extend_model,
    load_tokenizer,
    read_rows,
    tune,
)
from tasc.checks import number, whole_number
from tasc.errors import CorpusError, InputError
from tasc.training.examples import make_examples
from tasc.vocab.vocabulary import extend_tokenizer, learn_vocabulary

WRONG_NUMBERS = ["5", b"5", None, [5], {}, object(), 1j, np.zeros(2), lambda: 0]


@pytest.mark.parametrize("value", [*WRONG_NUMBERS, 1.0, float("nan")], ids=lambda value: type(value).__name__)
def test_no_whole_number(value: Any) -> None:
    with pytest.raises(InputError, match=r"^size is .*; it must be a whole number of at least 1$"):
        whole_number("size", value, 1)


@pytest.mark.parametrize("value", WRONG_NUMBERS, ids=lambda value: type(value).__name__)
def test_no_number(value: Any) -> None:
    with pytest.raises(InputError, match=r"^size is .*; it must be a number$"):
        number("size", value)


def test_numbers_of_other_libraries() -> None:
    assert [whole_number("size", n, 2) for n in (2, np.int64(3), torch.tensor(4))] == [2, 3, 4]
    assert [number("size", x) for x in (2, np.float32(0.5), torch.tensor(0.25))] == [2.0, 0.5, 0.25]


def test_long_values_are_cut_to_one_line() -> None:
    with pytest.raises(InputError, match=r"^size is .{1,80}; it must be a number$"):
        number("size", ["long\n" * 99] * 99)


@pytest.mark.parametrize("options", [TuneOptions, DistillOptions])
@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("batch_size", "16", "an integer"),
        ("batch_size", 1.5, "an integer"),
        ("seed", None, "an integer"),
        ("warmup", "0.1", "a number"),
        ("precision", 16, "auto, fp32, bf16, fp16"),
        ("learning_rate", "1e-3", "a number"),
    ],
)
def test_training_options_of_wrong_types(options: Any, name: str, value: Any, allowed: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}={value!r}; allowed: {allowed}"):
        options(**{name: value})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": 5}, "rows is 5; it must be files, or rows like"),
        ({"rows": ["rows.jsonl", 5]}, r"paths\[1\] is 5; it must be one of a path or a list of paths"),
        ({"rows": b"rows.jsonl"}, "rows is b'rows.jsonl'; it must be files"),
        ({"rows": "rows.jsonl", "other_fields": "id"}, "other_fields is 'id'; it must be a list of fields"),
        ({"rows": [], "progress": True}, "progress is True; it must be a function"),
    ],
)
def test_arguments_of_read_rows(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        list(read_rows(**given))


ROW = {"input": "a", "output": "b"}


WRONG_TRAINING: list[tuple[str, Any, str]] = [
    ("rows", 5, "5; it must be rows like"),
    ("rows", "rows.jsonl", "'rows.jsonl'; it must be rows like"),
    ("rows", ROW, r"\{.*\}; it must be rows like"),
    ("rows", [ROW, 5], "5; it must be one of rows like"),
    ("validation", None, "None; it must be rows like"),
    ("options", {"epochs": 1}, r"\{'epochs': 1\}; it must be of type (Tune|Distill)Options"),
    ("out", 5, "5; it must be a path"),
    ("progress", 5, "5; it must be a function"),
]
WRONG_DISTILL: list[tuple[str, Any, str]] = [
    ("target", None, "None; it must be a path"),
    ("draft", 1.5, "1.5; it must be a model, a DraftSize, a number of layers or a list of layers"),
    ("draft", [0, "1"], "'1'; it must be one of a model, a DraftSize, a number of layers or a list of layers"),
    ("states", 5, "5; it must be a path"),
]


@pytest.mark.parametrize(
    ("train", "name", "value", "said"),
    [
        *((tune, *case) for case in [("model", None, "None; it must be a path"), *WRONG_TRAINING]),
        *((distill, *case) for case in WRONG_TRAINING + WRONG_DISTILL),
    ],
)
def test_arguments_of_training(train: Any, name: str, value: Any, said: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    given: dict[str, Any] = {"rows": [ROW], "out": tmp_path / "out"}
    given |= {"model": tmp_path} if train is tune else {"target": tmp_path, "draft": 2}
    with pytest.raises(InputError, match=rf"^{name}(\[1\])? is {said}"):
        train(**given | {name: value})
    assert not list(tmp_path.iterdir())


def test_fields_of_training_rows() -> None:
    task = load_tokenizer(byte_tokenizer(), eos=0)
    for row, said in (
        ({"input": "a", "output": 5}, "row 1: field 'output' is int, it must be text"),
        ({"input": 5, "output": "a"}, "row 1: field 'input' is int, it must be text"),
        ({"input": "a"}, "row 1 has no output; give one"),
    ):
        with pytest.raises(CorpusError, match=said):
            make_examples([ROW, row], None, task)


def test_wrong_rows_threads_plans_and_models(tmp_path: Path) -> None:
    tokenizer, model = byte_tokenizer(), tiny_model("llama")
    with pytest.raises(InputError, match="rows is 5; it must be files, or rows"):
        TokenStore.build(5, tokenizer, tmp_path / "store")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_threads is '2'; it must be a whole number of at least 1"):
        TokenStore.build([{"output": "a"}], tokenizer, tmp_path / "store", num_threads="2")  # type: ignore[arg-type]
    store = TokenStore.build([{"output": "a"}], tokenizer, tmp_path / "store")
    with pytest.raises(InputError, match=r"max_length is 2.5; it must be a whole number of at least 1"):
        NgramTable.count(store, tmp_path / "ngrams", max_length=2.5)  # type: ignore[arg-type]
    for extend in (lambda: extend_tokenizer(tokenizer, "a.plan"), lambda: extend_model(model, "a.plan")):  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"plan is 'a.plan'; it must be a MergePlan"):
            extend()
    with pytest.raises(InputError, match="size is -1; it must be at least 1"):
        learn_vocabulary(store, tokenizer, tmp_path / "plan", size=-1)
    with pytest.raises(InputError, match="pad_to_multiple is 0; it must be at least 1"):
        extend_model(model, "a.plan", pad_to_multiple=0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the draft model is .*; it must be a ModelDrafter"):
        HybridDrafter(NullDrafter(), model)
