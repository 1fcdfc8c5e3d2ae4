"""Fine-tuning: what learns, what stays, the order of rows, and runs that were stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")
from test_extended_model import BASE, TOKENIZER, make_model  # noqa: E402
from typer.testing import CliRunner  # noqa: E402
from vocabularies import ROWS, learn, saved  # noqa: E402

from tasc import TuneOptions, extend_checkpoint, tune  # noqa: E402
from tasc.cli import app  # noqa: E402
from tasc.data import load_tokenizer  # noqa: E402
from tasc.errors import CorpusError, InputError, MissingExtraError  # noqa: E402
from tasc.files import remove_folder  # noqa: E402
from tasc.training import work_dir  # noqa: E402
from tasc.training.examples import IGNORED, Collator, Example, make_examples, shuffled_batches  # noqa: E402
from tasc.training.finetune import run  # noqa: E402
from tasc.training.finetune.optim import optimizer_and_schedule, with_adapters  # noqa: E402
from tasc.training.schedule import LR_FINAL_SHARE, rate_schedule  # noqa: E402

TASK = [{"input": f"row {number}", "output": row["output"]} for number, row in enumerate(ROWS)]
QUICK = TuneOptions(max_steps=4, batch_size=4, precision="fp32", save_every=2, rank=2)


def model_folder(name: str, folder: Path, plan: bool = True) -> Path:
    """A tiny checkpoint, extended or as it is."""
    base = saved(TOKENIZER, folder / "base")
    make_model(name).save_pretrained(base)
    if not plan:
        return base
    return extend_checkpoint(base, learn(TOKENIZER, folder / "task.plan"), folder / "extended")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama-tied", tmp_path_factory.mktemp("extended"))


def weights(folder: Path) -> dict[str, Any]:
    return dict(transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict())


@pytest.mark.parametrize("name", ["llama-tied", "llama-untied", "gpt2", "gpt-neox"])
def test_new_rows_all_learn_and_old_rows_stay_bit_for_bit(name: str, tmp_path: Path) -> None:
    folder = model_folder(name, tmp_path)
    plan = load_tokenizer(folder).plan
    assert plan is not None
    tuned = tune(folder, TASK, tmp_path / "tuned", options=QUICK)
    before = transformers.AutoModelForCausalLM.from_pretrained(folder)
    after = transformers.AutoModelForCausalLM.from_pretrained(tuned.path)
    for table in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, table)().weight, getattr(after, table)().weight
        assert torch.equal(old[:BASE], new[:BASE])
        changed = (old[BASE : BASE + len(plan)] != new[BASE : BASE + len(plan)]).any(dim=1)
        assert changed.all() or table == "get_input_embeddings"  # an input row learns when a batch holds the token
        assert changed.any()
    assert load_tokenizer(tuned.path).fingerprint == load_tokenizer(folder).fingerprint
    assert load_tokenizer(tuned.path).plan is not None
    assert not (tmp_path / "tuned.tuning").exists()
    assert [entry["step"] for entry in tuned.metrics["curve"]] == [1, 2, 3, 4]


def test_a_task_is_learnt(tmp_path: Path) -> None:
    folder = model_folder("llama-tied", tmp_path, plan=False)
    options = TuneOptions(method="full", max_steps=60, batch_size=8, precision="fp32", learning_rate=2e-2)
    curve = tune(folder, TASK, tmp_path / "tuned", options=options).metrics["curve"]
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]


def test_full_tuning_changes_everything(tmp_path: Path) -> None:
    folder = model_folder("llama-untied", tmp_path, plan=False)
    options = TuneOptions(method="full", max_steps=2, batch_size=4, precision="fp32", learning_rate=1e-3)
    tuned = tune(folder, TASK, tmp_path / "tuned", options=options, validation=TASK[:3])
    before, after = weights(folder), weights(tuned.path)
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_adapters_wait_while_the_new_rows_learn_alone(extended: Path, tmp_path: Path) -> None:
    options = TuneOptions(max_steps=3, rows_first=3, batch_size=4, precision="fp32", rank=2)
    before, after = weights(extended), weights(tune(extended, TASK, tmp_path / "tuned", options=options).path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.embed_tokens.weight", "lm_head.weight"}


def test_several_gpus_want_several_processes(extended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="2 GPUs and one process"):
        tune(extended, TASK, tmp_path / "tuned", options=QUICK)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(extended: Path, tmp_path: Path) -> None:
    whole = tune(extended, TASK, tmp_path / "whole", options=QUICK, validation=TASK[:2])

    def stop(done: float, total: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(extended, TASK, tmp_path / "tuned", options=QUICK, validation=TASK[:2], progress=stop)
    assert not (tmp_path / "tuned").exists()
    resumed = tune(extended, TASK, tmp_path / "tuned", options=QUICK, validation=TASK[:2])
    assert resumed.metrics["resumed_at"] == 2
    assert resumed.metrics["curve"] == whole.metrics["curve"]
    assert resumed.metrics["validation"] == whole.metrics["validation"] != []
    before, after = weights(whole.path), weights(resumed.path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_ctrl_c_during_validation_keeps_the_steps(
    extended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tune(extended, TASK, tmp_path / "whole", options=QUICK, validation=TASK[:2])
    assert [point["step"] for point in whole.metrics["validation"]] == [2, 4]

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out, work = tmp_path / "tuned", tmp_path / "tuned.tuning"
    monkeypatch.setattr(transformers.Trainer, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        tune(extended, TASK, out, options=QUICK, validation=TASK[:2])
    assert [path.name for path in work.glob("*-*")] == ["step-2"]
    assert f"the steps so far are in {work}, and the same command goes on from there" in caplog.text
    monkeypatch.undo()
    with caplog.at_level("INFO", "tasc.training"):
        resumed = tune(extended, TASK, out, options=QUICK, validation=TASK[:2])
    assert resumed.metrics["resumed_at"] == 2
    for name in ("curve", "validation"):
        assert resumed.metrics[name] == whole.metrics[name]
    assert all(torch.equal(weights(out)[name], tensor) for name, tensor in weights(whole.path).items())
    (first, last) = whole.metrics["validation"]
    assert f"step 2 of 4: validation loss {first['loss']:.4f}" in caplog.text
    assert f"step 4 of 4: loss {whole.metrics['curve'][-1]['loss']:.4f}" in caplog.text
    assert f"step 4 of 4: validation loss {last['loss']:.4f}" in caplog.text


def test_trackers_are_named_and_installed(extended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="report_to='tenserboard'; allowed: tensorboard, wandb"):
        TuneOptions(report_to="tenserboard")
    monkeypatch.setattr("tasc.training.options.find_spec", lambda name: None)
    with pytest.raises(InputError, match="report_to='wandb': wandb is not installed; run pip install wandb"):
        TuneOptions(report_to="wandb")


def test_the_loss_is_in_tensorboard(extended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    options = dataclasses.replace(QUICK, report_to="tensorboard")
    made = tune(extended, TASK, tmp_path / "tuned", options=options, validation=TASK[:2])
    events = EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/loss")] == [point["step"] for point in made.metrics["curve"]]
    assert [point.step for point in events.Scalars("eval/loss")] == [2, 4]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_killed_while_it_writes_goes_on(
    method: Any, extended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a checkpoint, before the description of the run, and after the result has its name."""
    caplog.set_level("INFO", logger="tasc.training")
    options = dataclasses.replace(QUICK, method=method)
    whole, out = tune(extended, TASK, tmp_path / "whole", options=options), tmp_path / "tuned"
    work = tmp_path / "tuned.tuning"
    work.mkdir()

    def stop(done: float, total: float) -> None:
        if done == 3:
            with pytest.raises(InputError, match=f"tuning is being written by process {os.getpid()}"):
                tune(extended, TASK, out, options=options)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(extended, TASK, out, options=options, progress=stop)
    assert [path.name for path in work.glob("*-*")] == ["step-2"]
    assert "going on from" not in caplog.text
    (work / "checkpoint-4").mkdir()
    (work / "checkpoint-4" / "model.safetensors").write_text("half")

    def killed(path: Path) -> None:
        if path == work:
            raise KeyboardInterrupt
        remove_folder(path)

    monkeypatch.setattr(work_dir, "remove_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(extended, TASK, out, options=options)
    monkeypatch.undo()
    assert f"going on from step 2 of 4, in {work}" in caplog.text
    assert json.loads((out / "tuning.json").read_text())["resumed_at"] == 2
    assert all(torch.equal(weights(out)[name], tensor) for name, tensor in weights(whole.path).items())
    with pytest.raises(InputError, match="is there already"):
        tune(extended, TASK, out, options=options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tuned", "whole"]


@pytest.mark.parametrize("text", ["", "[1, 2]", "null", "[" * 200_000], ids=["empty", "list", "null", "nested"])
def test_a_damaged_description_says_what_to_do(extended: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "tuned.tuning").mkdir()
    (tmp_path / "tuned.tuning" / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"is damaged; remove .* resume=False \(--no-resume\)"):
        tune(extended, TASK, tmp_path / "tuned", options=QUICK)


def test_work_of_another_run_is_not_taken_for_this_one(extended: Path, tmp_path: Path) -> None:
    def stop(done: float, total: float) -> None:
        if any((tmp_path / "tuned.tuning").rglob("step-*")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(extended, TASK, tmp_path / "tuned", options=QUICK, progress=stop)
    other = TuneOptions(max_steps=4, batch_size=4, precision="fp32", save_every=2, rank=3)
    with pytest.raises(InputError, match="another run"):
        tune(extended, TASK, tmp_path / "tuned", options=other)
    with pytest.raises(InputError, match=r"another run \(validation differ\)"):
        tune(extended, TASK, tmp_path / "tuned", options=QUICK, validation=TASK[:2])
    assert tune(extended, TASK, tmp_path / "tuned", options=other, resume=False).metrics["resumed_at"] == 0


def test_work_on_another_model_of_the_same_name_is_not_taken_for_this_one(extended: Path, tmp_path: Path) -> None:
    def stop(done: float, total: float) -> None:
        if any((tmp_path / "tuned.tuning").rglob("step-*")):
            raise KeyboardInterrupt

    own = shutil.copytree(extended, tmp_path / "own")
    with pytest.raises(KeyboardInterrupt):
        tune(own, TASK, tmp_path / "tuned", options=QUICK, progress=stop)
    model = transformers.AutoModelForCausalLM.from_pretrained(own)
    model.get_input_embeddings().weight.data.mul_(2.0)
    model.save_pretrained(own)
    with pytest.raises(InputError, match=r"another run \(model files differ\)"):
        tune(own, TASK, tmp_path / "tuned", options=QUICK)


def test_bad_input_is_refused(extended: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="row 1 has no input"):
        tune(extended, [TASK[0], {"output": "x"}], tmp_path / "tuned", options=QUICK)
    with pytest.raises(CorpusError, match="there are no rows"):
        tune(extended, [], tmp_path / "tuned", options=QUICK)
    with pytest.raises(CorpusError, match="every row is longer than max_tokens=2"):
        tune(extended, TASK, tmp_path / "tuned", options=TuneOptions(max_tokens=2))
    with pytest.raises(InputError, match="is there already"):
        tune(extended, TASK, tmp_path, options=QUICK)
    for wrong in (
        {"batch_size": 0},
        {"epochs": -1},
        {"warmup": 1.0},
        {"method": "half"},
        {"precision": "fp8"},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            TuneOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rows_first goes with method='lora'"):
        TuneOptions(method="full", rows_first=3)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_too_long_are_counted(extended: Path, tmp_path: Path) -> None:
    rows = [{"input": "long " * 200, "output": "x"}, *TASK]
    options = TuneOptions(max_steps=1, batch_size=2, precision="fp32", max_tokens=120)
    metrics = tune(extended, rows, tmp_path / "tuned", options=options).metrics
    assert (metrics["rows"], metrics["rows_left_out"]) == (len(TASK), 1)


def test_the_command_tunes_and_says_so(extended: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in TASK))
    arguments = ["tune", "--model", str(extended), "--data", str(data), "-o", str(tmp_path / "out"), "--max-steps", "1"]
    result = CliRunner().invoke(app, [*arguments, "--batch-size", "2", "--precision", "fp32", "--rank", "2"])
    assert result.exit_code == 0, result.output
    assert "1 step of 2 rows, " in result.output
    assert json.loads((tmp_path / "out" / "tuning.json").read_text())["options"]["rank"] == 2


def test_outputs_alone_count_and_keeping_few_logits_changes_no_loss() -> None:
    examples = [Example([5, 6, 7], [8, 9, 1], 6), Example([4], [3, 1], 3), Example([9, 9], [2, 8, 8, 1], 6)]
    model = make_model("llama-untied")
    batch = Collator(0, position_ids=True, logits_to_keep=True)(examples)
    assert batch["input_ids"].shape == (3, 7)
    assert batch["labels"].shape == (3, 5)
    assert batch["labels"][1].tolist() == [IGNORED, 3, 1, IGNORED, IGNORED]
    assert batch["position_ids"][1].tolist() == [0, 0, 0, 1, 2, 2, 2]
    losses = []
    for e in examples:
        ids = torch.tensor([e.prompt + e.completion])
        log = model(ids).logits[0].log_softmax(-1)
        losses += [-log[len(e.prompt) + k - 1, token].item() for k, token in enumerate(e.completion)]
    alone = sum(losses) / len(losses)
    whole = Collator(0, position_ids=True, logits_to_keep=False)(examples)
    assert model(**batch).loss.item() == pytest.approx(alone, abs=1e-5)
    assert model(**whole).loss.item() == pytest.approx(alone, abs=1e-5)


def test_examples_hold_base_prompts_and_new_tokens_in_outputs(extended: Path) -> None:
    task = load_tokenizer(extended)
    tokenizer = transformers.AutoTokenizer.from_pretrained(extended)
    made = make_examples(TASK, tokenizer, task, system="say")
    assert all(token < BASE for e in made for token in e.prompt)
    assert any(token >= BASE for e in made for token in e.completion)
    assert made[0].completion[-1] == task.eos_id
    assert task.decode(made[0].completion) == TASK[0]["output"]
    assert tokenizer.decode(made[0].prompt) == "say\nrow 0\n"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 7), st.integers(1, 20), st.integers(0, 9))
def test_batches_hold_every_row_once_before_any_twice(lengths: list[int], size: int, steps: int, seed: int) -> None:
    order = shuffled_batches(lengths, size, steps, seed)
    assert len(order) == steps * size
    times = Counter(order)
    assert max(times.values()) - min(times.get(row, 0) for row in range(len(lengths))) <= 1
    if len(lengths) >= size:
        for stop in range(0, len(order), size):
            seen = Counter(order[:stop])
            assert max(seen.values(), default=0) - min(seen[row] for row in range(len(lengths))) <= 2
    assert order == shuffled_batches(lengths, size, steps, seed)


def test_batches_hold_rows_of_about_the_same_length() -> None:
    lengths = [1 + row % 100 for row in range(640)]
    order = shuffled_batches(lengths, 16, 40, 0)
    spans = [
        max(lengths[r] for r in order[k : k + 16]) - min(lengths[r] for r in order[k : k + 16])
        for k in range(0, len(order), 16)
    ]
    assert sum(spans) / len(spans) < 15
    assert [lengths[row] for row in order] != sorted(lengths)


def test_rates_rise_and_fall_and_wait() -> None:
    share = rate_schedule(begin=10, steps=110, warmup=0.1)
    assert [share(step) for step in (0, 9)] == [0.0, 0.0]
    assert share(10) == pytest.approx(0.1)
    assert share(19) == share(20) == pytest.approx(1.0)
    assert share(109) == pytest.approx(LR_FINAL_SHARE, abs=0.01)
    assert all(share(step) >= share(step + 1) for step in range(20, 109))


@pytest.mark.parametrize(("rates", "rows"), [({}, 5e-3), ({"learning_rate": 2e-4}, 1e-3), ({"rows_rate": 3e-3}, 3e-3)])
def test_new_rows_learn_five_times_as_fast_by_default(rates: dict[str, float], rows: float) -> None:
    options = TuneOptions(**rates)  # type: ignore[arg-type]
    optimizer, _ = optimizer_and_schedule(with_adapters(make_model("llama-tied"), options, [3, 4]), options, 10)
    found = {len(group["params"]): group["initial_lr"] for group in optimizer.param_groups}
    assert found.pop(1) == pytest.approx(rows)  # the embeddings' rows; the others are the adapters
    assert list(found.values()) == pytest.approx([rates.get("learning_rate", 1e-3)])


def test_fused_experts_get_adapters_and_merge() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        vocab_size=257, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    adapted = with_adapters(transformers.AutoModelForCausalLM.from_config(config), TuneOptions(), [])
    assert any("experts" in name and "lora_" in name for name, _ in adapted.named_parameters())
    adapted.merge_and_unload()


def test_weights_without_an_adapter_are_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 0}
    config = transformers.LlamaConfig(vocab_size=257, hidden_size=32, intermediate_size=32, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with_adapters(model, TuneOptions(), [])
    assert "no adapter" not in caplog.text  # embeddings and the output head do not count
    model = transformers.AutoModelForCausalLM.from_config(config)
    for layer in model.model.layers:
        layer.mixing = torch.nn.Parameter(torch.zeros(32, 64))  # a matrix that belongs to no linear layer
    share = sum(layer.mixing.numel() for layer in model.model.layers) / sum(p.numel() for p in model.parameters())
    with_adapters(model, TuneOptions(), [])
    assert f"{100 * share:.0f} % of the weights of LlamaForCausalLM get no adapter" in caplog.text


def test_a_model_that_peft_cannot_adapt_is_refused_in_a_line() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.MambaConfig(vocab_size=257, hidden_size=32, num_hidden_layers=1, state_size=8)
    with pytest.raises(InputError, match="cannot adapt MambaForCausalLM"):
        with_adapters(transformers.AutoModelForCausalLM.from_config(config), TuneOptions(), [])


QLORA = dataclasses.replace(QUICK, method="qlora")


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the trained adapter of the next run, which keeps none."""
    pytest.importorskip("bitsandbytes")
    publish, kept = run.Run.publish, tmp_path / "adapter"

    def copied(self: run.Run, metrics: dict[str, Any]) -> None:
        shutil.copytree(self.work.path / "learnt", kept)
        publish(self, metrics)

    monkeypatch.setattr(run.Run, "publish", copied)
    return kept


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("llama-tied", "float32"), ("llama-untied", "float32"), ("llama-untied", "bfloat16"), ("gpt2", "float32")],
)
def test_qlora_merges_its_adapter_into_the_unquantised_base(
    name: str, dtype: str, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(name, tmp_path)
    if dtype != "float32":
        base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        base.save_pretrained(folder)
    rounding = {"float32": 1e-6, "bfloat16": 2.0**-8}[dtype]
    trained = []

    def noted(model: Any, *rest: Any) -> Any:
        trained.append([type(layer).__name__ for layer in model.modules()].count("Linear4bit"))
        return with_adapters(model, *rest)

    monkeypatch.setattr(run, "with_adapters", noted)
    after = weights(tune(folder, TASK, tmp_path / "tuned", options=QLORA).path)
    assert trained[0] > 0
    before, learnt = weights(folder), safetensors.load_file(adapter / "adapter_model.safetensors")
    assert {one.dtype for one in before.values()} == {getattr(torch, dtype)}
    settings = json.loads((adapter / "adapter_config.json").read_text())
    expected, changed = dict(before), 0
    for key, a in learnt.items():
        if ".lora_A." in key:
            target = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            delta = learnt[key.replace(".lora_A.", ".lora_B.")] @ a * (settings["lora_alpha"] / settings["r"])
            expected[target] = before[target] + (delta.T if name == "gpt2" else delta)  # its layers are transposed
            changed += bool(delta.any())
    assert changed == trained[0]
    tables = {key for key in before if before[key].shape[0] == len(load_tokenizer(folder).tokenizer.get_vocab())}
    for key in before.keys() - tables:
        assert after[key].dtype == before[key].dtype
        assert torch.allclose(after[key].float(), expected[key].float(), atol=1e-6, rtol=rounding), key
    rows = [row for key, row in learnt.items() if key.endswith("trainable_tokens_delta")]
    assert len(rows) == (1 if name in ("llama-tied", "gpt2") else 2)
    for key in tables:
        assert torch.equal(after[key][:BASE], before[key][:BASE])
        new = after[key][BASE:].float()
        assert not torch.equal(new, before[key][BASE:].float()), key
        assert any(torch.allclose(new, row.float(), atol=1e-6, rtol=rounding) for row in rows), key


def test_a_stopped_qlora_run_goes_on_as_if_it_had_not_been(extended: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    whole = tune(extended, TASK, tmp_path / "whole", options=QLORA)

    def stop(done: float, total: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(extended, TASK, tmp_path / "tuned", options=QLORA, progress=stop)
    resumed = tune(extended, TASK, tmp_path / "tuned", options=QLORA)
    assert resumed.metrics["resumed_at"] == 2
    assert resumed.metrics["curve"] == whole.metrics["curve"]
    before, after = weights(whole.path), weights(resumed.path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_qlora_without_bitsandbytes_names_the_extra(
    extended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"bitsandbytes.* needs the packages of tasc-lm\[qlora\]"):
        tune(extended, TASK, tmp_path / "tuned", options=QLORA)
    assert list(tmp_path.iterdir()) == []


def test_qlora_refuses_a_quantised_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    folder = model_folder("llama-tied", tmp_path, plan=False)
    config = json.loads((folder / "config.json").read_text())
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantised}))
    with pytest.raises(InputError, match="is quantised, and method='qlora' merges into unquantised weights"):
        tune(folder, TASK, tmp_path / "tuned", options=QLORA)
