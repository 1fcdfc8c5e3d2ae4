"""The layers of the package: imports point down, no modules import each other in a circle, drafting needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tasc

ROOT = Path(tasc.__file__).parent

LAYERS = [
    {"errors", "checks", "progress", "files", "printable", "portable", "_core"},
    {"models", "data"},
    {"drafting"},
    {"decoding", "serving"},
    {"adapters"},
    {"vocab"},
    {"evaluation"},
    {"training"},
    {"cli", "__main__"},
]
"""Lowest first. A package may import those of its own layer and of the layers below, but `SIBLINGS` not each other."""

SIBLINGS = [{"decoding", "serving"}]

TORCHLESS = ("data", "drafting", "serving")
"""Packages that are imported where torch is not installed."""

PROBED = {
    "name", "fixed_length", "negligible_cost", "index", "start", "propose_batch", "check_vocabulary", "serve",
    "with_index", "num_served", "draft", "update", "configure", "tokens", "probs", "sources", "dists",
    "is_cheap", "always_drafts", "take_terms", "over",
}  # fmt: skip
"""Attributes of drafters, requests and drafts: `tasc.drafting.protocol` declares them, so no probes."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["tasc", *path.relative_to(ROOT).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


NAMES = dict(modules())


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run, those under `if TYPE_CHECKING` left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (inner for other in child.orelse for inner in [other, *runtime_nodes(other)])
        else:
            yield child
            yield from runtime_nodes(child)


@cache
def imported(name: str) -> frozenset[str]:
    """Modules of tasc that a module imports, in functions too."""
    found = set()
    for node in runtime_nodes(ast.parse(NAMES[name].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{name} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(one if one in NAMES else node.module for one in inner)
    return frozenset(one for one in found if one.split(".")[0] == "tasc" and one not in ("tasc", name))


def package(name: str) -> str:
    return name.split(".")[1]


def height(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if package(name) in layer)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tasc"])
def test_imports_point_down(name: str) -> None:
    for other in imported(name):
        assert height(other) <= height(name), f"{name} imports {other}, which lies above it"
        for pair in SIBLINGS:
            both = {package(name), package(other)}
            assert both != pair, f"{name} imports {other}; {' and '.join(sorted(pair))} do not know each other"


def test_no_circles() -> None:
    graph = {name: {one for one in imported(name) if one in NAMES} for name in NAMES if name != "tasc"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"modules import each other: {' → '.join(error.args[1])}") from None


def test_drafting_needs_no_torch() -> None:
    names = [name for name in NAMES if name.split(".")[1:2] and package(name) in TORCHLESS]
    code = (
        "import sys\n"
        "for blocked in ('torch', 'transformers', 'vllm', 'sglang'): sys.modules[blocked] = None\n"
        "import tasc\n"
        "from importlib import import_module\n"
        f"for name in {['tasc.adapters.vllm', 'tasc.adapters.vllm_suffix', 'tasc.adapters.sglang_corpus', *names]}:\n"
        "    import_module(name)\n"
        "assert tasc.NgramDrafter().start([1, 2, 1]).draft(4) is not None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_packages_for_training_are_imported_where_they_are_used(name: str) -> None:
    """An engine's environment has torch and transformers, but not these: models and heads load there."""
    tree = ast.parse(NAMES[name].read_text())
    tops = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    tops |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not {top.partition(".")[0] for top in tops} & {"accelerate", "peft", "bitsandbytes", "torchao"}


def test_nobody_asks_drafters_by_attribute_name() -> None:
    for name, path in NAMES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1):
                continue
            asked = node.args[1]
            if node.func.id in ("getattr", "hasattr") and isinstance(asked, ast.Constant):
                assert asked.value not in PROBED, f"{name}:{node.lineno} asks for {asked.value!r} by name"
