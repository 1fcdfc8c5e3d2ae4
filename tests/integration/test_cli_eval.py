"""`tasc eval` from folders to files, on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from typer.testing import CliRunner, Result

from tasc.cli import app
from tasc.evaluation.provenance import folder_key

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("rouge_score")
pytest.importorskip("sacrebleu")

WORDS = ["show", "flights", "from", "to", "boston", "denver", "intent", "end"]
ROWS = [
    {"input": "show flights from boston", "output": '{"from": "boston"}', "split": "train"},
    {"input": "show flights to denver", "output": '{"to": "denver"}', "split": "test"},
    {"input": "flights", "output": '{"intent": "flights"}', "split": "test"},
    {"input": "show flights from boston to denver", "output": "{}", "split": "test"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"), seed=1)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("other"), seed=2)


def checkpoint(folder: Path, seed: int) -> Path:
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["</s>", "[UNK]", *WORDS])}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="[UNK]")
    tokenizer.save_pretrained(folder)
    random_model(len(tokenizer), seed).save_pretrained(folder)
    return folder


def random_model(vocab: int, seed: int) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return written(tmp_path / "data.jsonl", ROWS)


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def tasc(*args: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")


def said(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    return " ".join(result.stderr.split())


def test_two_models_side_by_side(tmp_path: Path, model: Path, other: Path, data: Path) -> None:
    pytest.importorskip("jinja2")
    files = [tmp_path / name for name in ("found.json", "found.html", "outputs.jsonl")]
    (other / "tuning.json").write_text('{"prompts": {"system": "Be brief."}}')
    result = tasc(
        "eval", "--model", model, "--against", other, "--data", data, "--max-tokens", 8, "--batch-sizes", "1,2",
        "--latency-rows", 2, "--rounds", 1, "--threads", 1, "-o", files[0], "--html", files[1],
        "--save-outputs", files[2],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for expected in ("3 rows, greedy", "slot F1", "base tokens per step", "difference", "decode speed-up"):
        assert expected in result.stdout
    found = json.loads(files[0].read_text())
    facts = found["provenance"]
    assert facts["data"]["path"] == str(data) and facts["data"]["rows"] == 3 and len(facts["data"]["sha256"]) == 64
    made_of = {"name": str(model), "key": folder_key(model), "dtype": "float32", "device": "cpu", "system": None}
    assert facts["model"] == made_of
    assert facts["against"]["key"] != facts["model"]["key"] and facts["against"]["system"] == "Be brief."
    assert {"tasc", "date", "command"} <= facts.keys()
    assert found["settings"]["model"] == str(model) and found["settings"]["against"] == str(other)
    assert found["models"]["model"]["counts"]["rows"] == 3
    assert [timed["batch_size"] for timed in found["latency"]] == [1, 2]
    kept = [json.loads(line) for line in files[2].read_text().splitlines()]
    assert [(k["side"], k["input"]) for k in kept] == [(s, r["input"]) for s in ("model", "against") for r in ROWS[1:]]
    assert [k["text"] for k in kept[:3]] == [o["texts"]["model"] for o in found["outputs"]]
    assert "exact match" in files[1].read_text()


def test_one_model_and_a_limit(tmp_path: Path, model: Path, data: Path) -> None:
    target = tmp_path / "found.json"
    options = ("--limit", 1, "--split", "train", "--latency-rows", 0, "--max-tokens", 4, "-o", target)
    result = tasc("eval", "--model", model, "--data", data, *options)
    assert result.exit_code == 0, result.output
    assert "difference" not in result.stdout
    found = json.loads(target.read_text())
    assert [o["input"] for o in found["outputs"]] == [ROWS[0]["input"]]
    assert "comparison" not in found and found["latency"] == []


def test_slot_f1_is_split_by_the_training_rows(tmp_path: Path, model: Path) -> None:
    """The split `train` of the file counts, not the rows that are answered."""
    pytest.importorskip("jinja2")
    data = written(tmp_path / "rows.jsonl", [*ROWS, {"input": "flights", "output": ROWS[0]["output"], "split": "test"}])
    files = [tmp_path / "found.json", tmp_path / "found.html"]
    options = ("--latency-rows", 0, "--max-tokens", 4, "-o", files[0], "--html", files[1])
    result = tasc("eval", "--model", model, "--against", model, "--data", data, "--train", data, *options)
    assert result.exit_code == 0, result.output
    measures = json.loads(files[0].read_text())["models"]["model"]["measures"]
    assert (measures["slot_f1_unseen"]["value"], measures["slot_f1_rare"]["value"]) == (0.0, 0.0)
    assert measures["slot_f1_frequent"]["value"] is None
    assert "slot F1, in 1 to 5 rows of training" in result.stdout
    assert "slot F1, in 1 to 5 rows of training" in files[1].read_text()
    words = written(tmp_path / "words.jsonl", [{"input": "a", "output": "plain words"}])
    refused = tasc("eval", "--model", model, "--data", data, "--train", words)
    assert f"--train {words}: no output is JSON with slots" in said(refused, 2)


def test_rows_without_a_split_are_all_taken(tmp_path: Path, model: Path) -> None:
    data = written(tmp_path / "rows.jsonl", [{"input": r["input"], "output": r["output"]} for r in ROWS])
    result = tasc("eval", "--model", model, "--data", data, "--latency-rows", 0, "--max-tokens", 2)
    assert "4 rows, greedy" in result.stdout


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], [], "there is no row to evaluate"),
        ([{"output": "x"}], [], "row 1 has no input"),
        (ROWS, ["--split", "dev"], "no row has the split 'dev'"),
        (ROWS, ["--batch-sizes", "1,0"], "--batch-sizes is '1,0'"),
        (ROWS, ["--batch-sizes", ""], "--batch-sizes is ''"),
        (ROWS, ["--model", "no/such/folder"], "cannot load model 'no/such/folder'"),
        (ROWS, ["--against", "no/such/folder"], "cannot load model 'no/such/folder'"),
        (ROWS, ["--max-tokens", "500"], "do not fit into the model's context of 64"),
        (ROWS, ["--dtype", "int3"], "dtype 'int3' is none of"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, model: Path, rows: list[Any], options: list[str], message: str
) -> None:
    data = written(tmp_path / "rows.jsonl", rows)
    assert message in said(tasc("eval", "--model", model, "--data", data, *options), 2)


def test_a_broken_line_is_named(tmp_path: Path, model: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"input": "a", "output": "b"}\n{"input": \n')
    assert "rows.jsonl:2: is not JSON" in said(tasc("eval", "--model", model, "--data", data), 2)


def test_an_extended_checkpoint_beside_the_model_it_was_made_from(tmp_path: Path) -> None:
    from tasc import extend_checkpoint, learn_vocabulary

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    texts = [f'{{"{way}": "{city}"}}' for way in ("to", "from") for city in ("boston", "denver", "köln")]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(special_tokens=["</s>"], initial_alphabet=alphabet, vocab_size=270)
    )
    source, data = tmp_path / "source", written(tmp_path / "rows.jsonl", [{"input": t, "output": t} for t in texts * 4])
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>").save_pretrained(source)
    random_model(270, seed=3).save_pretrained(source)
    plan = learn_vocabulary(data, source, tmp_path / "plan", size=12, min_documents=1, held_out=0.0)
    folder = extend_checkpoint(source, plan, tmp_path / "extended")
    target = tmp_path / "found.json"
    options = (
        "--max-tokens",
        16,
        "--latency-rows",
        2,
        "--batch-sizes",
        2,
        "--rounds",
        1,
        "--limit",
        6,
        "-o",
        target,
    )
    result = tasc("eval", "--model", folder, "--against", source, "--data", data, *options)
    assert result.exit_code == 0, result.output
    found = json.loads(target.read_text())
    counts = found["models"]["model"]["counts"]
    assert (counts["new_tokens"], counts["rows"], counts["round_trip"]) == (len(plan), 6, 6)
    assert found["models"]["against"]["counts"]["new_tokens"] == 0
    assert found["models"]["model"]["measures"]["non_canonical_outputs"]["value"] is not None
