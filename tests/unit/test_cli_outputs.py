"""Outputs of all commands: no input is overwritten, and no file that exists without `--force`."""

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner, Result

from tasc.cli import app
from tasc.cli.outputs import Commands, output_options


def commands(group: typer.Typer, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the app: its words, and the function with its parameters."""
    assert isinstance(group, Commands), f"{words}: a group of `typer.Typer`, whose outputs are not checked"
    for command in group.registered_commands:
        assert command.callback is not None
        yield (*words, command.name or command.callback.__name__.replace("_", "-")), command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, (*words, inner.name or ""))


COMMANDS = dict(commands(app))
OUTPUTS = [(words, name) for words, function in COMMANDS.items() for name in output_options(function)]


def parameters(function: Any) -> dict[str, tuple[Any, Any, bool]]:
    """Type, Typer's information and whether it is required, by parameter."""
    hints = get_type_hints(function, include_extras=True)
    required = {name for name, one in inspect.signature(function).parameters.items() if one.default is one.empty}
    return {
        name: (*get_args(hint)[:2], name in required)
        for name, hint in hints.items() if hasattr(hint, "__metadata__")
    }  # fmt: skip


def flags(name: str, info: Any) -> list[str]:
    """The flag of an option; nothing for an argument."""
    if not isinstance(info, typer.models.OptionInfo):
        return []
    given = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
    return [given[0] if given else f"--{name.replace('_', '-')}"]


def holds_path(kind: Any) -> bool:
    return kind is Path or Path in get_args(kind) or any(Path in get_args(one) for one in get_args(kind))


def line(words: tuple[str, ...], folder: Path, values: dict[str, Path]) -> list[str]:
    """A command line with these values, and a file or a new name for every other required parameter."""
    found = []
    outputs = output_options(COMMANDS[words])
    for name, (_, info, required) in parameters(COMMANDS[words]).items():
        if required or name in values:
            default = folder / f"new-{name}" if name in outputs else folder / "other.jsonl"
            found += [*flags(name, info), str(values.get(name, default))]
    return [*words, *found]


def run(arguments: list[str]) -> tuple[Result, str]:
    result = CliRunner().invoke(app, arguments, prog_name="tasc")
    return result, " ".join(result.stderr.split())


def spelled(folder: Path) -> dict[str, Callable[[Path], Path]]:
    def linked(make: Callable[[Path, Path], None], name: str) -> Callable[[Path], Path]:
        def link(path: Path) -> Path:
            make(path, folder / name)
            return folder / name

        return link

    return {
        "same": lambda path: path,
        "spelling": lambda path: path.parent / "none" / ".." / path.name,
        "link": linked(lambda path, at: at.symlink_to(path), "link"),
        "hard link": linked(lambda path, at: os.link(path, at), "hard"),
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_output_is_declared(words: tuple[str, ...]) -> None:
    """An option that writes says "Write …" and has `writable=True`, by which the checks find it."""
    function = COMMANDS[words]
    outputs = output_options(function)
    for name, (kind, info, _) in parameters(function).items():
        if holds_path(kind):
            assert (name in outputs) == info.help.startswith("Write "), f"{name}: {info.help}"
    files = [option for option in outputs.values() if option.file_okay]
    assert ("force" in inspect.signature(function).parameters) == bool(files)
    assert not outputs or hasattr(function, "__wrapped__"), "the outputs are not checked"


@pytest.mark.parametrize(("words", "output"), OUTPUTS, ids=str)
@pytest.mark.parametrize("spelling", ["same", "spelling", "link", "hard link"])
def test_no_input_is_overwritten(tmp_path: Path, words: tuple[str, ...], output: str, spelling: str) -> None:
    function = COMMANDS[words]
    (tmp_path / "other.jsonl").write_text("other")
    is_folder = not output_options(function)[output].file_okay
    if is_folder and spelling == "hard link":
        return  # a folder has none
    inputs = [
        name for name, (kind, _, required) in parameters(function).items()
        if name not in output_options(function) and (holds_path(kind) or (kind is str and required))
    ]  # fmt: skip
    assert inputs
    for number, name in enumerate(inputs):
        own = tmp_path / f"{number}"
        own.mkdir()
        source = own / "input.jsonl"
        _ = source.mkdir() if is_folder else source.write_text("kept")
        arguments = line(words, tmp_path, {name: source, output: spelled(own)[spelling](source)})
        result, said = run(arguments if is_folder else [*arguments, "--force"])
        assert (result.exit_code, "is one of the inputs" in said) == (2, True), (name, said)
        assert source.is_dir() if is_folder else source.read_text() == "kept"


@pytest.mark.parametrize("log", ["served", "served.1", f"served.{'0a' * 16}", f"served.{'0a' * 16}.2"])
def test_the_log_of_an_index_is_not_overwritten(tmp_path: Path, log: str) -> None:
    """The log of served rows is an input that no option names."""
    for name in ("other.jsonl", "task.tasc"):
        (tmp_path / name).write_text("kept")
    output = tmp_path / f"task.tasc.{log}"
    output.write_text("kept")
    words = [*line(("check",), tmp_path, {"index": tmp_path / "task.tasc"}), "--tokenizer", "none", "--force"]
    for flag in ("-o", "--html"):
        result, said = run([*words, flag, str(output)])
        assert (result.exit_code, "is the log of served rows of task.tasc; name another" in said) == (2, True), said
        assert output.read_text() == "kept"


@pytest.mark.parametrize(("words", "output"), OUTPUTS, ids=str)
def test_files_that_exist_need_force(tmp_path: Path, words: tuple[str, ...], output: str) -> None:
    if not output_options(COMMANDS[words])[output].file_okay:
        return  # folders: test_vocab_cli.py, test_tune.py, test_distill_cli.py
    (tmp_path / "other.jsonl").write_text("other")
    there = tmp_path / "there"
    there.write_text("kept")
    result, said = run(line(words, tmp_path, {output: there}))
    assert result.exit_code == 2
    assert f"{there} exists; name another file, or add --force to replace it" in said
    assert there.read_text() == "kept"
    for wrong, why in (
        (Path("-"), "- would be standard output"),
        (tmp_path, "it is a folder; name a file"),
        (there / "x" / "y", f"{there} is a file; name another folder"),
    ):
        result, said = run([*line(words, tmp_path, {output: wrong}), "--force"])
        assert (result.exit_code, why in said) == (2, True), said


def test_a_report_without_its_packages_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasc.cli.options.find_spec", lambda name: None)
    for words, output in OUTPUTS:
        if output == "html":
            result, said = run(line(words, tmp_path, {output: tmp_path / "page.html"}))
            assert (result.exit_code, "needs the packages of tasc-lm[report]" in said) == (2, True), said


def toy(body: Callable[[Path, Path | None], None]) -> Commands:
    made = Commands()

    @made.command()
    def go(
        source: Path,
        output: Annotated[Path, typer.Option("--output", "-o", writable=True)],
        html: Annotated[Path | None, typer.Option(writable=True)] = None,
    ) -> None:
        body(output, html)

    return made


@pytest.mark.parametrize(("words", "output"), OUTPUTS)
def test_an_output_below_a_file_is_refused_first(tmp_path: Path, words: tuple[str, ...], output: str) -> None:
    (tmp_path / "other.jsonl").write_text("kept")
    result, said = run(line(words, tmp_path, {output: tmp_path / "other.jsonl" / "out"}))
    assert result.exit_code == 2, result.output
    assert "cannot write" in said and "other.jsonl is a file; name another folder" in said
    assert [file.name for file in tmp_path.iterdir()] == ["other.jsonl"]
    assert (tmp_path / "other.jsonl").read_text() == "kept"


def test_folders_are_made_and_go_again_when_nothing_is_written(tmp_path: Path) -> None:
    def write(output: Path, html: Path | None) -> None:
        output.write_text("new")

    def fail(output: Path, html: Path | None) -> None:
        assert output.parent.is_dir()
        raise RuntimeError

    output = tmp_path / "a" / "b" / "out"
    assert CliRunner().invoke(toy(fail), ["in", "-o", str(output)]).exit_code == 1
    assert list(tmp_path.iterdir()) == []
    assert CliRunner().invoke(toy(write), ["in", "-o", str(output)]).exit_code == 0
    assert output.read_text() == "new"
    output.write_text("old")
    refused = CliRunner().invoke(toy(write), ["in", "-o", str(output)])
    assert "exists" in str(refused.exception) and output.read_text() == "old"
    assert CliRunner().invoke(toy(write), ["in", "-o", str(output), "--force"]).exit_code == 0
    assert output.read_text() == "new"


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    both = ["-o", str(tmp_path / "out"), "--html", str(tmp_path / "x" / ".." / "out")]
    result = CliRunner().invoke(toy(lambda output, html: None), ["in", *both])
    assert "-o and --html name the same file" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
