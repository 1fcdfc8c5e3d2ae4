"""`tasc check`: what tasc would bring on a task."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasc.cli.check_model import (
    Adapter,
    Load,
    Measure,
    Model,
    Profiles,
    SaveProfile,
    System,
    load_model,
    print_model,
)
from tasc.cli.console import end_token, out, print_json, print_table, progress_bars
from tasc.cli.options import Eos, PastRows
from tasc.cli.results import check_writable, write_results
from tasc.errors import InputError

if TYPE_CHECKING:
    from tasc.evaluation.check import CheckResult
    from tasc.evaluation.check.drafts import DraftFigures
    from tasc.evaluation.check.predictors import Predictors
    from tasc.evaluation.check.vocabulary import SizeFigures


def check(
    rows: PastRows,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Use this tokenizer: a model's folder, a tokenizer.json, or a name on the model hub."),
    ] = None,
    limit: Annotated[int, typer.Option(min=10, help="Look at this many rows at most; of more, at a sample.")] = 20_000,
    eos: Eos = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result as JSON to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    model: Model = None,
    adapter: Adapter = None,
    system: System = None,
    device: Profiles = None,
    save_profile: SaveProfile = None,
    load: Load = 1,
    measure: Measure = False,
) -> None:
    """Say what tasc would bring on a task, and what to do next, from its past rows, with or without a model.

    Rows are split by themselves, unless they have a split column: `train` is then indexed and `test` held out. Drafts
    are replayed on the held-out rows, and task vocabularies are measured on them. **τ** is tokens per step. The
    speed-up at cost c is that of a decoder for which verifying k drafted tokens takes as long as 1 + c·k plain steps.

    With `--model`, the model answers some held-out rows, and its outputs are compared with the rows'. The cost of a
    step is measured, and the time per output of each method is predicted; `--measure` then measures it on other rows.
    """
    from tasc.data import load_tokenizer, read_rows
    from tasc.evaluation.check import check_rows

    check_writable(output, save_profile)
    source = tokenizer or model
    if source is None:
        raise InputError("which tokens do the outputs have? name a --tokenizer, or a --model to check it too")
    loaded = None if model is None else load_model(model, adapter, system, device, save_profile, measure, load)
    task_tokenizer = load_tokenizer(source if loaded is None else loaded.tokenizer, eos=end_token(eos))
    with progress_bars() as bar:
        result = check_rows(
            read_rows(rows, progress=bar("reading")),
            task_tokenizer,
            files=" ".join(shlex.quote(str(path)) for path in rows),
            source=shlex.quote(source),
            limit=limit,
            model=loaded,
            progress=bar,
        )
    found = result.as_dict()
    write_results(found, output, None, "")
    if as_json:
        print_json(found)
    else:
        _print(result)
        if result.model is not None:
            print_model(result.model)


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
    if result.verdict.next_commands:
        out.print("\nNext:")
    for command in result.verdict.next_commands:
        out.print(f"  {command}", highlight=False, soft_wrap=True)


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
