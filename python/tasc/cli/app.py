"""The root of the command line: groups, `--debug`, and errors as one line.

Nothing heavy is imported here or at the top of a command's file: `tasc --help` answers at once.
"""

import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from tasc import __version__
from tasc.cli import bench, check, count, distill, evaluate, export, generate, index, replay, tune, vocab
from tasc.cli.console import LogLines, err
from tasc.cli.outputs import Commands
from tasc.errors import TascError
from tasc.printable import printable


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def _terminate(*_: object) -> None:
    raise Terminated


@contextmanager
def _one_line_stops() -> Iterator[None]:
    """Print Ctrl-C and SIGTERM as one line, and exit."""
    try:
        yield
    except Terminated:
        err.print("terminated")
        raise typer.Exit(143) from None
    except KeyboardInterrupt:
        err.print("interrupted")
        raise typer.Exit(130) from None


class OneLineErrors(TyperGroup):
    """Prints an error as one line. Exit code: 2 for errors of input or files, 130 after Ctrl-C, 143 after SIGTERM."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Makes the context of the command line: parses the arguments before those of a command."""
        with _one_line_stops():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that `ctx` names."""
        try:
            with _one_line_stops():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (TascError, OSError) as error:
            if ctx.params.get("debug"):
                raise
            err.print(Text.assemble(("error: ", "bold red"), printable(_line(error))), soft_wrap=True)
            raise typer.Exit(2) from None


def _line(error: Exception) -> str:
    """Message of an error on one line; for an operating-system error without its number."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        named = error.filename is None or str(error.filename) in error.strerror
        message = error.strerror if named else f"{error.filename}: {error.strerror}"
    return " ".join(message.split())


app = Commands(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(index.app, name="index")
app.add_typer(vocab.app, name="vocab")
app.add_typer(export.app, name="export")
app.command("check")(check.check)
app.command("tune")(tune.tune)
app.command("distill")(distill.distill)
app.command("count")(count.count)
app.command("generate")(generate.generate)
app.command("replay")(replay.replay)
app.command("bench")(bench.bench)
app.command("eval")(evaluate.evaluate)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tasc {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Speed up a small language model on one task, without changing its outputs.

    Index the task's past outputs with `tasc index build`, then `tasc generate`. `tasc check` says without
    a model what a task would gain; `tasc bench` measures it on the model.
    """


def main() -> None:
    """Runs the command line; the console script `tasc`."""
    logging.getLogger("tasc").addHandler(LogLines())
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with _one_line_stops():
            app(prog_name="tasc")
    except typer.Exit as stopped:  # before Typer runs, which makes it an exit itself
        sys.exit(stopped.exit_code)
    except Exception:  # a traceback may quote a file
        err.print(traceback.format_exc(), soft_wrap=True, highlight=False)
        sys.exit(1)
