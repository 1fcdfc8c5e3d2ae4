"""Settings of an engine that takes no arguments of tasc: the variable TASC_INDEX and a JSON file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tasc.checks import wrong
from tasc.drafting.defaults import MAX_SALTS, MEMORY_BYTES
from tasc.errors import InputError
from tasc.files import read_json
from tasc.serving.reload import VERIFY

VARIABLE = "TASC_INDEX"
"""Environment variable with the path of an index, or of a JSON file with settings."""

SALT_FIELDS = ("tasc_salt", "cache_salt")
"""Fields of a request that can hold its salt."""

MAX_SALT_LOGS = 256
"""Most logs of salts beside an index, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Settings of one index: its file, and the conditions of its requests. A request must meet all that are given.

    Attributes:
        path: File of the index.
        key: Value of the request's field `tasc_index`. None: the request has no such field.
        lora: Name of the request's LoRA adapter. None: any; no adapter, where another index names one.
        model: Name that the engine serves the model under. None: any.
        prompt_starts_with: Text at the beginning of the prompt: what the operator's template and system message render
            to, before anything that a user wrote, special tokens included.
        prompt_contains: Text anywhere in the prompt, such as a sentence of the task's system message. A user can write
            it too: only for tasks that trust each other.
    """

    path: Path
    key: str | None = None
    lora: str | None = None
    model: str | None = None
    prompt_starts_with: str | None = None
    prompt_contains: str | None = None

    def conditions(self) -> tuple[str | None, ...]:
        """The conditions in the order of the attributes."""
        return self.key, self.lora, self.model, self.prompt_starts_with, self.prompt_contains


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Indexes to draft from, and options of drafting.

    Attributes:
        indexes: At least one.
        learn: Whether finished outputs are added to their index's drafter, and kept in the log beside the index.
        learn_unsalted: Whether `learn` holds for requests without a salt too.
        trusted: Whether all who write prompts may learn from response times what the others' prompts and outputs are;
            `learn` with `prompt_contains` needs it.
        salt: Field of a request that holds its salt, of `SALT_FIELDS`: where an engine does not show it, drafts come
            from each request's own context alone. None: "tasc_salt", and such an engine's requests count as unsalted.
        max_salts: Most salts of each index whose drafters are in memory; the least recently used one is closed.
        max_salt_logs: Most logs of salts beside each index; what a further salt learns is kept in memory alone.
        served_bytes: Most bytes of finished outputs in memory, of each drafter; see `NgramDrafter`.
        log_bytes: Most bytes of each log.
        log_days: Days after which finished outputs are dropped from a log; None: they stay. See `NgramDrafter`.
        memory_bytes: Largest index file that is held in memory. A larger one stays mapped: writing over it in place,
            instead of a rename, ends the engine.
        verify: When an index file is verified before use: "other_owner", where it belongs to another user; "always";
            or "later", never. One that is not is verified after it was opened, beside the engine.
        cost: Cost of one drafted token in plain steps at batch 1; None: learnt from the engine's steps.
        metrics: File for Prometheus' textfile collector, written every few seconds; None: no file.

    Raises:
        InputError: Two indexes have the same conditions, or `prompt_contains` chooses what is learnt.
    """

    indexes: tuple[IndexSettings, ...]
    learn: bool = False
    learn_unsalted: bool = True
    trusted: bool = False
    salt: str | None = None
    max_salts: int = MAX_SALTS
    max_salt_logs: int = MAX_SALT_LOGS
    served_bytes: int = 64 << 20
    log_bytes: int = 256 << 20
    log_days: int | None = None
    memory_bytes: int = MEMORY_BYTES
    verify: str = VERIFY[0]
    cost: float | None = None
    metrics: Path | None = None

    def __post_init__(self) -> None:
        """Check what no single setting shows."""
        seen: dict[tuple[str | None, ...], int] = {}
        for number, one in enumerate(self.indexes):
            before = seen.setdefault(one.conditions(), number)
            if before != number:
                raise InputError(
                    f"indexes[{before}] and indexes[{number}] have the same conditions; give one of them another "
                    "`key`, `lora`, `model` or `prompt_starts_with`"
                )
            if one.prompt_contains and self.learn and not self.trusted:
                raise InputError(
                    f"indexes[{number}]: `prompt_contains` is met by any user who writes that text, and `learn` would "
                    "show the outputs of one to another; use `prompt_starts_with`, `key` or `lora`, or say "
                    '"trusted": true if all users may know each other\'s outputs'
                )

    @property
    def needs_fields(self) -> bool:
        """Whether requests cannot be told apart without the fields that came with them."""
        return self.salt is not None or any(one.key or one.lora for one in self.indexes)

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
            file: `{"indexes": [{"path": …, "key": …}, …], "learn": …, …}`.
            index: The index beside the file; the file may then leave out `indexes`.

        Raises:
            InputError: As `from_environment`.
        """
        found = read_json(file)
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
            indexes.append(IndexSettings(**{**one, "path": path}))
        if found.get("metrics") is not None:
            found["metrics"] = file.parent / found["metrics"]
        try:
            return cls(indexes=tuple(indexes), **found)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None


_MAX_COST = 1e6  # plain steps
_MAX_NUMBER = 2**63 - 1
_MAX_DAYS = 2**32 - 1
_TEXT = (str, type(None))

_TYPES: dict[str, tuple[type, ...]] = {
    "indexes": (list,),
    "learn": (bool,),
    "learn_unsalted": (bool,),
    "trusted": (bool,),
    "salt": _TEXT,
    "max_salts": (int,),
    "max_salt_logs": (int,),
    "served_bytes": (int,),
    "log_bytes": (int,),
    "log_days": (int, type(None)),
    "memory_bytes": (int,),
    "verify": (str,),
    "cost": (int, float, type(None)),
    "metrics": _TEXT,
    "path": (str,),
    "key": _TEXT,
    "lora": _TEXT,
    "model": _TEXT,
    "prompt_starts_with": _TEXT,
    "prompt_contains": _TEXT,
}


def _check(where: object, found: Any, kind: type) -> None:
    """Refuse anything but an object with known names and right types."""
    if not isinstance(found, dict):
        raise wrong(str(where), found, "an object")
    known = [one.name for one in fields(kind)]
    for name, value in found.items():
        if name not in known:
            raise InputError(f"{where}: unknown setting {name!r}; there are {', '.join(known)}")
        allowed: Any = _TYPES[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise wrong(f"{where}: {name}", value, " or ".join(one.__name__ for one in allowed))
        if value == "":
            raise InputError(f"{where}: {name} is empty; leave it out or give a text")
        if name == "cost" and value is not None and not 0 <= value <= _MAX_COST:
            raise InputError(f"{where}: cost is {value!r:.40}; give plain steps per token, from 0 to {_MAX_COST:.0f}")
        if allowed == (int,) and not 0 <= value <= _MAX_NUMBER:
            raise wrong(f"{where}: {name}", value, f"from 0 to {_MAX_NUMBER}")
        if name == "max_salts" and value < 1:
            raise InputError(f"{where}: max_salts is {value}; it must be at least 1")
        if name == "log_days" and value is not None and not 1 <= value <= _MAX_DAYS:
            raise wrong(f"{where}: log_days", value, f"from 1 to {_MAX_DAYS}")
        if name == "verify" and value not in VERIFY:
            raise wrong(f"{where}: verify", value, " or ".join(map(repr, VERIFY)))
        if name == "salt" and value is not None and value not in SALT_FIELDS:
            raise wrong(f"{where}: salt", value, " or ".join(map(repr, SALT_FIELDS)))
