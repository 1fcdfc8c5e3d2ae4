"""Steps of fixed shape say what steps of the shapes at hand say; here without CUDA.

What stands in for a CUDA graph is the list of tensor operations that a step is made of: recorded once, repeated over
the same memory, with no Python in between, and with outputs that the next step writes over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_loop_parity import MAX_TOKENS, PROMPTS, drafters
from tiny_models import ARCHITECTURES, peer_greedy, tiny_model
from torch.fx.experimental.proxy_tensor import make_fx

import tasc.spec.graphs
import tasc.spec.steps
from tasc.spec import Generator

CAPTURES: list[torch.fx.GraphModule] = []


def recording() -> tasc.spec.graphs.Capture:
    """Records the operations of a step on a CPU."""

    def capture(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        nothing = torch.zeros(())  # it wants an argument
        recorded = make_fx(lambda _: run())(nothing)
        CAPTURES.append(recorded)
        made: list[torch.Tensor] = []

        def replay() -> torch.Tensor:
            fresh = recorded(nothing)
            if not made:
                made.append(fresh.clone())
            return made[0].copy_(fresh)

        return replay

    return capture


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """What was captured; every model is captured meanwhile, wherever it is."""
    CAPTURES.clear()
    monkeypatch.setattr(tasc.spec.steps, "capture_on", lambda device: recording)
    return CAPTURES


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_equals_transformers_generate(captures: list[Any], name: str, batch_size: int) -> None:
    model = tiny_model(name)
    expected = [peer_greedy(model, prompt, MAX_TOKENS) for prompt in PROMPTS]
    for drafter in drafters(expected).values():
        generator = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.02, cuda_graphs=True)
        for prompts, outputs in ((PROMPTS, expected), (PROMPTS[::-1], expected[::-1])):
            made = generator.generate(prompts=prompts, max_tokens=MAX_TOKENS)
            assert [item.ids for item in made] == outputs
    assert captures
