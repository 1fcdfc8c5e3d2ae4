"""`tasc check --model`: options and tables of a check with a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasc.cli.console import out, print_table

if TYPE_CHECKING:
    from tasc.evaluation.check.with_model import ModelCheck

Model = Annotated[
    str | None,
    typer.Option(help="Check this model too: a folder, a name on the model hub, or smollm2. It answers held-out rows."),
]
Adapter = Annotated[Path | None, typer.Option(help="Merge the PEFT adapter of this folder into the model.")]
System = Annotated[str | None, typer.Option(help="Put this system prompt into every request.")]
Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="NAME|FILE",
        help="Predict for this cost profile of a device and an engine; may be repeated. By default costs are measured.",
    ),
]
SaveProfile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the measured costs to this file.")]
Measure = Annotated[
    bool,
    typer.Option("--measure", help="Then decode other held-out rows for a minute, with drafts and plainly in turns."),
]
Load = Annotated[int, typer.Option(min=1, help="Recommend and measure for this many requests at once.")]

MEASURED_SECONDS = 60.0
"""Time of `--measure`."""


def load_model(
    model: str,
    adapter: Path | None,
    system: str | None,
    devices: list[str] | None,
    save_profile: Path | None,
    measure: bool,
    load: int,
) -> "ModelCheck":
    """Load the model of a check; profiles are read before."""
    from dataclasses import replace

    from tasc.evaluation.check.with_model import ModelCheck
    from tasc.models import load_checkpoint

    check = ModelCheck(
        model=None, tokenizer=None, name=model, system=system, devices=devices or (), save_profile=save_profile,
        measure=MEASURED_SECONDS if measure else None, load=load,
    )  # fmt: skip
    check.profiles()
    loaded, tokenizer = load_checkpoint(model, adapter=adapter)
    return replace(check, model=loaded, tokenizer=tokenizer)


def print_model(found: dict[str, Any]) -> None:
    """Print a check with a model: sentences, and a table per cost profile; nothing if it needs to be tuned first."""
    from tasc.evaluation.check.with_model import in_words

    if not found["says"]["agrees"]:
        return
    out.print()
    for sentence in in_words(found):
        out.print(f"{sentence[0].upper()}{sentence[1:]}.", highlight=False)
    for one in found["predictions"]:
        print_table(
            f"Predicted: {one['engine']}, {one['device']}, {one['model']} {one['dtype']}, {one['requests']} outputs; "
            f"a tuned model uses {found['adoption']:.0%} of a vocabulary",
            ("at once", "method", "s/output", "speed-up", "τ", "accepted"),
            [
                (
                    load,
                    name,
                    f"{facts['seconds_per_output']:.3g}",
                    _speedup(facts["speedup"]),
                    facts["tau"],
                    facts["accepted"],
                )
                for load, methods in one["loads"].items()
                for name, facts in methods.items()
            ],
        )
    measured = found["measured"]
    if measured is not None:
        predicted = found["predictions"][0]["loads"][str(measured["load"])]
        print_table(
            f"Measured on {measured['rows']} other rows, {measured['load']} at once",
            ("method", "predicted s/output", "measured s/output", "predicted", "measured"),
            [
                (
                    name,
                    f"{predicted[name]['seconds_per_output']:.3g}",
                    f"{seconds:.3g}",
                    _speedup(predicted[name]["speedup"]),
                    "1.00" if name == "plain" else _speedup(measured["speedup"]),
                )
                for name, seconds in measured["seconds_per_output"].items()
            ],
        )


def _speedup(found: dict[str, float | None]) -> str:
    if found["low"] is None or found["low"] == found["high"]:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} ({found['low']:.2f}–{found['high']:.2f})"
