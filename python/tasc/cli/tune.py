"""`tasc tune`: fine-tune a model on a task's rows, with or without a task vocabulary."""

import os
from typing import Annotated, Any

import typer

from tasc.cli.console import end_token, out, progress_bars, show_training
from tasc.cli.options import Eos, EveryTurn, InputField, OutputField, OutputFolder, System, Threads, TrainingRows
from tasc.printable import counted


def tune(
    model: Annotated[
        str,
        typer.Option(help="Start from this model: a folder, as of `tasc vocab apply`, a hub name, or smollm2."),
    ],
    data: TrainingRows,
    output: OutputFolder,
    split: Annotated[str | None, typer.Option(help="Learn from the rows whose `split` is this, e.g. train.")] = None,
    validation_split: Annotated[
        str | None, typer.Option(help="Measure the loss on the rows of this split too, whenever a checkpoint is kept.")
    ] = None,
    input_field: InputField = "auto",
    output_field: OutputField = "auto",
    every_turn: EveryTurn = False,
    system: System = None,
    method: Annotated[
        str,
        typer.Option(
            help="lora: adapters on all linear layers, and the rows of new tokens; qlora: the same over a base in "
            "4 bits; full: every weight."
        ),
    ] = "lora",
    epochs: Annotated[float, typer.Option(help="See each row this many times.")] = 1.0,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Train for this many optimizer steps, in place of epochs.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Put this many rows into a forward pass on one device.")] = 16,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Add up the gradients of this many forward passes in an optimizer step.")
    ] = 1,
    learning_rate: Annotated[
        float | None, typer.Option(help="Set the peak learning rate; by default 1e-3, with full 2e-5.")
    ] = None,
    rows_rate: Annotated[
        float | None,
        typer.Option(help="Set the peak rate of the embeddings of new tokens; by default 5 times the learning rate."),
    ] = None,
    rows_first: Annotated[
        int,
        typer.Option(
            min=0, help="Train only the embeddings of new tokens for this many steps before the adapters begin."
        ),
    ] = 0,
    rank: Annotated[int, typer.Option(min=1, help="Set the rank of the adapters.")] = 16,
    precision: Annotated[
        str, typer.Option(help="Compute in auto (bf16 where the machine has it), fp32, bf16 or fp16.")
    ] = "auto",
    max_tokens: Annotated[int, typer.Option(min=1, help="Leave out rows longer than this.")] = 2048,
    save_every: Annotated[
        int, typer.Option(min=1, help="Save a checkpoint to resume from every this many steps.")
    ] = 100,
    report_to: Annotated[
        str, typer.Option(help="Report the loss to tensorboard (in DIR.runs), wandb, or both with a comma.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Set the seed of the order of rows and of new weights.")] = 0,
    threads: Threads = None,
    eos: Eos = None,
    resume: Annotated[
        bool, typer.Option(help="Resume an unfinished run in DIR.tuning, or remove it and start again.")
    ] = True,
) -> None:
    """Fine-tune a model on rows `{input, output}`, loss on the outputs alone; the result is a plain checkpoint.

    A model that `tasc vocab apply` has extended learns to use its new tokens. The same command resumes a stopped run
    from its last checkpoint. On several GPUs:
    `torchrun --nproc_per_node N -m tasc.cli tune …`.
    """
    from tasc.data import read_rows
    from tasc.models import checkpoint
    from tasc.training.finetune.options import TuneOptions
    from tasc.training.finetune.tune import tune as run

    if threads is not None:
        import torch

        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    chosen: dict[str, Any] = {"method": method, "precision": precision}
    options = TuneOptions(
        **chosen,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        rows_rate=rows_rate,
        rows_first=rows_first,
        rank=rank,
        max_tokens=max_tokens,
        save_every=save_every,
        report_to=report_to,
        seed=seed,
    )
    show_training(output)
    fields: dict[str, Any] = {"input_field": input_field, "output_field": output_field, "every_turn": every_turn}
    with progress_bars() as bar:
        tuned = run(
            checkpoint(model),
            read_rows(data, split, **fields),
            output,
            options=options,
            validation=read_rows(data, validation_split, **fields) if validation_split else (),
            system=system,
            eos=end_token(eos),
            resume=resume,
            progress=bar("tuning"),
        )
    facts = tuned.metrics
    last = facts["curve"][-1]["loss"]
    out.print(
        f"{output}: {counted(facts['steps'], 'step')} of {counted(facts['rows_per_step'], 'row')}, "
        f"{counted(facts['new_tokens'], 'new token')}, "
        f"loss {last:.4f}, {facts['seconds']:,.0f} s; the loss curve is in {output / 'tuning.json'}",
        highlight=False,
        soft_wrap=True,
    )
