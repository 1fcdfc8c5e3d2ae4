"""Outputs of a long run, kept as they are made, from which the same command goes on."""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasc.cli.console import err
from tasc.errors import InputError
from tasc.files import behind_link, flush, os_errors, scratch_folder, take_access

_KIND = "tasc generate"
_LINE = re.compile(rb"\[(0|[1-9][0-9]{0,17}), \{.*\}\]\n")


class PartialOutputs:
    """File of the outputs of a run: a line with its settings, then a line `[number, record]` for each output.

    It is created with the first output, and never through a link. Each output is one line as soon as `write` returns.

    Args:
        path: File to write.
        settings: Settings that must be equal to go on; JSON values.
        finished: File that the outputs will replace; they have its mode.

    Attributes:
        done: Numbers of the rows whose outputs are in the file.

    Raises:
        InputError: The file is of other settings, no such file, or another user's.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], finished: Path) -> None:
        self._path, self._finished = path, finished
        self._settings = json.loads(json.dumps(settings))
        self._places: dict[int, tuple[int, int]] = {}
        self._file: Any = None
        self._end = 0
        self._header = json.dumps({_KIND: self._settings}).encode() + b"\n"
        if path.is_file() and not path.is_symlink() and self._is_begun():
            path.unlink()  # of a run that was killed before it had an output
        if path.exists() or path.is_symlink():
            self._open(os.O_RDWR)
            self._read()

    @property
    def done(self) -> set[int]:
        """Numbers of the rows whose outputs are in the file."""
        return set(self._places)

    def _is_begun(self) -> bool:
        """Return whether the file ends within the line of these settings."""
        with self._path.open("rb") as file:
            start = file.read(len(self._header))
        return len(start) < len(self._header) and self._header.startswith(start)

    def _open(self, flags: int) -> None:
        mode = 0o600 if self._finished.is_file() else 0o666
        try:
            descriptor = os.open(self._path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode)  # a pipe is not waited for
        except OSError as error:
            raise InputError(f"{self._path} cannot be opened ({error.strerror}); rename it or remove it") from error
        self._file = os.fdopen(descriptor, "rb+", buffering=0)
        found = os.fstat(descriptor)
        owners = {os.geteuid()} | ({self._finished.stat().st_uid} if self._finished.is_file() else set())
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners:
            self.close()
            what = "another user's" if stat.S_ISREG(found.st_mode) else "a pipe or a device"
            raise InputError(f"{self._path} is {what}; rename it or remove it")

    def _read(self) -> None:
        """Read the numbers of the outputs; cut a line that was not written to its end."""
        with open(self._file.fileno(), "rb", closefd=False) as file:
            try:
                before = json.loads(file.readline())[_KIND]
            except (ValueError, TypeError, KeyError, RecursionError):
                said = f"{self._path} is in the way, and not of `tasc generate`; rename it or remove it"
                raise InputError(said) from None
            self._check(before)
            self._end = file.tell()
            for line in file:
                if (number := _number(line)) is None:
                    break
                self._places[number] = (self._end, len(line))
                self._end += len(line)
        self._file.truncate(self._end)

    def _check(self, before: Mapping[str, Any]) -> None:
        """Check that the settings are those of the file."""
        now = self._settings
        for name in [*now, *(name for name in before if name not in now)]:
            if before.get(name) != now.get(name):
                theirs, ours = (_shown(one.get(name)) for one in (before, now))
                raise InputError(
                    f"{self._path} is of another run: {name} was {theirs} and is {ours} now; give the same command "
                    "again, or --no-resume to discard those outputs"
                )

    def write(self, number: int, record: bytes) -> None:
        """Add the output of a row, a record as JSON. It survives the end of this process."""
        if self._file is None:
            self._open(os.O_RDWR | os.O_CREAT | os.O_EXCL)
            if self._finished.is_file():
                take_access(self._path, self._finished)
            self._append(self._header)
        line = b"[%d, %s]\n" % (number, record)
        begin = self._end
        self._append(line)
        self._places[number] = (begin, len(line))

    def _append(self, line: bytes) -> None:
        """Write a line whole, or nothing of it."""
        try:
            with os_errors(self._path):
                self._file.seek(self._end)
                left = line
                while left:
                    left = left[self._file.write(left) :]
        except BaseException:
            self._file.truncate(self._end)
            raise
        self._end += len(line)

    def ordered(self) -> Iterator[bytes]:
        """Yield the records in the order of their rows, as lines."""
        for number, (begin, size) in sorted(self._places.items()):
            self._file.seek(begin)
            prefix = len(b"[%d, " % number)
            yield self._file.read(size)[prefix:-2] + b"\n"

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """Remove the file, if there is one."""
        if self._file is not None:
            self._path.unlink()


def _number(line: bytes) -> int | None:
    """Return the number of the row whose output a line has; None for any other line."""
    found = _LINE.fullmatch(line)
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return None
    return None if found is None else int(found[1])


def _is_ours(path: Path) -> bool:
    """Return whether a file is one of `PartialOutputs`."""
    if not path.is_file() or path.is_symlink():
        return False
    start = json.dumps({_KIND: {}})[:-2].encode()
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"


@contextmanager
def resumable(output: Path, settings: Mapping[str, Any], *, rows: int, resume: bool = True) -> Iterator[PartialOutputs]:
    """Outputs that are kept in `OUTPUT.partial` as they are made; after the block, `output` has them in order.

    If the block raises, `OUTPUT.partial` stays, unless it is empty, and the same command goes on from it.

    Args:
        output: File to write, JSONL.
        settings: Settings that must be equal to go on; JSON values.
        rows: Number of rows that outputs are wanted of.
        resume: Whether to go on from `OUTPUT.partial`; otherwise it is removed.

    Raises:
        InputError: Another process writes `output`, or `OUTPUT.partial` is of other settings or of more rows.
    """
    output = behind_link(output)
    path = output.with_name(f"{output.name}.partial")
    with scratch_folder(output) as folder:
        if not resume and _is_ours(path):
            path.unlink()
        partial = PartialOutputs(path, settings, output)
        if partial.done and max(partial.done) >= rows:
            partial.close()
            raise InputError(f"{path} has the output of row {max(partial.done) + 1}; set --limit to that at least")
        try:
            yield partial
            made = folder / output.name
            with os_errors(output), made.open("wb") as file:
                file.writelines(partial.ordered())
            if output.is_file():
                take_access(made, output)
            flush(made)
            made.replace(output)
            partial.remove()
        except BaseException:
            if partial.done:
                there = "1 output is" if len(partial.done) == 1 else f"{len(partial.done):,} outputs are"
                said = f"{there} in {path}; the same command goes on from there"
                err.print(said, highlight=False, soft_wrap=True)
            else:
                partial.remove()
            raise
        finally:
            partial.close()
        flush(output.parent)
