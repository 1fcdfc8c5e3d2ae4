"""Progress and time of long jobs: the types of their callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = Callable[[float, float], None]
"""Called with (done, total); the unit depends on the job. An exception that it raises stops the job."""

Clock: TypeAlias = Callable[[], float]
"""Returns seconds since some moment: `time.perf_counter`, or `time.process_time` on a machine that others use too."""

ProgressBars: TypeAlias = Callable[[str], Progress]
"""Called with the title of a job; returns the callback of that job."""


def no_progress(done: float, total: float) -> None:
    """Report nothing."""


def no_bars(title: str) -> Progress:
    """Report nothing for any job."""
    return no_progress


def of_fraction(progress: Progress | None) -> Callable[[float], None] | None:
    """A callback for the jobs of the core that know only the fraction done; `progress` is called with (fraction, 1).

    >>> of_fraction(lambda done, total: print(done, total))(0.25)
    0.25 1.0
    """
    return None if progress is None else lambda done: progress(done, 1.0)


@contextmanager
def reporting(progress: Progress | bool | None, title: str, *, of_bytes: bool = True) -> Iterator[Progress]:
    """The callback to report to: the caller's own, a progress bar for True, none for None or False.

    The bar shows the bytes done (`of_bytes`) or the percentage done.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield no_progress
    else:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import (
            Progress as Bar,
        )

        share = DownloadColumn() if of_bytes else TaskProgressColumn()
        columns = TextColumn("{task.description}"), BarColumn(), share, TimeRemainingColumn()
        with Bar(*columns, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
