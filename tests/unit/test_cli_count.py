"""`tasc count`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import train_tokenizer
from typer.testing import CliRunner, Result

from tasc.cli import app
from tasc.data import NgramTable, TokenStore

ROWS = [{"output": "[b] boston", "split": "train"}, {"output": "[b] boston"}, {"output": "fare\n"}]


def tasc(*args: str | Path | int) -> Result:
    return CliRunner().invoke(app, ["count", *map(str, args)], prog_name="tasc")


def said(result: Result) -> str:
    """What went to standard error of a run that was refused."""
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def store(rows: Path, tokenizer_file: Path, tmp_path: Path) -> TokenStore:
    return TokenStore.build(rows, tokenizer_file, tmp_path / "rows.store")


def test_help() -> None:
    result = tasc("--help")
    assert result.exit_code == 0
    assert "Usage: tasc count" in result.stdout


def test_rows_become_a_table(rows: Path, tokenizer_file: Path, store: TokenStore, tmp_path: Path) -> None:
    table = tmp_path / "t"
    result = tasc(rows, "--tokenizer", tokenizer_file, "-o", table, "--max-length", 2, "--top", 3, "-n", 2, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["documents"] == 2
    assert found["weight"] == 3
    assert len(found["ngrams"]) == 2
    assert [best["count"] for best in found["top"]] == [2, 2, 2]
    assert all(len(best["ids"]) == 2 and best["documents"] == 1 for best in found["top"])
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "rows.store", "t"}
    again = tmp_path / "again"
    assert tasc(store.path, "-o", again, "--max-length", 2, "--memory-limit", "64MB", "--threads", 1).exit_code == 0
    assert again.read_bytes() == table.read_bytes()


def test_n_grams_are_shown_as_text_or_as_ids(store: TokenStore, tokenizer_file: Path, tmp_path: Path) -> None:
    table = tmp_path / "t"
    result = tasc(store.path, "-o", table, "--top", 40, "--tokenizer", tokenizer_file)
    assert result.exit_code == 0, result.output
    assert '"<|im_end|>"' in result.stdout
    assert '"[b] ' in result.stdout
    assert "\\n" in result.stdout
    best = NgramTable.open(table).top(1)[0][0].tolist()
    shown = tasc(table, "--top", 1)
    assert " ".join(map(str, best)) in shown.stdout
    assert "max" not in shown.stderr


def test_one_split(rows: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    result = tasc(rows, "--tokenizer", tokenizer_file, "-o", tmp_path / "t", "--split", "train", "--json")
    assert json.loads(result.stdout)["weight"] == 1


def test_tables_add_up(store: TokenStore, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        NgramTable.count(store, path, max_length=2)
    result = tasc(one, two, "-o", tmp_path / "sum", "--min-count", 4, "--json")
    found = json.loads(result.stdout)
    assert (found["documents"], found["weight"], found["min_count"]) == (4, 6, 4)


def test_refusals(rows: Path, store: TokenStore, tokenizer_file: Path, tmp_path: Path) -> None:
    table = NgramTable.count(store, tmp_path / "t").path
    out = tmp_path / "out"
    assert "--tokenizer" in said(tasc(rows, "-o", out))
    assert "-o FILE" in said(tasc(store.path))
    assert "either rows" in said(tasc(store.path, rows, "-o", out))
    assert "either rows" in said(tasc(store.path, table, "-o", out))
    assert "number of bytes" in said(tasc(store.path, "-o", out, "--memory-limit", "much"))
    assert "none of 9" in said(tasc(table, "--top", 1, "-n", 9))
    assert "No such file" in said(tasc(tmp_path / "nothing", "-o", out))
    other = tmp_path / "other.json"
    train_tokenizer(["<|im_end|>"], 300).save(str(other))
    assert "another tokenizer" in said(tasc(table, "--tokenizer", other))
    assert not out.exists()
