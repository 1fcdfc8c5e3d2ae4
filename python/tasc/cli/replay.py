"""`tasc replay`: how much a task has to gain, without a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasc.cli.console import end_token, err, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from tasc.spec.replay import ReplayResult


def replay(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Rows `{input, output, split?}`: JSONL (.gz, .zst) or Parquet.")
    ],
    tokenizer: Annotated[
        str, typer.Option(help="The model's tokenizer: its folder, a tokenizer.json, or a name on the model hub.")
    ],
    corpus: Annotated[
        list[Path] | None, typer.Option(help="Rows to index, where DATA has no split column. May be repeated.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Most tokens per draft.")] = 16,
    cost: Annotated[float, typer.Option(min=0.0, help="Cost of verifying one drafted token, in plain steps.")] = 0.02,
    limit: Annotated[int | None, typer.Option(min=1, help="Replay only the first rows held out.")] = None,
    drafters: Annotated[
        str | None,
        typer.Option(help="Comma-separated: tasc, suffix, prompt-lookup. By default all that are installed."),
    ] = None,
    eos: Annotated[
        str | None, typer.Option(help="The token that ends an output, as text or id, if not the tokenizer's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Replay held-out outputs through each drafter, without a model: how many tokens per step would it emit?

    With a split column `train` is indexed and `test` replayed; otherwise `--corpus` names the rows to index and all of
    DATA is replayed. A row's context is its `input` and a newline; its output ends with the EOS.

    **τ** is tokens per target step, **drafted** the mean length of a draft, **accepted** the share of drafted tokens
    that were right, **s(c)** the speed-up if verifying k drafted tokens costs 1 + c·k plain steps.
    """
    from tasc.data import load_tokenizer
    from tasc.spec.compare import best_suffix, check_families, families_here, make_drafters, open_task
    from tasc.spec.replay import encode_rows
    from tasc.spec.replay import replay as replay_rows

    names = families_here() if drafters is None else check_families(drafters.split(","))
    if drafters is None and "suffix" not in names:
        err.print("SuffixDecoding is not installed (package arctic-inference): left out")
    task_tokenizer = load_tokenizer(tokenizer, eos=end_token(eos))
    results: list[ReplayResult] = []
    with (
        progress_bars() as bar,
        open_task(data, task_tokenizer, corpus=corpus or (), limit=limit, progress=bar) as task,
    ):
        rows = encode_rows(task.held_out, task_tokenizer, eos=task.eos)
        for drafter in make_drafters(names, task, k):
            results.append(replay_rows(drafter, rows, max_tokens=k, cost=cost, progress=bar(drafter.name)))
    best = best_suffix(results)
    results += [best] if best else []
    if as_json:
        print_json({"k": k, "cost": cost, "rows": len(rows), "drafters": {r.name: r.as_dict() for r in results}})
    else:
        _print(results, k, cost)


def _print(results: list["ReplayResult"], k: int, cost: float) -> None:
    costs = sorted({0.02, 0.05, cost})
    print_table(
        f"{results[0].rows} rows, {results[0].tokens:,} tokens, at most {k} drafted",
        ("drafter", "τ", "drafted", "accepted", *(f"s({c:g})" for c in costs)),
        ([r.name, r.tau, r.drafted_per_step, r.accepted, *(r.speedup_at(c) for c in costs)] for r in results),
    )
