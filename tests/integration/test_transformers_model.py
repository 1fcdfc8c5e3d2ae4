"""SmolLM2-135M: transformers' `generate` says the same with tasc's drafts, greedily and from the prefill on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc.adapters.transformers import TascGenerate, patch
from tasc.models import smollm2

pytestmark = pytest.mark.model

INPUTS = ["What is the capital of France?", "Repeat: red red blue red red blue red red blue"]


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.1}], ids=["plain", "penalty"])
def test_generate_says_the_same(options: dict[str, Any]) -> None:
    folder = smollm2()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with_drafts = TascGenerate(None, tokenizer)
    for text in INPUTS:
        chat = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        options = {"max_new_tokens": 24, "do_sample": False, **options}
        expected = model.generate(**ids, **options).tolist()
        assert model.generate(**ids, **options, custom_generate=with_drafts).tolist() == expected
        with patch(model, with_drafts):
            assert model.generate(**ids, **options).tolist() == expected
