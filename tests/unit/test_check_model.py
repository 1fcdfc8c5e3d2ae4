"""`tasc check --model` on a tiny random model: rows that it says, rows that it does not say, profiles and measuring."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from test_cli_check import next_commands  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

from tasc import Generator, load_tokenizer  # noqa: E402
from tasc.cli import app  # noqa: E402
from tasc.cli.console import out  # noqa: E402
from tasc.data import read_rows  # noqa: E402
from tasc.evaluation.check import CheckResult, check_rows, split_rows  # noqa: E402
from tasc.evaluation.check.summary import summarize  # noqa: E402
from tasc.evaluation.check.verdict import Verdict  # noqa: E402
from tasc.evaluation.check.with_model import ModelCheck, served_verdict  # noqa: E402
from tasc.evaluation.cost_profile import CostProfile, load_profile, num_parameters  # noqa: E402
from tasc.evaluation.machine import device_name  # noqa: E402
from tasc.models import load_checkpoint  # noqa: E402

COUNT = 60


def tasc(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that says words at random and ends soon; each word is a token."""
    folder = tmp_path_factory.mktemp("model")
    words = ["</s>", "[UNK]", *(f"w{k}" for k in range(40))]
    made = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="</s>", unk_token="[UNK]"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=1024, eos_token_id=0, bos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    made_model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        made_model.lm_head.weight[0] *= 2.5  # the end comes soon
    made_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def said(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose outputs the model gives, as far as it ends them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    generator = Generator(
        transformers.AutoModelForCausalLM.from_pretrained(model), tokenizer, batch_size=50, costs=0.02
    )
    inputs = [f"w{a} w{b}" for a in range(20) for b in range(10)]
    made = generator.generate(inputs, max_tokens=40)
    rows = [
        {"input": text, "output": one.text}
        for text, one in zip(inputs, made, strict=True)
        if one.finish_reason == "eos" and [*tokenizer(one.text)["input_ids"], 0] == one.ids
    ]
    assert len(rows) >= COUNT
    path = tmp_path_factory.mktemp("data") / "said.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "foreign.jsonl"
    rows = [{"input": f"from {k}", "output": f"w3 w3 w3 w{k % 5}"} for k in range(COUNT)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def device(tmp_path: Path) -> Path:
    profile = CostProfile(
        engine="vllm", device="a toaster", model="m", dtype="float32", steps=[(1, 1, 1.0), (1, 65, 1.1), (8, 1, 1.2)]
    )
    return profile.save(tmp_path / "toaster.json")


def checked(rows: Path, model: Path, *options: Any) -> dict[str, Any]:
    result = tasc("check", rows, "--model", model, "--json", *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_model_that_does_something_else_is_tuned_first(foreign: Path, model: Path, device: Path) -> None:
    result = tasc("check", foreign, "--model", model, "--device", device)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "does not say what the rows say (0 of " in text
    assert "drafts from these rows do not fit it; tune it first: tasc tune" in text
    assert text.index("tasc tune --model") < text.index("tasc index build")
    assert "Predicted" not in text
    without = "It was asked without a system prompt: if it was tuned with one, name it with --system."
    assert without in text
    result = tasc("check", foreign, "--model", model, "--device", device, "--system", "w9")
    assert without not in " ".join(result.stdout.split())
    asked = checked(foreign, model, "--device", device, "--measure")["model"]
    assert (asked["predictions"], asked["measured"], asked["says"]["agrees"]) == ([], None, False)


def test_costs_are_kept_of_a_model_that_does_something_else(foreign: Path, model: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    asked = checked(foreign, model, "--save-profile", mine, "--measure")["model"]
    assert (asked["predictions"], asked["measured"], asked["says"]["agrees"]) == ([], None, False)
    assert load_profile(mine).engine == "tasc"


def test_rows_that_are_missing_are_named_before_the_model_is_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasc.models.load_checkpoint", None)
    result = tasc("check", tmp_path / "none.jsonl", "--model", model)
    assert (result.exit_code, "none.jsonl: No such file" in result.output) == (2, True)


def test_the_commands_for_a_model_to_tune_name_all_files_and_the_system_prompt(
    foreign: Path, model: Path, device: Path
) -> None:
    result = tasc("check", foreign, foreign, "--model", model, "--device", device, "--system", "Be brief.")
    tune, index, *_ = next_commands(result.stdout)
    assert tune == f"tasc tune --model {model} --data {foreign} --data {foreign} --system 'Be brief.' -o tuned"
    assert index.startswith(f"tasc index build {foreign} {foreign} --system 'Be brief.' --tokenizer {model}")


def test_rows_that_the_model_says(said: Path, model: Path, device: Path) -> None:
    found = checked(said, model, "--device", device)["model"]
    assert found["says"]["agrees"] and found["says"]["equal"] == found["says"]["rows"]
    assert found["measured"] is None and found["draft_model"] == "unknown"
    (prediction,) = found["predictions"]
    assert (prediction["engine"], prediction["device"]) == ("vllm", "a toaster")
    assert set(prediction["loads"]) == {"1", "8"}
    plain = prediction["loads"]["1"]["plain"]
    # every token takes a second, the prompt a little more; its cost does not depend on this machine
    assert plain["seconds_per_output"] == pytest.approx(plain["tokens_per_output"], rel=0.05)
    settings = prediction["recommended"]["settings"]
    assert settings["model"] == "tasc.adapters.vllm.TascProposer" and settings["num_speculative_tokens"] == 64
    assert prediction["time"].startswith("20")


def test_the_command_that_serves_a_model_where_drafts_pay_in_vllm() -> None:
    nothing = Verdict("a little", [], {}, [])
    settings = {"method": "custom_class", "num_speculative_tokens": 64}
    chosen = {"is_worth_it": True, "settings": settings}
    predictions = [{"engine": "tasc", "recommended": chosen}, {"engine": "vllm", "recommended": chosen}]
    found = {"predictions": predictions, "system": None}
    made = served_verdict(
        nothing, ModelCheck(model=None, tokenizer=None, name="my model"), found, index="tasc index build"
    )
    served = f"TASC_INDEX=task.tasc vllm serve 'my model' --speculative-config '{json.dumps(settings)}'"
    assert made.next_commands == ["tasc index build", served]
    assert made.sentences == []
    asked = served_verdict(
        made, ModelCheck(model=None, tokenizer=None, name="m"), found | {"system": "Be brief."}, index=""
    )
    assert asked.sentences == ["vLLM adds no system prompt: begin the messages of each request with it, 'Be brief.'"]
    adapted = ModelCheck(model=None, tokenizer=None, name="my model", adapter=Path("lora"))
    assert served_verdict(nothing, adapted, found, index="tasc index build") == nothing
    chosen["is_worth_it"] = False
    assert served_verdict(made, ModelCheck(model=None, tokenizer=None, name="my model"), found, index="") == made


def test_costs_are_measured_saved_and_used_again(said: Path, model: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    found = checked(said, model, "--save-profile", mine, "--measure", "--load", 2)["model"]
    assert load_profile(mine).engine == found["predictions"][0]["engine"] == "tasc"
    assert set(found["predictions"][0]["loads"]) == {"1", "2", "8"}
    measured = found["measured"]
    assert measured["load"] == 2 and measured["different"] == 0 and measured["rows"] > 0
    assert measured["time"] >= found["predictions"][0]["time"]
    result = tasc("check", said, "--model", model, "--device", mine, "--measure")
    assert result.exit_code == 0, result.output
    assert "Measured on" in result.stdout and "all outputs equal" in " ".join(result.stdout.split())
    assert "nothing is predicted of this measurement" not in result.stdout


def test_the_system_prompt_that_was_used_is_named(foreign: Path, model: Path, device: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(model, tuned)
    (tuned / "tuning.json").write_text(json.dumps({"prompts": {"system": "w9", "chat_template_sha256": None}}))
    for folder, options, used in [(model, (), None), (tuned, (), "w9"), (tuned, ("--system", "w8"), "w8")]:
        found = checked(foreign, folder, "--device", device, *options)
        assert found["provenance"]["system"] == found["model"]["system"] == used


def test_more_at_once_than_outputs_is_said(said: Path, model: Path, device: Path) -> None:
    result = tasc("check", said, "--model", model, "--device", device)
    assert "to predict from" not in result.stdout
    result = tasc("check", said, "--model", model, "--device", device, "--load", 100)
    [outputs] = re.findall(r"Predicted from (\d+) outputs", result.stdout)
    text = " ".join(result.stdout.split())
    assert (
        f"There are {outputs} outputs to predict from: the figures of 100 at once are those of {outputs} at once."
        in text
    )


def test_rows_beyond_the_context_are_left_out(said: Path, model: Path, device: Path) -> None:
    rows = [json.loads(line) for line in said.read_text().splitlines()]
    held = {row["input"] for row in split_rows(read_rows(said)).held_out if row["input"]}
    long = [row | {"input": "w1 " * 1500} if row["input"] in held else row for row in rows]
    few = [row | {"split": "test" if row["input"] in held else "train"} for row in rows]
    few[[row["split"] for row in few].index("test")]["input"] = "w1 " * 1500
    data = device.with_name("long.jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in few))
    result = tasc("check", data, "--model", model, "--device", device, "--measure")
    assert result.exit_code == 0, result.output
    assert "1 held-out row is left out here: its prompt has 1500 tokens" in " ".join(result.stdout.split())
    assert "Measured on" in result.stdout
    data.write_text(
        "".join(json.dumps(new | {"split": old["split"]}) + "\n" for new, old in zip(long, few, strict=True))
    )
    result = tasc("check", data, "--model", model, "--device", device)
    assert result.exit_code == 2
    assert "can be prompted with no held-out row; the first prompt has 1500 tokens" in " ".join(result.stderr.split())


def test_what_is_measured_here_is_not_compared_with_another_device(said: Path, model: Path, device: Path) -> None:
    result = tasc("check", said, "--model", model, "--device", device, "--measure")
    assert result.exit_code == 0, result.output
    assert "The predictions are not of this model in tasc on" in result.stdout
    table = result.stdout.split("Measured on")[-1]
    parts = re.findall(r"│ plain .*", table)  # one, or more where long figures do not fit into the width
    plain = [cell.strip() for part in parts for cell in part.split("│")[2:-1]]
    assert (plain[0], plain[2], plain[3]) == ("–", "–", "1.00"), table


def test_costs_of_a_model_of_another_size_are_said(said: Path, model: Path, tmp_path: Path) -> None:
    here = device_name(torch.device("cpu"))
    steps = [(1, 1, 1.0), (1, 65, 1.1)]
    own = num_parameters(load_checkpoint(str(model))[0])
    for parameters, is_same in [(0, True), (own, True), (2 * own, False)]:
        profile = CostProfile(
            engine="tasc", device=here, model="m", dtype="float32", parameters=parameters, steps=steps
        ).save(tmp_path / "other.json")
        result = tasc("check", said, "--model", model, "--device", profile, "--measure")
        assert result.exit_code == 0, result.output
        text = " ".join(result.stdout.split())
        other = f"are those of m with {2 * own:,} parameters; this model has {own:,}, so its seconds are others."
        assert (other not in text) == is_same
        assert ("nothing is predicted of this measurement" not in text) == is_same
    text = " ".join(tasc("check", said, "--model", model, "--device", "h200-tasc").stdout.split())
    assert "The costs of tasc on NVIDIA H200 are those of SmolLM2-135M with 134,515,008 parameters" in text


def test_each_part_of_a_narrow_table_names_methods_and_loads(
    said: Path, model: Path, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 50)
    result = tasc("check", said, "--model", model, "--device", device)
    assert result.exit_code == 0, result.output
    table = result.stdout.split("Predicted from")[-1]
    parts = table.count("method, at once")
    assert parts > 1
    for load in (1, 8):
        assert table.count(f"│ drafts, {load} ") == parts


def test_a_single_row_that_is_measured_is_not_called_another(said: Path, model: Path, device: Path) -> None:
    few = device.with_name("few.jsonl")
    few.write_text("".join(said.read_text().splitlines(keepends=True)[:3]))
    result = tasc("check", few, "--model", model, "--device", device, "--measure")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("Measured on the one row of the prediction") == 2
    assert "other row" not in result.stdout
    assert "no interval from one batch" in " ".join(result.stdout.split())


@pytest.mark.parametrize("option", ["--save-profile", "--distill-minutes"])
def test_figures_of_the_rows_are_not_lost_when_the_model_fails(
    option: str, said: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "there")

    monkeypatch.setattr(CostProfile, "save", fail)
    monkeypatch.setattr("tasc.training.distill.timed.TimedDistillation.__call__", fail)
    value = tmp_path / "mine.json" if option == "--save-profile" else "0.01"
    result = tasc("check", said, "--model", model, option, value, "-o", tmp_path / "check.json")
    assert (result.exit_code, "there: No space left on device" in result.stderr) == (2, True)
    assert "The check with the model failed" in result.stdout and "drafts bring" in result.stdout
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["model"] is None and "No space" in found["failed"] and found["drafts"]


def test_figures_of_the_rows_are_not_lost_with_ctrl_c(
    said: Path, model: Path, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasc.evaluation.check.with_model.forecast", stop)
    result = tasc("check", said, "--model", model, "--device", device, "-o", tmp_path / "check.json")
    assert (result.exit_code, "interrupted" in result.stderr) == (130, True)
    assert "The check with the model was stopped" in result.stdout and "drafts bring" in result.stdout
    found = json.loads((tmp_path / "check.json").read_text())
    assert (found["model"], found["failed"]) == (None, "interrupted") and found["drafts"]


def test_predictions_are_not_lost_with_ctrl_c_while_measuring(
    said: Path, model: Path, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasc.evaluation.check.with_model.compare", stop)
    file = tmp_path / "check.json"
    result = tasc("check", said, "--model", model, "--device", device, "--measure", "-o", file)
    assert (result.exit_code, "interrupted" in result.stderr) == (130, True)
    text = " ".join(result.stdout.split())
    assert "The measurement was stopped; the predictions were made before it." in text
    assert "Predicted from" in text and "Measured" not in text
    found = json.loads(file.read_text())
    assert found["failed"] == "interrupted" and found["model"]["measured"] is None
    assert found["model"]["predictions"][0]["device"] == "a toaster" and "failed" not in found["model"]


def test_outputs_that_do_not_end_are_said(
    said: Path, model: Path, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tasc("check", said, "--model", model, "--device", device)
    assert "did not end" not in result.stdout
    monkeypatch.setattr("tasc.evaluation.check.with_model._LONGEST", 4)
    result = tasc("check", said, "--model", model, "--device", device)
    text = " ".join(result.stdout.split())
    assert re.search(r"\b\d+ of \d+ outputs did not end within 4 tokens: a prediction does not hold for those", text)


def test_options_that_cannot_be_used_are_said_before_the_work(said: Path, model: Path, tmp_path: Path) -> None:
    for options, message in [
        (("--model", model, "--device", "h2000"), "there is no cost profile 'h2000'"),
        (("--model", model, "--device", "x", "--save-profile", tmp_path / "p.json"), "leave --device out"),
        (("--model", model, "--engine", "vlm"), "engine 'vlm' is none of tasc, vllm, llama-cpp"),
        (
            ("--model", model, "--engine", "vllm", "--device", "h200-tasc"),
            "is of tasc, not vllm: give epyc-vllm or a file",
        ),
        (("--model", model, "--engine", "vllm", "--device", "h200"), "there is no cost profile 'h200'"),
        (("--tokenizer", model, "--engine", "vllm"), "are for a check with a --model"),
        (("--tokenizer", model, "--load", "8"), "are for a check with a --model"),
        (("--tokenizer", model, "--adapter", str(tmp_path)), "are for a check with a --model"),
        ((), "name a --tokenizer, or a --model"),
        (("--model", model, "--tokenizer", tmp_path), f"leave out --tokenizer {tmp_path}, or --model"),
        (("--model", model, "--distill-minutes", "0"), "for 0 minutes: give a number above 0"),
        (("--model", model, "--distill-minutes", "nan"), "for nan minutes: give a number above 0"),
        (("--tokenizer", model, "--distill-minutes", "1"), "is for a check of ROWS with a --model"),
        (("--model", model, "--index", "x", "--distill-minutes", "1"), "is for a check of ROWS with a --model"),
        (("--model", model, "--device", "h200-tasc", "--distill-minutes", "1"), "cost on other devices and in other"),
        (("--model", model, "--engine", "vllm", "--distill-minutes", "1"), "leave --device out, or --engine"),
    ]:
        result = tasc("check", said, *options)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


def test_an_engine_chooses_among_the_profiles(said: Path, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    found = checked(said, model, "--engine", "llama-cpp", "--device", "epyc", "--html", page)
    assert [one["engine"] for one in found["model"]["predictions"]] == ["llama.cpp"]
    assert found["provenance"]["model"]["name"] == str(model) and found["provenance"]["model"]["dtype"] == "float32"
    assert found["provenance"]["data"][0]["path"] == str(said) and found["machine"]["cpus"]
    assert found["provenance"]["data"][0]["sha256"] in page.read_text()


def test_a_draft_model_is_trained_and_predicted(said: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "width", 80)
    result = tasc("check", said, "--model", model, "--distill-minutes", "0.01", "--load", 2)
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.splitlines() if not line.startswith("  tasc")) <= 80
    text = " ".join(result.stdout.split())
    assert "A draft model (1 of the model's layers, " in text and "of its tokens are accepted" in text
    for load in (1, 2, 8):
        assert f"plain steps at {load} at once" in text
    assert len(re.findall(r"│ draft model, \d", text)) == len(re.findall(r"│ drafts \+ model, \d", text)) == 3
    assert "unknown" not in text


def loaded_from(model: Path) -> Any:
    return load_checkpoint(str(model))[0]


class Training:
    """Returns a draft model, and notes what it was to be trained on."""

    def __init__(self, draft: Any) -> None:
        self.draft = draft
        self.rows: list[Any] = []
        self.system: str | None = None

    def __call__(self, target: Any, tokenizer: Any, rows: Any, task: Any, system: Any, progress: Any) -> Any:
        self.rows, self.system = list(rows), system
        facts = {"minutes": 1.5, "steps": 3, "rows_per_step": 4, "rows": len(rows), "layers": 2, "parameters": 10**6}
        return self.draft, facts


def checked_with(
    training: Training, said: Path, model: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> CheckResult:
    """Check with a draft model on a device where all steps take minutes, so that drafting takes no time beside them."""
    steps = [(rows, tokens, 100.0 * rows + tokens) for rows in (1, 8) for tokens in (1, 65)]
    slow = CostProfile(engine="tasc", device="a snail", model="m", dtype="float32", steps=steps)
    monkeypatch.setattr("tasc.evaluation.check.with_model.measure_profile", lambda *_, **__: slow)
    loaded, tokenizer = load_checkpoint(str(model))
    check = ModelCheck(
        model=loaded, tokenizer=tokenizer, name="a model", train_draft=training, budget=0.0, **options
    )  # fmt: skip
    return check_rows(list(read_rows([said])), load_tokenizer(tokenizer), files=["my rows.jsonl"], model=check)


def test_a_draft_model_learns_from_indexed_rows_alone(said: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(loaded_from(model))
    checked_with(training, said, model, monkeypatch)
    parts = split_rows(read_rows([said]))
    assert training.rows == parts.train and not training.system
    assert not {row["input"] for row in training.rows} & {row["input"] for row in parts.held_out}


def test_a_better_draft_model_is_predicted_to_be_faster(
    said: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def methods(draft: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        found = checked_with(Training(draft), said, model, monkeypatch).model
        assert found is not None
        return found["draft_model"], found["predictions"][0]["loads"]["8"]

    torch.manual_seed(1)
    stranger = transformers.LlamaForCausalLM(loaded_from(model).config).eval()
    (itself, same), (other, wrong) = methods(loaded_from(model)), methods(stranger)
    assert itself["acceptance"]["value"] == 1.0 and other["acceptance"]["value"] < 0.5
    assert itself["minutes"] == 1.5 and set(itself["cost"]) == {"1", "8"} and 0 < itself["cost"]["1"] < 0.1
    for method in ("draft model", "drafts + model"):
        assert same[method]["speedup"]["value"] > 1.2 * wrong[method]["speedup"]["value"], method
    assert same["draft model"]["accepted"] == 1.0
    assert same["draft model"]["speedup"]["value"] > same["drafts"]["speedup"]["value"]
    assert same["drafts"]["tau"] == wrong["drafts"]["tau"]


def test_a_draft_model_that_pays_is_recommended_measured_and_named_in_the_commands(
    said: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(loaded_from(model))
    result = checked_with(training, said, model, monkeypatch, measure=0.0, adapter=Path("my adapter"), eos="<end>")
    assert result.model is not None
    best = result.model["predictions"][0]["recommended"]["method"]
    assert best in ("draft model", "drafts + model")
    measured = result.model["measured"]
    assert set(measured["seconds_per_output"]) == {"plain", best} and measured["different"] == 0
    summary = summarize(result)
    assert any("at once: use " in one and "a draft model" in one for one in summary.verdict)
    assert "a draft model may still help" not in " ".join(summary.verdict).lower()
    *echo, distill, generate = summary.next_commands[-4:]
    assert echo == ["""echo 'adapter = "my adapter"' > distill.toml""", """echo 'eos = "<end>"' >> distill.toml"""]
    assert distill == "tasc distill --target 'a model' --layers 2 --data my rows.jsonl --config distill.toml -o draft"
    assert generate.startswith("tasc generate prompts.jsonl --model 'a model' --adapter 'my adapter' --draft draft")
    assert (" --index task.tasc" in generate) == (best == "drafts + model")
    assert next_commands("\n".join(f"  {one}" for one in (distill.replace("my rows", "rows"), generate)))
