"""`import tasc` loads the compiled core and standard modules only: public names are loaded on first use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest


def loaded(statement: str) -> set[str]:
    """Top-level modules outside the standard library that a statement loads in a new interpreter."""
    code = f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)


def test_import_loads_the_core_alone() -> None:
    assert loaded("import tasc") == {"tasc"}


@pytest.mark.parametrize("name", ["TaskIndex", "NgramDrafter", "TokenStore", "Drafter", "MergePlan", "load_tokenizer"])
def test_names_for_drafting_need_no_torch(name: str) -> None:
    assert not loaded(f"import tasc; tasc.{name}") & {"torch", "transformers"}


def test_type_checkers_see_the_same_names() -> None:
    import tasc

    stub = Path(tasc.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    shown = {
        alias.name for node in ast.walk(ast.parse(stub)) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert shown - {"__version__"} == set(tasc.__all__) - {"__version__"}
