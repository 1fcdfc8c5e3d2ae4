"""`tasc replay`: estimate the speed-up on a task without a model."""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasc.cli.console import end_token, err, out, print_json, print_table, progress_bars, with_interval
from tasc.cli.options import (
    AsJson,
    Corpus,
    DeployedIndex,
    Eos,
    HeldOut,
    Html,
    InputField,
    OutputField,
    ResultsFile,
    System,
    TokenizerName,
)
from tasc.cli.results import write_results
from tasc.drafting.defaults import DEFAULT_SLOPE, MAX_DRAFT
from tasc.errors import InputError
from tasc.printable import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasc.drafting.protocol import Drafter
    from tasc.evaluation.explain import Explanation
    from tasc.evaluation.replay import ReplayResult, ReplayRow
    from tasc.evaluation.replay_comparison import Task
    from tasc.progress import ProgressBars


def replay(
    tokenizer: TokenizerName,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA", help="Read rows with input and output, and a `split` or not. - is standard input."
        ),
    ] = None,
    corpus: Corpus = None,
    index: DeployedIndex = None,
    held_out: HeldOut = None,
    input_field: InputField = "auto",
    output_field: OutputField = "auto",
    system: System = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Draft at most this many tokens at a time.")] = MAX_DRAFT,
    cost: Annotated[
        float, typer.Option(min=0.0, help="Set the cost of verifying one drafted token, in plain steps.")
    ] = DEFAULT_SLOPE,
    limit: Annotated[int | None, typer.Option(min=1, help="Replay only the first rows held out.")] = None,
    drafters: Annotated[
        str | None,
        typer.Option(help="Replay these: tasc, suffix, prompt-lookup, comma-separated; by default all installed."),
    ] = None,
    eos: Eos = None,
    no_inputs: Annotated[
        bool, typer.Option("--no-inputs", help="Index outputs only, as if the rows' inputs were not known.")
    ] = False,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also replay tasc without each source, and show the loss of s(c).")
    ] = False,
    explain: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="ROW",
            help="Explain this held-out row (from 1): each drafted token and the sources that proposed it.",
        ),
    ] = None,
    output: ResultsFile = None,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Replay held-out outputs through each drafter, without a model: how many tokens per step would it emit?

    With a split column `train` is indexed and `test` replayed; otherwise `--corpus` names the rows to index and all of
    DATA is replayed. `--index` replays on the index that is deployed, `--held-out` names the rows to replay. A row's
    context is its `input` and a newline; its output ends with the EOS.

    **τ** is tokens per target step, **drafted** the mean length of a draft, **accepted** the share of drafted tokens
    that were right, **s(c)** the speed-up if verifying k drafted tokens costs 1 + c·k plain steps, at `--cost` with its
    bootstrap interval of 95 % over the rows.
    """
    from tasc._core import NgramDrafter
    from tasc.data import load_tokenizer
    from tasc.drafting.prompt_input import template_in_words
    from tasc.evaluation.ablation import ablations
    from tasc.evaluation.explain import explain as explain_row
    from tasc.evaluation.machine import machine
    from tasc.evaluation.provenance import run_facts
    from tasc.evaluation.replay import encode_rows
    from tasc.evaluation.replay_comparison import check_families, families_here, open_task

    names = families_here() if drafters is None else check_families(drafters.split(","))
    if ablate and "tasc" not in names:
        raise InputError("--ablate compares with tasc: name it among --drafters")
    task_tokenizer = load_tokenizer(tokenizer, eos=end_token(eos))
    found: dict[str, Any] = {"k": k, "cost": cost}
    fields: dict[str, Any] = {"input_field": input_field, "output_field": output_field, "system": system}
    with (
        progress_bars() as bar,
        open_task(
            data, task_tokenizer, corpus=corpus or (), index=index, held_out=held_out, **fields, limit=limit,
            inputs=not no_inputs, progress=bar,
        ) as task,
    ):  # fmt: skip
        found["provenance"] = {
            **task.provenance,
            "tokenizer": {"name": tokenizer, "fingerprint": task_tokenizer.fingerprint},
            **run_facts(),
        }
        found["machine"] = machine()
        rows = encode_rows(task.held_out, task_tokenizer, eos=task.eos)
        said = template_in_words(task.index, task_tokenizer)
        if said is not None:
            err.print(said, highlight=False, markup=False, soft_wrap=True)
        results = [] if explain and not ablate else _replayed(task, rows, names, k, cost, ablate, bar)
        if explain is not None:
            drafter = NgramDrafter(task.index, tokenizer=task_tokenizer)
            found["explained"] = explain_row(drafter, rows, explain, task_tokenizer, max_tokens=k, cost=cost)
    if results and drafters is None and "suffix" not in names:
        err.print("SuffixDecoding is not installed (package arctic-inference): left out")
    if results:
        found |= {"rows": len(rows), "drafters": {r.name: r.as_dict() for r in results}}
    if ablate:
        found["ablations"] = ablations(results)
    if as_json:
        print_json(found)
    else:
        _print(results, found, k, cost)
    write_results(found, output, html, "render_replay")


def _replayed(
    task: "Task", rows: "list[ReplayRow]", names: list[str], k: int, cost: float, ablate: bool, bar: "ProgressBars"
) -> list["ReplayResult"]:
    """Every drafter's replay, one at a time, then SuffixDecoding's at its best."""
    from tasc.evaluation.ablation import ablated
    from tasc.evaluation.replay import replay as replay_rows
    from tasc.evaluation.replay_comparison import best_suffix, make_drafters

    drafters: Iterable[Drafter] = chain(make_drafters(names, task, k), ablated(task) if ablate else ())
    results = [replay_rows(d, rows, max_tokens=k, cost=cost, progress=bar(d.name)) for d in drafters]
    best = best_suffix(results)
    return results + ([best] if best else [])


def _print(results: list["ReplayResult"], found: dict[str, Any], k: int, cost: float) -> None:
    if results:
        costs = sorted({0.02, 0.05, cost})
        print_table(
            f"{counted(results[0].rows, 'row')}, {counted(results[0].tokens, 'token')}, at most {k} drafted",
            ("drafter", "τ", "drafted", "accepted", *(f"s({c:g})" for c in costs)),
            (
                [r.name, r.tau, r.drafted_per_step, r.accepted]
                + [with_interval(r.speedup_interval()) if c == r.cost else r.speedup_at(c) for c in costs]
                for r in results
            ),
        )
    if "ablations" in found:
        from tasc.evaluation.ablation import NAMES

        print_table(
            "What each source is worth: the same replay without it",
            ("without", f"s({cost:g})", "lost"),
            ((NAMES.get(s, s), f["speedup"], f"{100 * f['lost']:.1f} %") for s, f in found["ablations"].items()),
        )
    if "explained" in found:
        _print_explained(found["explained"])


_LEAST_SHOWN = 0.005
_LOOKS = {"accepted": "green", "rejected": "bold red", "after": "dim", "own": "bold"}
_COLORS = {"task": "blue", "context": "cyan", "retrieved": "green", "coverage": "yellow", "copy": "magenta"}


def _print_explained(row: "Explanation") -> None:
    """A table of the row's tokens, one section per target step."""
    from rich.table import Table
    from rich.text import Text

    from tasc.evaluation.explain import spans, visible
    from tasc.printable import printable

    if row["input"] is not None:
        out.print(Text.assemble(("input   ", "dim"), printable(row["input"])), soft_wrap=True)
    out.print(Text.assemble(("output  ", "dim"), printable(row["output"])), soft_wrap=True)
    table = Table(
        title=f"row {row['row']}: {counted(row['tokens'], 'token')} in {counted(len(row['steps']), 'step')}",
        title_justify="left",
    )
    for column in ("step", "token", "p", "sources", ""):
        table.add_column(column, justify="right" if column in ("step", "p") else "left")
    for number, step in enumerate(row["steps"], start=1):
        shown = spans(step)
        for place, token in enumerate(shown):
            look = _LOOKS[token["verdict"]]
            spoke = sorted(token["sources"].items(), key=lambda pair: -pair[1])
            sources = [
                Text(printable(f"{name}={p:.2f}"), _COLORS.get(name, "")) for name, p in spoke if p >= _LEAST_SHOWN
            ]
            others = [
                f"{visible(t)} {p:.2f}" for t, p in token["candidates"] if t != token["text"] and p >= _LEAST_SHOWN
            ]
            also = f"; also {', '.join(others)}" if others and token["verdict"] == "rejected" else ""
            table.add_row(
                "" if place else str(number),
                Text(visible(token["text"]), look),
                "" if token["prob"] is None else f"{token['prob']:.3f}",
                Text("  ").join(sources),
                Text(token["verdict"] + also, look),
                end_section=place == len(shown) - 1,
            )
    out.print(table)
