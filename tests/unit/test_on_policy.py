"""On-policy data: what a draft samples while it is trained, and what it learns from that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from drafts import HELD_OUT, ROWS, folder, tiny  # noqa: E402

from tasc.decoding.draft_model.vocabulary import cut_head, set_draft_vocabulary  # noqa: E402
from tasc.errors import InputError  # noqa: E402
from tasc.training.distill import DistillOptions, DraftSize, distill  # noqa: E402
from tasc.training.distill import trainer as module  # noqa: E402
from tasc.training.distill.on_policy import sampled_outputs  # noqa: E402
from tasc.training.examples import Collator, Example  # noqa: E402

QUICK = DistillOptions(
    steps=6, batch_size=4, precision="fp32", save_every=2, learning_rate=1e-2, on_policy=1.0, vocabulary=100
)
PROMPTS = [[5, 6, 7, 8, 9], [11], [20, 21, 22]]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("target") / "model", tiny())


def sure(model: Any) -> Any:
    """The model with logits so far apart that a sample is the most probable token."""
    head = torch.nn.Linear(*reversed(model.get_output_embeddings().weight.shape), bias=False)
    head.weight.data = model.get_output_embeddings().weight.data * 1e5
    model.set_output_embeddings(head)
    return model


def sampled(model: Any, ids: Any, eos: set[int], limit: int, temperature: float = 1.0) -> list[Example]:
    collator = Collator.for_model(model, 0)
    return sampled_outputs(model, PROMPTS, collator, ids=ids, eos=eos, limit=limit, temperature=temperature)


def test_a_low_temperature_samples_the_most_probable_tokens() -> None:
    torch.manual_seed(0)
    expected = sampled(sure(tiny()), None, set(), 9)
    assert sampled(tiny(), None, set(), 9, 1e-6) == expected
    assert sampled(tiny(), None, set(), 9) != expected


@pytest.mark.parametrize("ids", [None, [3, 8, 40, 41, 60, 77, 90, 95]])
def test_samples_are_those_of_each_prompt_alone(ids: list[int] | None) -> None:
    model = sure(tiny())
    set_draft_vocabulary(model, ids)
    cut_head(model)
    known = None if ids is None else torch.tensor(ids)
    twins = []
    for prompt in PROMPTS:
        row = list(prompt)
        for _ in range(9):
            best = int(model(torch.tensor([row])).logits[0, -1].argmax())
            row.append(best if ids is None else ids[best])
        twins.append(row[len(prompt) :])
    assert [one.completion for one in sampled(model, known, set(), 9)] == twins
    end = twins[1][4]
    cut = [row[: row.index(end) + 1] if end in row else row for row in twins]
    found = sampled(model.train(), known, {end}, 9)
    assert [(one.prompt, one.completion) for one in found] == list(zip(PROMPTS, cut, strict=True))
    assert model.training


def test_samples_have_the_drafts_distribution() -> None:
    model = tiny()
    expected = model(torch.tensor([PROMPTS[0]])).logits[0, -1].detach().softmax(-1)
    collator, count = Collator.for_model(model, 0), 4000
    torch.manual_seed(0)
    made = sampled_outputs(model, [PROMPTS[0]] * count, collator, ids=None, eos=set(), limit=1)
    seen = torch.bincount(torch.tensor([one.completion[0] for one in made]), minlength=len(expected)) / count
    assert float((seen - expected).abs().max()) < 5 * float((expected.max() / count).sqrt())


def test_a_draft_learns_from_what_it_samples_as_if_it_had_not_been_stopped(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(*given: Any, **options: Any) -> list[Example]:
        made.append(len(given[1]))
        return sampled_outputs(*given, **options)

    monkeypatch.setattr(module, "sampled_outputs", counted)
    options: dict[str, Any] = {"options": QUICK, "validation": HELD_OUT, "max_output": 9, "baseline": False}
    whole = distill(target, DraftSize(40_000), ROWS, tmp_path / "whole", **options)
    assert made == [4] * 6
    found = whole.metrics["acceptance"]
    assert found["draft"]["alpha_exp"]["value"] > found["untrained"]["alpha_exp"]["value"]

    def stop(what: str) -> Any:
        def move(done: float, total: float) -> None:
            if what == "distilling (draft)" and done == 3:
                raise KeyboardInterrupt

        return move

    with pytest.raises(KeyboardInterrupt):
        distill(target, DraftSize(40_000), ROWS, tmp_path / "again", progress=stop, **options)
    again = distill(target, DraftSize(40_000), ROWS, tmp_path / "again", **options)
    assert again.metrics["acceptance"] == whole.metrics["acceptance"]


@pytest.mark.parametrize("share, batches", [(0.0, {0}), (0.5, {1, 2, 3, 4, 5})])
def test_the_share_of_batches_is_the_option(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, batches: set[int]
) -> None:
    made: list[int] = []

    def counted(*given: Any, **options: Any) -> list[Example]:
        made.append(1)
        return sampled_outputs(*given, **options)

    monkeypatch.setattr(module, "sampled_outputs", counted)
    distill(target, 2, ROWS, tmp_path / "made", options=replace(QUICK, on_policy=share), baseline=False)
    assert len(made) in batches  # of 6


def test_what_does_not_go_with_it_is_refused(target: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"on_policy=1.5: a share of the batches, from 0 to 1"):
        replace(QUICK, on_policy=1.5)
    with pytest.raises(InputError, match=r"on_policy=1.0: adaspec knows .* on the rows' outputs alone"):
        replace(QUICK, select="adaspec")
    stateless = torch.nn.Module()
    stateless.forward = lambda input_ids: None
    with pytest.raises(InputError, match=r"Module has no cache to sample outputs with; distil it with on_policy=0"):
        sampled_outputs(stateless, PROMPTS, Collator(0, False, False), ids=None, eos=set(), limit=1)
    with pytest.raises(InputError, match=r"EAGLE head learns .* keep_states=True and on_policy=0"):
        distill(target, "eagle", ROWS, tmp_path / "made", options=QUICK)
