"""`tasc bench --compare A B`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tasc.cli import app
from tasc.evaluation.bench_comparison import compared

A: dict[str, Any] = {
    "settings": {"max_tokens": 64}, "machine": {"gpu": None, "cpus": 2},
    "provenance": {"model": {"name": "m", "dtype": "float32"}, "date": "today", "indexed": [{"path": "a"}]},
    "methods": {
        "plain": {"tokens_per_second": 10.0, "speedup": 1.0, "latency_p50": 2.0},
        "tasc": {"tokens_per_second": 50.0, "speedup": 5.0, "latency_p50": 0.5, "tau": 8.0, "accepted": 0.0},
        "suffix-1": {"tokens_per_second": 20.0},
    },
}  # fmt: skip
B: dict[str, Any] = {
    "settings": {"max_tokens": 64}, "machine": {"gpu": "H200", "cpus": 2},
    "provenance": {"model": {"name": "m", "dtype": "bfloat16"}, "date": "later", "indexed": [{"path": "b"}]},
    "methods": {
        "plain": {"tokens_per_second": 100.0, "speedup": 1.0, "latency_p50": 0.2},
        "tasc": {"tokens_per_second": 400.0, "speedup": 4.0, "latency_p50": 0.06, "tau": 8.0, "accepted": 0.5},
        "model": {"tokens_per_second": 7.0},
    },
}  # fmt: skip


def test_ratios_and_what_differs() -> None:
    found = compared(A, B)
    assert list(found["methods"]) == ["plain", "tasc"]
    assert found["methods"]["tasc"]["speedup"] == {"a": 5.0, "b": 4.0, "ratio": 0.8}
    assert found["methods"]["tasc"]["accepted"] == {"a": 0.0, "b": 0.5, "ratio": None}
    assert "tau" not in found["methods"]["plain"]
    assert found["differences"] == {
        "machine gpu": (None, "H200"),
        "provenance model dtype": ("float32", "bfloat16"),
        "provenance indexed 1 path": ("a", "b"),
    }
    assert found["only"] == {"a": ["suffix-1"], "b": ["model"]}
    assert compared(A, A)["differences"] == {} == compared(A, A)["only"]


def test_the_command_prints_both(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, results in zip(files, (A, B), strict=True):
        file.write_text(json.dumps(results))
    result = CliRunner().invoke(app, ["bench", "--compare", *map(str, files)])
    assert result.exit_code == 0, result.output
    for part in ("8.00", "400.00", "0.80", "machine gpu: A None, B H200", "only in A: suffix-1"):
        assert part in result.stdout
    as_json = CliRunner().invoke(app, ["bench", "--compare", *map(str, files), "--json"])
    assert json.loads(as_json.stdout)["methods"]["tasc"]["tokens_per_second"]["ratio"] == 8.0
    files[1].write_text('{"methods": {}}')
    for arguments, why in (
        (["--compare", *map(str, files)], "results hold no methods"),
        ([], "name the model with --model, or two files of results with --compare"),
    ):
        refused = CliRunner().invoke(app, ["bench", *arguments])
        assert (refused.exit_code, why in " ".join(refused.stderr.split())) == (2, True), refused.output
