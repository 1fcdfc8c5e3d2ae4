"""Results of a part of `paper.py`, kept in a JSON file as soon as they are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasc.errors import InputError
from tasc.files import read_json, write_json


class KeptResults:
    """JSON values by key in a file; what the file holds is not computed again.

    Args:
        path: JSON file, made with the first result; None keeps nothing.
        write: Whether the file is written; otherwise new results stay in memory.

    Raises:
        InputError: The file is not a JSON object.
    """

    def __init__(self, path: Path | None, *, write: bool = True) -> None:
        self._path, self._write = path, write
        self.values: dict[str, Any] = read_json(path) if path is not None and path.exists() else {}
        if not isinstance(self.values, dict):
            raise InputError(f"{path} holds no results: name another file")

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the value of `key`; if it is missing, compute it and write the file."""
        if key not in self.values:
            self.values[key] = compute()
            if self._path is not None and self._write:
                write_json(self._path, self.values, indent=2)
        return self.values[key]

    def require(self, key: str, wanted: Any) -> None:
        """Keep what the results were measured on, under `key`.

        Raises:
            InputError: The file holds results that were measured on something else.
        """
        wanted = json.loads(json.dumps(wanted))  # as the file gives it
        if (known := self.get(key, lambda: wanted)) != wanted:
            raise InputError(f"{self._path} holds results of {known}, not of {wanted}: name another file or folder")
