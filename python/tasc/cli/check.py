"""`tasc check`: what tasc would bring on a task."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasc.cli.console import end_token, out, print_json, print_table, progress_bars
from tasc.cli.options import Eos, TokenizerName
from tasc.cli.results import write_results
from tasc.errors import InputError

if TYPE_CHECKING:
    from tasc.data import TaskTokenizer
    from tasc.evaluation.check import CheckResult, DriftResult
    from tasc.evaluation.check.drafts import DraftFigures
    from tasc.evaluation.check.predictors import Predictors
    from tasc.evaluation.check.vocabulary import SizeFigures


def check(
    tokenizer: TokenizerName,
    rows: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[ROWS...]", help="Read past rows: JSONL (.gz, .zst), Parquet or text, one output per line."
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare this index with the last requests: of ROWS, or of its log."),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read the last requests from this log; by default from INDEX.served."),
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="Compare an index with this many last requests.")] = 1000,
    limit: Annotated[int, typer.Option(min=10, help="Look at this many rows at most; of more, at a sample.")] = 20_000,
    eos: Eos = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", writable=True, help="Write the result as JSON to this file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what tasc would bring on a task, and what to do next, from its past rows and without a model.

    Rows are split by themselves, unless they have a split column: `train` is then indexed and `test` held out. Drafts
    are replayed on the held-out rows, and task vocabularies are measured on them. **τ** is tokens per step. The
    speed-up at cost c is that of a decoder for which verifying k drafted tokens takes as long as 1 + c·k plain steps.

    With `--index`, say instead whether an index still fits its requests: the last ones are replayed on it, and the
    figures are compared with those from when it was built.
    """
    from tasc.data import load_tokenizer

    task_tokenizer = load_tokenizer(tokenizer, eos=end_token(eos))
    show: Callable[[], None]
    if index is not None:
        drift = _index_result(index, log, rows, task_tokenizer, last)
        found, show = drift.as_dict(), lambda: _print_index(drift, index, log, rows, shlex.quote(tokenizer))
    elif rows:
        result = _rows_result(rows, task_tokenizer, shlex.quote(tokenizer), limit)
        found, show = result.as_dict(), lambda: _print(result)
    else:
        raise InputError("nothing to check: give ROWS, or --index with its log")
    write_results(found, output, None, "")
    if as_json:
        print_json(found)
    else:
        show()


def _rows_result(rows: list[Path], tokenizer: "TaskTokenizer", source: str, limit: int) -> "CheckResult":
    from tasc.data import read_rows
    from tasc.evaluation.check import check_rows

    with progress_bars() as bar:
        return check_rows(
            read_rows(rows, progress=bar("reading")),
            tokenizer,
            files=_quoted(rows),
            source=source,
            limit=limit,
            progress=bar,
        )


def _index_result(
    path: Path, log: Path | None, rows: list[Path] | None, tokenizer: "TaskTokenizer", last: int
) -> "DriftResult":
    from tasc._core import TaskIndex
    from tasc.data import read_rows
    from tasc.drafting.protocol import served_log
    from tasc.evaluation.check import check_index

    if log is not None and rows:
        raise InputError("the last requests come from ROWS or from --log: give one of them")
    index = TaskIndex.open(path)
    with progress_bars() as bar:
        if rows:
            return check_index(index, tokenizer, rows=read_rows(rows), last=last, progress=bar)
        log = served_log(index) if log is None else log
        if not log.exists():
            raise InputError(f"there is no log {log}: name one with --log, or give ROWS")
        return check_index(index, tokenizer, log=log, last=last, progress=bar)


def _print_index(result: "DriftResult", index: Path, log: Path | None, rows: list[Path] | None, tokenizer: str) -> None:
    for sentence in result.in_words():
        _say(f"{sentence}.")
    if result.fallen:
        file = shlex.quote(str(index))
        command = f"tasc index compact {file} --tokenizer {tokenizer}"
        if rows:
            command = f"tasc index build {_quoted(rows)} --tokenizer {tokenizer} -o {file}"
        elif log is not None:
            command += f" --log {shlex.quote(str(log))}"
        _print_next([command])


def _quoted(paths: list[Path]) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)


def _print_next(commands: list[str]) -> None:
    if commands:
        out.print("\nNext:")
    for command in commands:
        out.print(f"  {command}", highlight=False, soft_wrap=True)


def _print(result: "CheckResult") -> None:
    rows = result.rows
    by = "their split column" if rows["split_by"] == "column" else "a hash of the input"
    used = rows["train"] + rows["held_out"]
    sample = "" if used == rows["all"] else f" of {rows['all']:,}"
    _say(
        f"{used:,} rows{sample}, {rows['with_input']:,} with an input: {rows['train']:,} indexed, "
        f"{rows['held_out']:,} held out (by {by})"
    )
    out.print()
    for sentence in result.verdict.sentences:
        _say(f"{sentence}.")
    out.print()
    _print_speedups(result)
    _print_texts(result.predictors)
    _print_next(result.verdict.next_commands)


def _print_speedups(result: "CheckResult") -> None:
    from tasc.evaluation.check.verdict import percent

    vocabulary = result.vocabulary
    both = ["-"] * len(result.drafts) if vocabulary is None else [_speedup(one) for one in vocabulary.drafts]
    print_table(
        "Speed-up by the cost of a drafted token, 95 % intervals",
        ("cost", "τ", "drafts", "and vocabulary"),
        [
            (f"{one.cost:g}", one.tau["value"], _speedup(one), with_tokens)
            for one, with_tokens in zip(result.drafts, both, strict=True)
        ],
    )
    if vocabulary is None:
        _say(f"No task vocabulary: {result.no_vocabulary}.")
        return
    print_table(
        f"Task vocabulary alone, {percent(vocabulary.adoption)} of its tokens used",
        ("new tokens", "tokens saved", "speed-up"),
        [(f"{one.tokens:,}", percent(one.saved["value"] or 0.0, 1), _speedup(one)) for one in vocabulary.sizes],
    )


def _print_texts(figures: "Predictors") -> None:
    from tasc.evaluation.check.predictors import PAPER_TASKS
    from tasc.evaluation.check.verdict import percent

    said = f"H₂ of the output tokens {figures.renyi:.1f} bits"
    if figures.renyi_extended is not None:
        said += f", with the vocabulary {figures.renyi_extended:.1f}"
    _say(f"{said}. {percent(figures.repeated)} of the held-out output tokens repeat phrases of past outputs.")
    if figures.copied is not None:
        _say(f"{percent(figures.copied)} of the output words occur in their input.")
    relative = figures.relative_entropy
    if relative is not None:
        near = min(PAPER_TASKS, key=lambda task: abs(task[1] - relative))
        said = f"Entropy of the outputs against the inputs {_signed(relative)}"
        _say(f"{said}; {near[0]} has {_signed(near[1])} in the paper.")


def _speedup(figures: "DraftFigures | SizeFigures") -> str:
    found = figures.speedup
    if found["low"] is None:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} ({found['low']:.2f}–{found['high']:.2f})"


def _signed(share: float) -> str:
    return f"{100 * share:+.0f} %".replace("-", "−")


def _say(sentence: str) -> None:
    out.print(sentence, highlight=False)
