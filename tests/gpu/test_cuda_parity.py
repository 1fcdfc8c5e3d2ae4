"""The loop on a CUDA device says what it says on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from tiny_models import Scripted, peer_greedy, random_prompts, tiny_model

from tasc.spec import Generator, NullDrafter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("name", ["llama", "gemma3-window"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_cuda_equals_cpu(name: str, batch_size: int) -> None:
    prompts = random_prompts(5)
    expected = [peer_greedy(tiny_model(name), prompt, 20) for prompt in prompts]
    known = {tuple(prompt): ids for prompt, ids in zip(prompts, expected, strict=True)}
    model = tiny_model(name).to("cuda")
    for drafter in (NullDrafter(), Scripted(known, miss=0.3)):
        made = Generator(model, drafter=drafter, batch_size=batch_size).generate(prompts=prompts, max_tokens=20)
        assert [item.ids for item in made] == expected
