"""Every type of `AutoModelForCausalLM`, tiny: equal to `generate`, or refused in one line.

A run of all of them writes docs/architectures.json, which docs/build_architectures.py makes a page of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers")

from matrix import CRASHES, DIFFERS, Result, check  # noqa: E402
from tiny import cases  # noqa: E402

DATA = Path(__file__).parents[2] / "docs" / "architectures.json"
CASES = list(cases())


@pytest.fixture(scope="module")
def results() -> Iterator[dict[tuple[str, str], Result]]:
    found: dict[tuple[str, str], Result] = {}
    yield found
    if len(found) == len(CASES):
        rows = [asdict(found[case]) for case in CASES]
        written = {"transformers": transformers.__version__, "results": rows}
        DATA.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@pytest.mark.architectures
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case).strip())
def test_equal_or_refused(case: tuple[str, str], results: dict[tuple[str, str], Result]) -> None:
    results[case] = check(*case)
    assert results[case].state not in (CRASHES, DIFFERS), results[case].detail
