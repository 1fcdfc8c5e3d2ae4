"""Above temperature 0, speculative output follows the target's own law, and equal seeds give equal output."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import PromptLookup, Scripted, random_prompts, tiny_model

from tasc import Generator, NgramDrafter, NullDrafter
from tasc.decoding.sampling import Sampler, Sampling
from tasc.decoding.verify import quantile, quantiles, verify
from tasc.errors import InputError

TOY = 4
LENGTH = 3
PROMPT = [2, 1]


def naive_law(model: Any, sampling: Sampling) -> dict[tuple[int, ...], list[tuple[float, float]]]:
    """Per output: the interval of uniforms that each of its tokens owns, one plain forward pass per prefix."""
    intervals: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for output in itertools.product(range(TOY), repeat=LENGTH):
        spans = []
        for position, token in enumerate(output):
            ids = torch.tensor([PROMPT + list(output[:position])])
            with torch.inference_mode():
                scores = model(ids).logits[:, -1].float()
            for process in sampling.processors():
                scores = process(ids, scores)
            p = torch.softmax(scores[0].double(), -1).tolist()
            spans.append((sum(p[:token]), sum(p[: token + 1])))
        intervals[output] = spans
    return intervals


class Uniforms:
    """Stands in for the random stream: gives these numbers in turn."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = iter(values)

    def __call__(self) -> float:
        return next(self.values, 0.5)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.7, repetition_penalty=1.4),
        Sampling(temperature=1.3, top_k=3, min_p=0.1),
        Sampling(temperature=1.0, top_p=0.8),
    ],
    ids=str,
)
@pytest.mark.parametrize("drafted", [(0, 1, 2), (3, 3, 3), (2, 0)])
def test_the_law_is_the_targets(monkeypatch: Any, sampling: Sampling, drafted: tuple[int, ...]) -> None:
    """Uniforms from the cell of an output bring that output: so its probability is the cell's volume, Πp."""
    model = tiny_model("llama", vocab=TOY, spread=0.2)
    law = naive_law(model, sampling)
    volume = {output: math.prod(high - low for low, high in spans) for output, spans in law.items()}
    assert math.isclose(sum(volume.values()), 1.0, abs_tol=1e-9)

    cell: list[float] = []
    original = Sampler.__init__

    def init(self: Sampler, *args: Any) -> None:
        original(self, *args)
        self._uniform = Uniforms(cell)  # type: ignore[assignment]

    monkeypatch.setattr(Sampler, "__init__", init)
    options = {
        name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    }
    drafter = Scripted({tuple(PROMPT): list(drafted)}, length=len(drafted))
    generator = Generator(model, drafter=drafter, costs=0.0)
    seen, tested = 0.0, 0
    for output, spans in law.items():
        if min(high - low for low, high in spans) < 1e-4:
            continue  # fp32 noise of the logits could cross so narrow a cell
        for share in (1e-3, 0.5, 1 - 1e-3):
            cell[:] = [low + share * (high - low) for low, high in spans]
            made = generator.generate(prompts=[PROMPT], max_tokens=LENGTH, eos=(), **options)  # type: ignore[arg-type]
            assert made[0].ids == list(output)
        seen += volume[output]
        tested += 1
    assert seen > 0.999
    assert tested > TOY


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 1.5, "top_k": 20, "repetition_penalty": 1.3},
        {"temperature": 1.0, "min_p": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("makes_all", [False, True])
def test_equal_seeds_give_equal_output_drafted_or_not(
    monkeypatch: Any, options: dict[str, Any], batch_size: int, makes_all: bool
) -> None:
    """… and whether choices are made one by one, as on a CPU, or all at once, as on a GPU."""
    original = Sampler.__init__

    def init(self: Sampler, *args: Any) -> None:
        original(self, *args)
        self.prefers_batch = makes_all

    model = tiny_model("qwen2")
    prompts = random_prompts(5, seed=3)
    plain = Generator(model, drafter=NullDrafter()).generate(prompts=prompts, max_tokens=16, seed=11, **options)
    expected = [item.ids for item in plain]
    monkeypatch.setattr(Sampler, "__init__", init)
    monkeypatch.setattr("tasc.decoding.sampling._MAX_SCORES", 3 * 257)  # three rows at a time
    known = {tuple(prompt): item.ids for prompt, item in zip(prompts, plain, strict=True)}
    for drafter in (NullDrafter(), Scripted(known), Scripted(known, miss=0.4), PromptLookup(), NgramDrafter(None)):
        generator = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.02)
        made = generator.generate(prompts=prompts, max_tokens=16, seed=11, **options)
        assert [item.ids for item in made] == expected
        if isinstance(drafter, Scripted):
            assert made.stats.accepted > 0
    other = Generator(model, drafter=NullDrafter()).generate(prompts=prompts, max_tokens=16, seed=12, **options)
    assert [item.ids for item in other] != expected


def test_same_prompts_of_a_call_get_their_own_draws() -> None:
    generator = Generator(tiny_model("llama"), drafter=NullDrafter(), batch_size=2)
    made = generator.generate(prompts=[[5, 6]] * 4, max_tokens=8, temperature=1.0, seed=1)
    assert len({tuple(item.ids) for item in made}) == 4


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=12), st.floats(0, 1, exclude_max=True))
def test_quantile_against_numpy(scores: list[float], uniform: float) -> None:
    weights = np.exp(np.float32(scores).astype(np.float64) - max(scores))
    edges = np.cumsum(weights) / weights.sum()
    token = quantile(torch.softmax(torch.tensor(scores).double(), -1), uniform)
    low = edges[token - 1] if token else 0.0
    assert low - 1e-9 <= uniform <= edges[token] + 1e-9


def test_quantile_never_takes_a_token_of_weight_0() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]).double()
    assert [quantile(weights, u) for u in (0.0, 0.49, 0.51, 1 - 2**-53)] == [1, 1, 3, 3]


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 10**6))
def test_quantiles_are_those_of_each(rows: int, vocab: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = torch.tensor(rng.random((rows, vocab)) * (rng.random((rows, vocab)) < 0.5))
    weights[:, rng.integers(vocab)] += 0.1
    uniforms = torch.tensor(np.where(rng.random(rows) < 0.3, 1 - 2**-53, rng.random(rows)))
    each = [quantile(row, float(u)) for row, u in zip(weights, uniforms, strict=True)]
    assert quantiles(weights, uniforms).tolist() == each


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_verify_takes_the_common_head_and_one_more(draft: list[int], own: list[int]) -> None:
    asked = []

    def choose(position: int) -> int:
        asked.append(position)
        return own[position]

    emitted = verify(draft, choose)
    accepted = next((at for at, token in enumerate(draft) if own[at] != token), len(draft))
    assert emitted == own[: accepted + 1]
    assert asked == list(range(accepted + 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1), ("top_k", 0), ("top_p", 0.0), ("top_p", 1.5), ("min_p", -0.1), ("repetition_penalty", 0)],
)
def test_options_out_of_range(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}"):
        Sampling(**{name: value})  # type: ignore[arg-type]
