"""`tasc check`: what it prints and writes."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import train_tokenizer
from typer.main import get_command
from typer.testing import CliRunner, Result

from tasc import NgramDrafter, TaskIndex, load_tokenizer
from tasc.cli import app
from tasc.cli.check import _named, check
from tasc.cli.console import out
from tasc.evaluation.check.drafts import draft_figures
from tasc.evaluation.check.drift import LAST
from tasc.evaluation.check.rows import MAX_ROWS
from tasc.evaluation.check.summary import Summary
from tasc.evaluation.report import render_check

CITIES = ["boston", "denver", "dallas", "oakland", "atlanta", "seattle", "memphis", "newark"]
ROWS = [
    {"input": f"from {a} to {b} on day {day}", "output": f'{{"intent": "flight", "from": "{a}", "to": "{b}"}}'}
    for day in range(3)
    for a in CITIES
    for b in CITIES
    if a != b
]


def tasc(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")


def next_commands(text: str) -> list[str]:
    """Return the commands that a check proposes, each with options that its command has."""
    commands = [line.strip() for line in text.splitlines() if line.startswith("  tasc ")]
    for command in commands:
        words = shlex.split(command)[1:]
        found: Any = get_command(app)
        while hasattr(found, "commands"):
            found = found.commands[words.pop(0)]
        found.make_context(found.name, words)
    return commands


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train_tokenizer(["<|endoftext|>"]).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_drafts_are_replayed_on_held_out_rows(data: Path, model: Path, tmp_path: Path) -> None:
    result = tasc("check", data, "--tokenizer", model, "--json", "-o", tmp_path / "check.json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "check.json").read_text())
    expected = {"all": 168, "train": 118, "held_out": 50, "with_input": 168, "known": 0, "split_by": "hash", "cut": 0}
    assert found["rows"] == expected
    costs = [one["cost"] for one in found["drafts"]]
    speedups = [one["speedup"] for one in found["drafts"]]
    assert costs == [0.02, 0.05, 0.1, 0.2]
    assert all(one["low"] <= one["value"] <= one["high"] for one in speedups)
    assert speedups[0]["value"] > speedups[-1]["value"] > 1


def test_the_text_names_the_split_the_verdict_and_the_next_commands(data: Path, model: Path) -> None:
    result = tasc("check", data, "--tokenizer", model)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "168 rows, 168 with an input: 118 indexed, 50 held out (by a hash of the input)" in text
    for part in (
        "Worth it: drafts bring",
        "Speed-up by the cost",
        "Task vocabulary alone, 99 % of",
        "H₂ of the output",
    ):
        assert part in text
    assert next_commands(result.stdout)[0] == f"tasc index build {data} --tokenizer {model} -o task.tasc"


def test_the_page_has_verdict_tables_and_commands(data: Path, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    page = tmp_path / "page.html"
    result = tasc("check", data, "--tokenizer", model, "--html", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    for part in ("Worth it: drafts bring", "<h2>Speed-up by the cost", "<td>0.02</td>"):
        assert part in text
    assert f"<code>tasc index build {data}" in text.partition("<h2>What to do next</h2>")[2], "the page ends with it"


def test_a_page_with_nothing_to_do_says_so(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    summary = Summary("no rows & <none>", ["Do not bother"])
    text = render_check({**asdict(summary), "results": {}}, tmp_path / "page.html").read_text()
    assert "Nothing: the verdict says why." in text.partition("<h2>What to do next</h2>")[2]
    assert "no rows &amp; &lt;none&gt;" in text


def test_a_split_column_is_respected(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "split rows.jsonl"
    rows = [row | {"split": "test" if k % 4 == 0 else "train"} for k, row in enumerate(ROWS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = tasc("check", file, "--tokenizer", model)
    assert "126 indexed, 42 held out (by their split column)" in result.stdout
    assert f"tasc index build '{file}' --split train --tokenizer" in result.stdout


def test_results_of_two_checks_at_once_are_both_kept(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, page = tmp_path / "check.json", tmp_path / "check.html"

    def meanwhile(*words: Any) -> Any:
        results.write_text("another's")
        page.write_text("another's")
        return check_rows(*words)

    check_module = sys.modules["tasc.cli.check"]
    check_rows = check_module._rows_result
    monkeypatch.setattr(check_module, "_rows_result", meanwhile)
    words = ("check", data, "--tokenizer", model, "-o", results, "--html", page)
    result = tasc(*words)
    assert result.exit_code == 0 and results.read_text() == page.read_text() == "another's"
    assert f"another command has written {results} meanwhile" in " ".join(result.stderr.split())
    assert json.loads((tmp_path / "check-1.json").read_text())["drafts"]
    assert "<html" in (tmp_path / "check-1.html").read_text()
    assert tasc(*words, "--force").exit_code == 0
    assert json.loads(results.read_text())["drafts"]


def test_held_out_rows_that_are_indexed_too_are_said(model: Path, tmp_path: Path) -> None:
    rows = [row | {"split": "test" if k % 4 == 0 else "train"} for k, row in enumerate(ROWS)]
    leaked = [row | {"split": "train"} for row in rows if row["split"] == "test"][:3]
    path = tmp_path / "rows.jsonl"
    for more, said in ([], ""), (leaked, "; 3 of them indexed too, input and output: new rows will gain less"):
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))
        result = tasc("check", path, "--tokenizer", model)
        assert f"42 held out (by their split column){said}." in " ".join(result.stdout.split()), result.output


def test_fields_that_are_named_are_named_in_the_next_commands(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"q": row["input"], "a b": row["output"]}) + "\n" for row in ROWS))
    fields = ("--input-field", "q", "--output-field", "a b")
    result = tasc("check", file, "--tokenizer", model, *fields, "--system", "Be brief.")
    index, vocab = next_commands(result.stdout)
    named = f"{file} --output-field 'a b' --input-field q --system 'Be brief.'"
    assert index.startswith(f"tasc index build {named} --tokenizer"), result.output
    assert vocab.startswith(f"tasc vocab learn {file} --output-field 'a b' --tokenizer")


def test_an_end_token_that_is_named_is_named_in_the_next_commands(data: Path, model: Path) -> None:
    result = tasc("check", data, "--tokenizer", model, "--eos", "<|endoftext|>")
    index, vocab = next_commands(result.stdout)
    assert index == f"tasc index build {data} --tokenizer {model} --eos '<|endoftext|>' -o task.tasc", result.output
    assert f" --tokenizer {model} --eos '<|endoftext|>' --size " in vocab


@pytest.mark.parametrize(
    ("inputs", "said"),
    [(0, "a hash of the output)"), (90, "the input, or of the output without one)"), (168, "a hash of the input)")],
)
def test_the_text_names_what_was_hashed(inputs: int, said: str, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [row if k < inputs else {"output": row["output"]} for k, row in enumerate(ROWS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert said in " ".join(tasc("check", file, "--tokenizer", model).stdout.split())


def test_rows_that_cannot_be_read_again_have_a_name_of_their_own(data: Path, model: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, data.read_bytes())  # fits into the pipe
    os.close(writer)
    result = tasc("check", f"/dev/fd/{reader}", "--tokenizer", model)
    os.close(reader)
    assert result.exit_code == 0, result.output
    assert "ROWS stands for rows that cannot be read again: write them to a file" in result.stdout
    index, vocab = next_commands(result.stdout)
    assert index.startswith("tasc index build ROWS --") and vocab.startswith("tasc vocab learn ROWS --")
    assert [_named(Path(path)) for path in ("-", "/dev/stdin", str(data))] == ["ROWS", "ROWS", str(data)]


@pytest.mark.parametrize("width", [50, 80])
def test_nothing_but_commands_is_wider_than_the_terminal(
    data: Path, model: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", width)
    lines = tasc("check", data, "--tokenizer", model).stdout.splitlines()
    assert max(len(line) for line in lines if not line.startswith("  tasc")) <= width


# --- an index and the last requests


@pytest.fixture(scope="module")
def built(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "task.tasc"
    assert tasc("index", "build", data, "--tokenizer", model, "-o", path).exit_code == 0
    return path


def serve(index: Path, model: Path, rows: list[dict[str, str]], log: Path) -> None:
    task = load_tokenizer(str(model))
    drafter = NgramDrafter(TaskIndex.open(index), tokenizer=task, served=log)
    ids = task.encode_batch([row["output"] for row in rows])
    drafter.serve(
        [(row["input"], np.array([*one, task.eos_id], np.uint32)) for row, one in zip(rows, ids, strict=True)]
    )


ALIKE = [row | {"input": f"{row['input']} please"} for row in ROWS[:60]]
OTHER = [
    {"input": f"temperature {k * 37 % 100}", "output": f"It was {k * 61 % 97} here and {k * 53 % 89} there."}
    for k in range(60)
]


def test_an_index_that_fits_its_requests_stays(built: Path, model: Path, tmp_path: Path) -> None:
    serve(built, model, ALIKE, tmp_path / "log")
    result = tasc("check", "--index", built, "--log", tmp_path / "log", "--tokenizer", model, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    fit = TaskIndex.open(built).info()["fit"]
    assert (found["built_tau"], found["built_speedup"]) == (fit["tau"], fit["speedup"])
    assert (found["rows"], found["earlier"], found["with_log"], found["fallen"]) == (60, 0, None, False)
    text = tasc("check", "--index", built, "--log", tmp_path / "log", "--tokenizer", model).stdout
    assert "nothing to do" in text
    assert "Next" not in text


def test_an_index_whose_requests_changed_is_to_be_built_again(built: Path, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    serve(built, model, OTHER, Path(f"{built}.served"))
    page = tmp_path / "page.html"
    result = tasc("check", "--index", built, "--tokenizer", model, "--last", "20", "--html", page)
    assert "Build the index again." in page.read_text()
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "the last 20 requests have" in text
    assert "With the 40 requests before them they have" in text
    assert f"Next: tasc index compact {built} --tokenizer {model}" in text
    found = json.loads(tasc("check", "--index", built, "--tokenizer", model, "--last", "20", "--json").stdout)
    assert found["fallen"]
    assert found["recent"]["tau"]["high"] < 0.75 * found["built_tau"]
    assert found["with_log"]["tau"]["value"] > found["recent"]["tau"]["value"]


@pytest.mark.parametrize("is_replaced", [True, False])
@pytest.mark.parametrize("source", ["log", "rows"])
def test_an_index_that_goes_while_it_is_checked_is_the_one_that_is_named(
    source: str, is_replaced: bool, built: Path, data: Path, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    index, log = tmp_path / "task.tasc", tmp_path / "log"
    index.write_bytes(built.read_bytes())
    serve(index, model, ALIKE[:5], log)
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (index, log)}

    def replaced(*args: Any, **options: Any) -> Any:
        if index.exists():
            index.unlink()
        if is_replaced:
            index.write_bytes(b"another")
        return draft_figures(*args, **options)

    monkeypatch.setattr("tasc.evaluation.check.drift.draft_figures", replaced)
    last = [data] if source == "rows" else ["--log", log]
    result = tasc("check", *last, "--index", index, "--tokenizer", model, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["provenance"]
    assert found["index"] == {"path": str(index), "sha256": before[index]}
    assert found.get("log") == (None if source == "rows" else {"path": str(log), "sha256": before[log]})


def test_few_requests_do_not_prove_that_an_index_is_good(built: Path, model: Path, tmp_path: Path) -> None:
    serve(built, model, [OTHER[0], ALIKE[0]], tmp_path / "log")
    args = ("check", "--index", built, "--tokenizer", model, "--log", tmp_path / "log")
    found = json.loads(tasc(*args, "--json").stdout)
    assert found["recent"]["tau"]["low"] < 0.75 * found["built_tau"] < found["recent"]["tau"]["high"]
    text = " ".join(tasc(*args).stdout.split())
    assert "2 requests are too few to tell" in text and "nothing to do" not in text
    text = " ".join(tasc(*args, "--last", "1").stdout.split())
    assert "the last one request has" in text and "One request gives no interval" in text
    assert "nothing to do" not in text


def test_the_last_requests_may_be_rows(built: Path, data: Path, model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in [*ALIKE, *OTHER]))
    result = tasc("check", rows, "--index", built, "--tokenizer", model, "--last", "60")
    assert next_commands(result.stdout) == [
        f"tasc index build {rows} --tokenizer {model} -o {built.with_name(built.stem + '-new.tasc')}"
    ]
    rows.write_text("".join(json.dumps({"q": row["input"], "a": row["output"]}) + "\n" for row in [*ALIKE, *OTHER]))
    fields = ("--input-field", "q", "--output-field", "a")
    result = tasc("check", rows, "--index", built, "--tokenizer", model, "--last", "60", *fields)
    (command,) = next_commands(result.stdout)
    assert command.startswith(f"tasc index build {rows} --output-field a --input-field q --tokenizer")
    noted = tmp_path / "noted.tasc"
    tasc("index", "build", data, "--tokenizer", model, "-o", noted, "--system", "Be brief.")
    result = tasc("check", rows, "--index", noted, "--tokenizer", model, "--last", "60", *fields)
    (command,) = next_commands(result.stdout)
    assert "--input-field q --system 'Be brief.' --tokenizer" in command, "the new index keeps the note of the old one"


def test_an_index_without_figures_says_so(model: Path, data: Path, tmp_path: Path) -> None:
    tasc("index", "build", data, "--tokenizer", model, "-o", tmp_path / "task.tasc", "--no-fit")
    result = tasc("check", data, "--index", tmp_path / "task.tasc", "--tokenizer", model)
    assert "The index holds no figures" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "nothing to check: give ROWS"),
        (["--index", "INDEX"], "there is no log"),
        (["--index", "INDEX", "--log", "a.log", "DATA"], "give one of them"),
        (["DATA", "--log", "a.log"], "name the index with --index"),
        (["--index", "INDEX", "--model", "MODEL"], "in place of --model"),
    ],
)
def test_what_cannot_be_checked(args: list[str], message: str, data: Path, model: Path, tmp_path: Path) -> None:
    index = tmp_path / "task.tasc"
    tasc("index", "build", data, "--tokenizer", model, "-o", index, "--no-fit")
    named = {"INDEX": index, "DATA": data}
    result = tasc("check", *(named.get(arg, arg) for arg in args), "--tokenizer", model)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_defaults_are_those_of_the_library() -> None:
    defaults = {name: one.default for name, one in inspect.signature(check).parameters.items()}
    assert (defaults["limit"], defaults["last"]) == (MAX_ROWS, LAST)
