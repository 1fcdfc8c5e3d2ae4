"""The measurements page is what its records give, and README has no other figures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_measurements", ROOT / "docs" / "build_measurements.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(builder: ModuleType) -> None:
    assert builder.PAGE.read_text(encoding="utf-8") == builder.page()


def test_every_figure_of_readme_is_a_record(builder: ModuleType) -> None:
    assert builder.unknown_figures(builder.README.read_text(encoding="utf-8")) == []


def test_a_figure_without_a_record_is_found(builder: ModuleType) -> None:
    readme = builder.README.read_text(encoding="utf-8")
    assert builder.unknown_figures(readme.replace("| 178.0 | plain decoding |", "| 179.0 | plain decoding |"))


def test_records_have_ids_of_their_own_and_known_machines(builder: ModuleType) -> None:
    machines = json.loads((builder.DATA / "machines.json").read_text(encoding="utf-8"))
    ids = [record["id"] for record in builder.records()]
    assert len(ids) == len(set(ids))
    assert {record["machine"] for record in builder.records()} <= set(machines)
