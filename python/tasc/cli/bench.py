"""`tasc bench`: the methods side by side on a real model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tasc.cli.console import end_token, out, print_json, print_table, progress_bars, with_interval
from tasc.cli.options import (
    AsJson,
    Corpus,
    DeployedIndex,
    Device,
    Eos,
    HeldOut,
    Html,
    InputField,
    OutputField,
    ResultsFile,
    System,
    Threads,
)
from tasc.cli.results import write_results
from tasc.drafting.defaults import MAX_DRAFT
from tasc.errors import InputError


def bench(
    model: Annotated[
        str | None, typer.Option(help="Decode with this model: a folder, a name on the model hub, or smollm2.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Read rows with input and output: index those of the `split` train, ask test.")
    ] = None,
    corpus: Corpus = None,
    index: DeployedIndex = None,
    held_out: HeldOut = None,
    input_field: InputField = "auto",
    output_field: OutputField = "auto",
    adapter: Annotated[Path | None, typer.Option(help="Merge the PEFT adapter of this folder into the model.")] = None,
    draft: Annotated[
        str | None, typer.Option(help="Add the methods model and combined, with the draft model of this folder.")
    ] = None,
    draft_length: Annotated[
        int | None, typer.Option(min=1, help="Set the draft length of the draft model alone; by default adaptive.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Decode at most this many prompts.")] = 100,
    system: System = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Generate at most this many tokens per output.")] = 256,
    max_draft: Annotated[int, typer.Option(min=1, help="Draft at most this many tokens at a time.")] = MAX_DRAFT,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Run these methods, comma-separated: transformers, transformers-prompt-lookup, suffix-1, suffix-4, "
            "suffix-16, tasc; with --draft also model, combined. By default all that are installed; plain decoding "
            "always runs, transformers-static (on a GPU it compiles for minutes) only by name."
        ),
    ] = None,
    eos: Eos = None,
    threads: Threads = None,
    dtype: Annotated[str, typer.Option(help="Load weights as auto, float32, bfloat16 or float16.")] = "auto",
    device: Device = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the model's small parts: faster steps on a GPU.")
    ] = False,
    output: ResultsFile = None,
    html: Html = None,
    as_json: AsJson = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Read two files of results (-o) and print B by A, in place of a run."),
    ] = None,
) -> None:
    """Decode held-out prompts plainly, with prompt lookup, SuffixDecoding, tasc, a draft model, interleaved in one run.

    Greedy, one request at a time. Prints tokens per second, request latency, **τ** (tokens per target step), and how
    many outputs are identical to plain decoding's: all of them, unless two tokens tie within rounding.
    """
    from tasc._core import TaskIndex
    from tasc.data import load_tokenizer
    from tasc.drafting.retokenizing import ngram_drafter
    from tasc.evaluation.bench import BenchOptions, check_methods
    from tasc.evaluation.bench import bench as run
    from tasc.evaluation.provenance import model_facts, run_facts
    from tasc.evaluation.replay_comparison import open_task
    from tasc.models import check_loadable, checkpoint, load_checkpoint, use_threads

    options = BenchOptions(
        system=system,
        max_tokens=max_tokens,
        max_draft=max_draft,
        methods=tuple(methods.split(",")) if methods else None,
        draft_length=draft_length,
        compile=compile,
    )
    if compare is not None:
        compare_results(*compare, as_json=as_json)
        return
    if model is None:
        raise InputError("name the model with --model, or two files of results with --compare")
    if draft_length is not None and draft is None:
        raise InputError("--draft-length is for a draft model: give its folder with --draft")
    check_methods(options, has_draft=draft is not None)
    check_loadable(model, draft, adapter=adapter, dtype=dtype, device=device)
    if index is not None:
        ngram_drafter(TaskIndex.open(index), load_tokenizer(checkpoint(model)))  # checks that it is the model's
    if threads is not None:
        use_threads(threads)
    loaded, tokenizer = load_checkpoint(model, adapter=adapter, dtype=dtype, device=device)
    task_tokenizer = load_tokenizer(tokenizer, eos=end_token(eos))
    small, its_tokenizer = None, None
    if draft is not None:
        from tasc.decoding.draft_model.loading import load_draft

        small, its_tokenizer = load_draft(draft, loaded, dtype=dtype, device=device)
    fields: dict[str, Any] = {"input_field": input_field, "output_field": output_field}
    with (
        progress_bars() as bar,
        open_task(
            data,
            task_tokenizer,
            corpus=corpus or (),
            index=index,
            held_out=held_out,
            **fields,
            limit=limit,
            system=system,
            progress=bar,
        ) as task,
    ):
        results = run(
            loaded,
            tokenizer,
            task,
            options,
            draft=small,
            draft_tokenizer=its_tokenizer,
            progress=bar("decoding"),
        )
        models = {"model": model_facts(model, loaded, adapter)}
        if draft is not None:
            models["draft"] = model_facts(draft, small)
        asked = results["settings"]["system"]  # by default what the model was tuned with
        results["provenance"] = {**task.provenance, **models, "system": asked, **run_facts()}
    if as_json:
        print_json(results)
    else:
        print_methods(results)
    write_results(results, output, html, "render")


def print_methods(results: dict[str, Any]) -> None:
    """The table of `tasc bench`."""
    columns = ("method", "tokens/s", "speed-up", "p50 ms", "p90 ms", "τ", "drafted", "accepted", "identical", "exact")
    count = len(results["requests"])
    print_table(
        f"{count} prompts, greedy, at most {results['settings']['max_draft']} drafted",
        columns,
        (
            (
                name,
                m["tokens_per_second"],
                with_interval(m["speedup_interval"]),
                1e3 * m["latency_p50"],
                1e3 * m["latency_p90"],
                m.get("tau"),
                m.get("drafted_per_step"),
                m.get("accepted"),
                f"{m['identical']}/{count}",
                f"{m['exact']}/{count}",
            )
            for name, m in results["methods"].items()
        ),
    )


def compare_results(before: Path, after: Path, *, as_json: bool) -> None:
    """Print two results of `tasc bench` side by side, with their ratios and what they do not share."""
    from tasc.evaluation.bench_comparison import compared
    from tasc.files import read_json

    found = compared(read_json(before), read_json(after))
    if as_json:
        print_json(found)
        return
    names = {"tokens_per_second": "tokens/s", "speedup": "speed-up", "latency_p50": "p50", "tau": "τ"}
    columns = [f"{label}, {part}" for label in names.values() for part in ("A", "B", "B/A")]
    print_table(
        f"A: {before}; B: {after}",
        ("method", *columns),
        ([method, *(ratios.get(name, {}).get(part) for name in names for part in ("a", "b", "ratio"))]
         for method, ratios in found["methods"].items()),
    )  # fmt: skip
    for name, (one, other) in found["differences"].items():
        out.print(f"{name}: A {one}, B {other}", highlight=False, soft_wrap=True)
    for side, methods in found["only"].items():
        out.print(f"only in {side.upper()}: {', '.join(methods)}", highlight=False, soft_wrap=True)
