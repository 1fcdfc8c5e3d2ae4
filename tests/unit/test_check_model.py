"""`tasc check --model` on a tiny random model: rows that it says, rows that it does not say, profiles and measuring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from test_cli_check import next_commands  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

from tasc import Generator  # noqa: E402
from tasc.cli import app  # noqa: E402
from tasc.evaluation.cost_profile import CostProfile, load_profile  # noqa: E402

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
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
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
    asked = checked(foreign, model, "--device", device, "--measure")["model"]
    assert (asked["predictions"], asked["measured"], asked["says"]["agrees"]) == ([], None, False)


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
    assert prediction["recommended"]["settings"]["num_speculative_tokens"] == 64
    assert prediction["time"].startswith("20")


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
        ((), "name a --tokenizer, or a --model"),
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
