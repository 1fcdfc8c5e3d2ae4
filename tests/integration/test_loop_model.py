"""SmolLM2-135M: the loop equals transformers' generate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc import Generator, NullDrafter
from tasc.models import smollm2

pytestmark = pytest.mark.model

INPUTS = ["What is the capital of France?", "List three colours.", "Repeat: red red blue red red blue"]


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any, list[list[int]]]:
    folder = smollm2()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = []
    for text in INPUTS:
        chat = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**ids, max_new_tokens=24, do_sample=False)
        expected.append(out[0, ids["input_ids"].shape[1] :].tolist())
    return model, tokenizer, expected


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("pack", [False, True])
def test_equals_transformers(loaded: tuple[Any, Any, list[list[int]]], batch_size: int, pack: bool) -> None:
    model, tokenizer, expected = loaded
    for drafter in (NullDrafter(), None):
        generator = Generator(model, tokenizer, drafter=drafter, batch_size=batch_size, costs=0.02, pack_weights=pack)
        made = generator.generate(INPUTS, max_tokens=24)
        assert [item.ids for item in made] == expected
