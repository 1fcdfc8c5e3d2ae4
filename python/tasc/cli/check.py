"""`tasc check`: what tasc would bring on a task."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasc.cli.console import end_token, out, print_json, print_table, progress_bars
from tasc.cli.options import Eos, PastRows, TokenizerName
from tasc.cli.results import check_writable, write_results

if TYPE_CHECKING:
    from tasc.evaluation.check import CheckResult


def check(
    rows: PastRows,
    tokenizer: TokenizerName,
    limit: Annotated[int, typer.Option(min=10, help="Look at this many rows at most; of more, at a sample.")] = 20_000,
    eos: Eos = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result as JSON to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what tasc would bring on a task, from its past rows, without a model.

    Rows are split by themselves, unless they have a split column: `train` is then indexed and `test` held out. Drafts
    are replayed on the held-out rows. **τ** is tokens per step, **s(c)** the speed-up if verifying k drafted tokens
    costs 1 + c·k plain steps; intervals are 95 % bootstrap intervals over rows.
    """
    from tasc.data import load_tokenizer, read_rows
    from tasc.evaluation.check import check_rows

    check_writable(output)
    task_tokenizer = load_tokenizer(tokenizer, eos=end_token(eos))
    with progress_bars() as bar:
        result = check_rows(read_rows(rows, progress=bar("reading")), task_tokenizer, limit=limit, progress=bar)
    found = result.as_dict()
    write_results(found, output, None, "")
    if as_json:
        print_json(found)
    else:
        _print(result)


def _print(result: "CheckResult") -> None:
    rows = result.rows
    out.print(
        f"{rows['all']:,} rows, {rows['with_input']:,} with an input: {rows['train']:,} indexed, {rows['held_out']:,} "
        f"held out (by {'their split column' if rows['split_by'] == 'column' else 'hash'})",
        highlight=False,
    )
    print_table(
        "Drafts on held-out rows",
        ("cost of a drafted token", "τ", "s", "95 %", "drafted", "accepted"),
        (
            (f"{one.cost:g}", one.tau["value"], one.speedup["value"], _interval(one.speedup), one.drafted, one.accepted)
            for one in result.drafts
        ),
    )


def _interval(estimate: dict[str, float | None]) -> str:
    low, high = estimate["low"], estimate["high"]
    return "-" if low is None or high is None else f"{low:.2f} to {high:.2f}"
