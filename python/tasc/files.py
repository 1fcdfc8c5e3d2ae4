"""Writing of files and folders: each gets its name only after all of it is written and on the disk."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasc.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """A temporary path, renamed to `path` after the block; if the block raises, it is removed.

    Create a file or a folder at the temporary path. It lies in a hidden folder beside `path` that no other user may
    enter (`scratch_folder`). A file at `path` is replaced; the new one takes its mode, and its owner where that is
    allowed. A symbolic link stays and leads to the new file. A folder at `path` is replaced only if it is empty.

    Args:
        path: The file or folder to write.
        durable: Flush it to the disk before and after the renaming (`fsync`). Otherwise `path` may be empty or half
            written after a power failure, not after a crash of this process.

    Raises:
        OSError: `path` is a folder that is not empty, or it cannot be written.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_path(folder / "notes.txt") as temporary:
        ...     _ = temporary.write_text("all of it")
        >>> [file.name for file in folder.iterdir()]
        ['notes.txt']
    """
    with _renamed(behind_link(path), exclusive=False, durable=durable) as temporary:
        yield temporary


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder to fill, renamed to `path` after the block; if the block raises, it is removed.

    Raises:
        InputError: `path` exists and is not an empty folder, or it is being written (`scratch_folder`).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _renamed(behind_link(target), exclusive=True) as temporary:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{target} is there already; name another folder or remove it")
        temporary.mkdir()
        yield temporary


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a UTF-8 file atomically, in a new folder if need be; return its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = None) -> Path:
    """Write a value as JSON atomically, in one line without `indent`; return the file's path."""
    return write_text(path, json.dumps(value, indent=indent) + "\n")


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
        return json.loads(file.read_text(encoding="utf-8").removeprefix("\ufeff"))  # a byte order mark
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


@contextmanager
def scratch_folder(output: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden folder beside `output`, removed after the block; meanwhile no second one is given for `output`.

    Its name is `.tasc-*.tmp`. It is locked while this process lives. So a folder that a killed process has left is
    recognised, and removed when the next one of the same user is created beside it.

    Raises:
        InputError: Another process or thread has a scratch folder for `output`.
        OSError: The folder of `output` does not exist or is read-only.
    """
    with _scratch(behind_link(output), exclusive=True) as folder:
        yield folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A scratch folder among the system's temporary files, for what has no output beside it."""
    with _scratch(Path(tempfile.gettempdir(), "tasc"), exclusive=False) as folder:
        yield folder


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Raise as `OSError` what torch, safetensors and tokenizers raise if a file below `path` cannot be written.

    Where Python's own error for a full disk names no file, it names `path`.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            code = int(found[1])
            raise OSError(code, os.strerror(code), str(path)) from error
        if isinstance(error, RuntimeError) and re.search("inline_container|iostream error", str(error)):
            raise OSError(f"{path}: a file in it could not be written; is the disk full?") from error
        raise


def behind_link(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path to write at: the one that a symbolic link leads to, and any other path as it is.

    Raises:
        InputError: A pipe or a device is there, which a new file would replace.
    """
    target = Path(os.path.realpath(path) if os.path.islink(path) else os.path.abspath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        raise InputError(f"{path} is a pipe or a device; name a file")
    return target


def take_access(path: Path, of: Path) -> None:
    """Give a file the mode of another one, and its owner and group where that is allowed.

    Where the group cannot be given, the file's own group gets no access.
    """
    wanted = of.stat()
    mode = stat.S_IMODE(wanted.st_mode)
    try:
        os.chown(path, wanted.st_uid, wanted.st_gid)
    except PermissionError:  # only an administrator may give a file away
        try:
            os.chown(path, -1, wanted.st_gid)
        except PermissionError:
            mode &= ~stat.S_IRWXG
    path.chmod(mode)


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Flush a file, or a folder with all that is in it, to the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            if not Path(folder, name).is_symlink():
                flush(Path(folder, name))
        flush(Path(folder))
    if not path.is_dir():
        flush(path)


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there. It goes whole: no killed process leaves a part of it."""
    if path.is_dir():
        with _scratch(path.absolute(), exclusive=False) as folder:
            os.replace(path, folder / path.name)


@contextmanager
def _renamed(target: Path, *, exclusive: bool, durable: bool = True) -> Iterator[Path]:
    """A path in a scratch folder, renamed to `target` after the block."""
    with _scratch(target, exclusive=exclusive) as folder:
        temporary = folder / target.name
        with os_errors(target):
            yield temporary
        if target.is_file():
            take_access(temporary, target)
        if durable:
            sync(temporary)
        os.replace(temporary, target)
        if durable:
            flush(target.parent)


@contextmanager
def _scratch(target: Path, *, exclusive: bool) -> Iterator[Path]:
    from tasc._core import ScratchFolder

    folder = ScratchFolder(target, exclusive=exclusive)
    try:
        yield folder.path
    finally:
        folder.close()
