"""Distillation: what learns, from which tokens, what is kept, and runs that were stopped."""

from __future__ import annotations

import copy
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from drafts import HELD_OUT, ROWS, TOKENIZER, folder, tiny  # noqa: E402
from test_extended_model import MODELS  # noqa: E402
from vocabularies import make_tokenizer  # noqa: E402

from tasc.data import load_tokenizer  # noqa: E402
from tasc.errors import CorpusError, InputError, TokenizerMismatchError  # noqa: E402
from tasc.training.distill import (  # noqa: E402
    CachedHiddenStates,
    DistillOptions,
    DraftSize,
    OnlineTeacher,
    acceptance,
    cut_draft,
    distill,
    narrow_draft,
    target_outputs,
)
from tasc.training.distill.dataset import frequent_ids  # noqa: E402
from tasc.training.distill.draft_init import chosen_layers  # noqa: E402
from tasc.training.distill.losses import forward_kl  # noqa: E402
from tasc.training.distill.teacher import completion_logits  # noqa: E402
from tasc.training.distill.timed import TimedDistillation  # noqa: E402
from tasc.training.distill.token_selection import select_tokens  # noqa: E402
from tasc.training.distill.trainer import Distiller, RowCollator, token_losses  # noqa: E402
from tasc.training.examples import Collator, Example, make_examples  # noqa: E402
from tasc.training.schedule import TimeLimit, rate_schedule  # noqa: E402
from tasc.training.work_dir import trainer_arguments  # noqa: E402

ROWS_OF = "model.embed_tokens.weight"
QUICK = DistillOptions(select="adaspec", steps=6, batch_size=4, precision="fp32", save_every=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("target") / "model", tiny())


def examples(target: Path) -> list[Example]:
    return make_examples(ROWS, transformers.AutoTokenizer.from_pretrained(target), load_tokenizer(target))


def weights(path: Path) -> dict[str, Any]:
    return dict(transformers.AutoModelForCausalLM.from_pretrained(path).state_dict())


