"""Packed weights change speed, not answers, and leave the model as it was."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from tiny_models import Scripted, peer_greedy, random_prompts, tiny_model

from tasc import Generator
from tasc.decoding.engine.prepacked_linear import PrepackedLinears, int8_levels
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


def test_int8_text_is_that_of_the_rounded_model() -> None:
    model, prompts = tiny_model("qwen2"), random_prompts(4)
    _skip_without_int8(model)
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for layer in rounded.modules():
            if type(layer) is torch.nn.Linear:
                levels, scales = int8_levels(layer.weight)
                layer.weight = torch.nn.Parameter(levels * scales[:, None])
    expected = [peer_greedy(rounded, prompt, 16) for prompt in prompts]
    assert expected != [peer_greedy(model, prompt, 16) for prompt in prompts]
    known = {tuple(prompt): ids for prompt, ids in zip(prompts, expected, strict=True)}
    generator = Generator(model, drafter=Scripted(known, miss=0.3), batch_size=2, costs=0.0, pack_weights="int8")
    made = generator.generate(prompts=prompts, max_tokens=16, check_plain=True)
    assert [item.ids for item in made] == expected
    assert made.stats.divergences == 0  # compared with the rounded model's own text, not with the fp32 text


def test_int8_products_of_a_row_do_not_depend_on_other_rows() -> None:
    model = tiny_model("qwen2")
    _skip_without_int8(model)
    attention, inputs = model.model.layers[0].self_attn, torch.randn(9, 32)
    with torch.inference_mode(), PrepackedLinears(model, "int8").applied():
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj):  # one product for the three
            assert torch.equal(layer(inputs)[:1], layer(inputs[:1]))
        changed = inputs.clone()
        attention.q_proj(changed)
        changed.mul_(2.0)  # the product for q_proj is stale
        torch.testing.assert_close(attention.k_proj(changed), attention.k_proj(changed.clone()))


def _skip_without_int8(model: Any) -> None:
    try:
        PrepackedLinears(model, "int8")
    except InputError as error:
        pytest.skip(str(error))


def test_generators_over_one_model_have_weights_of_their_own() -> None:
    """In a callback of another generator, and on threads that run at the same time."""
    model, prompts = tiny_model("qwen2", spread=0.2), random_prompts(4)
    _skip_without_int8(model)
    rounded, plain = Generator(model, pack_weights="int8"), Generator(model, pack_weights=False)

    def ids(generator: Generator, **options: Any) -> list[list[int]]:
        return [item.ids for item in generator.generate(prompts=prompts, max_tokens=24, **options)]

    expected = {generator: ids(generator) for generator in (rounded, plain)}
    assert expected[rounded] != expected[plain]
    inner: list[Any] = []
    for outer, other in ((rounded, plain), (plain, rounded)):
        inner.clear()
        assert ids(outer, finished=lambda *_, other=other: inner.append(ids(other))) == expected[outer]
        assert inner == [expected[other]] * len(prompts)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda turn: (turn, ids(turn)), [rounded, plain] * 4))
    assert all(found == expected[turn] for turn, found in made)


def test_a_layer_that_is_replaced_is_rounded_too() -> None:
    model, prompts = tiny_model("qwen2"), random_prompts(2)
    _skip_without_int8(model)
    generator = Generator(model, pack_weights="int8")
    generator.generate(prompts=prompts, max_tokens=2)
    layer = torch.nn.Linear(64, 32, bias=False)
    torch.nn.init.normal_(layer.weight, std=0.4)
    model.model.layers[0].mlp.down_proj = layer
    made, fresh = (
        each.generate(prompts=prompts, max_tokens=16) for each in (generator, Generator(model, pack_weights="int8"))
    )
    assert [item.ids for item in made] == [item.ids for item in fresh]


def test_no_rows() -> None:
    layer = torch.nn.Linear(8, 4)
    model = torch.nn.ModuleList([layer])
    model.forward = lambda **_: layer(torch.zeros(1, 1, 8))
    _skip_without_int8(model)
    with torch.inference_mode(), PrepackedLinears(model, "int8").applied():
        assert layer(torch.zeros(0, 8)).shape == (0, 4)


def test_unknown_kind_of_packing() -> None:
    with pytest.raises(InputError, match="pack_weights='int7'"):
        PrepackedLinears(tiny_model("llama"), "int7")  # type: ignore[arg-type]


def test_quantised_weights_are_left_alone() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model, prompt = tiny_model("llama"), random_prompts(1)[0]
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    assert Generator(model).generate(prompts=[prompt], max_tokens=8)[0].ids == peer_greedy(model, prompt, 8)


def test_offloaded_weights_are_left_alone() -> None:
    accelerate = pytest.importorskip("accelerate")
    model, prompt = tiny_model("llama"), random_prompts(1)[0]
    expected = peer_greedy(model, prompt, 8)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert Generator(model).generate(prompts=[prompt], max_tokens=8)[0].ids == expected


def test_weights_that_hooks_compute_are_left_alone() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 4))
    pruned = torch.nn.Linear(4, 4)
    torch.nn.utils.prune.l1_unstructured(pruned, "weight", amount=0.5)
    assert PrepackedLinears(torch.nn.ModuleList([layer, pruned])).num_bytes == 0
