"""README and docs are true to the code: Python blocks compile and find what they import, those marked `<!-- run -->`
run, and every `tasc …` command line has a command and options that exist.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from toy_task import build_toy_task

from tasc.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(?P<mark><!-- run -->\n+)?```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```", re.M | re.S)
SHELL = ("", "bash", "sh", "shell", "console")


def blocks(*languages: str) -> list[Any]:
    """(text, whether it is marked) of the fenced blocks in these languages, named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start("text")) + 1
                values = (match["text"], match["mark"] is not None)
                found.append(pytest.param(*values, id=f"{page.relative_to(ROOT)}:{line}"))
    return found


@pytest.mark.parametrize(("text", "marked"), blocks("python"))
def test_a_python_block_finds_what_it_imports(text: str, marked: bool) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tasc":
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tasc":
                    importlib.import_module(alias.name)


@pytest.mark.parametrize("text", [param.values[0] for param in blocks("python") if param.values[1]])
def test_a_marked_block_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model of random weights in place of the one that it names, beside a task of six rows."""
    transformers = pytest.importorskip("transformers")
    from tiny_models import tiny_model

    task = build_toy_task(tmp_path)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=task["tokenizer"].tokenizer, eos_token="<|endoftext|>"
    )
    model = tiny_model("llama", vocab=task["tokenizer"].vocab_size)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    monkeypatch.chdir(tmp_path)
    inputs = tokenizer("2 tea\n", return_tensors="pt", return_token_type_ids=False)
    exec(compile(text, "block", "exec"), {"model": model, "tokenizer": tokenizer, "inputs": inputs})


def test_some_blocks_are_marked() -> None:
    assert any(param.values[1] for param in blocks("python"))


def block_commands() -> list[Any]:
    """The lines of shell blocks that call `tasc`, without variables before it."""
    found = []
    for param in blocks(*SHELL):
        lines = param.values[0].replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines if re.match(r"(\$ )?([A-Z_]+=\S+ )*tasc ", line)]
        found += [pytest.param(line[line.index("tasc") + 1 :], id=f"{param.id}: {shlex.join(line)}") for line in words]
    return found


def inline_commands() -> list[Any]:
    """Code spans that begin with `tasc `; they may leave out arguments, as `[--option]` and `COMMAND` do."""
    found = []
    for page in PAGES:
        prose = BLOCK.sub("", page.read_text())
        for span in sorted(set(re.findall(r"`(tasc\s[^`]+)`", prose))):
            words = re.sub(r"[\[\]…]", " ", span).split()
            found.append(pytest.param(words[1:], id=f"{page.relative_to(ROOT)}: {' '.join(words)}"))
    return found


def parse(words: list[str], *, whole: bool) -> None:
    """Walk to the command that the words name and look up its options; `whole`: parse all that it requires."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("tasc", ["--help"], resilient_parsing=True)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0].isupper():
            return
        assert words[0] in command.commands, f"there is no command {words[0]}: {sorted(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
        context = type(context)(command, parent=context, info_name=command.name)
    values, _, _ = command.make_parser(context).parse_args(list(words)) if whole else ({}, None, None)
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    named = {word.split("=")[0] for word in words if word.startswith("-")}
    assert named <= options | {"-h", "--help"}, f"{command.name} has no {sorted(named - options)}"
    if whole:
        left_out = [p.name for p in command.params if p.required and not values.get(p.name)]
        assert left_out == [], f"{command.name} needs {left_out}"


@pytest.mark.parametrize("words", block_commands())
def test_a_command_of_a_block_can_be_called(words: list[str]) -> None:
    parse(words, whole=True)


@pytest.mark.parametrize("words", inline_commands())
def test_a_command_in_the_text_exists(words: list[str]) -> None:
    parse(words, whole=False)
