"""`tasc generate` and `tasc bench` from files to files, on a tiny random model."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner, Result

from tasc.cli import app

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["show", "flights", "from", "to", "boston", "denver", "dallas", "intent", "flight", "end"]
ROWS = [
    {"input": f"show flights from {a} to {b}", "output": f"intent flight from {a} to {b} end", "split": split}
    for a, b, split in [
        ("boston", "denver", "train"),
        ("denver", "dallas", "train"),
        ("dallas", "boston", "train"),
        ("boston", "dallas", "test"),
        ("denver", "boston", "test"),
    ]
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's folder."""
    folder = tmp_path_factory.mktemp("model")
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["</s>", "[UNK]", *WORDS])}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / "plain.json"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "plain.json"), eos_token="</s>", pad_token="</s>", unk_token="[UNK]"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        eos_token_id=0,
        bos_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A checkpoint of a smaller model with the same tokenizer."""
    folder = tmp_path_factory.mktemp("draft")
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(model, num_hidden_layers=1)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    return path


def tasc(*args: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")


def generated(prompts: Path, model: Path, output: Path, *args: Any) -> list[dict[str, Any]]:
    result = tasc("generate", prompts, "--model", model, "-o", output, "--max-tokens", 12, *args)
    assert result.exit_code == 0, result.output
    assert "tokens/s" in result.stderr
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_generate_is_the_same_with_and_without_an_index(tmp_path: Path, model: Path, data: Path) -> None:
    index = tmp_path / "task.tasc"
    assert tasc("index", "build", data, "--tokenizer", model, "-o", index, "--split", "train").exit_code == 0
    plain = generated(data, model, tmp_path / "plain.jsonl", "--max-draft", 0)
    assert [r["input"] for r in plain] == [r["input"] for r in ROWS]
    assert [r["reference"] for r in plain] == [r["output"] for r in ROWS]
    assert all(r["finish_reason"] in ("eos", "length") for r in plain)
    drafted = generated(data, model, tmp_path / "drafted.jsonl", "--index", index, "--batch-size", 2)
    assert drafted == plain


def test_generate_samples_by_seed(tmp_path: Path, model: Path, data: Path) -> None:
    options = ("--temperature", 1.5, "--seed")
    first = generated(data, model, tmp_path / "a.jsonl", *options, 1)
    assert generated(data, model, tmp_path / "b.jsonl", *options, 1) == first
    assert generated(data, model, tmp_path / "c.jsonl", *options, 2) != first


def test_generate_leaves_nothing_behind_when_it_fails(tmp_path: Path, model: Path, data: Path) -> None:
    result = tasc("generate", data, "--model", tmp_path / "no-model", "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert "cannot load model" in " ".join(result.stderr.split())
    assert not list(tmp_path.glob("*out.jsonl*"))


def test_an_index_of_another_tokenizer_is_refused(tmp_path: Path, model: Path, data: Path) -> None:
    other = tmp_path / "other.json"
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(other))
    index = tmp_path / "task.tasc"
    assert tasc("index", "build", data, "--tokenizer", other, "-o", index).exit_code == 0
    result = tasc("generate", data, "--model", model, "--index", index, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert "tokenizer" in result.stderr


def test_bench_compares_methods_on_the_same_prompts(tmp_path: Path, model: Path, data: Path) -> None:
    target = tmp_path / "out.json"
    methods = "transformers,transformers-prompt-lookup,tasc"
    options = ("--methods", methods, "--max-tokens", 8, "--max-draft", 4, "--limit", 2, "-o", target, "--json")
    result = tasc("bench", "--model", model, "--data", data, *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert json.loads(target.read_text()) == found
    assert found["methods"].keys() == {"plain", *methods.split(",")}
    tokens = found["methods"]["plain"]["tokens"]
    for facts in found["methods"].values():
        assert (facts["requests"], facts["identical"], facts["tokens"]) == (2, 2, tokens)
        assert facts["tokens_per_second"] == pytest.approx(tokens / facts["seconds"])
        assert facts["latency_p50"] <= facts["latency_p90"] <= facts["seconds"]
    assert found["methods"]["plain"]["speedup"] == 1.0
    assert found["methods"]["plain"]["tau"] == pytest.approx(1.0)
    ours = found["methods"]["tasc"]
    assert sum(ours["accepted_by_position"]) == pytest.approx(ours["accepted"] * sum(ours["drafted_by_position"]))
    assert [set(r["seconds"]) for r in found["requests"]] == [set(found["methods"])] * 2
    assert [r["input"] for r in found["requests"]] == [r["input"] for r in ROWS[3:]]


def test_bench_names_an_unknown_method(model: Path, data: Path) -> None:
    result = tasc("bench", "--model", model, "--data", data, "--methods", "magic")
    assert result.exit_code == 2
    assert "unknown method 'magic': choose from plain, transformers" in " ".join(result.stderr.split())


def test_generate_is_the_same_with_a_draft_model(tmp_path: Path, model: Path, data: Path, draft: Path) -> None:
    index = tmp_path / "task.tasc"
    assert tasc("index", "build", data, "--tokenizer", model, "-o", index, "--split", "train").exit_code == 0
    plain = generated(data, model, tmp_path / "plain.jsonl", "--max-draft", 0)
    assert generated(data, model, tmp_path / "alone.jsonl", "--draft", draft) == plain
    assert generated(data, model, tmp_path / "both.jsonl", "--draft", draft, "--index", index) == plain


def test_bench_with_a_draft_model(tmp_path: Path, model: Path, data: Path, draft: Path) -> None:
    out, page = tmp_path / "bench.json", tmp_path / "bench.html"
    names = ["plain", "tasc", "model", "combined"]
    result = tasc(
        "bench", "--model", model, "--data", data, "--draft", draft, "--draft-length", 3,
        "--methods", ",".join(names[1:]), "--max-tokens", 8, "-o", out, "--html", page,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())
    assert list(results["methods"]) == names
    assert results["settings"]["draft"] == str(draft)
    assert results["settings"]["draft_length"] == 3
    assert all(facts["identical"] == facts["requests"] == 2 for facts in results["methods"].values())
    assert set(results["methods"]["model"]["drafted_by_source"]) == {"model"}
    assert len(results["methods"]["model"]["drafted_by_position"]) == 3
    assert "combined" in result.stdout
    assert "combined" in page.read_text()


def test_bench_says_what_a_draft_model_needs(model: Path, data: Path, draft: Path, tmp_path: Path) -> None:
    for extra, said in (
        (["--methods", "combined"], "method 'combined' needs a draft model: give its folder with --draft"),
        (["--draft-length", 3], "--draft-length is for a draft model: give its folder with --draft"),
        (["--draft", draft, "--draft-length", 80], "draft_length is 80; it must be at most max_draft, 64"),
    ):
        result = tasc("bench", "--model", model, "--data", data, *extra)
        assert result.exit_code == 2
        assert said in " ".join(result.stderr.split())
    other = tmp_path / "other"
    transformers.AutoModelForCausalLM.from_pretrained(draft).save_pretrained(other)
    made = Tokenizer(models.WordLevel({"</s>": 0, "[UNK]": 1}, unk_token="[UNK]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>").save_pretrained(other)
    result = tasc("bench", "--model", model, "--data", data, "--draft", other, "--methods", "model")
    assert result.exit_code == 2
    assert "take a draft model made for this target's tokenizer" in " ".join(result.stderr.split())
