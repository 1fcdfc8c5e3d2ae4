"""Logits that are not numbers, or that leave no token, end a call with one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_step_graphs import captures  # noqa: F401  # a fixture
from tiny_models import VOCAB, PromptLookup, Scripted, peer_greedy, random_prompts, tiny_model

from tasc import Generator, NullDrafter
from tasc.cli.generate import Run
from tasc.cli.resumable import resumable
from tasc.decoding.sampling import Sampler
from tasc.decoding.verify import argmax, quantiles
from tasc.errors import NoTokenError

PROMPTS = [[7, 8, 9, 10, 11, 12], [20, 21], [30, 31, 32, 33]]
MAX_TOKENS = 12


def damaged(token: int) -> Any:
    """A model whose logits are NaN wherever the token stands before."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = float("nan")
    return model


@pytest.mark.parametrize(("batch_size", "drafted"), [(1, False), (3, True)])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "seed": 1}, {"repetition_penalty": 1.2}], ids=str)
@pytest.mark.parametrize("way", ["eager", "graphs", "batched"])
def test_nan_is_reported(
    captures: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch, way: str, options: dict[str, Any], drafted: bool, batch_size: int,
) -> None:  # fmt: skip
    original = Sampler.__init__

    def init(self: Sampler, *args: Any) -> None:
        original(self, *args)
        self.prefers_batch = way == "batched"

    monkeypatch.setattr(Sampler, "__init__", init)
    model = tiny_model("llama")
    plain = Generator(model, cuda_graphs=False).generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, **options)
    token, at = next(
        (token, at)
        for at, token in enumerate(plain[1].ids)
        if at > 2 and all(token not in item.ids[:at] + item.ids * (n != 1) for n, item in enumerate(plain))
    )
    drafter: Any = NullDrafter()
    if drafted:
        known = {tuple(prompt): item.ids for prompt, item in zip(PROMPTS, plain, strict=True)}
        drafter = Scripted(known, length=3)
    model = damaged(token)
    generator = Generator(model, drafter=drafter, batch_size=batch_size, costs=0.0, cuda_graphs=way == "graphs")
    places = range(at - 1 if drafted else at + 1, at + 2)  # a drafted NaN spreads to the 3 positions before it
    said = f"prompt 1 has no next token after ({'|'.join(map(str, places))}) output tokens: its logits are NaN.*float32"
    for _ in range(2):  # captured, the second time
        with pytest.raises(NoTokenError, match=said):
            generator.generate(prompts=PROMPTS, max_tokens=MAX_TOKENS, **options)
    good = [PROMPTS[0], PROMPTS[2]]  # the cache holds no NaN that masked positions could spread
    made = generator.generate(prompts=good, max_tokens=MAX_TOKENS, **{**options, "temperature": 0.0})
    penalty = {name: value for name, value in options.items() if name == "repetition_penalty"}
    assert [item.ids for item in made] == [peer_greedy(model, prompt, MAX_TOKENS, **penalty) for prompt in good]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_config_that_leaves_no_token_is_reported(temperature: float) -> None:
    model = tiny_model("llama")
    model.generation_config.suppress_tokens = list(range(VOCAB))
    with pytest.raises(NoTokenError, match=r"prompt 0 has no next token after 0 .*may suppress every token"):
        Generator(model, drafter=PromptLookup()).generate(prompts=random_prompts(2), temperature=temperature)


def test_finished_outputs_are_in_the_error() -> None:
    model = tiny_model("llama")
    plain = Generator(model, max_draft=0).generate(prompts=PROMPTS, max_tokens=4)
    ended: list[int] = []
    with pytest.raises(NoTokenError) as caught:
        Generator(damaged(PROMPTS[2][1]), max_draft=0).generate(
            prompts=PROMPTS, max_tokens=4, finished=lambda number, _: ended.append(number)
        )
    assert caught.value.number == 2
    assert str(caught.value) == f"prompt 2 {caught.value.reason}"
    assert {number: item.ids for number, item in caught.value.finished.items()} == {n: plain[n].ids for n in (0, 1)}
    assert ended == [0, 1]


def test_nan_of_a_wrong_draft_costs_no_row(tmp_path: Path) -> None:
    prompts = [*PROMPTS[:2], [*PROMPTS[2], 9]]
    plain = Generator(tiny_model("llama"), max_draft=0).generate(prompts=prompts, max_tokens=6)
    wrong = next(token for token in range(40, VOCAB) if all(token not in item.ids for item in plain))
    bad = 100 if wrong != 100 else 101
    prompts[2][-1] = bad  # NaN with and without drafts
    model = damaged(wrong)
    with torch.no_grad():
        model.get_input_embeddings().weight[bad] = float("nan")
    known = {tuple(prompt): [*item.ids[:2], wrong, *item.ids[3:]] for prompt, item in zip(prompts, plain, strict=True)}
    generator = Generator(model, drafter=Scripted(known), costs=0.0, batch_size=3)
    with pytest.raises(NoTokenError):
        generator.generate(prompts=prompts[:2], max_tokens=6)
    rows: list[Any] = [(f"rows:{n}", {"prompt": prompt}) for n, prompt in enumerate(prompts)]
    output, tried = tmp_path / "out.jsonl", []
    with resumable(output, {}, rows=3) as sink:
        run = Run(generator, rows, "prompts", {"max_tokens": 6}, sink, lambda done, _: tried.append(done))
        run.answer(range(3))
    written = [json.loads(line)["prompt"] for line in output.read_text().splitlines()]
    assert written == prompts[:2]
    assert (run.skipped, run.total.requests, tried) == (1, 2, [1, 2])


def test_nan_that_transformers_removes() -> None:
    model = damaged(9)
    model.generation_config.remove_invalid_values = True
    expected = peer_greedy(model, PROMPTS[0], MAX_TOKENS)
    assert Generator(model).generate(prompts=PROMPTS[:1], max_tokens=MAX_TOKENS)[0].ids == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_argmax_finds_what_is_no_number(dtype: torch.dtype) -> None:
    logits = torch.randn(4, 3, 50).to(dtype)
    expected = logits.argmax(-1)
    logits[0, 1, 7] = logits[3, 2, 49] = float("nan")
    logits[1, 0] = float("-inf")
    logits[2, 2, 5] = float("inf")
    expected[0, 1] = expected[3, 2] = expected[1, 0] = -1
    expected[2, 2] = 5
    assert argmax(logits).tolist() == expected.tolist()


def test_quantiles_of_nan() -> None:
    weights = torch.tensor([[0.5, 0.5], [float("nan"), float("nan")]]).double()
    assert quantiles(weights, torch.tensor([0.7, 0.7]).double()).tolist() == [1, -1]
