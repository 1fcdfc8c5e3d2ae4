"""Atomic writes: a file or folder gets its name only after all of it is written."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasc.errors import InputError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` after the block; if the block raises, it is removed.

    Create a file or a folder at the temporary path. A file at `path` is replaced; the new one takes its mode, and its
    owner where that is allowed. A symbolic link stays and leads to the new file. A folder at `path` is replaced only
    if it is empty. Nothing is flushed to the disk (`fsync`): the write is atomic
    for other processes and after a crash of this one, not after a power failure.

    Raises:
        OSError: `path` is a folder that is not empty, or it cannot be written.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_path(folder / "notes.txt") as temporary:
        ...     _ = temporary.write_text("all of it")
        >>> [file.name for file in folder.iterdir()]
        ['notes.txt']
    """
    target = Path(os.path.realpath(path) if os.path.islink(path) else path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        if target.is_file():
            shutil.copymode(target, temporary)
            with suppress(PermissionError):  # only an administrator may give a file away
                os.chown(temporary, target.stat().st_uid, target.stat().st_gid)
        os.replace(temporary, target)
    finally:
        _remove(temporary)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder to fill, renamed to `path` after the block; if the block raises, it is removed.

    Raises:
        InputError: `path` exists and is not an empty folder.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already; name another folder or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        temporary.mkdir()
        yield temporary


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a UTF-8 file atomically, in a new folder if need be; return its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write a value as one line of JSON atomically; return the file's path."""
    return write_text(path, json.dumps(value) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        InputError: It is no regular file (a pipe would be waited for), or no JSON.
        OSError: It cannot be read.
    """
    file = Path(path)
    if file.exists() and not file.is_file():
        raise InputError(f"{file} is a folder, a pipe or a device; give a file")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise InputError(f"{file} is not JSON: its lists and objects are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error


def as_json(value: Any, **options: Any) -> str:
    """Return a value as JSON. NaN and infinite numbers, which JSON does not have, become null.

    Args:
        value: Value to write.
        **options: Options of `json.dumps`.

    Examples:
        >>> as_json({"ratio": float("nan"), "counts": [1, 2.5]})
        '{"ratio": null, "counts": [1, 2.5]}'
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    """Return a value with None in place of each number in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def remove_partial(path: str | os.PathLike[str]) -> None:
    """Remove what killed processes have left of their writes of `path`; no process may be writing it now."""
    target = Path(path)
    partial = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.part")
    for left in target.parent.iterdir() if target.parent.is_dir() else ():
        if partial.fullmatch(left.name):
            _remove(left)


@contextmanager
def scratch_folder(output: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder on the disk of `output`, removed after the block.

    Raises:
        OSError: The folder of `output` does not exist or is read-only.
    """
    target = Path(output).absolute()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        yield Path(folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
