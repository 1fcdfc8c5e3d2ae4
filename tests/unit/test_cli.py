"""The command line: what it prints, writes and refuses."""

import hashlib
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner, Result

from tasc.__main__ import main
from tasc.cli import app
from tasc.drafting.protocol import INDEX_SOURCES
from tasc.errors import InputError

ROWS = [
    {"input": f"flights from {a} to {b}", "output": f"intent flight from {a} to {b} end", "split": split}
    for split, cities in (("train", "abcdefgh"), ("test", "hgfe"))
    for a, b in zip(cities, reversed(cities), strict=True)
]


def tasc(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="tasc")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    words = sorted({w for r in ROWS + MANY for w in f"{r['input']} {r['output']}".split()} | {"\n", "[UNK]", "</s>"})
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["</s>"])
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "data.jsonl", ROWS)


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def said(result: Result, code: int) -> str:
    """What went to standard error, unwrapped, of a run that ended with `code`."""
    assert result.exit_code == code, result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "command",
    [[], ["index"], ["index", "build"], ["generate"], ["replay"], ["bench"], ["vocab", "learn"], ["tune"], ["eval"]],
)
def test_help(command: list[str]) -> None:
    result = tasc(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: tasc" in result.stdout


def test_help_is_light() -> None:
    program = (
        "import sys; from tasc.cli import app\n"
        "try: app(['--help'], prog_name='tasc')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys(), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_index_is_built_described_and_verified(tmp_path: Path, data: Path, tokenizer: Path) -> None:
    file = tmp_path / "task.tasc"
    built = tasc("index", "build", data, "--tokenizer", tokenizer, "-o", file, "--split", "train")
    assert built.exit_code == 0, built.output
    assert "8 documents, 64 tokens" in " ".join(built.stdout.split())
    facts = json.loads(tasc("index", "info", file, "--json").stdout)
    assert (facts["documents"], facts["tokens"]) == (8, 64)
    assert "documents" in tasc("index", "info", file).stdout
    assert "all checksums hold" in said(tasc("index", "verify", file), 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.jsonl", "task.tasc", "tokenizer"]


MANY = [
    {"input": f"flights from {a} to {b} on {d}", "output": f"intent flight from {a} to {b} end", "split": split}
    for split, days in (("train", "xyz"), ("test", "w"))
    for d in days
    for a in "abcd"
    for b in "efgh"
]


@pytest.fixture
def fitted(tmp_path: Path, tokenizer: Path) -> Path:
    """The index of enough rows to fit weights on."""
    rows, file = write_rows(tmp_path / "many.jsonl", MANY), tmp_path / "fitted.tasc"
    built = tasc("index", "build", rows, "--tokenizer", tokenizer, "-o", file, "--split", "train")
    assert "48 inputs, weights fitted, s(0.02)" in " ".join(built.stdout.split())
    return file


def test_info_says_what_each_source_is_worth(fitted: Path) -> None:
    facts = json.loads(tasc("index", "info", fitted, "--json").stdout)
    assert facts["inputs"] == 48
    assert {name for name, _ in facts["fit"]["without"]} >= {"inputs", "copy", "task"}
    text = tasc("index", "info", fitted).stdout
    for part in (
        "weights: fitted to",
        "nats per token",
        "words copied from the input: ",
        "calibration error",
        "Reliability",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("option", "inputs", "why"),
    [("--no-inputs", 0, "built with --no-inputs"), ("--no-fit", 48, "built with --no-fit")],
)
def test_an_index_that_is_not_fitted_says_why(
    tmp_path: Path, tokenizer: Path, option: str, inputs: int, why: str
) -> None:
    rows, file = write_rows(tmp_path / "many.jsonl", MANY), tmp_path / "task.tasc"
    args = ["index", "build", rows, "--tokenizer", tokenizer, "-o", file, "--split", "train", option]
    assert tasc(*args, "--store", tmp_path / "rows.store").exit_code == 0
    facts = json.loads(tasc("index", "info", file, "--json").stdout)
    assert (facts["inputs"], facts["fit"]) == (inputs, None)
    assert why in tasc("index", "info", file).stdout
    for written in (file, tmp_path / "rows.store"):
        assert (b"flights" in written.read_bytes()) == (option != "--no-inputs"), "docs/format.md says what is stored"


def test_compact_merges_served_rows(fitted: Path, tokenizer: Path) -> None:
    from tasc import NgramDrafter, TaskIndex
    from tasc.drafting.protocol import served_log

    index = TaskIndex.open(fitted)
    before = index.info()["documents"]
    missing = tasc("index", "compact", fitted, "--tokenizer", tokenizer, "--log", fitted.with_suffix(".none"))
    assert "there is no log" in said(missing, 2)
    drafter = NgramDrafter(index, served=served_log(index))
    drafter.serve([("a new input", [1, 2, 3])])
    busy = tasc("index", "compact", fitted, "--tokenizer", tokenizer)
    assert "served" in said(busy, 2)
    assert "elsewhere (-o)" in said(busy, 2)
    beside = tasc("index", "compact", fitted, "--tokenizer", tokenizer, "-o", fitted.with_suffix(".next"), "--no-fit")
    assert "1 served row merged" in " ".join(beside.stdout.split())
    del drafter
    second = served_log(index).with_name(f"{served_log(index).name}.1")  # of a process that learnt beside it
    NgramDrafter(index, served=second).serve([("a third input", [1, 2, 3, 4])])
    done = tasc("index", "compact", fitted, "--tokenizer", tokenizer)
    assert done.exit_code == 0, done.output
    assert "2 served rows merged" in " ".join(done.stdout.split())
    assert TaskIndex.open(fitted).info()["documents"] == before + 2
    others = [fitted.with_suffix(f".{name}") for name in ("first", "second")]
    for k, log in enumerate(others):
        NgramDrafter(TaskIndex.open(fitted), served=log).serve([("another", [1, 2, 4 + k])])
    several = ["index", "compact", fitted, "--tokenizer", tokenizer, "--no-fit", "--log", others[0], "--log", others[1]]
    assert "2 served rows merged" in " ".join(tasc(*several).stdout.split())
    assert "0 served rows merged" in " ".join(tasc(*several).stdout.split())
    assert TaskIndex.open(fitted).info()["documents"] == before + 4


def test_too_few_rows_are_not_fitted(tmp_path: Path, data: Path, tokenizer: Path) -> None:
    file = tmp_path / "task.tasc"
    assert tasc("index", "build", data, "--tokenizer", tokenizer, "-o", file, "--split", "train").exit_code == 0
    assert "it has 8 distinct rows with an input, and a fit needs 20" in tasc("index", "info", file).stdout


def test_replay_without_each_source(tmp_path: Path, tokenizer: Path) -> None:
    args = ["replay", write_rows(tmp_path / "many.jsonl", MANY), "--tokenizer", tokenizer, "--drafters", "tasc"]
    found = json.loads(tasc(*args, "--ablate", "--json").stdout)
    without = {"inputs", *INDEX_SOURCES}
    assert found["ablations"].keys() == without
    assert found["drafters"].keys() == {"tasc", *(f"tasc-without-{w}" for w in without)}
    whole = found["drafters"]["tasc"]["speedup"]
    for source, facts in found["ablations"].items():
        assert facts["speedup"] == found["drafters"][f"tasc-without-{source}"]["speedup"]
        assert facts["lost"] == pytest.approx(1 - facts["speedup"] / whole)
    lost = [facts["lost"] for facts in found["ablations"].values()]
    assert lost == sorted(lost, reverse=True)
    blind = json.loads(tasc(*args, "--no-inputs", "--json").stdout)
    assert "ablations" not in blind
    assert blind["drafters"]["tasc"]["speedup"] <= whole
    row = json.loads(tasc(*args, "--no-inputs", "--explain", "1", "--json").stdout)["explained"]
    assert {name for step in row["steps"] for token in step for name in token["sources"]} <= {"task", "context"}
    assert "What each source is worth" in tasc(*args, "--ablate").stdout
    assert "--ablate compares with tasc" in said(tasc(*args[:-1], "prompt-lookup", "--ablate"), 2)


def test_replay_explains_a_row(tmp_path: Path, tokenizer: Path) -> None:
    args = ["replay", write_rows(tmp_path / "many.jsonl", MANY), "--tokenizer", tokenizer]
    found = json.loads(tasc(*args, "--explain", "2", "--json").stdout)
    row = found["explained"]
    assert "drafters" not in found, "one row is no measurement"
    assert (row["row"], row["input"], row["tokens"]) == (2, "flights from a to f on w", 8)
    emitted = [t["text"] for step in row["steps"] for t in step if t["verdict"] in ("accepted", "own")]
    assert "".join(emitted).split() == ["intent", "flight", "from", "a", "to", "f", "end</s>"]
    text = tasc(*args, "--explain", "2").stdout
    for part in ("flights from a to f on w", "row 2: 8 tokens in", "accepted", "task="):
        assert part in text
    assert "there is no row 17: 16 rows are held out" in said(tasc(*args, "--explain", "17"), 2)


def test_replay_writes_a_page(tmp_path: Path, tokenizer: Path) -> None:
    pytest.importorskip("jinja2")
    page = tmp_path / "page.html"
    args = ["replay", write_rows(tmp_path / "many.jsonl", MANY), "--tokenizer", tokenizer, "--drafters", "tasc"]
    assert "page.html" in said(tasc(*args, "--ablate", "--explain", "1", "--html", page), 0)
    text = page.read_text()
    for part in ("tasc-without-copy", "What each source is worth", "flights from a to e on w", 'class="accepted"'):
        assert part in text


def test_store_is_kept_where_asked(tmp_path: Path, data: Path, tokenizer: Path) -> None:
    store = tmp_path / "rows.store"
    result = tasc("index", "build", data, "--tokenizer", tokenizer, "-o", tmp_path / "task.tasc", "--store", store)
    assert result.exit_code == 0, result.output
    assert store.stat().st_size > 0


def test_a_damaged_index_is_one_line(tmp_path: Path, data: Path, tokenizer: Path) -> None:
    file = tmp_path / "task.tasc"
    tasc("index", "build", data, "--tokenizer", tokenizer, "-o", file)
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    file.write_bytes(damaged)
    line = said(tasc("index", "verify", file), 2)
    assert line.startswith("error: ")
    assert "task.tasc" in line
    assert "Traceback" not in line


def test_replay_prints_every_drafter(data: Path, tokenizer: Path) -> None:
    result = tasc("replay", data, "--tokenizer", tokenizer, "--drafters", "tasc,prompt-lookup", "--json")
    assert result.exit_code == 0, result.output
    drafters = json.loads(result.stdout)["drafters"]
    assert drafters.keys() == {"tasc", "prompt-lookup"}
    for facts in drafters.values():
        assert facts["tokens"] == 4 * 8
        assert facts["tau"] == pytest.approx(facts["tokens"] / facts["steps"])
        assert facts["speedup"] == pytest.approx(facts["speedup_at"]["0.02"])
    assert drafters["tasc"]["tau"] > 2
    table = tasc("replay", data, "--tokenizer", tokenizer, "--drafters", "prompt-lookup").stdout
    assert "prompt-lookup" in table
    assert "4 rows, 32 tokens" in table


def test_replay_indexes_the_corpus_where_there_is_no_split(tmp_path: Path, tokenizer: Path) -> None:
    plain = [{k: v for k, v in r.items() if k != "split"} for r in ROWS]
    corpus, held_out = write_rows(tmp_path / "corpus.jsonl", plain[:8]), write_rows(tmp_path / "out.jsonl", plain[8:])
    args = ["replay", held_out, "--tokenizer", tokenizer, "--drafters", "tasc", "--json"]
    assert "no split column" in said(tasc(*args), 2)
    found = json.loads(tasc(*args, "--corpus", corpus).stdout)
    assert found["rows"] == 4
    assert found["drafters"]["tasc"]["tau"] > 2


def test_replay_on_the_index_that_is_deployed(
    tmp_path: Path, tokenizer: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index, held_out, results = tmp_path / "task.tasc", tmp_path / "new.jsonl", tmp_path / "results.json"
    assert tasc("index", "build", data, "--tokenizer", tokenizer, "-o", index, "--split", "train").exit_code == 0
    write_rows(held_out, [*ROWS[:2], {"input": "flights from a to a", "output": "intent flight from a to a end"}])
    options = ("--tokenizer", tokenizer, "--drafters", "tasc", "--json")
    built = json.loads(tasc("replay", data, *options).stdout)
    deployed = tasc("replay", data, "--index", index, *options, "-o", results)
    found = json.loads(deployed.stdout)
    assert json.loads(results.read_text()) == found
    for name in ("tau", "speedup", "speedup_interval", "rows"):
        assert found["drafters"]["tasc"][name] == built["drafters"]["tasc"][name]
    interval = found["drafters"]["tasc"]["speedup_interval"]
    assert interval["low"] <= interval["value"] == found["drafters"]["tasc"]["speedup"] <= interval["high"]
    facts = found["provenance"]
    assert facts["held_out"] == {
        "path": str(data), "rows": 4, "sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
    }  # fmt: skip
    assert facts["index"] == {
        "path": str(index), "sha256": hashlib.sha256(index.read_bytes()).hexdigest(),
        "documents": 8, "tokens": 64, "inputs": 8,
    }  # fmt: skip
    assert set(facts) == {"held_out", "index", "tokenizer", "tasc", "date", "command"}
    assert built["provenance"]["indexed"][0]["path"] == str(data) and "path" not in built["provenance"]["index"]
    assert {"cpus", "processor", "python", "numpy"} <= found["machine"].keys()
    for where in (("--index", index, "--held-out", held_out), (data, "--held-out", held_out)):
        result = tasc("replay", *where, *options)
        assert json.loads(result.stdout)["rows"] == 3
        assert "2 of 3 held-out rows are in the index, input and output" in caplog.text
        caplog.clear()
    assert "name the rows of the task, or --held-out" in said(tasc("replay", *options, "--index", index), 2)
    both = said(tasc("replay", data, "--index", index, "--corpus", data, *options), 2)
    assert "give an index, or --corpus to build one, not both" in both


@pytest.mark.parametrize("width", [50, 80, 120])
def test_tables_are_readable_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tasc.cli import console

    monkeypatch.setattr(console, "out", console.PlainConsole(width=width))
    columns = ("method", "tokens/s", "speed-up", "p50 ms", "p90 ms", "τ", "drafted", "accepted", "identical", "exact")
    rows = [("transformers-prompt-lookup", 1234.5, "1.23 [1.20, 1.26]", *range(6), "99/100")]
    console.print_table("Methods", columns, rows)
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text and text.count("Methods") == 1
    for cell in (*columns, "1,234.50", "1.23 [1.20, 1.26]", "99/100"):
        assert cell in text, cell  # none is cut or broken
    assert text.count("transformers-prompt-lookup") == sum("method" in line for line in lines)


@pytest.mark.parametrize("width", [40, 50])
def test_a_long_name_breaks_before_the_figure_beside_it(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tasc.cli import console

    monkeypatch.setattr(console, "out", console.PlainConsole(width=width))
    name, figure = "transformers-prompt-lookup-with-a-long-name", "12,345.67 [12,000.12, 12,600.98]"[: width - 15]
    console.print_table("", ("method", "tokens/s"), [(name, figure)])
    lines = capsys.readouterr().out.splitlines()
    assert any(figure in line for line in lines), lines
    assert max(map(len, lines)) <= width
    assert name in "".join(line.split("│")[1].strip() for line in lines if "│" in line)


@pytest.mark.parametrize(("columns", "width"), [("50", 50), ("", 120), ("x", 120), ("0", 120), (None, 120)])
def test_the_width_of_results_in_a_pipe(columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasc.cli import console

    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert console.PlainConsole(width=console._width()).width == width


def test_replay_limit_k_and_cost_reach_the_replay(data: Path, tokenizer: Path) -> None:
    args = ["replay", data, "--tokenizer", tokenizer, "--drafters", "tasc", "--json"]
    found = json.loads(tasc(*args, "--limit", "2", "--k", "3", "--cost", "0.5").stdout)
    assert (found["rows"], found["k"], found["cost"]) == (2, 3, 0.5)
    facts = found["drafters"]["tasc"]
    assert len(facts["hits_at"]) == 3
    assert facts["speedup"] == pytest.approx(facts["tokens"] / (facts["steps"] + 0.5 * facts["drafted"]))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--drafters", "magic"], "unknown drafter 'magic': choose from tasc, suffix, prompt-lookup"),
        (["--eos", "<stop>"], "no token '<stop>'"),
        (["--eos", "99999"], "no token 99999"),
    ],
)
def test_wrong_values_are_named(data: Path, tokenizer: Path, args: list[str], message: str) -> None:
    line = said(tasc("replay", data, "--tokenizer", tokenizer, *args), 2)
    assert line.startswith("error: ")
    assert message in line


def test_a_missing_file_is_one_line(tmp_path: Path, tokenizer: Path) -> None:
    line = said(tasc("replay", tmp_path / "none.jsonl", "--tokenizer", tokenizer), 2)
    assert "none.jsonl" in line
    assert "Traceback" not in line


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = tasc("--debug", "index", "info", tmp_path / "none.tasc")
    assert result.exit_code == 1
    assert isinstance(result.exception, OSError)


def test_a_wrong_option_is_a_usage_error() -> None:
    assert tasc("replay", "x", "--tokenizer", "y", "--k", "0").exit_code == 2
    assert tasc("replay").exit_code == 2


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, data: Path, tokenizer: Path) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasc.evaluation.replay_comparison.make_drafters", interrupted)
    assert said(tasc("replay", data, "--tokenizer", tokenizer), 130).endswith("interrupted")


def test_the_package_is_the_command_too() -> None:
    for module in ("tasc", "tasc.cli"):
        run = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
        assert run.stdout.startswith("tasc "), module


def test_one_of_something_is_singular(tmp_path: Path, tokenizer: Path) -> None:
    one = write_rows(tmp_path / "one.jsonl", [{"input": "flights", "output": "intent flight"}])
    built = tasc("index", "build", one, "--tokenizer", tokenizer, "-o", tmp_path / "one.tasc")
    assert "one.tasc: 1 document, 3 tokens, " in built.output and "; 1 input, weights not fitted" in built.output
    assert said(tasc("check", one, "--tokenizer", tokenizer), 2).startswith(
        "error: 1 row with 1 different input cannot"
    )
    replayed = tasc("replay", one, "--corpus", one, "--tokenizer", tokenizer, "--held-out", one)
    assert replayed.exit_code == 2 or "1 row, 3 tokens, at most" in replayed.output


def test_nothing_but_messages_where_no_terminal_is(tmp_path: Path, data: Path, tokenizer: Path) -> None:
    """No blank lines of progress bars in the log of a job."""
    assert tasc("index", "build", data, "--tokenizer", tokenizer, "-o", tmp_path / "a.tasc").stderr == ""


def test_version() -> None:
    assert tasc("--version").stdout.startswith("tasc ")


def test_prompts_need_an_input(tmp_path: Path) -> None:
    from tasc.cli.generate import read_prompts

    rows = write_rows(tmp_path / "prompts.jsonl", [{"input": "a"}, {"text": "b"}])
    lacking = f"{rows}:2 has no such `input`, {rows}:1 has no such `prompt`"
    with pytest.raises(InputError, match=f"every row needs an `input`, .*: {lacking}"):
        read_prompts(rows)
    assert read_prompts(write_rows(rows, [{"prompt": "a"}])) == ([(f"{rows}:1", {"prompt": "a"})], "prompts")
    with pytest.raises(InputError, match="has no rows"):
        read_prompts(write_rows(rows, []))


READERS = {
    "index build": ["--input-field", "--output-field", "--every-turn", "--system"],
    "index remove": ["--input-field", "--output-field"],
    "count": ["--output-field"],
    "vocab learn": ["--output-field"],
    "generate": ["--input-field", "--system"],
    "tune": ["--input-field", "--output-field", "--every-turn", "--system"],
    "distill": ["--input-field", "--output-field", "--every-turn", "--system"],
    "replay": ["--input-field", "--output-field", "--system"],
    "bench": ["--input-field", "--output-field", "--system"],
    "eval": ["--input-field", "--output-field", "--system"],
    "check": ["--input-field", "--output-field", "--system"],
}


@pytest.mark.parametrize(("command", "options"), READERS.items())
def test_every_command_that_reads_rows_has_the_same_options(command: str, options: list[str]) -> None:
    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]  # type: ignore[attr-defined]
    offered = {option for parameter in found.params for option in parameter.opts}
    assert set(options) <= offered


def test_prompts_of_other_forms_become_inputs(tmp_path: Path) -> None:
    from tasc.cli.generate import read_prompts

    rows, asked = tmp_path / "prompts.jsonl", {"role": "user", "content": "a"}
    for row, read in [
        ({"question": "a", "answer": "b", "n": 1}, {"input": "a", "output": "b", "n": 1}),
        ({"instruction": "i", "input": "a"}, {"input": "i\na"}),
        ({"conversations": [{"from": "human", "value": "a"}]}, {"input": "a", "messages": [asked]}),
    ]:
        assert read_prompts(write_rows(rows, [row])) == ([(f"{rows}:1", read)], "inputs")
    named = write_rows(rows, [{"input": "a", "utterance": "b"}])
    assert read_prompts(named, "utterance") == ([(f"{rows}:1", {"input": "b"})], "inputs")


def test_an_index_of_rows_in_common_forms(tmp_path: Path, tokenizer: Path) -> None:
    pairs = [(row["input"], row["output"]) for row in ROWS[:3]]
    chats = [
        {"conversations": [{"from": "human", "value": given}, {"from": "gpt", "value": output}]}
        for given, output in pairs
    ]
    (tmp_path / "data").write_text(json.dumps(chats))
    (tmp_path / "qa.csv").write_text("q,a\n" + "".join(f"{given},{output}\n" for given, output in pairs))
    indexes = []
    for name, options in (("data", ()), ("qa.csv", ("--input-field", "q", "--output-field", "a"))):
        index = tmp_path / f"{name}.tasc"
        done = tasc("index", "build", tmp_path / name, "--tokenizer", tokenizer, "-o", index, *options)
        assert done.exit_code == 0, done.output
        assert "3 documents" in done.output
        assert "3 inputs" in done.output
        indexes.append(index.read_bytes())
    assert indexes[0] == indexes[1]
    where = write_rows(tmp_path / "where.jsonl", [{"question": pairs[0][0], "answer": pairs[0][1]}])
    done = tasc("index", "remove", tmp_path / "data.tasc", "--where", where, "--tokenizer", tokenizer)
    assert "1 row removed from the index" in done.output
    done = tasc("index", "build", where, "--tokenizer", tokenizer, "-o", index, "--input-field", "x", "--force")
    assert "has no field 'x'; its fields are 'question', 'answer': name one as input_field" in " ".join(
        done.output.split()
    )


def test_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    from tasc.cli.results import written_whole

    target = tmp_path / "out.jsonl"
    with pytest.raises(RuntimeError), written_whole(target) as sink:
        sink.write("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with written_whole(target) as sink:
        sink.write("all")
        assert not target.exists()
    assert target.read_text() == "all"


def test_results_are_json_that_every_reader_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tasc.cli.console import print_json
    from tasc.cli.results import write_results

    results = {"ratio": float("nan"), "interval": (1.5, float("inf")), "by": {"a": [-float("inf")]}}
    write_results(results, tmp_path / "r.json", None, "render")
    print_json(results)
    for text in ((tmp_path / "r.json").read_text(), capsys.readouterr().out):
        assert json.loads(text, parse_constant=pytest.fail) == {
            "ratio": None, "interval": [1.5, None], "by": {"a": [None]},
        }  # fmt: skip


def test_an_index_is_not_written_over_its_log(tmp_path: Path, tokenizer: Path, data: Path) -> None:
    index = tmp_path / "task.tasc"
    assert tasc("index", "build", data, "--tokenizer", tokenizer, "-o", index).exit_code == 0
    log = Path(f"{index}.served")
    log.write_bytes(b"")
    refused = tasc("index", "compact", index, "--tokenizer", tokenizer, "-o", log, "--force")
    assert "is the log of served rows of task.tasc" in said(refused, 2)
    assert log.read_bytes() == b""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_an_output_that_is_a_pipe_is_not_replaced(tmp_path: Path, tokenizer: Path, data: Path) -> None:
    index, store, pipe, link, loop = (tmp_path / name for name in ("a.tasc", "a.store", "pipe", "link", "loop"))
    assert tasc("index", "build", data, "--tokenizer", tokenizer, "-o", index, "--store", store).exit_code == 0
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    loop.symlink_to(loop)
    build = ("index", "build", data, "--tokenizer", tokenizer, "--no-fit")
    for to in (pipe, link):
        for command in (
            (*build, "-o", to),
            (*build, "-o", tmp_path / "b.tasc", "--store", to),
            ("index", "compact", index, "--tokenizer", tokenizer, "-o", to),
            ("count", store, "-o", to),
            ("export", "llama-lookup", index, "-o", to),
        ):
            assert "a pipe" in said(tasc(*command), 2), command
            assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert "oo many" in said(tasc(*build, "-o", loop), 2)
    assert not (tmp_path / "b.tasc").exists() and loop.is_symlink()


@pytest.mark.parametrize("stage", ["building", "parsing"])
@pytest.mark.parametrize(
    ("stop", "code", "said"), [("KeyboardInterrupt", 130, "interrupted"), ("Terminated", 143, "terminated")]
)
def test_a_stop_before_a_command_runs_is_one_line(
    stage: str, stop: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module: Any = sys.modules["tasc.cli.app"]

    def stopped(*_: Any, **__: Any) -> None:
        raise getattr(module, stop, KeyboardInterrupt)

    place, name = (typer.main, "get_command") if stage == "building" else (module.TyperGroup, "parse_args")
    monkeypatch.setattr(place, name, stopped)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(logging.getLogger("tasc"), "handlers", [])
    monkeypatch.setattr(sys, "argv", ["tasc", "check"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert (ended.value.code, capsys.readouterr().err) == (code, f"{said}\n")


def test_ctrl_c_while_the_command_line_is_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopped:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.startswith("tasc.cli"):
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "tasc.cli")
    monkeypatch.setattr(sys, "meta_path", [Stopped(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")
