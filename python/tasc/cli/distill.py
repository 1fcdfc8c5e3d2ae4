"""`tasc distill`: a small draft model that says what a target says."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tasc.cli.console import end_token, out, print_json, print_table, progress_bars
from tasc.errors import InputError


def distill(
    target: Annotated[
        str, typer.Option(help="The model to draft for, tuned to the task: a folder, a hub name or `smollm2`.")
    ],
    data: Annotated[
        list[Path], typer.Option(help="Rows with input and output: JSONL (.gz, .zst) or Parquet; may be repeated.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The draft to write.")],
    draft: Annotated[
        str | None, typer.Option(help="A smaller model with the target's vocabulary: a folder or a hub name.")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Instead of --draft, cut one from the target: how many of its layers, or which (0,10,19,29)."
        ),
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A PEFT adapter of the target, merged into it first.")] = None,
    split: Annotated[str | None, typer.Option(help="Learn from the rows whose `split` is this, as train.")] = None,
    validation_split: Annotated[
        str | None, typer.Option(help="Measure acceptance on what the target says to the rows of this split.")
    ] = None,
    validation_rows: Annotated[int, typer.Option(min=1, help="At most so many of them.")] = 100,
    limit: Annotated[int | None, typer.Option(min=1, help="Learn from at most so many rows, the first ones.")] = None,
    system: Annotated[str | None, typer.Option(help="System message before each input.")] = None,
    outputs: Annotated[
        str,
        typer.Option(help="given: learn from the rows' outputs; target: from what the target says to their inputs."),
    ] = "given",
    loss: Annotated[str, typer.Option(help="forward_kl, reverse_kl, jsd or tvd.")] = "forward_kl",
    select: Annotated[
        str, typer.Option(help="Tokens to learn from: adaspec (those a reference can learn), random or all.")
    ] = "all",
    k: Annotated[float, typer.Option(help="Share of the tokens that adaspec and random keep.")] = 0.4,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of the draft.")] = 300,
    reference_steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps of the reference; by default as many.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A reference that is distilled already, such as a DIR.baseline.")
    ] = None,
    init_from: Annotated[
        str, typer.Option(help="Where the last stage begins: draft, as it came (the paper), or reference.")
    ] = "draft",
    trainable: Annotated[
        str, typer.Option(help="blocks: embeddings and head stay as they are; all: every weight.")
    ] = "blocks",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a forward pass on one device.")] = 16,
    accumulate: Annotated[int, typer.Option(min=1, help="Forward passes of an optimizer step.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Highest rate.")] = 1e-3,
    precision: Annotated[
        str, typer.Option(help="Of the arithmetic: auto (bf16 where the machine has it), fp32, bf16 or fp16.")
    ] = "auto",
    keep_states: Annotated[
        bool, typer.Option(help="Run the target once and keep its last hidden states, or run it on every batch.")
    ] = True,
    max_tokens: Annotated[int, typer.Option(min=1, help="Leave out rows longer than this.")] = 2048,
    max_output: Annotated[
        int, typer.Option(min=1, help="Most tokens of an output that the target is asked for.")
    ] = 256,
    length: Annotated[int, typer.Option(min=1, help="Tokens per draft that acceptance is counted with.")] = 5,
    baseline: Annotated[
        bool, typer.Option(help="Also distil on all tokens with the same compute (DistillSpec), and compare.")
    ] = True,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints to resume from.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the order of the rows and of random tokens.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default one per core.")] = None,
    eos: Annotated[
        str | None, typer.Option(help="The token that ends an output, as text or id, if not the tokenizer's.")
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin anew where an unfinished run lies in DIR.distilling.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON instead of a table.")] = False,
) -> None:
    """Distil a small draft model from a target: AdaSPEC, DistillSpec, or any loss on any choice of tokens.

    Prints **α**, the share of tested draft tokens that the target accepts at temperature 0, with an interval of 95 %,
    beside DistillSpec at equal compute. `tasc bench --draft DIR` runs the draft. A run that was stopped goes on when
    the same command is given again. On several GPUs: `torchrun --nproc_per_node N -m tasc.cli distill …`.
    """
    source = draft if layers is None else _layers(layers)
    if source is None or (draft is not None and layers is not None):
        raise InputError("give --draft (a smaller model) or --layers (to cut one from the target), one of the two")
    from tasc.data import read_rows
    from tasc.models import checkpoint, use_threads
    from tasc.training.distill import DistillOptions
    from tasc.training.distill import distill as run

    if threads is not None:
        use_threads(threads)
    chosen: dict[str, Any] = {
        "loss": loss, "select": select, "init_from": init_from, "trainable": trainable, "precision": precision,
    }  # fmt: skip
    options = DistillOptions(
        **chosen,
        k=k,
        steps=steps,
        reference_steps=reference_steps,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        keep_states=keep_states,
        max_tokens=max_tokens,
        save_every=save_every,
        seed=seed,
    )
    held_out = list(read_rows(data, validation_split, needs_output=False))[:validation_rows] if validation_split else []
    with progress_bars() as bar:
        made = run(
            checkpoint(target, adapter),
            source,
            list(read_rows(data, split, needs_output=outputs == "given"))[:limit],
            output,
            options=options,
            outputs=outputs,  # type: ignore[arg-type]  # checked there
            validation=held_out,
            baseline=baseline,
            reference=reference,
            length=length,
            max_output=max_output,
            system=system,
            eos=end_token(eos),
            resume=not anew,
            progress=bar,
        )
    if as_json:
        print_json(made.metrics)
    else:
        print_distilled(output, made.metrics)


def _layers(said: str) -> int | list[int]:
    """A number of layers, or their numbers."""
    try:
        numbers = [int(part) for part in said.split(",")]
    except ValueError:
        raise InputError(f"--layers {said}: give how many layers to keep, or their numbers as 0,10,19,29") from None
    return numbers if "," in said else numbers[0]


def print_distilled(output: Path, facts: dict[str, Any]) -> None:
    """What a distillation gave."""
    for name, stage in facts["stages"].items():
        out.print(
            f"{name}: {stage['steps']:,} steps of {stage['rows_per_step']} rows, {stage['seconds']:,.0f} s, loss "
            f"{stage['curve'][0]['loss']:.4f} to {stage['curve'][-1]['loss']:.4f}",
            highlight=False,
            soft_wrap=True,
        )
    if "acceptance" in facts:
        names = {"alpha": "α", "alpha_per_prompt": "α per prompt", "tau": "τ", "alpha_exp": "α_exp"}
        print_table(
            f"{facts['acceptance']['draft']['prompts']} prompts, {facts['length']} tokens per draft",
            ("draft", *names.values()),
            [(name, *(_interval(found.get(key)) for key in names)) for name, found in facts["acceptance"].items()],
        )
        for other, less in facts["draft_less"].items():
            said = ", ".join(f"{names[key]} {_interval(one, sign='+')}" for key, one in less.items())
            out.print(f"the draft less the {other}: {said}", highlight=False, soft_wrap=True)
    out.print(f"{output}: run it with tasc bench --draft {output}", highlight=False, soft_wrap=True)


def _interval(found: dict[str, Any] | None, sign: str = "") -> str:
    """A figure with its interval."""
    if found is None or found["value"] is None:
        return "-"
    ends = f" [{found['low']:{sign}.3f}, {found['high']:{sign}.3f}]" if "low" in found else ""
    return f"{found['value']:{sign}.3f}{ends}"
