"""How far a long job has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (done, total), for reading in bytes; what it raises stops the job."""


@contextmanager
def reporting(progress: Progress | bool | None, title: str, *, of_bytes: bool = True) -> Iterator[Progress]:
    """The callback to report to: the caller's own, a progress bar for True, nobody for None or False.

    The bar shows how many bytes are done, or how many hundredths.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        share = DownloadColumn() if of_bytes else TaskProgressColumn()
        columns = TextColumn("{task.description}"), BarColumn(), share, TimeRemainingColumn()
        with Bar(*columns, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
