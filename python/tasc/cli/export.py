"""`tasc export`: write an index in the forms that other engines read."""

from pathlib import Path
from typing import Annotated

import typer

from tasc.cli.console import out
from tasc.cli.options import OutputFile
from tasc.cli.outputs import Commands

app = Commands(no_args_is_help=True, help="Write the contents of an index in the forms that other engines read.")


@app.callback()
def export() -> None:
    """Write the contents of an index in the forms that other engines read."""


@app.command("llama-lookup")
def llama_lookup(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Read this index file of `tasc index build`.")],
    output: OutputFile,
) -> None:
    """Write llama.cpp's static lookup cache: which token followed each pair of tokens, and how often.

    For `llama-lookup -m MODEL.gguf -lcs FILE`. The model's GGUF file must be made from the tokenizer of the index: the
    file holds ids alone, and nothing checks them. It knows neither inputs nor longer contexts, so its drafts are much
    shorter than tasc's own.
    """
    from tasc._core import TaskIndex
    from tasc.adapters.llama_lookup import export_lookup

    records = export_lookup(TaskIndex.open(index), output)
    out.print(f"{output}: {records:,} pairs of tokens, {output.stat().st_size / 1e6:,.1f} MB", highlight=False)