def one_by_one(model: Any, example: Example) -> Any:
    """(T, V) logits of one row without padding."""
    ids = torch.tensor([[*example.prompt, *example.completion]])
    return model(ids).logits[0, len(example.prompt) - 1 : -1]


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gpt-neox", "phi-bias", "gemma3-scaled"])
@torch.no_grad()
def test_kept_states_say_what_the_target_says(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(MODELS[name](300)).eval()
    rows = [Example(list(range(3, 5 + n)), list(range(7, 9 + 2 * n)), 6 + 3 * n) for n in range(20)]
    kept = CachedHiddenStates.compute(model, rows, tmp_path / "states")
    collator = Collator.for_model(model, 0)
    for chosen in ([0], [3, 19, 4], list(range(20))):
        batch = collator([rows[k] for k in chosen])
        expected = torch.cat([one_by_one(model, rows[k]) for k in chosen])
        assert torch.allclose(completion_logits(model, batch), expected, atol=1e-5)
        assert torch.allclose(OnlineTeacher(model).logits(chosen, batch), expected, atol=1e-5)
        assert torch.allclose(kept.logits(chosen, batch), expected, atol=1e-5)
    again = CachedHiddenStates.compute(model, rows, tmp_path / "states")
    assert torch.equal(again.logits([2], {}), kept.logits([2], {}))


@torch.no_grad()
def test_states_are_kept_in_the_targets_own_type(tmp_path: Path) -> None:
    model = tiny().to(torch.bfloat16)
    rows = [Example([3, 4], [5, 6, 1], 5)]
    kept = CachedHiddenStates.compute(model, rows, tmp_path / "states")
    assert kept.states.dtype == "uint16"
    assert torch.equal(kept.logits([0], {}), completion_logits(model, Collator.for_model(model, 0)(rows)))


@torch.no_grad()
def test_states_in_bfloat16_are_near_and_taken_again(tmp_path: Path) -> None:
    model = tiny(seed=2)
    rows = [Example(list(range(3, 5 + n)), list(range(7, 9 + 2 * n)), 6 + 3 * n) for n in range(20)]
    CachedHiddenStates.compute(model, rows, tmp_path / "states", precision="bf16")
    kept = CachedHiddenStates.compute(model, rows, tmp_path / "states", precision="bf16")
    expected = one_by_one(model, rows[17])
    assert (kept.logits([17], {}) - expected).abs().mean() < 0.05 * expected.std()
    assert not torch.equal(kept.logits([17], {}), expected)


@pytest.mark.parametrize(("precision", "temperature"), [("fp32", 1.0), ("bf16", 1.0), ("fp32", 0.6), ("fp32", 1.7)])
@torch.no_grad()
def test_a_teacher_of_some_ids_says_what_the_target_says_of_them(
    precision: str, temperature: float, tmp_path: Path
) -> None:
    model, ids = tiny(seed=2), torch.tensor([1, 4, 7, 40])
    rows = [Example(list(range(3, 5 + n)), list(range(7, 9 + 2 * n)), 6 + 3 * n) for n in range(6)]
    batch = Collator.for_model(model, 0)([rows[5], rows[2]])
    whole = torch.cat([one_by_one(model, rows[k]) for k in (5, 2)]) / temperature
    others = whole.index_fill(1, ids, -torch.inf).logsumexp(-1)
    given: Any = {"precision": precision, "temperature": temperature}
    kept = CachedHiddenStates.compute(model, rows, tmp_path / "states", **given)
    again = CachedHiddenStates.compute(model, rows, tmp_path / "states", **given)
    near = 1e-4 if precision == "fp32" else 0.3
    for teacher in (kept, again, OnlineTeacher(model, **given)):
        found = teacher.over(ids, [5, 2], batch)
        torch.testing.assert_close(found.logits.float(), whole[:, ids], atol=near, rtol=0)
        assert found.rest is not None
        torch.testing.assert_close(found.rest, others, atol=near, rtol=0)
        assert teacher.over(None, [5, 2], batch).rest is None


def test_states_of_others_are_not_taken(tmp_path: Path) -> None:
    rows = [Example([3, 4], [5, 6, 1], 5)]
    CachedHiddenStates.compute(tiny(), rows, tmp_path / "states")
    with pytest.raises(InputError, match="states of other rows, another target or temperature"):
        CachedHiddenStates.compute(tiny(seed=1), rows, tmp_path / "states")
    with pytest.raises(InputError, match="states of other rows, another target or temperature"):
        CachedHiddenStates.compute(tiny(), [Example([3, 4], [5, 7, 1], 5)], tmp_path / "states")
    with pytest.raises(InputError, match="states of other rows, another target or temperature"):
        CachedHiddenStates.compute(tiny(), rows, tmp_path / "states", temperature=0.5)


def test_a_target_that_caps_its_logits_is_run_live(tmp_path: Path) -> None:
    capped = transformers.AutoModelForCausalLM.from_config(MODELS["gemma2-capped"](300)).eval()
    capped.config.final_logit_softcapping = 0.01
    with pytest.raises(InputError, match="keep_states=False"):
        CachedHiddenStates.compute(capped, [Example([3, 4], [5, 6, 1], 5)], tmp_path / "states")
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize("name", [n for n in MODELS if n != "gemma3-nested"])
@torch.no_grad()
def test_a_cut_keeps_what_it_keeps(name: str) -> None:
    torch.manual_seed(0)
    config = MODELS[name](300)
    config.num_hidden_layers = 5
    if getattr(config, "layer_types", None):
        config.layer_types = (config.layer_types * 5)[:5]
    target = transformers.AutoModelForCausalLM.from_config(config).eval()
    draft = cut_draft(target, [0, 2, 4])
    ids = torch.randint(2, 300, (1, 9))
    theirs = next(m for m in target.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 5)
    for dropped in (3, 1):
        del theirs[dropped]
    target.config.get_text_config().num_hidden_layers = 3
    if getattr(target.config, "layer_types", None):
        target.config.layer_types = [target.config.layer_types[k] for k in (0, 2, 4)]
    assert torch.allclose(draft(ids, use_cache=False).logits, target(ids, use_cache=False).logits, atol=1e-6)
    assert draft.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > 9


def test_layers_are_spread_and_checked() -> None:
    assert chosen_layers(30, 4) == [0, 10, 19, 29]
    assert chosen_layers(30, 1) == [0]
    assert chosen_layers(5, [1, 3]) == [1, 3]
    for wrong in (0, 30, [], [3, 1], [0, 30], [-1, 2], list(range(30))):
        with pytest.raises(InputError, match="layers="):
            chosen_layers(30, wrong)


def distiller(target: Path, tmp_path: Path, options: DistillOptions, reference: Any = None) -> tuple[Any, Any, Any]:
    rows = examples(target)
    model = transformers.AutoModelForCausalLM.from_pretrained(target)
    draft = tiny(2, seed=5)
    args = trainer_arguments(tmp_path / "steps", options, steps=1)
    given = {"model": draft, "args": args, "data_collator": RowCollator(Collator.for_model(draft, 0), rows)}
    trainer = Distiller(teacher=OnlineTeacher(model), options=options, reference=reference, **given)
    per_token = [forward_kl(one_by_one(model, e), one_by_one(draft, e)).detach() for e in rows]
    return trainer, given["data_collator"], per_token


def test_the_loss_is_the_mean_over_the_selected_tokens(target: Path, tmp_path: Path) -> None:
    rows = [2, 9, 4]
    trainer, collate, per_token = distiller(target, tmp_path, replace(QUICK, select="all"))
    whole = torch.cat([per_token[row] for row in rows])
    assert trainer.compute_loss(trainer.model, collate(rows)).item() == pytest.approx(whole.mean().item(), rel=1e-4)
    torch.manual_seed(3)
    reference = {row: loss * torch.rand(len(loss)) * 2 for row, loss in enumerate(per_token)}
    trainer, collate, _ = distiller(target, tmp_path, QUICK, reference)
    chosen = select_tokens(whole, torch.cat([reference[row] for row in rows]), 0.4)
    expected = whole[chosen].mean().item()
    assert trainer.compute_loss(trainer.model, collate(rows)).item() == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(whole.mean().item(), rel=1e-2)


def test_weighing_is_per_row_in_the_rows_order(target: Path) -> None:
    rows = examples(target)
    model = transformers.AutoModelForCausalLM.from_pretrained(target)
    draft = tiny(2, seed=5)
    found = token_losses(draft, rows, OnlineTeacher(model), "forward_kl")
    assert sorted(found) == list(range(len(rows)))
    for row, losses in found.items():
        expected = forward_kl(one_by_one(model, rows[row]), one_by_one(draft, rows[row]))
        assert torch.allclose(losses, expected, atol=1e-5)
    warm = token_losses(draft, rows, OnlineTeacher(model, temperature=2.0), "forward_kl")
    halves = [one_by_one(one, rows[3]) / 2.0 for one in (model, draft)]
    assert torch.allclose(warm[3], forward_kl(*halves), atol=1e-5)
    assert sorted(token_losses(draft, rows, OnlineTeacher(model), "tvd", rows=[7, 2])) == [2, 7]


def test_the_loss_and_the_acceptance_are_of_the_temperature(target: Path, tmp_path: Path) -> None:
    rows, model = examples(target)[:3], transformers.AutoModelForCausalLM.from_pretrained(target).eval()
    draft, options = tiny(2, seed=5), replace(QUICK, select="all", temperature=0.5)
    pairs = [[one_by_one(one, row).detach() / 0.5 for one in (model, draft)] for row in rows]
    teacher = OnlineTeacher(model, temperature=0.5)
    trainer = Distiller(
        teacher=teacher, options=options, reference=None, model=draft,
        args=trainer_arguments(tmp_path / "steps", options, 1), train_dataset=[0, 1, 2],
        data_collator=RowCollator(Collator.for_model(draft, 0), rows),
    )  # fmt: skip
    expected = torch.cat([forward_kl(*pair) for pair in pairs]).mean().item()
    assert trainer.compute_loss(draft, trainer.data_collator([0, 1, 2])).item() == pytest.approx(expected, rel=1e-4)
    overlap = torch.cat([torch.minimum(*(one.softmax(-1) for one in pair)).sum(-1) for pair in pairs]).mean().item()
    found = acceptance(draft, rows, frozenset([1]), teacher=teacher).alpha_exp
    assert found is not None and found.value == pytest.approx(overlap, rel=1e-4)


EARLY: dict[str, Any] = {"baseline": False, "validation": HELD_OUT, "max_output": 9}


def test_a_stage_ends_early_with_its_best_weights(target: Path, tmp_path: Path) -> None:
    options = replace(QUICK, select="all", steps=40, save_every=1, patience=2, learning_rate=0.1)
    made = distill(target, 2, ROWS, tmp_path / "draft", options=options, **EARLY)
    stage = made.metrics["stages"]["draft"]
    losses = [entry["loss"] for entry in stage["validation"]]
    best = losses.index(min(losses))
    assert [entry["step"] for entry in stage["validation"]] == list(range(1, len(losses) + 1))
    assert stage["kept_step"] == best + 1
    assert stage["steps"] == len(losses) == best + 3 < 40
    for k in range(1, best):
        assert min(losses[k + 1 : k + 3]) < min(losses[: k + 1]) or losses[k] < min(losses[:k])
    assert made.metrics["acceptance"]["draft"]["alpha_exp"]["value"] == pytest.approx(1 - losses[best], abs=1e-6)
    whole = distill(target, 2, ROWS, tmp_path / "whole", options=replace(options, patience=40), **EARLY)
    assert whole.metrics["stages"]["draft"]["steps"] == 40
    assert whole.metrics["stages"]["draft"]["validation"][: len(losses)] == stage["validation"]


def test_the_best_weights_may_lie_in_any_order(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def transposed(*given: Any) -> Any:
        draft = cut_draft(*given)
        for layer in draft.model.layers:
            layer.mlp.up_proj.weight.data = layer.mlp.up_proj.weight.data.t().contiguous().t()
        return draft

    options = replace(QUICK, select="all", steps=2, patience=1)
    plain = distill(target, 2, ROWS, tmp_path / "plain", options=options, **EARLY)
    monkeypatch.setattr("tasc.training.distill.run.cut_draft", transposed)
    made = distill(target, 2, ROWS, tmp_path / "draft", options=options, **EARLY)
    before, after = weights(plain.path), weights(made.path)
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)


@pytest.mark.parametrize("stop_at", ["third", "last", "saving"])
def test_a_run_that_stops_early_goes_on_as_if_it_had_not_been_stopped(
    stop_at: str, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(QUICK, select="moving", steps=40, save_every=2, patience=1, learning_rate=0.1)
    whole = distill(target, 2, ROWS, tmp_path / "whole", options=options, **EARLY)
    steps = whole.metrics["stages"]["draft"]["steps"]
    assert 3 < steps < 40
    step = {"third": 3, "last": steps}.get(stop_at)

    def stop(what: str) -> Any:
        def move(done: float, total: float) -> None:
            if what == "distilling (draft)" and done == step:
                raise KeyboardInterrupt

        return move

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if stop_at == "saving":
            patch.setattr("tasc.training.distill.run.save_draft", fail)
        distill(target, 2, ROWS, tmp_path / "draft", options=options, progress=stop, **EARLY)
    resumed = distill(target, 2, ROWS, tmp_path / "draft", options=options, **EARLY)
    ours, its = (one.metrics["stages"]["draft"] for one in (resumed, whole))
    for name in ("steps", "curve", "validation", "kept_step"):
        assert ours[name] == its[name]
    before, after = weights(whole.path), weights(resumed.path)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("epochs", "rows", "batch_size", "steps"), [(1.5, 12, 4, 5), (2.2, 25, 5, 11)])
def test_epochs_are_passes_over_the_rows(
    epochs: float, rows: int, batch_size: int, steps: int, target: Path, tmp_path: Path
) -> None:
    options = replace(QUICK, epochs=epochs, batch_size=batch_size)
    made = distill(target, 2, (3 * ROWS)[:rows], tmp_path / "draft", options=options, baseline=False)
    assert [stage["steps"] for stage in made.metrics["stages"].values()] == [steps, steps]


@pytest.mark.parametrize("source", [2, "narrow"])
@pytest.mark.parametrize("select", ["adaspec", "moving"])
def test_the_shared_beginning_of_prompts_is_computed_once(
    source: Any, select: Any, target: Path, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of whole rows has the same losses; the states are stored for both in a folder of its own."""
    options = replace(QUICK, select=select, learning_rate=1e-3)
    model = target if source == 2 else wide
    given: Any = {"options": options, "system": "Say what the user wants, in a few words. " * 2, "baseline": False}
    widths, found, stored = [], {}, {}
    before = Collator.__call__

    def collate(self: Collator, examples: Any) -> Any:
        made = before(self, examples)
        widths.append(made["attention_mask"].shape[1] - made["input_ids"].shape[1])
        return made

    monkeypatch.setattr(Collator, "__call__", collate)
    for name, least in (("shared", 48), ("whole", 10**9)):
        monkeypatch.setattr("tasc.training.shared_prefix.MIN_SAVED", least)
        widths.clear()
        out = tmp_path / name
        made = distill(model, 2 if source == 2 else NARROW, ROWS, out, states=tmp_path / f"{name}-states", **given)
        assert (max(widths) > 10) == (name == "shared")
        found[name] = [entry["loss"] for entry in made.metrics["stages"]["draft"]["curve"]]
        stored[name] = torch.from_numpy(np.load(tmp_path / f"{name}-states" / "states.npy"))
    torch.testing.assert_close(stored["shared"], stored["whole"], atol=1e-4, rtol=1e-4)
    assert found["shared"] == pytest.approx(found["whole"], rel=2e-3)


def test_a_draft_is_cut_distilled_measured_and_kept(target: Path, tmp_path: Path) -> None:
    options = replace(QUICK, steps=30)
    given = {"outputs": "target", "validation": ROWS[:4], "max_output": 20}
    made = distill(target, 2, ROWS, tmp_path / "draft", options=options, **given)  # type: ignore[arg-type]
    facts = json.loads((tmp_path / "draft" / "distill.json").read_text())
    assert facts == json.loads(json.dumps(made.metrics))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["draft", "draft.baseline"]
    assert set(facts["acceptance"]) == {"untrained", "reference", "baseline", "draft"}
    assert facts["stages"]["baseline"]["steps"] == 30 + 1 + 30
    for stage in facts["stages"].values():
        assert stage["curve"][-1]["loss"] < 0.8 * stage["curve"][0]["loss"]
    assert facts["acceptance"]["draft"]["alpha_exp"]["value"] > facts["acceptance"]["untrained"]["alpha_exp"]["value"]
    before, after = weights(target), weights(tmp_path / "draft")
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"]), (
        "shared with the target"
    )
    assert not torch.equal(before["model.norm.weight"], after["model.norm.weight"])
    assert len(load_tokenizer(tmp_path / "draft").tokenizer.get_vocab()) == len(
        load_tokenizer(target).tokenizer.get_vocab()
    )


def test_every_loss_goes_with_every_selection(target: Path, tmp_path: Path) -> None:
    for number, (loss, select, start) in enumerate(
        [
            ("reverse_kl", "adaspec", "draft"), ("jsd", "random", "draft"), ("tvd", "all", "reference"),
            ("forward_kl", "random", "draft"), ("lk", "moving", "draft"),
        ]
    ):  # fmt: skip
        options = replace(QUICK, loss=loss, select=select, init_from=start, steps=8)  # type: ignore[arg-type]
        made = distill(target, [0, 3], ROWS, tmp_path / f"draft-{number}", options=options, baseline=False)
        curve = made.metrics["stages"]["draft"]["curve"]
        assert min(entry["loss"] for entry in curve[1:]) < curve[0]["loss"]
        assert ("reference" in made.metrics["stages"]) == (select == "adaspec" or start == "reference")


def test_learning_everything_and_beginning_at_the_reference(target: Path, tmp_path: Path) -> None:
    source = folder(tmp_path / "small", tiny(2, seed=7))
    first = distill(target, source, ROWS, tmp_path / "first", options=replace(QUICK, select="all", trainable="all"))
    assert not torch.equal(
        weights(source)["model.embed_tokens.weight"], weights(first.path)["model.embed_tokens.weight"]
    )
    options = replace(QUICK, init_from="reference", steps=1, learning_rate=1e-9)
    made = distill(target, source, ROWS, tmp_path / "second", options=options, reference=first.path, baseline=False)
    given, found = weights(first.path), weights(made.path)
    assert all(torch.allclose(given[name], found[name], atol=1e-6) for name in given)


def test_the_target_speaks_where_the_rows_do_not(target: Path, tmp_path: Path) -> None:
    rows = [{"input": row["input"]} for row in ROWS]
    made = distill(target, 2, rows, tmp_path / "draft", options=QUICK, outputs="target", baseline=False, max_output=9)
    assert 0 < made.metrics["completion_tokens"] <= 9 * len(rows)
    with_index = distill(
        target, 2, ROWS, tmp_path / "other", options=QUICK, outputs="target", baseline=False, max_output=9
    )
    assert all(
        torch.equal(a, b) for a, b in zip(weights(made.path).values(), weights(with_index.path).values(), strict=True)
    )


def test_states_of_whole_rows_serve_every_draft(target: Path, tmp_path: Path) -> None:
    model, rows = transformers.AutoModelForCausalLM.from_pretrained(target), examples(target)
    CachedHiddenStates.compute(model, rows, tmp_path / "whole", whole=True)
    again = CachedHiddenStates.compute(model, rows, tmp_path / "whole")
    own = CachedHiddenStates.compute(model, rows, tmp_path / "own")
    assert torch.allclose(again.logits([2, 0], {}), own.logits([2, 0], {}), atol=1e-5)
    with pytest.raises(InputError, match="states of other rows, another target or temperature"):
        CachedHiddenStates.compute(model, rows, tmp_path / "own", whole=True)


def test_kept_states_and_a_live_target_teach_the_same(target: Path, tmp_path: Path) -> None:
    options = replace(QUICK, select="all")
    curves = [
        distill(target, 2, ROWS, tmp_path / f"draft-{keep}", options=replace(options, keep_states=keep)).metrics
        for keep in (True, False)
    ]
    kept, live = ([entry["loss"] for entry in m["stages"]["draft"]["curve"]] for m in curves)
    assert kept == pytest.approx(live, rel=1e-4)


@pytest.mark.parametrize(
    "stage, stop_at, init_from",
    [("reference", 3, "draft"), ("draft", 5, "draft"), ("draft", 3, "reference"), ("baseline", 1, "reference")],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    target: Path, tmp_path: Path, stage: str, stop_at: int, init_from: Any
) -> None:
    options = replace(QUICK, init_from=init_from)
    whole = distill(target, 2, ROWS, tmp_path / "whole", options=options, validation=HELD_OUT, max_output=9)

    def stop(what: str) -> Any:
        def move(done: float, total: float) -> None:
            if what == f"distilling ({stage})" and done == stop_at:
                raise KeyboardInterrupt

        return move

    with pytest.raises(KeyboardInterrupt):
        distill(target, 2, ROWS, tmp_path / "draft", options=options, validation=HELD_OUT, max_output=9, progress=stop)
    assert not (tmp_path / "draft").exists()
    resumed = distill(target, 2, ROWS, tmp_path / "draft", options=options, validation=HELD_OUT, max_output=9)
    assert resumed.metrics["stages"][stage]["resumed_at"] == stop_at // 2 * 2
    for name in ("reference", "draft", "baseline"):
        assert resumed.metrics["stages"][name]["curve"] == whole.metrics["stages"][name]["curve"]
    assert resumed.metrics["acceptance"] == whole.metrics["acceptance"]
    for one in ("", ".baseline"):
        before, after = weights(tmp_path / f"whole{one}"), weights(tmp_path / f"draft{one}")
        assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(InputError, match="is there already"):
        distill(target, 2, ROWS, tmp_path / "draft", options=options)


NARROW = DraftSize(34_000)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny(hidden_size=64, num_attention_heads=4, spread=0.1)
    return folder(tmp_path_factory.mktemp("wide") / "model", model)


@pytest.mark.parametrize("source", [2, NARROW], ids=["cut", "narrow"])
def test_a_draft_of_some_ids_learns_and_is_an_ordinary_checkpoint(source: Any, wide: Path, tmp_path: Path) -> None:
    options = replace(QUICK, select="all", steps=30, vocabulary=30)
    given = {"options": options, "validation": ROWS[:4], "outputs": "target", "max_output": 12}

    def stop(what: str) -> Any:
        def move(done: float, total: float) -> None:
            if what == "distilling (draft)" and done == 25:
                raise KeyboardInterrupt

        return move

    with pytest.raises(KeyboardInterrupt):
        distill(wide, source, ROWS, tmp_path / "draft", progress=stop, **given)  # type: ignore[arg-type]
    made = distill(wide, source, ROWS, tmp_path / "draft", **given)  # type: ignore[arg-type]
    facts = made.metrics
    draft = transformers.AutoModelForCausalLM.from_pretrained(made.path)
    ids = draft.config.draft_vocabulary
    used = {token for example in target_outputs_of(wide) for token in example.completion}
    assert 1 in ids and facts["draft_vocabulary"]["ids"] == len(ids) <= 30
    assert set(ids) >= used if len(used) < 29 else len(ids) == 30
    assert 0.5 < facts["draft_vocabulary"]["coverage"] <= 1 and 0.5 < facts["coverage"] <= 1
    assert draft.get_output_embeddings().weight.shape[0] == draft.get_input_embeddings().weight.shape[0]
    curve = facts["stages"]["draft"]["curve"]
    assert facts["stages"]["draft"]["resumed_at"] == 24 and len(curve) == 30
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]
    found = facts["acceptance"]
    assert found["draft"]["alpha_exp"]["value"] > found["untrained"]["alpha_exp"]["value"]
    whole = distill(wide, source, ROWS, tmp_path / "whole", **given)  # type: ignore[arg-type]
    before, after = weights(whole.path), weights(made.path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def target_outputs_of(target: Path) -> list[Example]:
    model = transformers.AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    return target_outputs(model, transformers.AutoTokenizer.from_pretrained(target), ROWS, max_tokens=12)


def test_the_ids_of_most_tokens_are_taken() -> None:
    outputs = [[9, 9, 9, 4, 4], [7, 4, 1]]
    assert frequent_ids(outputs, [1], 9) == [1, 4, 7, 9]
    assert frequent_ids(outputs, [1], 3) == [1, 4, 9]
    assert frequent_ids(outputs, [1, 2], 1) == [1, 2]


def test_a_narrow_draft_is_as_large_as_its_size_allows() -> None:
    target = tiny(hidden_size=64, num_attention_heads=4)
    for ids, size in ((list(range(1, 60)), NARROW), (None, DraftSize(80_000))):
        draft = narrow_draft(target, size, ids)
        width, rows = draft.config.hidden_size, len(ids or target.get_input_embeddings().weight)
        assert draft.get_output_embeddings().weight.shape == (target.config.vocab_size, width)
        inner = [w for name, w in draft.named_parameters() if "embed" not in name and "lm_head" not in name]
        assert sum(w.numel() for w in inner) + rows * width <= size.weights
        assert draft.config.max_position_embeddings == 256 and draft.generation_config.eos_token_id == 1
    with pytest.raises(InputError, match="the smallest draft over 59 ids has"):
        narrow_draft(target, DraftSize(100), range(59))
    for text in ("", "M", "3.6MM", "-1", "1e6"):
        with pytest.raises(InputError, match="give the number of weights"):
            DraftSize.parse(text)
    with pytest.raises(InputError, match="draft size 0"):
        DraftSize.parse("0")


def test_a_size_that_does_not_fit_is_refused_before_the_target_runs(wide: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the smallest draft"):
        distill(wide, DraftSize(100), ROWS, tmp_path / "draft", states=tmp_path / "states", options=QUICK)
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize("outputs", ["given", "target"])
def test_rows_beyond_the_targets_context_are_left_out(outputs: Any, tmp_path: Path) -> None:
    """Learned positions end with the context."""
    config = transformers.GPT2Config(
        vocab_size=TOKENIZER.get_vocab_size(), n_embd=16, n_layer=2, n_head=2, n_positions=48, eos_token_id=1
    )
    short = folder(tmp_path / "short", transformers.GPT2LMHeadModel(config))
    long = {"input": "long", "output": "fly to boston " * 9}
    options = replace(QUICK, steps=1, select="all")
    made = distill(short, 1, [*ROWS, long], tmp_path / "draft", options=options, outputs=outputs, max_output=5)
    assert (made.metrics["rows"], made.metrics["rows_left_out"]) == ((12, 1) if outputs == "given" else (13, 0))
    with pytest.raises(CorpusError, match=r"longer than the model's context of 48 tokens; the shortest has \d+ tokens"):
        distill(short, 1, [long], tmp_path / "other", options=options)


def test_prompts_that_the_target_cannot_answer_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = transformers.GPT2Config(
        vocab_size=TOKENIZER.get_vocab_size(), n_embd=16, n_layer=2, n_head=2, n_positions=48, eos_token_id=1
    )
    short = folder(tmp_path / "short", transformers.GPT2LMHeadModel(config))
    long = {"input": "fly to boston " * 9}
    rows, options = [ROWS[0], long, *ROWS[1:]], replace(QUICK, steps=1, select="all")
    made = distill(
        short,
        1,
        rows,
        tmp_path / "draft",
        options=options,
        outputs="target",
        validation=[*HELD_OUT, long],
        max_output=5,
    )
    assert (made.metrics["rows"], made.metrics["rows_left_out"]) == (12, 1)
    assert made.metrics["acceptance"]["draft"]["prompts"] == 4
    said = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert [line.partition(": ")[0] for line in said] == ["skipped row 1", "skipped validation row 4"]
    assert all("tokens, but the model's context holds 48" in line for line in said)
    with pytest.raises(CorpusError, match="can answer the prompt of no row"):
        distill(short, 1, [long], tmp_path / "other", options=options, outputs="target", max_output=5)


def test_a_run_that_diverges_ends_with_an_error(target: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = replace(QUICK, select="all", learning_rate=1e30, save_every=1)
    with pytest.raises(InputError, match=r"the loss is nan at step \d: the training has diverged; .* learning_rate"):
        distill(target, 2, ROWS, tmp_path / "draft", options=options)
    assert not (tmp_path / "draft").exists()
    assert any((tmp_path / "draft.distilling").rglob("step-*"))
    assert "the same command" not in caplog.text
    for _ in range(2):  # the second run goes on from the checkpoint of the first
        with pytest.raises(InputError, match="the validation loss is nan at step 1: the training has diverged"):
            distill(target, 2, ROWS, tmp_path / "early", options=replace(options, patience=1), **EARLY)
    assert not (tmp_path / "early").exists()
    assert "the same command" not in caplog.text


def test_a_run_that_fails_before_its_work_leaves_no_folder(target: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the smallest draft"):
        distill(target, DraftSize(100), ROWS, tmp_path / "draft", options=QUICK)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("select", "ids"), [("random", None), ("random", 40), ("moving", None)])
def test_selected_tokens_are_the_same_after_a_stop(select: Any, ids: int | None, target: Path, tmp_path: Path) -> None:
    options = replace(QUICK, select=select, k=0.2, vocabulary=ids)
    whole = distill(target, 2, ROWS, tmp_path / "whole", options=options, baseline=False)

    def stop(what: str) -> Any:
        def move(done: float, total: float) -> None:
            if what.startswith("distilling") and done == 3:
                raise KeyboardInterrupt

        return move

    with pytest.raises(KeyboardInterrupt):
        distill(target, 2, ROWS, tmp_path / "draft", options=options, baseline=False, progress=stop)
    resumed = distill(target, 2, ROWS, tmp_path / "draft", options=options, baseline=False)
    assert resumed.metrics["stages"]["draft"]["resumed_at"] == 2
    assert resumed.metrics["stages"]["draft"]["curve"] == whole.metrics["stages"]["draft"]["curve"]
    before, after = weights(whole.path), weights(resumed.path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_moving_reference_is_an_average_of_the_drafts_weights(target: Path, tmp_path: Path) -> None:
    rows, seen, steps = examples(target), [], 30
    model, draft = transformers.AutoModelForCausalLM.from_pretrained(target), tiny(2, seed=5)
    draft.model.embed_tokens.requires_grad_(False)
    options = replace(QUICK, select="moving", save_every=steps)
    trainer = Distiller(
        teacher=OnlineTeacher(model), options=options, reference=None, model=draft,
        args=trainer_arguments(tmp_path / "steps", options, steps),
        train_dataset=[k % len(rows) for k in range(4 * steps)],
        data_collator=RowCollator(Collator.for_model(draft, 0), rows),
    )  # fmt: skip
    first = copy.deepcopy(dict(draft.named_parameters()))

    class Record(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen.append({name: weight.detach().double() for name, weight in draft.named_parameters()})

    trainer.add_callback(Record())
    trainer.train()
    reference = trainer._moving.model
    decays = [min(0.99, t / (t + 9)) for t in range(1, steps + 1)]
    shares = [(1 - decay) * math.prod(decays[t + 1 :]) for t, decay in enumerate(decays)]
    for name, found in reference.named_parameters():
        expected = math.prod(decays) * first[name].double()
        expected += sum(share * weights[name] for share, weights in zip(shares, seen, strict=True))
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    assert reference.model.embed_tokens.weight is draft.model.embed_tokens.weight
    assert not torch.equal(reference.model.norm.weight, draft.model.norm.weight)

    batch = trainer.data_collator([2, 9, 4])
    ours, its = (
        torch.cat([forward_kl(one_by_one(model, rows[k]), one_by_one(one, rows[k])).detach() for k in (2, 9, 4)])
        for one in (draft, reference)
    )
    expected = ours[select_tokens(ours, its, 0.4)].mean().item()
    assert trainer.compute_loss(draft, batch).item() == pytest.approx(expected, rel=1e-4)


def test_work_of_another_run_is_not_taken_for_this_one(target: Path, tmp_path: Path) -> None:
    def stop(what: str) -> Any:
        if what == "distilling (reference)":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(target, 2, ROWS, tmp_path / "draft", options=QUICK, progress=stop)
    with pytest.raises(InputError, match=r"another run \(k differ\)"):
        distill(target, 2, ROWS, tmp_path / "draft", options=replace(QUICK, k=0.5))
    with pytest.raises(InputError, match=r"another run \(length differ\)"):
        distill(target, 2, ROWS, tmp_path / "draft", options=QUICK, length=3)
    distill(target, 2, ROWS, tmp_path / "draft", options=replace(QUICK, k=0.5), baseline=False, resume=False)


def test_work_with_other_models_of_the_same_names_is_not_taken_for_this_one(target: Path, tmp_path: Path) -> None:
    """A target that is tuned again in its place, or another draft in the place of the old one."""

    def stop(what: str) -> Any:
        raise KeyboardInterrupt

    own, small = (shutil.copytree(target, tmp_path / name) for name in ("own", "small"))
    with pytest.raises(KeyboardInterrupt):
        distill(own, small, ROWS, tmp_path / "draft", options=QUICK, progress=stop, outputs="target")
    (tmp_path / "draft.distilling" / "outputs.json").write_text("[]")  # work that would be lost
    for changed, name in ((small, "draft files"), (own, "draft files, target files")):
        tiny(seed=5).save_pretrained(changed)
        with pytest.raises(InputError, match=rf"another run \({name} differ\)"):
            distill(own, small, ROWS, tmp_path / "draft", options=QUICK, progress=stop, outputs="target")


def test_a_baseline_folder_of_others_is_not_removed(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that came after the run had begun stays; one that a stopped run has written is written again."""

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    options = replace(QUICK, steps=1, save_every=1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("tasc.training.distill.run._Run.publish", stop)
        distill(target, 2, ROWS, tmp_path / "draft", options=options)
    assert (tmp_path / "draft.distilling").is_dir()
    (tmp_path / "draft.baseline").mkdir()
    (tmp_path / "draft.baseline" / "mine").write_text("mine")
    with pytest.raises(InputError, match=r"draft\.baseline is there already; remove it, name another OUT"):
        distill(target, 2, ROWS, tmp_path / "draft", options=options)
    assert (tmp_path / "draft.baseline" / "mine").read_text() == "mine"
    shutil.rmtree(tmp_path / "draft.baseline")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("tasc.training.work_dir.WorkFolder.publish", stop)
        distill(target, 2, ROWS, tmp_path / "draft", options=options)
    (tmp_path / "draft.baseline" / "old").touch()
    distill(target, 2, ROWS, tmp_path / "draft", options=options, resume=False)
    assert not (tmp_path / "draft.baseline" / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draft", "draft.baseline"]


def test_other_vocabularies_are_refused_before_anything_is_trained(target: Path, tmp_path: Path) -> None:
    wide = folder(tmp_path / "wide", tiny(2, vocab=500))
    with pytest.raises(InputError, match=r"the target has \d+ tokens and the draft 500"):
        distill(target, wide, ROWS, tmp_path / "draft", options=QUICK)
    with pytest.raises(InputError, match="and the draft 500"):
        distill(target, 2, ROWS, tmp_path / "draft", options=QUICK, reference=wide)
    other = folder(tmp_path / "other", tiny(2), make_tokenizer("ignore-merges"))
    with pytest.raises(TokenizerMismatchError, match="a draft needs the same"):
        distill(target, other, ROWS, tmp_path / "draft", options=QUICK)
    assert not list(tmp_path.glob("draft*"))


def test_a_size_above_the_targets_is_refused(target: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"draft size 9,000,000,000: the target itself has [\d,]+ weights"):
        distill(target, DraftSize(9 * 10**9), ROWS, tmp_path / "draft", options=QUICK)
    assert not list(tmp_path.glob("draft*"))


def test_bad_input_is_refused(target: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no rows to learn from"):
        distill(target, 2, [], tmp_path / "draft")
    with pytest.raises(CorpusError, match="row 1 has no input"):
        distill(target, 2, [ROWS[0], {"output": "x"}], tmp_path / "draft")
    with pytest.raises(CorpusError, match="row 1 has no output; give one, or learn from the target's"):
        distill(target, 2, [ROWS[0], {"input": "x"}], tmp_path / "draft")
    with pytest.raises(CorpusError, match="validation row 0 has no input"):
        distill(target, 2, ROWS, tmp_path / "draft", validation=[{"output": "x"}])
    with pytest.raises(InputError, match="layers=4: a draft has at least 1 layer and fewer"):
        distill(target, 4, ROWS, tmp_path / "draft", options=QUICK)
    with pytest.raises(InputError, match="given or target"):
        distill(target, 2, ROWS, tmp_path / "draft", outputs="own")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="length is 0; it must be at least 1"):
        distill(target, 2, ROWS, tmp_path / "draft", length=0)
    with pytest.raises(InputError, match="patience=3: early stopping needs validation rows"):
        distill(target, 2, ROWS, tmp_path / "draft", options=replace(QUICK, patience=3))
    (tmp_path / "draft.baseline").mkdir()
    with pytest.raises(InputError, match=r"draft\.baseline is there already"):
        distill(target, 2, ROWS, tmp_path / "draft", options=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["draft.baseline"]
    for wrong in (
        {"steps": 0}, {"reference_steps": 0}, {"epochs": 0.0}, {"patience": -1}, {"temperature": 0.0},
        {"temperature": 1e-40}, {"temperature": math.inf}, {"k": 0.0}, {"learning_rate": 0},
        {"warmup": 1.0}, {"loss": "mse"},
        {"select": "most"}, {"precision": "fp8"}, {"trainable": "head"}, {"init_from": "target"},
        {"vocabulary": -1}, {"seed": -1}, {"seed": 2**32}, {"weight_decay": -0.1}, {"weight_decay": float("nan")},
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(wrong))):
            DistillOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [2, 4])
def test_a_draft_is_cut_of_layers_that_differ(layers: int) -> None:
    config = transformers.Qwen3MoeConfig(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=4, head_dim=8,
        num_hidden_layers=6, mlp_only_layers=[1, 2], num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
    )  # fmt: skip
    target = transformers.AutoModelForCausalLM.from_config(config)
    draft = cut_draft(target, layers)
    assert len(draft.model.layers) == layers
    assert torch.equal(draft.model.layers[-1].self_attn.q_proj.weight, target.model.layers[-1].self_attn.q_proj.weight)


@pytest.mark.parametrize(("layers", "dense"), [(2, 1), (4, 2), ([0, 1, 2, 6, 7], 3), ([5, 7], 0)])
def test_a_draft_is_cut_behind_layers_without_experts(layers: Any, dense: int) -> None:
    config = transformers.DeepseekV3Config(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
        first_k_dense_replace=3, moe_intermediate_size=32, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1,
    )  # fmt: skip
    target = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    draft = cut_draft(target, layers)
    assert draft.config.first_k_dense_replace == dense
    kept = chosen_layers(8, layers)
    for mine, number in zip(draft.model.layers, kept, strict=True):
        theirs = target.model.layers[number].state_dict()
        assert all(torch.equal(weight, theirs[name]) for name, weight in mine.state_dict().items())
    target.model.layers = torch.nn.ModuleList(target.model.layers[number] for number in kept)
    ids = torch.randint(2, 257, (1, 9))
    assert torch.allclose(draft(ids, use_cache=False).logits, target(ids, use_cache=False).logits, atol=1e-5)


def test_layers_that_share_keys_are_cut_or_refused_in_a_line() -> None:
    config = transformers.Gemma3nTextConfig(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_kv_shared_layers=2, sliding_window=6, laurel_rank=4,
        layer_types=["sliding_attention", "full_attention"] * 2, hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=257,
    )  # fmt: skip
    target = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for layers in ([0, 3], [0, 2, 3]):
        with pytest.raises(
            InputError, match=rf"^Gemma3nForCausalLM cannot be cut to layers .*{layers[-1]}\]: "
        ) as caught:
            cut_draft(target, layers)
        assert str(caught.value).endswith("; give other layers, or a draft model")
        assert "\n" not in str(caught.value)


def test_a_target_with_adapters_is_refused_until_they_are_merged() -> None:
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(tiny(layers=3), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    for target in (wrapped, wrapped.get_base_model()):
        with pytest.raises(InputError, match="the target carries adapters: merge them into it first"):
            cut_draft(target, 2)
    assert cut_draft(wrapped.merge_and_unload(), 2).config.num_hidden_layers == 2


class Ticking:
    """Clock on which a second goes by whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def timed(target: Path, minutes: float, clock: Any) -> tuple[Any, dict[str, Any]]:
    model = transformers.AutoModelForCausalLM.from_pretrained(target).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    return TimedDistillation(minutes, clock)(model, tokenizer, ROWS, load_tokenizer(target))


def test_a_timed_distillation_ends_before_the_step_that_would_be_too_late(target: Path) -> None:
    clocks = Ticking(), Ticking()
    (_, one), (_, two) = (timed(target, minutes, clock) for minutes, clock in zip((0.5, 1.0), clocks, strict=True))
    per_step = (clocks[1].now - clocks[0].now) / (two["steps"] - one["steps"])
    for facts, clock, seconds in ((one, clocks[0], 30.0), (two, clocks[1], 60.0)):
        assert seconds - 2 * per_step <= 60 * facts["minutes"] <= seconds + 2  # the clock is read once more
        assert clock.now <= seconds + 2
        assert facts["steps"] > 3 and facts["rows"] == len(ROWS) and facts["layers"] == 2
    _, least = timed(target, 1e-6, Ticking())
    assert least["steps"] == 1


def test_a_timed_distillation_learns_and_leaves_the_target_and_no_file(target: Path) -> None:
    before, listed = weights(target), sorted(target.parent.rglob("*"))
    model = transformers.AutoModelForCausalLM.from_pretrained(target).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    training = TimedDistillation(10.0, Ticking())
    draft, facts = training(model, tokenizer, ROWS, load_tokenizer(target))
    assert facts["parameters"] == draft.num_parameters() < model.num_parameters()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert sorted(target.parent.rglob("*")) == listed
    assert (draft.training, draft.dtype, draft.config.use_cache) == (False, model.dtype, True)
    untrained, trained = (
        torch.cat(list(token_losses(one, examples(target), OnlineTeacher(model), "forward_kl").values())).mean()
        for one in (training.cut(model), draft)
    )
    assert trained < 0.9 * untrained


def test_a_draft_that_was_trained_in_bf16_computes_in_its_own_type(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    draft, _ = timed(target, 1e-6, Ticking())
    fresh = transformers.AutoModelForCausalLM.from_config(draft.config).eval()
    fresh.load_state_dict(draft.state_dict())
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        assert torch.equal(draft(ids).logits, fresh(ids).logits)


def test_the_learning_rate_falls_with_the_time() -> None:
    clock = Ticking()
    limit = TimeLimit(100.0, clock)
    schedule = rate_schedule(0, 1000, 0.05)
    rate = limit.timed(schedule, 1000)
    for _ in range(48):
        clock()
    assert rate(3) == schedule(490)
    assert rate(900) == schedule(900)  # many steps in a short time: the steps decide
    clock.now = 1e6
    assert rate(3) == schedule(1000) == pytest.approx(0.02)
    assert TimeLimit(1e-320, clock).timed(schedule, 1000)(3) == schedule(1000)  # the quotient is infinite


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(minutes: float) -> None:
    with pytest.raises(InputError, match=r"cannot be trained for .* minutes: give a number above 0"):
        TimedDistillation(minutes)


def test_a_timed_distillation_asks_for_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(InputError, match="2 GPUs, and a check trains a draft model on one"):
        TimedDistillation(1.0)


def test_a_target_of_one_layer_cannot_be_cut() -> None:
    with pytest.raises(InputError, match="fewer than the target's 1"):
        TimedDistillation(1.0).cut(tiny(layers=1))
