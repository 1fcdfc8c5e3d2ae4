"""Wrong arguments outside `Generator`: one line with the name, the value and what it must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, tiny_model

from tasc import DistillOptions, HybridDrafter, NgramTable, NullDrafter, TokenStore, TuneOptions, extend_model
from tasc.checks import number, whole_number
from tasc.errors import InputError
from tasc.vocab.vocabulary import extend_tokenizer, learn_vocabulary

WRONG_NUMBERS = ["5", b"5", None, [5], {}, object(), 1j, np.zeros(2), lambda: 0]


@pytest.mark.parametrize("value", [*WRONG_NUMBERS, 1.0, float("nan")], ids=repr)
def test_no_whole_number(value: Any) -> None:
    with pytest.raises(InputError, match=r"^size is .*; it must be a whole number of at least 1$"):
        whole_number("size", value, 1)


@pytest.mark.parametrize("value", WRONG_NUMBERS, ids=repr)
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
