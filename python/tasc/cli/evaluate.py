"""`tasc eval`: evaluate a fine-tuned model, beside the same tuning without new tokens."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasc.cli.console import err, print_json, print_table, progress_bars
from tasc.cli.options import AsJson, Device, Html, InputField, OutputField, ResultsFile, System, Threads
from tasc.cli.results import write_results, written_whole
from tasc.errors import InputError
from tasc.files import as_json

if TYPE_CHECKING:
    from collections import Counter

    from tasc.evaluation.decoder import Decoder
    from tasc.evaluation.task_eval import Evaluation
    from tasc.evaluation.task_metrics import Slot


def evaluate(
    model: Annotated[str, typer.Option(help="Evaluate this model: a folder, a name on the model hub, or smollm2.")],
    data: Annotated[
        Path,
        typer.Option(help="Read rows with input and output, and a `split` or not. - is standard input."),
    ],
    split: Annotated[
        str | None, typer.Option(help="Take only this split's rows; by default `test` if the rows have one, else all.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate at most this many rows, the first ones.")] = None,
    input_field: InputField = "auto",
    output_field: OutputField = "auto",
    against: Annotated[
        str | None, typer.Option(help="Compare with this model, for example the same tuning without the new tokens.")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="ROWS",
            help="Split slot F1 by how many of these training rows (`train`, if they have a split) hold a slot.",
        ),
    ] = None,
    system: System = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Decode at most this many steps per output.")] = 512,
    quality_batch: Annotated[int, typer.Option(min=1, help="Answer this many rows together for quality.")] = 16,
    batch_sizes: Annotated[str, typer.Option(help="Time batches of these sizes, comma-separated.")] = "1,8",
    latency_rows: Annotated[int, typer.Option(min=0, help="Time this many rows at each batch size; 0 for none.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Time each row this many times; the median counts.")] = 3,
    seed: Annotated[int, typer.Option(help="Set the seed of the bootstrap intervals.")] = 0,
    threads: Threads = None,
    dtype: Annotated[str, typer.Option(help="Load weights as float32, bfloat16, float16 or auto.")] = "float32",
    device: Device = None,
    output: ResultsFile = None,
    html: Html = None,
    as_json: AsJson = False,
    save_outputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", writable=True, help="Write the outputs of each model, text and ids, as JSONL."),
    ] = None,
) -> None:
    """Evaluate a model on held-out rows: task metrics, steps, use of the new tokens, latency.

    Greedy, by transformers' own `generate`. All rows are answered for quality, a few are timed; with `--against`
    the two models take turns. Figures and their differences come with a bootstrap interval of 95 %.
    """
    from tasc.evaluation import task_metrics as metrics
    from tasc.evaluation.pairwise_eval import AGAINST, MODEL, results
    from tasc.evaluation.provenance import data_facts, model_facts, run_facts
    from tasc.evaluation.task_eval import EvalOptions, inputs_of
    from tasc.models import check_loadable, use_threads

    options = EvalOptions(
        max_tokens=max_tokens,
        batch_size=quality_batch,
        batch_sizes=_sizes(batch_sizes),
        latency_rows=latency_rows,
        rounds=rounds,
        seed=seed,
    )
    metrics.check_installed()
    check_loadable(model, against, dtype=dtype, device=device)
    fields = {"input_field": input_field, "output_field": output_field}
    rows = _rows(data, split, limit, fields)
    trained = None if train is None else _rows(train, None, None, fields, usual="train")
    inputs_of(rows)
    if threads is not None:
        use_threads(threads)
    named = {MODEL: model} | ({AGAINST: against} if against is not None else {})
    sides = {side: _decoder(name, system, dtype, device) for side, name in named.items()}
    with progress_bars() as bar:
        seen = None if trained is None else _seen(trained, sides[MODEL], train)
        found, evaluations = results(sides, rows, options=options, seen=seen, progress=bar)
    found["provenance"] = {
        "data": data_facts(data, len(rows)),
        **{
            side: {**model_facts(name, sides[side].model), "system": sides[side].system_used}
            for side, name in named.items()
        },
        **run_facts(),
    }
    found["settings"] = {**named, "data": str(data), "system": system, "dtype": dtype, **found["settings"]}
    if as_json:
        print_json(found)
    else:
        print_evaluation(found)
    write_results(found, output, html, "render_evaluation")
    if save_outputs is not None:
        _write_outputs(evaluations, save_outputs)


def _sizes(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--batch-sizes is {text!r}; give numbers from 1, such as 1,8")
    return tuple(dict.fromkeys(map(int, parts)))


def _rows(
    data: Path, split: str | None, limit: int | None, fields: dict[str, Any], *, usual: str = "test"
) -> list[dict[str, Any]]:
    """Read the rows of a split; without one, of the `usual` split if the rows have a split."""
    from tasc.data import read_rows

    rows = read_rows(data, split, **fields)
    if split is None and (first := next(rows, None)) is not None:
        rows = chain([first], rows)
        if "split" in first:
            rows = (row for row in rows if row.get("split") == usual)
    return list(islice(rows, limit))


def _seen(rows: list[dict[str, Any]], side: "Decoder", train: Path | None) -> "Counter[Slot]":
    """Count the slots of training rows.

    Raises:
        InputError: No output has a slot.
    """
    from tasc.data.chat import output_texts
    from tasc.evaluation.task_metrics import seen_slots

    outputs = output_texts(side.task_tokenizer, [row for row in rows if row.get("output") is not None], side.system)
    found = seen_slots(outputs)
    if not found:
        raise InputError(f"--train {train}: no output is JSON with slots; slot F1 is of JSON outputs")
    return found


def _decoder(name: str, system: str | None, dtype: str, device: str | None) -> "Decoder":
    from tasc.data import load_tokenizer
    from tasc.evaluation.decoder import Decoder
    from tasc.models import load_checkpoint

    model, tokenizer = load_checkpoint(name, dtype=dtype, device=device)
    return Decoder(model, tokenizer, load_tokenizer(tokenizer), system)


def _write_outputs(evaluations: "Mapping[str, Evaluation]", file: Path) -> None:
    with written_whole(file) as sink:
        for side, evaluation in evaluations.items():
            for prediction in evaluation.predictions:
                sink.write(as_json({"side": side, **asdict(prediction)}, ensure_ascii=False) + "\n")
    err.print(f"outputs: {file}", highlight=False, soft_wrap=True)


def print_evaluation(found: Mapping[str, Any]) -> None:
    """The tables of `tasc eval`."""
    _print_figures(found)
    if found["latency"]:
        _print_latency(found)


def _print_figures(found: Mapping[str, Any]) -> None:
    from tasc.evaluation.report.evaluation import figure_rows

    counts = [facts["counts"] for facts in found["models"].values()]
    table = [[label, *values, difference or ""] for label, values, difference in figure_rows(found)]
    for name in ("unparsable", "unfinished", "round_trip", "new_tokens"):
        if name in counts[0]:
            table.append([name.replace("_", " "), *(c[name] for c in counts), ""])
    columns = ["figure", *found["models"], *(["difference"] if "comparison" in found else [])]
    title = f"{counts[0]['rows']} rows, greedy, at most {found['settings']['max_tokens']} steps"
    print_table(title, columns, [row[: len(columns)] for row in table])


def _print_latency(found: Mapping[str, Any]) -> None:
    from tasc.evaluation.report.evaluation import shown

    columns = ("batch", "model", "ms/row", "decode ms/row", "base tokens/s", "characters/s")
    speedups = {"speed-up": "speedup", "decode speed-up": "decode_speedup"} if "comparison" in found else {}
    table = []
    for timed in found["latency"]:
        ratios = [shown(timed[name]) for name in speedups.values()]
        for side, facts in timed["models"].items():
            times = [1e3 * facts["seconds_per_row"], 1e3 * facts["decode_seconds_per_row"]]
            speeds = [facts["base_tokens_per_second"], facts["characters_per_second"]]
            table.append([str(timed["batch_size"]), side, *times, *speeds, *ratios])
            ratios = [""] * len(ratios)  # shown beside the first model alone
    title = (
        f"the first {found['settings']['latency_rows']} rows at most, medians of {found['settings']['rounds']} rounds"
    )
    print_table(title, (*columns, *speedups), table)
