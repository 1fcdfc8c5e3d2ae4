"""The loop on a CUDA device says what it says on the CPU, its steps captured as CUDA graphs or not."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from tiny_models import (
    ARCHITECTURES,
    PromptLookup,
    Scripted,
    peer_greedy,
    random_prompts,
    tiny_model,
)

from tasc import Generator, ModelDrafter, NullDrafter
from tasc.errors import InputError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

MAX_TOKENS = 20
PROMPTS = random_prompts(7)


def expected(name: str, prompts: list[list[int]] = PROMPTS, **options: Any) -> list[list[int]]:
    """transformers' greedy output on the CPU."""
    model = tiny_model(name, positions=2048)
    return [peer_greedy(model, prompt, MAX_TOKENS, **options) for prompt in prompts]


def on_gpu(name: str) -> Any:
    return tiny_model(name, positions=2048).to("cuda")


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_cuda_equals_cpu(name: str, batch_size: int) -> None:
    outputs = expected(name)
    known = {tuple(prompt): ids for prompt, ids in zip(PROMPTS, outputs, strict=True)}
    model = on_gpu(name)
    for drafter, graphs in (
        (NullDrafter(), True),
        (Scripted(known, miss=0.3), True),
        (Scripted(known, miss=0.05, length=40), True),
        (Scripted(known, miss=0.3), False),
    ):
        generator = Generator(model, drafter=drafter, batch_size=batch_size, cuda_graphs=graphs)
        for prompts, texts in ((PROMPTS, outputs), (PROMPTS[::-1], outputs[::-1])):
            made = generator.generate(prompts=prompts, max_tokens=MAX_TOKENS)
            assert [item.ids for item in made] == texts


@pytest.mark.parametrize("name", ["llama", "gemma3-window"])
def test_compiled_parts(name: str) -> None:
    outputs = expected(name)
    known = {tuple(prompt): ids for prompt, ids in zip(PROMPTS, outputs, strict=True)}
    drafter = Scripted(known, miss=0.3)
    generator = Generator(on_gpu(name), drafter=drafter, batch_size=3, cuda_graphs=True, compile=True)
    for _ in range(2):
        assert [item.ids for item in generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)] == outputs


def test_eager_attention() -> None:
    outputs = expected("gemma3-window")
    model = on_gpu("gemma3-window")
    model.set_attn_implementation("eager")
    generator = Generator(model, drafter=PromptLookup(), batch_size=3, cuda_graphs=True)
    for _ in range(2):
        assert [item.ids for item in generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)] == outputs


def test_long_prompts_and_growing_rows() -> None:
    """Prompts past the longest shape run directly, over the same rows; the cache grows from call to call."""
    prompts = [[(7 * i + j) % 250 + 1 for i in range(length)] for j, length in enumerate((30, 240, 260, 500, 700, 520))]
    outputs = expected("llama", prompts)
    generator = Generator(on_gpu("llama"), drafter=PromptLookup(), batch_size=2, cuda_graphs=True)
    for _ in range(2):
        for prompt, ids in zip(prompts, outputs, strict=True):
            assert generator.generate(prompts=[prompt], max_tokens=MAX_TOKENS)[0].ids == ids
        assert [item.ids for item in generator.generate(prompts=prompts, max_tokens=MAX_TOKENS)] == outputs


def test_repetition_penalty() -> None:
    outputs = expected("llama", repetition_penalty=1.6)
    generator = Generator(on_gpu("llama"), drafter=PromptLookup(), batch_size=3)
    made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, repetition_penalty=1.6)
    assert [item.ids for item in made] == outputs


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.9}, {"temperature": 1.5, "top_k": 20, "min_p": 0.02}],
    ids=str,
)
def test_equal_seeds_give_the_cpus_output(options: dict[str, Any]) -> None:
    plain = Generator(tiny_model("qwen2"), drafter=NullDrafter()).generate(
        prompts=PROMPTS, max_tokens=MAX_TOKENS, seed=11, **options
    )
    known = {tuple(prompt): item.ids for prompt, item in zip(PROMPTS, plain, strict=True)}
    model = tiny_model("qwen2").to("cuda")
    for drafter in (NullDrafter(), Scripted(known, miss=0.3)):
        generator = Generator(model, drafter=drafter, batch_size=3)
        for _ in range(2):
            made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, seed=11, **options)
            assert [item.ids for item in made] == [item.ids for item in plain]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_draft_model(batch_size: int) -> None:
    outputs = expected("llama")
    for drafter in (ModelDrafter(on_gpu("llama")), ModelDrafter(on_gpu("gpt2"), length=3, cuda_graphs=True)):
        generator = Generator(on_gpu("llama"), drafter=drafter, batch_size=batch_size)
        for _ in range(2):
            made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
            assert [item.ids for item in made] == outputs
        assert made.stats.drafted > 0


def test_a_model_that_waits_for_numbers_is_run_directly(caplog: pytest.LogCaptureFixture) -> None:
    outputs = expected("llama")
    model = on_gpu("llama")
    own = model.forward

    def waiting(input_ids: Any, logits_to_keep: int = 0, **rest: Any) -> Any:
        assert int(input_ids.max()) >= 0  # waits for the device, which a capture cannot
        return own(input_ids=input_ids, logits_to_keep=logits_to_keep, **rest)

    waiting.__signature__ = __import__("inspect").signature(own)  # type: ignore[attr-defined]
    model.forward = waiting
    generator = Generator(model, drafter=PromptLookup(), batch_size=2)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            made = generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
            assert [item.ids for item in made] == outputs
    assert caplog.text.count("cannot be captured") == 1
    with pytest.raises(InputError, match="cannot be captured"):
        strict = Generator(model, drafter=NullDrafter(), cuda_graphs=True)
        for _ in range(3):
            strict.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)
    good = Generator(on_gpu("llama"), drafter=NullDrafter(), cuda_graphs=True)  # the device is as it was
    for _ in range(3):
        assert [item.ids for item in good.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS)] == outputs


def test_memory_does_not_grow_with_requests() -> None:
    model = on_gpu("llama")
    generator = Generator(model, drafter=PromptLookup(), batch_size=4, cuda_graphs=True)
    used = []
    for round_ in range(12):
        generator.generate(prompts=random_prompts(8, seed=round_), max_tokens=60, eos=())
        used.append(torch.cuda.memory_allocated())
    assert used[-1] <= used[5] + 2**20
