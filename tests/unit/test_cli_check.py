"""`tasc check`: what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import train_tokenizer
from typer.testing import CliRunner, Result

from tasc.cli import app
from tasc.cli.console import out

CITIES = ["boston", "denver", "dallas", "oakland", "atlanta", "seattle", "memphis", "newark"]
ROWS = [
    {"input": f"from {a} to {b} on day {day}", "output": f'{{"intent": "flight", "from": "{a}", "to": "{b}"}}'}
    for day in range(3)
    for a in CITIES
    for b in CITIES
    if a != b
]


def tasc(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train_tokenizer(["<|endoftext|>"]).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_drafts_are_replayed_on_held_out_rows(data: Path, model: Path, tmp_path: Path) -> None:
    result = tasc("check", data, "--tokenizer", model, "--json", "-o", tmp_path / "check.json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "check.json").read_text())
    assert found["rows"] == {"all": 168, "train": 118, "held_out": 50, "with_input": 168, "split_by": "hash"}
    costs = [one["cost"] for one in found["drafts"]]
    speedups = [one["speedup"] for one in found["drafts"]]
    assert costs == [0.02, 0.05, 0.1, 0.2]
    assert all(one["low"] <= one["value"] <= one["high"] for one in speedups)
    assert speedups[0]["value"] > speedups[-1]["value"] > 1


def test_the_text_names_the_split_the_verdict_and_the_next_commands(data: Path, model: Path) -> None:
    result = tasc("check", data, "--tokenizer", model)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "168 rows, 168 with an input: 118 indexed, 50 held out (by a hash of the input)" in text
    for part in (
        "Worth it: drafts bring",
        "Speed-up by the cost",
        "Task vocabulary alone, 95 % of",
        "H₂ of the output",
    ):
        assert part in text
    assert f"  tasc index build {data} --tokenizer {model} -o task.tasc\n" in result.stdout


def test_a_split_column_is_respected(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "split rows.jsonl"
    rows = [row | {"split": "test" if k % 4 == 0 else "train"} for k, row in enumerate(ROWS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = tasc("check", file, "--tokenizer", model)
    assert "126 indexed, 42 held out (by their split column)" in result.stdout
    assert f"tasc index build '{file}' --split train --tokenizer" in result.stdout


@pytest.mark.parametrize("width", [50, 80])
def test_nothing_but_commands_is_wider_than_the_terminal(
    data: Path, model: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", width)
    lines = tasc("check", data, "--tokenizer", model).stdout.splitlines()
    assert max(len(line) for line in lines if not line.startswith("  tasc")) <= width
