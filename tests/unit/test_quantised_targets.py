"""Models whose linear layers a library has replaced, such as quantised ones: their text, or a word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import Scripted, peer_greedy, random_prompts, tiny_model
from torch import Tensor, nn

from tasc import Generator, NullDrafter
from tasc.errors import InputError

MAX_TOKENS = 16


class LevelLinear(nn.Module):
    """A home-made quantised layer: int8 levels, one scale per output channel, and perhaps rounded inputs.

    Args:
        layer: The layer that it replaces.
        inputs: "exact", "token" (int8, one scale per token) or "pass" (int8, one scale for all tokens of a pass).
    """

    def __init__(self, layer: nn.Linear, inputs: str) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        scales = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("levels", (layer.weight.detach() / scales).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        if self.inputs != "exact":
            largest = x.abs().amax(-1, keepdim=True) if self.inputs == "token" else x.abs().max()
            step = largest.clamp(min=1e-9) / 127
            x = (x / step).round() * step
        return nn.functional.linear(x, self.levels * self.scales)


def replaced(inputs: str) -> Any:
    model = tiny_model("llama")
    for name, layer in list(model.named_modules()):
        if name.endswith("_proj"):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, LevelLinear(layer, inputs))
    return model


def assert_own_text(model: Any) -> None:
    prompts = random_prompts(4)
    loops = [prompt[:6] * 3 for prompt in prompts]
    texts = {tuple(prompt): peer_greedy(model, prompt, MAX_TOKENS, eos_token_id=None) for prompt in prompts + loops}
    drafters: list[Any] = [NullDrafter(), Scripted(texts), Scripted(texts, miss=0.3), None]  # None: n-grams
    for size in (1, 3):
        generator = Generator(model, batch_size=size, costs=0.0)
        for drafter in drafters:
            asked = prompts if drafter is not None else loops
            made = generator.generate(prompts=asked, max_tokens=MAX_TOKENS, eos=(), drafter=drafter)
            assert [item.ids for item in made] == [texts[tuple(prompt)] for prompt in asked]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        one.getMessage() for one in caplog.records if one.name.startswith("tasc") and one.levelno == logging.WARNING
    ]


def test_replaced_layers(caplog: pytest.LogCaptureFixture) -> None:
    model = replaced("exact")
    assert_own_text(model)
    assert Generator(model).mode == "batched"
    assert not warnings_of(caplog)


def test_a_token_that_depends_on_the_pass_goes_without_drafts(caplog: pytest.LogCaptureFixture) -> None:
    model = replaced("pass")
    assert_own_text(model)
    assert Generator(model).mode == "undrafted"
    assert "q_proj (LevelLinear) gives for a token depends on the other tokens" in caplog.text


def test_rounded_inputs_are_said(caplog: pytest.LogCaptureFixture) -> None:
    generator = Generator(replaced("token"))
    assert generator.mode == "batched"
    (warning,) = warnings_of(caplog)
    assert "q_proj (LevelLinear) rounds its inputs" in warning
    assert "\n" not in warning


def test_layers_that_cannot_run_are_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, x: Tensor) -> Tensor:
        raise RuntimeError("no kernel\nfor this machine")

    monkeypatch.setattr(LevelLinear, "forward", fail)
    with pytest.raises(InputError, match=r"LlamaForCausalLM cannot be checked: its own generate raises .*Error under"):
        Generator(replaced("exact"))


def saved(path: Path) -> Path:
    """A checkpoint of a Llama whose widths are multiples of 64, as quantisers ask."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=257, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def torchao(name: str, **options: Any) -> Callable[[], Any]:
    def config() -> Any:
        quantization = pytest.importorskip("torchao.quantization")
        return transformers.TorchAoConfig(getattr(quantization, name)(**options))

    return config


def bitsandbytes(**options: Any) -> Callable[[], Any]:
    def config() -> Any:
        pytest.importorskip("bitsandbytes")
        return transformers.BitsAndBytesConfig(**options)

    return config


def quanto() -> Any:
    pytest.importorskip("optimum.quanto")
    return transformers.QuantoConfig(weights="int8")


CONFIGS: dict[str, tuple[str, Callable[[], Any]]] = {
    "torchao int8": ("batched", torchao("Int8WeightOnlyConfig")),
    "torchao int4": ("batched", torchao("IntxWeightOnlyConfig", weight_dtype=torch.int4)),
    "bitsandbytes int8": ("undrafted", bitsandbytes(load_in_8bit=True)),
    "bitsandbytes int4": ("batched", bitsandbytes(load_in_4bit=True)),
    "quanto int8": ("batched", quanto),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_quantised_by_a_library(kind: str, tmp_path: Path) -> None:
    mode, config = CONFIGS[kind]
    options = {"quantization_config": config(), "dtype": torch.float32, "device_map": "cpu"}
    model = transformers.AutoModelForCausalLM.from_pretrained(saved(tmp_path), **options)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    assert_own_text(model)
    assert Generator(model).mode == mode
