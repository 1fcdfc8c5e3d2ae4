"""Options and arguments that several commands share."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tasc.errors import MissingExtraError

PastRows = Annotated[
    list[Path],
    typer.Argument(
        metavar="ROWS...",
        help="Read past rows: JSON, CSV, Parquet, Arrow or text, or a folder of `datasets`; - for standard input.",
    ),
]
TrainingRows = Annotated[
    list[Path],
    typer.Option(help="Read rows with input and output from this file; may be repeated. - is standard input."),
]
InputField = Annotated[
    str, typer.Option(metavar="NAME", help="Take the input from this field; auto finds it from the fields.")
]
OutputField = Annotated[
    str, typer.Option(metavar="NAME", help="Take the output from this field; auto finds it from the fields.")
]
EveryTurn = Annotated[
    bool, typer.Option("--every-turn", help="Take each assistant turn of a chat as a row, not only the last one.")
]
System = Annotated[
    str | None,
    typer.Option(
        help="Put this system message before each prompt that has none; '' for none. By default the one that the model "
        "was tuned with, or else the one that the index or all conversations have."
    ),
]
Corpus = Annotated[
    list[Path] | None, typer.Option(help="Index these rows, where the data have no split column. May be repeated.")
]
DeployedIndex = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draft from this index, such as the deployed one; build none.")
]
HeldOut = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Hold out the rows of this file, in place of those of `test`.")
]
Split = Annotated[str | None, typer.Option(help="Take only the rows whose `split` is this, for example train.")]
TokenizerName = Annotated[
    str, typer.Option(help="Use the model's tokenizer: its folder, a tokenizer.json, a hub name, or smollm2.")
]
Eos = Annotated[str | None, typer.Option(help="End outputs with this token (text or id); by default the tokenizer's.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Use this many CPU threads; by default one per core.")]
OutputFile = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", writable=True, help="Write the result to this file.")
]
OutputFolder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="DIR", writable=True, file_okay=False, help="Write the checkpoint to this folder."
    ),
]
ResultsFile = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", writable=True, help="Write the results as JSON.")
]


def _needs_report(page: Path | None) -> Path | None:
    """Check the packages of reports before the work that a report is of."""
    if page is not None:
        for package in ("jinja2", "matplotlib"):
            if find_spec(package) is None:
                raise MissingExtraError("a report (--html)", "report")
    return page


Html = Annotated[
    Path | None,
    typer.Option(metavar="FILE", writable=True, callback=_needs_report, help="Write a report as an HTML page."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Device = Annotated[str | None, typer.Option(help="Run on cpu, cuda, …; by default on a GPU if there is one.")]
NoFit = Annotated[
    bool, typer.Option("--no-fit", help="Keep the general mixture weights instead of fitting them to the task.")
]
