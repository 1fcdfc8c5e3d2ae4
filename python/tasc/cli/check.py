"""`tasc check`: what tasc would bring on a task."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasc.cli.check_model import (
    Adapter,
    DistillMinutes,
    Engine,
    Load,
    Measure,
    Model,
    Profiles,
    SaveProfile,
    load_model,
)
from tasc.cli.console import end_token, out, print_json, print_table, progress_bars
from tasc.cli.options import AsJson, Eos, Html, InputField, OutputField, ResultsFile, System
from tasc.cli.results import write_results
from tasc.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasc._core import TaskIndex
    from tasc.data import TaskTokenizer
    from tasc.evaluation.check import CheckResult, DriftResult
    from tasc.evaluation.check.summary import Summary
    from tasc.evaluation.check.with_model import ModelCheck

_READ_ONCE = "ROWS"  # in the next commands, in place of a file that cannot be read again


def check(
    rows: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[ROWS...]",
            help="Read past rows: JSON, CSV, Parquet, Arrow or text, or a folder of `datasets`; - for standard input.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Use this tokenizer: a model's folder, a tokenizer.json, a hub name, or smollm2."),
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
    limit: Annotated[int, typer.Option(min=10, help="Index this many rows at most; of more, a sample.")] = 20_000,
    input_field: InputField = "auto",
    output_field: OutputField = "auto",
    eos: Eos = None,
    output: ResultsFile = None,
    html: Html = None,
    as_json: AsJson = False,
    model: Model = None,
    adapter: Adapter = None,
    system: System = None,
    device: Profiles = None,
    engine: Engine = None,
    save_profile: SaveProfile = None,
    load: Load = 1,
    measure: Measure = False,
    distill_minutes: DistillMinutes = None,
) -> None:
    """Say what tasc would bring on a task, and what to do next, from its past rows, with or without a model.

    Rows are split by themselves, unless they have a split column: `train` is then indexed and `test` held out. Drafts
    are replayed on the held-out rows, and task vocabularies are measured on them. **τ** is tokens per step. The
    speed-up at cost c is that of a decoder for which verifying k drafted tokens takes as long as 1 + c·k plain steps.

    With `--model`, the model answers some held-out rows, and its outputs are compared with the rows'. The cost of a
    step is measured, and the time per output of each method is predicted; `--measure` then measures it on other rows.
    `--distill-minutes` trains a draft model first and predicts for it too.

    With `--index`, say instead whether an index still fits its requests: the last ones are replayed on it, and the
    figures are compared with those from when it was built.
    """
    from tasc._core import TaskIndex
    from tasc.data import load_tokenizer
    from tasc.drafting.protocol import served_log
    from tasc.evaluation.check.summary import summarize
    from tasc.evaluation.machine import machine
    from tasc.evaluation.provenance import data_facts, model_facts, run_facts

    source = tokenizer or model
    if source is None:
        raise InputError("which tokens do the outputs have? name a --tokenizer, or a --model to check it too")
    if model is None and (adapter or device or engine or save_profile or measure or load != 1):
        names = "--adapter, --device, --engine, --load, --measure and --save-profile"
        raise InputError(f"{names} are for a check with a --model")
    if distill_minutes is not None and (model is None or index is not None):
        raise InputError("--distill-minutes is for a check of ROWS with a --model")
    if index is not None and model is not None:
        raise InputError("--index is compared without a model: name its tokenizer with --tokenizer in place of --model")
    if tokenizer is not None and model is not None and tokenizer != model:
        raise InputError(f"a model is checked with its own tokenizer: leave out --tokenizer {tokenizer}, or --model")
    if log is not None and index is None:
        raise InputError("--log holds the last requests of an index: name the index with --index")
    for path in rows or ():
        if str(path) != "-":
            path.stat()  # before a model is loaded
    loaded, failed = None, None
    if model is not None:
        about: dict[str, Any] = {"system": system, "eos": eos, "devices": device or (), "engine": engine, "load": load}
        loaded = load_model(model, adapter, measure, distill_minutes, save_profile=save_profile, **about)
    task_tokenizer = load_tokenizer(source if loaded is None else loaded.tokenizer, eos=end_token(eos))
    fields: dict[str, Any] = {"input_field": input_field, "output_field": output_field}
    named, ends = shlex.quote(source), _option("--eos", eos)
    read: dict[str, Any] = {}
    if index is not None:
        read["index"] = data_facts(index)  # before it is opened: another process may replace it meanwhile
        opened = TaskIndex.open(index)
        if not rows:
            read["log"] = data_facts(served_log(opened) if log is None else log)
        drift = _index_result(opened, log, rows, fields, task_tokenizer, last)
        notes = opened.info()["notes"]
        summary, found = _index_summary(drift, index, notes, log, rows, fields, named, ends), drift.as_dict()
    elif rows:
        result = _rows_result(rows, fields, system, task_tokenizer, named + ends, limit, loaded)
        summary, found, failed = summarize(result), result.as_dict(), result.failed
    else:
        raise InputError("nothing to check: give ROWS, or --index with its log")
    asked = (found.get("model") or {"system": system})["system"]  # by default what the model was tuned with
    found["provenance"] = {
        "data": [data_facts(path) for path in rows or ()],
        **read,
        "tokenizer": {"name": source, "fingerprint": task_tokenizer.fingerprint},
        **({} if loaded is None else {"model": model_facts(loaded.name, loaded.model, adapter), "system": asked}),
        **run_facts(),
    }
    found["machine"] = machine()
    if summary.next_commands and any(map(_is_read_once, rows or ())):
        summary.notes.append(
            f"{_READ_ONCE} stands for rows that cannot be read again: write them to a file, and name it"
        )
    if as_json:
        print_json(found)
    else:
        _print(summary)
    write_results(found, output, None, "")
    write_results({**asdict(summary), "results": found}, None, html, "render_check")
    if failed is not None:
        raise failed


def _rows_result(
    rows: list[Path],
    fields: dict[str, Any],
    system: str | None,
    tokenizer: "TaskTokenizer",
    source: str,
    limit: int,
    model: "ModelCheck | None",
) -> "CheckResult":
    from tasc.data import read_rows
    from tasc.evaluation.check import check_rows

    with progress_bars() as bar:
        return check_rows(
            read_rows(rows, **fields, progress=bar("reading")),
            tokenizer,
            files=[_named(path) for path in rows],
            outputs=_option("--output-field", fields["output_field"]),
            inputs=_option("--input-field", fields["input_field"]) + _option("--system", system),
            source=source,
            limit=limit,
            model=model,
            progress=bar,
        )


def _index_result(
    index: "TaskIndex",
    log: Path | None,
    rows: list[Path] | None,
    fields: dict[str, Any],
    tokenizer: "TaskTokenizer",
    last: int,
) -> "DriftResult":
    from tasc.data import read_rows
    from tasc.drafting.protocol import served_log
    from tasc.evaluation.check import check_index

    if log is not None and rows:
        raise InputError("the last requests come from ROWS or from --log: give one of them")
    with progress_bars() as bar:
        if rows:
            return check_index(index, tokenizer, rows=read_rows(rows, **fields), last=last, progress=bar)
        log = served_log(index) if log is None else log
        if not log.exists():
            raise InputError(f"there is no log {log}: name one with --log, or give ROWS")
        return check_index(index, tokenizer, log=log, last=last, progress=bar)


def _index_summary(
    result: "DriftResult",
    index: Path,
    notes: "Mapping[str, str]",
    log: Path | None,
    rows: list[Path] | None,
    fields: dict[str, Any],
    tokenizer: str,
    ends: str,
) -> "Summary":
    """Add the command that builds the index again, if that is worth it."""
    from tasc.evaluation.check.summary import summarize_drift

    file = shlex.quote(str(index))
    command = f"tasc index compact {file} --tokenizer {tokenizer}"
    if rows:
        named = _option("--output-field", fields["output_field"]) + _option("--input-field", fields["input_field"])
        named += _option("--system", notes.get("system"))
        files = " ".join(map(_named, rows))
        anew = shlex.quote(str(index.with_name(f"{index.stem}-new{index.suffix}")))  # the old one may hold more rows
        command = f"tasc index build {files}{named} --tokenizer {tokenizer}{ends} -o {anew}"
    elif log is not None:
        command += f" --log {shlex.quote(str(log))}"
    return summarize_drift(result, [command] if result.fallen else [])


def _option(flag: str, value: str | None) -> str:
    """Return an option with a space before it; nothing if it has its default."""
    return "" if value in (None, "auto") else f" {flag} {shlex.quote(value)}"


def _named(path: Path) -> str:
    """Return how a next command names a file; one that is gone after it was read, such as standard input, is ROWS."""
    return _READ_ONCE if _is_read_once(path) else shlex.quote(str(path))


def _is_read_once(path: Path) -> bool:
    from tasc.data.files import is_stdin

    return is_stdin(path) or not (path.is_file() or path.is_dir())


def _print(summary: "Summary") -> None:
    """Print sentences wrapped at the width of the terminal, and commands unwrapped, ready to paste."""
    _say(summary.facts)
    out.print()
    for sentence in summary.verdict:
        _say(sentence)
    if summary.tables:
        out.print()
    for table in summary.tables:
        print_table(table.title, table.columns, table.rows)
    for sentence in summary.notes:
        _say(sentence)
    if summary.next_commands:
        out.print("\nNext:")
    for command in summary.next_commands:
        out.print(f"  {command}", highlight=False, soft_wrap=True)


def _say(sentence: str) -> None:
    out.print(f"{sentence}.", highlight=False)
