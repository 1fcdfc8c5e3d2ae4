"""The page of promises names tests and make targets that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text()
SOURCES = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE))))
def test_a_named_file_is_there(named: str) -> None:
    assert (ROOT / named).exists() or (ROOT / "rust/tasc-core" / named).exists()


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_a_named_test_is_there(named: str) -> None:
    assert f"def {named}(" in SOURCES


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)`", PAGE))))
def test_a_named_target_is_there(target: str) -> None:
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()
