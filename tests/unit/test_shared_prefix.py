"""The beginning that all prompts share is computed once per batch, with the loss and the gradients of whole rows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
from test_tune import QUICK, TASK, model_folder, weights  # noqa: E402
from tiny import tiny_model  # noqa: E402

from tasc import tune  # noqa: E402
from tasc.training import shared_prefix  # noqa: E402
from tasc.training.examples import Collator, Example  # noqa: E402
from tasc.training.shared_prefix import MIN_SAVED, prefix_cache, with_prefix  # noqa: E402

SYSTEM = "Say what the row holds, in the words of the others."
PREFIX = [7, 9, 30, 4, 99, 60, 41, 8, 8, 12, 77, 5, 3, 90]
ROWS = [
    Example([*PREFIX, 11, 12, 13], [20, 21, 22, 23, 2], 22),
    Example([*PREFIX, 14], [24, 2], 17),
    Example([*PREFIX, 15, 16, 17, 18, 19, 20], [25, 26, 27, 28, 29, 30, 2], 27),
]


def gradients(model: Any, collator: Collator) -> Any:
    model.zero_grad()
    model(**collator(ROWS), **prefix_cache(model, collator, len(ROWS))).loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "qwen3", "mixtral", "olmo2", "phi", "deepseek_v2"])
def test_gradients_are_those_of_whole_rows(kind: str) -> None:
    model = tiny_model(kind).train()
    model.config.use_cache = False
    whole = Collator.for_model(model, 0)
    shared = with_prefix(whole, model, ROWS, 8)
    assert shared.prefix == tuple(PREFIX)
    assert shared(ROWS)["input_ids"].shape[1] == whole(ROWS)["input_ids"].shape[1] - len(PREFIX)
    expected, found = gradients(model, whole), gradients(model, shared)
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("mistral", ""), ("gemma3_text", ""), ("gpt_neo", ""), ("mamba", ""), ("phi3", "longrope"), ("opt", "")],
)
def test_other_attention_and_dropout_take_whole_rows(kind: str, name: str) -> None:
    model = tiny_model(kind, name)
    whole = Collator.for_model(model, 0)
    assert with_prefix(whole, model, ROWS, 8) is whole


@pytest.mark.parametrize("pad", [0, 127, 128, 151_643])
def test_a_vocabulary_of_any_size_shares(pad: int) -> None:
    model = tiny_model("qwen2")
    whole = Collator.for_model(model, pad)
    assert with_prefix(whole, model, ROWS, 8).prefix == tuple(PREFIX)


def test_rotary_factors_that_the_length_does_not_change_share() -> None:
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    config = tiny_model("llama").config
    config.rope_parameters = rope
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert with_prefix(Collator.for_model(model, 0), model, ROWS, 8).prefix == tuple(PREFIX)


def test_whole_rows_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = tiny_model("llama")
    whole = Collator.for_model(model, 0)
    assert with_prefix(whole, model, ROWS, 8) is whole


def test_sharing_pays_and_a_prompt_keeps_a_token() -> None:
    model = tiny_model("llama")
    whole = Collator.for_model(model, 0)
    rows = MIN_SAVED // len(PREFIX) + 1
    assert with_prefix(whole, model, ROWS, rows) is whole
    assert with_prefix(whole, model, ROWS, rows + 1).prefix == tuple(PREFIX)
    alike = [replace(row, prompt=PREFIX) for row in ROWS]
    assert with_prefix(whole, model, alike, 8).prefix == tuple(PREFIX[:-1])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_tuning_learns_the_same(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder("llama-tied", tmp_path)
    shared: list[int] = []

    def noted(*given: Any) -> Collator:
        collator = with_prefix(*given)
        shared.append(len(collator.prefix))
        return collator

    monkeypatch.setattr("tasc.training.finetune.run.with_prefix", noted)
    options = replace(QUICK, method=method)
    runs = []
    for least in (1, 10_000):
        monkeypatch.setattr(shared_prefix, "MIN_SAVED", least)
        runs.append(
            tune(folder, TASK, tmp_path / f"tuned-{least}", options=options, system=SYSTEM, validation=TASK[:3])
        )
    assert shared[0] > 8
    assert shared[1] == 0
    for curve in ("curve", "validation"):
        losses = [[entry["loss"] for entry in run.metrics[curve]] for run in runs]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    first, second = (weights(run.path) for run in runs)
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)
