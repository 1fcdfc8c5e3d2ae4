"""Compiled parts of a model: found, in force for a while, and gone without a trace; here without CUDA."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, PromptLookup, peer_greedy, random_prompts, tiny_model

import tasc.decoding.engine.compile
from tasc import Generator, ModelDrafter, generate
from tasc.decoding.engine.compile import CompiledModules
from tasc.errors import InputError

PROMPTS = random_prompts(4)


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles on a CPU too, without a C++ compiler."""
    monkeypatch.setattr(tasc.decoding.engine.compile, "_can_compile", lambda device: True)
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **options: compile(part, backend="aot_eager", **options))


def state(model: Any) -> list[Any]:
    """All that could be left behind: attributes of modules, and names of the files that define them (but torch's)."""
    modules = list(model.modules())
    homes = sorted({type(module).__module__ for module in modules})
    names = [{name: own for name, own in vars(sys.modules[home]).items() if name[:2] != "__"} for home in homes]
    return [*(set(vars(module)) for module in modules), *names]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.usefixtures("anywhere")
def test_output_is_the_same_and_the_model_as_before(name: str) -> None:
    model = tiny_model(name)
    expected = [peer_greedy(model, prompt, 12) for prompt in PROMPTS]
    before = state(model)
    generator = Generator(model, drafter=PromptLookup(), batch_size=2, costs=0.02, pack_weights=False, compile=True)
    for _ in range(2):
        assert [item.ids for item in generator.generate(prompts=PROMPTS, max_tokens=12)] == expected
    assert state(model) == before


@pytest.mark.usefixtures("anywhere")
def test_each_part_is_replaced_within_and_back_after_a_failure() -> None:
    model = tiny_model("llama")
    home = sys.modules[type(model).__module__]
    before, own = state(model), home.apply_rotary_pos_emb  # type: ignore[attr-defined]
    parts = CompiledModules(model, True)
    with pytest.raises(RuntimeError, match="within"), parts.applied():
        layer = model.model.layers[1]
        for part in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm, model.model.norm):
            assert "forward" in vars(part)
        assert "forward" not in vars(layer.self_attn)
        assert home.apply_rotary_pos_emb is not own  # type: ignore[attr-defined]
        raise RuntimeError("within")
    assert state(model) == before


def test_compiling_is_for_cuda() -> None:
    for made in (Generator, ModelDrafter):
        with pytest.raises(InputError, match="compile=True is for CUDA devices, but the model is on cpu"):
            made(tiny_model("llama"), compile=True)
    with pytest.raises(InputError, match="compile=True is for CUDA devices"):
        generate(tiny_model("llama"), None, prompts=PROMPTS, compile=True)


@pytest.mark.usefixtures("anywhere")
def test_a_model_without_such_parts_is_named() -> None:
    with pytest.raises(InputError, match="no norms and MLPs in Linear"):
        CompiledModules(torch.nn.Linear(2, 2), True)
