"""Settings of an engine that takes no arguments of tasc: the variable TASC_INDEX and a JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tasc.errors import InputError

VARIABLE = "TASC_INDEX"
"""Environment variable with the path of an index, or of a JSON file with settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Settings of one index.

    Attributes:
        path: File of the index.
        prompt_contains: Text that occurs in the prompts of the index's requests, such as a sentence of the task's
            system message. None: the index takes every request that no other index takes.
    """

    path: Path
    prompt_contains: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Indexes to draft from, and options of drafting.

    Attributes:
        indexes: At least one.
        learn: Whether finished outputs are added to their index's drafter, and kept in the log beside the index.
        served_bytes: Most bytes of finished outputs in memory, of each index; see `NgramDrafter`.
        log_bytes: Most bytes of the log of each index.
        cost: Cost of one drafted token in plain steps at batch 1; None: learnt from the engine's steps.
        metrics: File for Prometheus' textfile collector, written every few seconds; None: no file.
    """

    indexes: tuple[IndexSettings, ...]
    learn: bool = False
    served_bytes: int = 64 << 20
    log_bytes: int = 256 << 20
    cost: float | None = None
    metrics: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings that TASC_INDEX names: an index (and `INDEX.json` beside it, if it exists), or a JSON file.

        Raises:
            InputError: The variable is not set, a file is missing, or the JSON is invalid; names the place.
        """
        named = environment.get(VARIABLE, "")
        if not named:
            raise InputError(f"{VARIABLE} is not set; set it to an index (task.tasc) or to a JSON file with settings")
        path = Path(named)
        if not path.is_file():
            raise InputError(f"{VARIABLE} is {named}, where there is no file")
        if path.suffix == ".json":
            return cls.read(path)
        beside = Path(f"{path}.json")
        return cls.read(beside, path) if beside.is_file() else cls(indexes=(IndexSettings(path=path),))

    @classmethod
    def read(cls, file: Path, index: Path | None = None) -> Settings:
        """Read a JSON file: an object with the names of the attributes; paths are relative to it.

        Args:
            file: `{"indexes": [{"path": …, "prompt_contains": …}, …], "learn": …, …}`.
            index: The index beside the file; the file may then leave out `indexes`.

        Raises:
            InputError: As `from_environment`.
        """
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file} is not JSON: {error}") from error
        _check(file, found, cls)
        listed = found.pop("indexes", None)
        if listed is None and index is not None:
            listed = [{"path": str(index.absolute())}]
        if not isinstance(listed, list) or not listed:
            raise InputError(f"{file}: `indexes` is {listed!r}; list at least one, as {{'path': 'task.tasc'}}")
        indexes = []
        for number, one in enumerate(listed):
            where = f"{file}: indexes[{number}]"
            _check(where, one, IndexSettings)
            if not isinstance(one.get("path"), str):
                raise InputError(f"{where}: `path` is {one.get('path')!r}; give the index's file")
            path = file.parent / one["path"]
            if not path.is_file():
                raise InputError(f"{where}: {path} is no file")
            indexes.append(IndexSettings(path=path, prompt_contains=one.get("prompt_contains")))
        without = [one for one in indexes if not one.prompt_contains]
        if len(without) > 1:
            raise InputError(f"{file}: {len(without)} indexes have no `prompt_contains`; one can take what is left")
        if "metrics" in found and found["metrics"] is not None:
            found["metrics"] = file.parent / found["metrics"]
        return cls(indexes=tuple(indexes), **found)


_TYPES: dict[str, tuple[type, ...]] = {
    "indexes": (list,),
    "learn": (bool,),
    "served_bytes": (int,),
    "log_bytes": (int,),
    "cost": (int, float, type(None)),
    "metrics": (str, type(None)),
    "path": (str,),
    "prompt_contains": (str, type(None)),
}


def _check(where: object, found: Any, kind: type) -> None:
    """Refuse anything but an object with known names and right types."""
    if not isinstance(found, dict):
        raise InputError(f"{where} is {found!r}; it must be an object")
    known = [one.name for one in fields(kind)]
    for name, value in found.items():
        if name not in known:
            raise InputError(f"{where}: unknown setting {name!r}; there are {', '.join(known)}")
        if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and bool not in _TYPES[name]):
            wanted = " or ".join(one.__name__ for one in _TYPES[name])
            raise InputError(f"{where}: {name} is {value!r}; it must be {wanted}")
        if name == "cost" and isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise InputError(f"{where}: cost is {value!r}; give plain steps per token, ≥ 0")
