"""`tasc vocab`: a plan is learnt, listed and put into a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from vocabularies import ROWS, make_tokenizer, saved

from tasc.cli import app
from tasc.data import load_tokenizer

pytest.importorskip("transformers")


def tasc(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from test_extended_model import make_model

    folder = saved(make_tokenizer("byte-level"), tmp_path_factory.mktemp("models") / "tiny")
    make_model("llama-tied", load_tokenizer(folder).vocab_size).save_pretrained(folder)
    return folder


@pytest.fixture
def plan(tmp_path: Path, model: Path) -> Path:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({**row, "split": "train"}) + "\n" for row in ROWS))
    floors = ("--min-count", "2", "--min-documents", "2", "--max-length", "12", "--held-out", "0.2")
    result = tasc("vocab", "learn", rows, "--tokenizer", model, "-k", "30", "-o", tmp_path / "task.plan", *floors)
    assert result.exit_code == 0, result.output
    assert "new tokens; " in result.stdout and "on rows left out" in result.stdout
    return tmp_path / "task.plan"


def test_a_plan_is_listed(plan: Path, model: Path) -> None:
    result = tasc("vocab", "show", plan, "--tokenizer", model, "--top", "3")
    assert result.exit_code == 0, result.output
    assert "New tokens, the most used first" in result.stdout and "rows left out, %" in result.stdout
    facts = json.loads(tasc("vocab", "show", plan, "--tokenizer", model, "--json").stdout)
    listed = facts["new_tokens"]
    assert len(listed) == facts["size"] > 3
    assert [t["uses"] for t in listed] == sorted((t["uses"] for t in listed), reverse=True)
    assert any(t["text"] in ROWS[0]["output"] for t in listed)
    assert all(2 <= t["length"] <= 12 and t["documents"] >= 2 for t in listed)


def test_a_model_is_extended(plan: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "extended"
    result = tasc("vocab", "apply", "--model", model, "--plan", plan, "-o", out, "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    extended = load_tokenizer(out)
    assert extended.plan is not None and f"{len(extended.plan)} new tokens" in result.stdout
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert tasc("vocab", "show", out / "merge_plan.tasc", "--tokenizer", out).exit_code == 0
    again = tasc("vocab", "apply", "--model", model, "--plan", plan, "-o", out)
    assert again.exit_code == 2 and "is there already" in " ".join(again.stderr.split())


def test_another_tokenizer_is_refused(plan: Path, tmp_path: Path) -> None:
    other = saved(make_tokenizer("byte-level", 300), tmp_path / "other")
    for args in (
        ("show", plan, "--tokenizer", other),
        ("apply", "--model", other, "--plan", plan, "-o", tmp_path / "x"),
    ):
        result = tasc("vocab", *args)
        assert result.exit_code == 2
        assert "was made by the tokenizer tiny" in " ".join(result.stderr.split())
    assert not (tmp_path / "x").exists()
