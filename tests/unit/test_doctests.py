"""Examples in docstrings run: those of all modules, and those of the stub of the compiled core."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_task import build_toy_task

import tasc
from tasc import _core
from tasc.errors import MissingExtraError

OPTIONAL = {"torch", "transformers", "peft", "accelerate", "vllm", "sglang", "llama_cpp", "matplotlib", "jinja2"}
MODULES = [
    module.name for module in pkgutil.walk_packages(tasc.__path__, "tasc.") if not module.name.endswith(".__main__")
]
STUB = Path(tasc.__file__).with_name("_core.pyi")


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{name} needs {error.name}")
    assert doctest.testmod(module).failed == 0


def documented(path: Path) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of the classes, functions and methods of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            for inner in (node, *(item for item in node.body if isinstance(item, ast.FunctionDef))):
                name = node.name if inner is node else f"{node.name}.{inner.name}"
                yield name, ast.get_docstring(inner) or ""


DOCS = dict(documented(STUB))


@pytest.mark.parametrize("name", [name for name, text in DOCS.items() if ">>>" in text])
def test_examples_of_the_stub_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {**vars(_core), **build_toy_task(tmp_path)}
    test = doctest.DocTestParser().get_doctest(DOCS[name], names, name, str(STUB), 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_public_classes_of_the_core_have_examples() -> None:
    wanted = {"Store", "NgramTable", "TaskIndex", "MergePlan", "PlanStream", "Draft", "NgramRequest", "NgramDrafter"}
    assert wanted <= {name for name, text in DOCS.items() if ">>>" in text}


def test_the_binding_s_docstrings_begin_as_the_stub_s() -> None:
    """`help(tasc.TaskIndex)` shows the binding's docstrings, which are the first paragraphs of the stub's."""
    differ = {}
    for name, text in DOCS.items():
        *_, last = name.split(".")
        found = functools.reduce(getattr, name.split("."), _core) if name.split(".")[0] in vars(_core) else None
        if found is not None and not last.startswith("__"):
            ours, theirs = (" ".join((doc or "").split("\n\n")[0].split()) for doc in (text, found.__doc__))
            if ours != theirs:
                differ[name] = (ours, theirs)
    assert differ == {}
