"""Sampling with drafts follows the law of `generate` without them, exactly: every draw is enumerated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import tiny_model

from tasc.adapters.transformers import TascGenerate
from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter, TokenDraft

PROMPT = [2, 1, 3]


class Fixed(Drafter, protocol.Request):
    """Drafts the same tokens at every step."""

    name = "fixed"

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Fixed:
        return self

    def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
        return TokenDraft.of(self.ids[:max_tokens])

    def update(self, ids: Any) -> None:
        pass


def once(
    sample: Callable[[], tuple[int, ...]], script: list[int], monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[int, ...], float, list[list[int]]]:
    """What `sample` returns when its draws follow a script and then take the first possible token; that path's
    probability, and the scripts that branch off behind this one."""
    trace: list[int] = []
    branches: list[list[int]] = []
    mass = 1.0

    def draw(probs: torch.Tensor, num_samples: int, **_: Any) -> torch.Tensor:
        nonlocal mass
        for row in probs:
            options = [token for token, p in enumerate(row.tolist()) if p > 0]
            if len(trace) >= len(script):
                branches.extend([*trace, other] for other in options[1:])
            trace.append(script[len(trace)] if len(trace) < len(script) else options[0])
            mass *= float(row[trace[-1]])
        return torch.tensor(trace[-len(probs) :])[:, None]

    with monkeypatch.context() as patched:
        patched.setattr(torch, "multinomial", draw)
        return sample(), mass, branches


def law(sample: Callable[[], tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], float]:
    """Probability of everything that `sample` may return, over all outcomes of `torch.multinomial`."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    scripts: list[list[int]] = [[]]
    while scripts:
        output, mass, branches = once(sample, scripts.pop(), monkeypatch)
        found[output] += mass
        scripts += branches
    return found


@pytest.mark.parametrize("guidance", [None, 1.3], ids=["stateless", "guidance"])
@pytest.mark.parametrize("draft", [[1], [3, 2], [1, 1, 2]])
def test_law(draft: list[int], guidance: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", vocab=4, spread=0.25)
    model.generation_config.guidance_scale = guidance
    options = {"temperature": 0.8, "top_k": 3, "repetition_penalty": 1.2, "max_new_tokens": 3, "do_sample": True}

    def sample(**more: Any) -> tuple[int, ...]:
        ids = torch.tensor([PROMPT])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **options, **more)
        return tuple(out[0, len(PROMPT) :].tolist())

    expected = law(sample, monkeypatch)
    with_drafts = TascGenerate(drafter=Fixed(draft), costs=0.0)
    found = law(lambda: sample(custom_generate=with_drafts), monkeypatch)
    assert len(expected) > 8 and sum(expected.values()) == pytest.approx(1)
    assert found == pytest.approx(expected, abs=1e-5)
