"""A generator follows its model when the weights change between calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_step_graphs import captures  # noqa: F401  # a fixture
from tiny_models import PromptLookup, peer_greedy, random_prompts, tiny_model

from tasc import Generator, ModelDrafter
from tasc.decoding.engine.weight_watcher import WeightWatcher

PROMPTS = random_prompts(3)


def in_place(model: Any) -> None:
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(3.0)


def elsewhere(model: Any) -> None:
    weight = model.model.layers[1].self_attn.k_proj.weight
    weight.data = weight.data.flip(0).clone()


def another_module(model: Any) -> None:
    old = model.model.layers[0].mlp.up_proj
    new = torch.nn.Linear(old.in_features, old.out_features, bias=False)
    with torch.no_grad():
        new.weight.copy_(old.weight.flip(0))
    model.model.layers[0].mlp.up_proj = new


CHANGES = [in_place, elsewhere, another_module]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("graphs", [None, True])
def test_output_is_the_changed_models(request: Any, change: Callable[[Any], None], graphs: bool | None) -> None:
    if graphs:
        request.getfixturevalue("captures")
    model = tiny_model("llama")
    generator = Generator(model, drafter=PromptLookup(), batch_size=2, costs=0.02, cuda_graphs=graphs)
    before = [peer_greedy(model, prompt, 12) for prompt in PROMPTS]
    for _ in range(2):
        assert [item.ids for item in generator.generate(prompts=PROMPTS, max_tokens=12)] == before
    change(model)
    after = [peer_greedy(model, prompt, 12) for prompt in PROMPTS]
    assert after != before
    for _ in range(2):
        assert [item.ids for item in generator.generate(prompts=PROMPTS, max_tokens=12)] == after


@pytest.mark.parametrize("graphs, packed", [(None, False), (True, False), (None, None)])
def test_adapters_that_are_switched(request: Any, graphs: bool | None, packed: bool | None) -> None:
    peft = pytest.importorskip("peft")
    if graphs:
        request.getfixturevalue("captures")
    torch.manual_seed(1)
    model = tiny_model("llama")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(model, config, adapter_name="one")
    tuned.add_adapter("two", config)
    generator = Generator(
        tuned, drafter=PromptLookup(), batch_size=3, costs=0.02, pack_weights=packed, cuda_graphs=graphs
    )
    seen = []
    for switch in (
        lambda: tuned.set_adapter("one"),
        lambda: tuned.set_adapter("two"),
        tuned.base_model.disable_adapter_layers,
        tuned.base_model.enable_adapter_layers,
        lambda: scale(tuned, 2.0),
        lambda: tuned.merge_adapter(["two"]),
        tuned.unmerge_adapter,
    ):
        switch()
        expected = [peer_greedy(tuned, prompt, 12) for prompt in PROMPTS]
        for _ in range(2):
            assert [item.ids for item in generator.generate(prompts=PROMPTS, max_tokens=12)] == expected
        seen.append(expected)
    assert seen[0] != seen[1] != seen[2] != seen[3] != seen[4]


def scale(model: Any, factor: float) -> None:
    """Multiply the scales of all adapters, as `peft.helpers.rescale_adapter_scale` does."""
    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.scaling = {name: scale * factor for name, scale in module.scaling.items()}


def test_a_draft_model_that_changes_still_drafts_for_itself() -> None:
    model, small = tiny_model("llama"), tiny_model("llama")
    generator = Generator(model, drafter=ModelDrafter(small, length=3), costs=0.02)
    for change in CHANGES:
        change(model)
        change(small)
        made = generator.generate(prompts=PROMPTS, max_tokens=12)
        assert [item.ids for item in made] == [peer_greedy(model, prompt, 12) for prompt in PROMPTS]
        assert made.stats.alpha > 0.99


def test_what_is_seen() -> None:
    model = tiny_model("llama")
    weights = WeightWatcher(model)
    assert not weights.changed()
    model(torch.tensor([[1, 2, 3]]))
    assert not weights.changed()
    for change in CHANGES:
        change(model)
        assert weights.changed()
        assert not weights.changed()
    model.double()
    assert weights.changed()
