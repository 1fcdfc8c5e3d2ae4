"""`tasc check --model`: options of a check with a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tasc.evaluation.check.with_model import ModelCheck

Model = Annotated[
    str | None,
    typer.Option(help="Check this model too: a folder, a name on the model hub, or smollm2. It answers held-out rows."),
]
Adapter = Annotated[Path | None, typer.Option(help="Merge the PEFT adapter of this folder into the model.")]
Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="NAME|FILE",
        help="Predict for this cost profile of a device and an engine; may be repeated. By default costs are measured.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="tasc|vllm|llama-cpp",
        help="Predict for this engine. tasc is measured here without --device; others need a profile.",
    ),
]
SaveProfile = Annotated[
    Path | None, typer.Option(metavar="FILE", writable=True, help="Write the measured costs to this file.")
]
Measure = Annotated[
    bool,
    typer.Option("--measure", help="Then decode other held-out rows for a minute, with drafts and plainly in turns."),
]
DistillMinutes = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Train a draft model on the indexed rows for about N minutes, and predict what it brings. It is not kept.",
    ),
]
Load = Annotated[int, typer.Option(min=1, help="Recommend and measure for this many requests at once.")]

MEASURED_SECONDS = 60.0
"""Time of `--measure`."""


def load_model(
    model: str, adapter: Path | None, measure: bool, distill_minutes: float | None, **options: Any
) -> "ModelCheck":
    """Load the model of a check; what else it needs is checked before. Options are those of `ModelCheck`."""
    from dataclasses import replace

    from tasc.evaluation.check.with_model import ModelCheck
    from tasc.models import check_loadable, load_checkpoint

    training = None
    if distill_minutes is not None:
        from tasc.training.distill.timed import TimedDistillation

        training = TimedDistillation(distill_minutes)
    seconds = MEASURED_SECONDS if measure else None
    check = ModelCheck(
        model=None, tokenizer=None, name=model, adapter=adapter, measure=seconds, train_draft=training, **options
    )
    check.profiles()
    check_loadable(model, adapter=adapter)
    loaded, tokenizer = load_checkpoint(model, adapter=adapter)
    if training is not None:
        training.cut(loaded)  # a model that cannot be cut is refused before the work
    return replace(check, model=loaded, tokenizer=tokenizer)
