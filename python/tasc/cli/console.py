"""Output of all commands: consoles, progress bars, tables and JSON.

What commands print may come from files that others made. So nothing is taken as markup or as a name of an emoji, and
control characters are escaped (`tasc.printable`).
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)
from rich.table import Table
from rich.text import Text

from tasc.files import as_json
from tasc.printable import printable

if TYPE_CHECKING:
    from tasc.progress import Progress, ProgressBars


class PlainConsole(Console):
    """Prints strings, also those in tables, as they stand; a `Text` is the caller's to make printable."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns the text to print for a string."""
        return super().render_str(printable(text), **options)


class LogLines(logging.Handler):
    """Prints warnings of the library on standard error, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        err.print(self.format(record), highlight=False, soft_wrap=True)


def show_training(output: Path) -> None:
    """Print the loss at each checkpoint, and let TensorBoard keep its files in `OUTPUT.runs` unless told otherwise."""
    logging.getLogger("tasc.training").setLevel(logging.INFO)
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(output.with_name(f"{output.name}.runs")))


def _width() -> int | None:
    """Return the width of results in a file or a pipe: 120 unless COLUMNS says otherwise; None for a terminal."""
    columns = os.environ.get("COLUMNS", "")
    return None if sys.stdout.isatty() or (columns.isdecimal() and int(columns) > 0) else 120


out = PlainConsole(width=_width())
"""For results."""

err = PlainConsole(stderr=True)
"""For progress, notes and errors: standard output stays machine-readable."""


@contextmanager
def progress_bars() -> Iterator["ProgressBars"]:
    """Progress bars on standard error, where that is a terminal, removed at the end.

    Yields a function that adds a bar and returns its callback.

    Examples:
        >>> with progress_bars() as bar:
        ...     move = bar("reading")
        ...     move(3, 10)
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:

        def bar(title: str) -> "Progress":
            task = progress.add_task(title, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield bar


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on standard output; the first column is text, the others are aligned as numbers.

    Columns that do not fit into the width go to further tables below, each with the first column again. If the first
    column is too wide beside a figure, its names are broken, not the figure.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = _widths(columns, cells)
    for part in _fitting(widths):
        table = Table(title=title, title_justify="left")
        for place in part:
            whole = place > 0 and widths[place] + _LEAST_NAME <= out.width
            table.add_column(columns[place], justify="right" if place else "left", overflow="fold", no_wrap=whole)
        for row in cells:
            table.add_row(*(row[place] for place in part))
        out.print(table)
        title = ""


_LEAST_NAME = 12
"""Least width of a table's first column, with its borders, that is left beside a figure."""


def _widths(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    """Return the widths of columns, each with a border and the blanks beside the text."""
    return [
        max((cell_len(line) for text in column for line in printable(text).splitlines()), default=0) + 3
        for column in zip(columns, *cells, strict=True)
    ]


def _fitting(widths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the columns of tables that fit into the width, each with the first column."""
    part = [0]
    for place in range(1, len(widths)):
        if len(part) > 1 and sum(widths[one] for one in [*part, place]) + 1 > out.width:
            yield part
            part = [0]
        part.append(place)
    yield part


def with_interval(figure: Mapping[str, float | None], form: str = "{:,.2f}") -> str:
    """Return a figure with its interval in brackets, if known."""
    value, low, high = (figure.get(name) for name in ("value", "low", "high"))
    if value is None:
        return "-"
    ends = "" if low is None or high is None else f" [{form.format(low)}, {form.format(high)}]"
    return form.format(value) + ends


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values on standard output, one a line; nested mappings and pairs are indented below their name."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        pairs = dict(value) if isinstance(value, (Mapping, list)) else None
        said = "" if pairs is not None else _cell(value)
        out.print(f"{name:<{width}}  {said}".rstrip(), highlight=False, soft_wrap=True)
        for inner, number in (pairs or {}).items():
            out.print(f"{'':<{width}}  {inner:<12} {_cell(number):>16}", highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    typer.echo(json_text(value))


def json_text(value: Any) -> str:
    """Return a JSON document whose control characters are escaped."""
    return printable(as_json(value, indent=2, ensure_ascii=False, default=str))


def end_token(eos: str | None) -> str | int:
    """`--eos` as `tasc.data.load_tokenizer` takes it: a number is an id, anything else a token's text."""
    if eos is None:
        return "auto"
    return int(eos) if eos.isdecimal() else eos


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
