"""Control characters, markup and names of emoji in files are shown by all commands, and obeyed by no terminal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import train_tokenizer
from test_cli import MANY, tasc, write_rows
from typer.testing import Result

from tasc.cli.console import json_text, out, print_facts, print_table
from tasc.printable import printable

CONTROLS = [chr(c) for c in (*range(9), *range(11, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), 0x200F, 0x2028)]
EVIL = "e\x1b]0;title\x07\x1b[2J\x9b5m\u202e[bold]:smile:"
MARKED = [{**row, "output": f"{row['output']} {EVIL}", "input": f"{row['input']} {EVIL}"} for row in MANY]


def test_all_but_tabs_and_line_ends_are_escaped() -> None:
    assert printable("né\t🙂\n") == "né\t🙂\n"
    assert all(printable(c) == f"\\u{ord(c):04x}" for c in [*CONTROLS, "\u2066", "\ud800", "\udcff", "\u061c"])
    for text in [*CONTROLS, "\ud800", EVIL]:
        assert json.loads(json_text({text: [text]})) == {text: [text]}
        assert json_text(text).isprintable()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a name that says all of it, with a tokenizer, rows and an index whose tokenizer has that name."""
    folder = tmp_path / EVIL.replace("/", "")
    (folder / EVIL).mkdir(parents=True)
    train_tokenizer(["<|im_end|>"]).save(str(folder / EVIL / "tokenizer.json"))
    (folder / EVIL / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    write_rows(folder / "rows.jsonl", MARKED)
    return folder


def check_clean(text: str) -> str:
    left = [c for c in CONTROLS if c in text]
    assert not left, (left, text)
    return text


def check_says(result: Result, code: int, *parts: str) -> str:
    assert result.exit_code == code, result.output
    check_clean(result.output)
    for part in parts:
        assert part.replace(" ", "") in "".join(result.output.split())
    return result.stdout


SHOWN = r"e\u001b]0;title\u0007\u001b[2J\u009b5m\u202e[bold]:smile:"


def test_commands_print_what_files_hold_without_obeying_it(folder: Path) -> None:
    rows, tokenizer, index = folder / "rows.jsonl", folder / EVIL, folder / "task.tasc"
    own = ["--tokenizer", tokenizer]
    check_says(tasc("index", "build", rows, *own, "-o", index, "--split", "train"), 0, SHOWN)
    check_says(tasc("index", "info", index), 0, SHOWN)
    assert json.loads(check_says(tasc("index", "info", index, "--json"), 0, SHOWN))["tokenizer"].endswith(EVIL)
    check_says(tasc("index", "verify", index), 0, SHOWN)
    check_says(tasc("index", "compact", index, *own), 0, SHOWN)
    check_says(tasc("count", rows, *own, "-o", folder / "n.grams", "--top", "300"), 0, SHOWN)
    check_says(tasc("count", folder / "n.grams", *own, "--top", "300", "--json"), 0, "u001b")
    check_says(tasc("vocab", "learn", rows, *own, "-o", folder / "task.plan"), 0, SHOWN)
    check_says(tasc("vocab", "show", folder / "task.plan", *own), 0)
    check_says(tasc("vocab", "show", folder / "task.plan", *own, "--json"), 0, SHOWN)
    page = folder / "page.html"
    replay = ["replay", rows, *own, "--limit", "5", "--explain", "2"]
    explained = check_says(tasc(*replay, "--html", page), 0, f"flights from a to f on w {SHOWN}")
    assert r"\u001b" in explained[explained.index("row 2:") :]
    assert SHOWN in check_clean(page.read_text())
    check_says(tasc(*replay, "--json"), 0, SHOWN)


def test_errors_print_what_files_hold_without_obeying_it(folder: Path) -> None:
    rows = folder / "bad.jsonl"
    own = ["--tokenizer", folder / EVIL]
    for row, why in [({EVIL: "no"}, "has no field"), ({"output": "x", "split": EVIL}, "no row has the split")]:
        write_rows(rows, [row])
        split = ["--split", "x"] if "split" in row else []
        check_says(tasc("index", "build", rows, *own, "-o", folder / "x.tasc", *split), 2, why)
    index = folder / "task.tasc"
    check_says(tasc("index", "build", folder / "rows.jsonl", *own, "-o", index), 0)
    content = bytearray(index.read_bytes())
    content[8:12] = b"\x1b[7m"
    index.write_bytes(content)
    check_says(tasc("index", "info", index), 2, "[7m")


def test_log_lines_and_tracebacks_are_printable(tmp_path: Path) -> None:
    program = (
        "import logging, sys; from tasc.cli import app, main\n"
        "@app.command('fail')\n"
        f"def fail():\n    logging.getLogger('tasc.data').warning('said %s', {EVIL!r}); raise RuntimeError({EVIL!r})\n"
        "sys.argv = ['tasc', 'fail']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    check_clean(done.stderr)
    assert f"said {SHOWN}\n" in done.stderr
    assert f"RuntimeError: {SHOWN}\n" in done.stderr


def test_tables_and_facts_print_strings_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(EVIL, (EVIL, "b"), [(EVIL, 1), ("x", 2)])
    print_facts({EVIL: EVIL, "pairs": {EVIL: EVIL}})
    out.print(EVIL)
    assert check_clean("".join(capsys.readouterr().out.split())).count(SHOWN) == 8
