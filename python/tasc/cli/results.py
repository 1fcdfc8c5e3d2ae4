"""Files of results: JSON and HTML pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tasc.cli.console import err, json_text
from tasc.cli.outputs import free_name
from tasc.files import atomic_path


def write_results(results: dict[str, Any], json_file: Path | None, html: Path | None, renderer: str) -> None:
    """Write results to the files that are named, with a note on standard error for each.

    Args:
        results: JSON values.
        json_file: JSON file to write.
        html: HTML page to write.
        renderer: Function of `tasc.evaluation.report` that makes the page.
    """
    if json_file is not None:
        json_file = free_name(json_file)
        with written_whole(json_file) as sink:
            sink.write(json_text(results) + "\n")
        err.print(f"results: {json_file}", highlight=False, soft_wrap=True)
    if html is not None:
        html = free_name(html)
        from tasc.evaluation import report

        getattr(report, renderer)(results, html)
        err.print(f"report: {html}", highlight=False, soft_wrap=True)


@contextmanager
def written_whole(path: Path) -> Iterator[IO[str]]:
    """Open a text file for writing that gets its name only after all of it is written."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as sink:
        yield sink
