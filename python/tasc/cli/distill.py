"""`tasc distill`: distil a small draft model from a target."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tasc.cli.console import end_token, out, print_json, print_table, progress_bars, show_training
from tasc.cli.options import AsJson, EveryTurn, InputField, OutputField, OutputFolder, System, Threads, TrainingRows
from tasc.errors import InputError
from tasc.printable import counted


def _print_config(wanted: bool) -> None:
    if wanted:
        from tasc.training.distill.config import DistillConfig

        typer.echo(DistillConfig().to_toml(), nl=False)
        raise typer.Exit


def distill(
    target: Annotated[
        str, typer.Option(help="Distil from this model, tuned to the task: a folder, a hub name or `smollm2`.")
    ],
    data: TrainingRows,
    output: OutputFolder,
    draft: Annotated[
        str | None,
        typer.Option(
            help="Start from this smaller model with the target's vocabulary: folder or hub name. `eagle`: make a new "
            "EAGLE head, one layer over the target's last hidden states."
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Cut the draft from the target instead: number of layers, or a list (0,10,19,29)."),
    ] = None,
    draft_size: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Make a new, narrow draft instead: most weights of its layers and head, such as 3.6M.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Learn from the rows of this `split`, such as train.")] = None,
    validation_split: Annotated[
        str | None, typer.Option(help="Measure acceptance on the target's outputs to the rows of this `split`.")
    ] = None,
    input_field: InputField = "auto",
    output_field: OutputField = "auto",
    every_turn: EveryTurn = False,
    system: System = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Train for this many steps; by default 300.")] = None,
    seed: Annotated[int | None, typer.Option(help="Set the seed of row order and random tokens; by default 0.")] = None,
    resume: Annotated[
        bool, typer.Option(help="Resume an unfinished run in DIR.distilling, or remove it and start again.")
    ] = True,
    threads: Threads = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read all other settings from this TOML file.")
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", callback=_print_config, is_eager=True, help="Print the default settings."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Distil a small draft model from a target: AdaSPEC, DistillSpec, or any loss on any choice of tokens.

    Prints **α**, the share of tested draft tokens that the target accepts at temperature 0, with a 95 % confidence
    interval, beside DistillSpec at equal compute. `tasc bench --draft DIR` runs the draft. To resume a stopped run,
    give the same command again. On several GPUs: `torchrun --nproc_per_node N -m tasc.cli distill …`.
    """
    if [draft, layers, draft_size].count(None) != 2:
        raise InputError(
            "give --draft (a smaller model, or eagle), --layers (to cut one from the target) or --draft-size (a new, "
            "narrow model), one of the three"
        )
    from tasc.data import read_rows
    from tasc.models import checkpoint, use_threads
    from tasc.training.distill import DraftSize
    from tasc.training.distill import distill as run
    from tasc.training.distill.config import DistillConfig

    source: Any = draft if layers is None else _layers(layers)
    if draft_size is not None:
        source = DraftSize.parse(draft_size)
    if threads is not None:
        use_threads(threads)
    settings = DistillConfig.read(config, steps=steps, seed=seed, system=system)
    fields: dict[str, Any] = {"input_field": input_field, "output_field": output_field, "every_turn": every_turn}
    held_out = list(read_rows(data, validation_split, **fields, needs_output=False)) if validation_split else []
    show_training(output)
    with progress_bars() as bar:
        made = run(
            checkpoint(target, settings.adapter),
            source,
            list(read_rows(data, split, **fields, needs_output=settings.outputs == "given"))[: settings.limit],
            output,
            options=settings.options(),
            outputs=settings.outputs,
            validation=held_out[: settings.validation_rows],
            baseline=settings.baseline,
            reference=settings.reference,
            length=settings.length,
            max_output=settings.max_output,
            system=settings.system,
            eos=settings.eos if isinstance(settings.eos, int) else end_token(settings.eos),
            resume=resume,
            progress=bar,
        )
    if as_json:
        print_json(made.metrics)
    else:
        print_distilled(output, made.metrics)


def _layers(text: str) -> int | list[int]:
    """A number of layers, or their numbers."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--layers {text}: give how many layers to keep, or their numbers as 0,10,19,29") from None
    return numbers if "," in text else numbers[0]


def print_distilled(output: Path, facts: dict[str, Any]) -> None:
    """Print the result of a distillation."""
    for name, stage in facts["stages"].items():
        kept = f"; step {stage['kept_step']} is the best and kept" if "kept_step" in stage else ""
        losses = [entry["loss"] for entry in stage["curve"]]  # none, if the stage ended before its first entry
        fell = f", loss {losses[0]:.4f} to {losses[-1]:.4f}" if losses else ""
        out.print(
            f"{name}: {counted(stage['steps'], 'step')} of {counted(stage['rows_per_step'], 'row')}, "
            f"{stage['seconds']:,.0f} s{fell}{kept}",
            highlight=False,
            soft_wrap=True,
        )
    if vocabulary := facts["draft_vocabulary"]:
        held_out = f", {facts['coverage']:.1%} of the validation outputs'" if "coverage" in facts else ""
        out.print(
            f"draft vocabulary: {vocabulary['ids']:,} ids, {vocabulary['coverage']:.1%} of the training outputs' "
            f"tokens{held_out}",
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
            figures = ", ".join(f"{names[key]} {_interval(one, sign='+')}" for key, one in less.items())
            out.print(f"the draft less the {other}: {figures}", highlight=False, soft_wrap=True)
    out.print(f"{output}: run it with tasc bench --draft {output}", highlight=False, soft_wrap=True)


def _interval(found: dict[str, Any] | None, sign: str = "") -> str:
    """A figure with its interval."""
    if found is None or found["value"] is None:
        return "-"
    ends = f" [{found['low']:{sign}.3f}, {found['high']:{sign}.3f}]" if found["low"] is not None else ""
    return f"{found['value']:{sign}.3f}{ends}"
