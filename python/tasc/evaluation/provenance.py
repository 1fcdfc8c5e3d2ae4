"""What a result was made of: data, models, index, versions, machine, date and command."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasc

if TYPE_CHECKING:
    from tasc._core import TaskIndex

_ENDS = 1 << 16  # bytes at both ends of a file of weights


def rows_key(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return 64 hexadecimal digits: SHA-256 over rows as JSON, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def folder_key(folder: str | os.PathLike[str]) -> str | None:
    """Return 16 hexadecimal digits over the files of a model's folder: names, sizes, and 64 KiB at both ends.

    The folder of a model of many gigabytes takes milliseconds. None if there is no such folder.
    """
    if not Path(folder).is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(one for one in Path(folder).iterdir() if one.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(_ENDS, size - _ENDS))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def data_facts(path: str | os.PathLike[str], rows: int | None = None) -> dict[str, Any]:
    """Return a file's path, the number of its rows and its SHA-256, as `sha256sum` prints it, if it is a file."""
    facts: dict[str, Any] = {"path": str(path)} | ({} if rows is None else {"rows": rows})
    if Path(path).is_file():
        with Path(path).open("rb") as file:
            facts["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return facts


def model_facts(name: str, model: Any = None, adapter: Path | None = None) -> dict[str, Any]:
    """Return a model's name, its `folder_key` or its commit on the hub, dtype, device and adapter."""
    facts: dict[str, Any] = {"name": name}
    if (key := folder_key(name)) is not None:
        facts["key"] = key
    if model is not None:
        commit = getattr(model.config, "_commit_hash", None)
        facts |= {"commit": commit} if commit else {}
        facts |= {"dtype": str(model.dtype).removeprefix("torch."), "device": str(model.device)}
    if adapter is not None:
        facts["adapter"] = {"name": str(adapter), "key": folder_key(adapter)}
    return facts


def index_facts(index: TaskIndex, path: Path | None) -> dict[str, Any]:
    """Return an index's size in documents, tokens and inputs, and its path and SHA-256, if it is a file that stays."""
    info = index.info()
    return (data_facts(path) if path is not None else {}) | {
        name: info[name] for name in ("documents", "tokens", "inputs")
    }


def run_facts() -> dict[str, Any]:
    """Return the version of tasc, the date with its time zone, and the arguments of the command."""
    now = datetime.datetime.now().astimezone()
    return {
        "tasc": tasc.__version__,
        "date": now.isoformat(timespec="seconds"),
        "command": shlex.join(["tasc", *sys.argv[1:]]),
    }


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the facts in nested mappings by their names, joined by blanks.

    Examples:
        >>> dict(flat({"model": {"name": "m", "key": "k"}, "seed": 1}))
        {'model name': 'm', 'model key': 'k', 'seed': 1}
    """
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from flat(item, f"{name} {inner}".strip())
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value, 1):
            yield from flat(item, f"{name} {number}")
    else:
        yield name, value
