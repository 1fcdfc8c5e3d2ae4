"""Files of results: JSON and HTML pages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tasc.cli.console import err, json_text
from tasc.errors import InputError
from tasc.files import atomic_path, behind_link, flush, scratch_folder, take_access


def write_results(results: dict[str, Any], json_file: Path | None, html: Path | None, renderer: str) -> None:
    """Write results to the files that are named, with a note on standard error for each.

    Args:
        results: JSON values.
        json_file: JSON file to write.
        html: HTML page to write.
        renderer: Function of `tasc.evaluation.report` that makes the page.
    """
    if json_file is not None:
        with written_whole(json_file) as sink:
            sink.write(json_text(results) + "\n")
        err.print(f"results: {json_file}", highlight=False, soft_wrap=True)
    if html is not None:
        from tasc.evaluation import report

        getattr(report, renderer)(results, html)
        err.print(f"report: {html}", highlight=False, soft_wrap=True)


@contextmanager
def written_whole(path: Path) -> Iterator[IO[str]]:
    """Open a text file for writing that gets its name only after all of it is written."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as sink:
        yield sink


class PartialFile:
    """File that lines are written to as they are made, in any order. Nothing else is written to it.

    It is created, never opened: a file or link that has the name is an error. It has the mode of the finished file
    that it will replace.
    """

    def __init__(self, path: Path, finished: Path) -> None:
        """Create the file at `path`; it will replace `finished`."""
        replaces = finished.is_file()
        self._places: dict[int, tuple[int, int]] = {}
        self._file = open(path, "xb+", opener=lambda name, flags: os.open(name, flags, 0o600 if replaces else 0o666))
        if replaces:
            take_access(path, finished)

    def write(self, number: int, line: bytes) -> None:
        """Write the line with this number. It survives the end of this process."""
        self._places[number] = (self._file.tell(), len(line))
        self._file.write(line)
        self._file.flush()

    def is_ordered(self) -> bool:
        """Return whether the lines were written in the order of their numbers."""
        return list(self._places) == sorted(self._places)

    def ordered(self) -> Iterator[bytes]:
        """Yield the lines in the order of their numbers."""
        for _, (begin, size) in sorted(self._places.items()):
            self._file.seek(begin)
            yield self._file.read(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def written_as_made(output: Path) -> Iterator[PartialFile]:
    """Create `OUTPUT.partial`; after the block, put its lines into order and rename it to `output`.

    If the block raises, the partial file stays, unless it is empty.

    Raises:
        InputError: Another process writes `output`, or the partial file of a run that was stopped exists.
    """
    output = behind_link(output)
    partial = output.with_name(f"{output.name}.partial")
    with scratch_folder(output) as folder:
        if partial.is_file() and not partial.is_symlink() and partial.stat().st_size == 0:
            partial.unlink()  # of a run that was killed before it had an output
        try:
            sink = PartialFile(partial, output)
        except FileExistsError:
            raise InputError(
                f"{partial} keeps the outputs of a run that was stopped; rename it or remove it, then start again"
            ) from None
        try:
            yield sink
            if not sink.is_ordered():
                ordered = folder / partial.name
                with ordered.open("wb") as file:
                    file.writelines(sink.ordered())
                take_access(ordered, partial)
                flush(ordered)
                ordered.replace(partial)
            flush(partial)
            partial.replace(output)
        except BaseException:
            if partial.stat().st_size:
                err.print(f"the outputs so far are in {partial}", highlight=False, soft_wrap=True)
            else:
                partial.unlink()
            raise
        finally:
            sink.close()
        flush(output.parent)
