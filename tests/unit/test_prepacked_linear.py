"""Packed weights change speed, not answers, and leave the model as it was."""

from __future__ import annotations

import pytest
import torch
from tiny_models import Scripted, peer_greedy, random_prompts, tiny_model

from tasc import Generator
from tasc.decoding.engine.prepacked_linear import PrepackedLinears
from tasc.errors import InputError

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


@pytest.mark.parametrize("packed", [False, True])
def test_same_ids(packed: bool) -> None:
    model, prompts = tiny_model("qwen2"), random_prompts(4)
    expected = [peer_greedy(model, prompt, 16) for prompt in prompts]
    known = {tuple(prompt): ids for prompt, ids in zip(prompts, expected, strict=True)}
    generator = Generator(model, drafter=Scripted(known, miss=0.3), batch_size=2, costs=0.0, pack_weights=packed)
    assert [item.ids for item in generator.generate(prompts=prompts, max_tokens=16)] == expected


def test_in_force_within_only_and_renewed() -> None:
    model = tiny_model("llama")
    layer = model.model.layers[0].mlp.up_proj
    inputs = torch.randn(1, 5, 32)
    weights = PrepackedLinears(model)
    assert weights.num_bytes > 0
    for factor in (1.0, 3.0):
        with torch.no_grad():
            layer.weight.mul_(factor)
        with torch.inference_mode():
            plain = layer(inputs)
            with weights.applied():
                assert "forward" in vars(layer)
                torch.testing.assert_close(layer(inputs), plain)
        assert "forward" not in vars(layer)


def test_asked_for_where_it_cannot_be_had() -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    assert PrepackedLinears(model).num_bytes == 0
    with pytest.raises(InputError, match="needs linear layers in fp32"):
        PrepackedLinears(model, True)
