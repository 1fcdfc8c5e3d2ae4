"""The page of architectures is what its results give, and the results are of all architectures."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_architectures", ROOT / "docs" / "build_architectures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(builder: ModuleType) -> None:
    assert builder.PAGE.read_text(encoding="utf-8") == builder.page()


def test_a_type_counts_where_its_worst_configuration_does(builder: ModuleType) -> None:
    rows = [{"model_type": "a", "state": "equal"}, {"model_type": "b", "state": "equal"}]
    rows += [{"model_type": "b", "state": "refused"}]
    assert builder.counts(rows).splitlines() == [
        "| Equal to `generate` | 1 | 2 |", "| Refused | 1 | 1 |", "| All | 2 | 3 |",
    ]  # fmt: skip


def test_refusals_are_one_line(builder: ModuleType) -> None:
    results = json.loads(builder.DATA.read_text(encoding="utf-8"))["results"]
    assert [row for row in results if "\n" in row["detail"]] == []


def test_every_architecture_has_a_result(builder: ModuleType) -> None:
    transformers = pytest.importorskip("transformers")
    sys.path.insert(0, str(ROOT / "tests" / "architectures"))
    from tiny import cases

    data = json.loads(builder.DATA.read_text(encoding="utf-8"))
    if data["transformers"] != transformers.__version__:
        pytest.skip(f"the results are of transformers {data['transformers']}")
    assert [(row["model_type"], row["name"]) for row in data["results"]] == list(cases())
