"""Notices that another file stands under an index's name."""

from __future__ import annotations

import os
import time
from pathlib import Path

CHECK_SECONDS = 1.0
"""Seconds between two looks at the file."""


class FileWatcher:
    """Tells whether a file was replaced, looking at it once a second at most. Any number of threads may use it.

    Args:
        *paths: The file; or several, of which the first that exists counts.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._stamp = self._state()
        self._checked = time.monotonic()

    @property
    def path(self) -> Path:
        """The first of the files that exists, else the last."""
        return next((path for path in self._paths if path.exists()), self._paths[-1])

    def is_due(self) -> bool:
        """Whether a second has passed since the last look."""
        return time.monotonic() - self._checked >= CHECK_SECONDS

    def was_replaced(self) -> bool:
        """Whether another file stands there than at the last look.

        Raises:
            OSError: There is none.
        """
        self._checked = time.monotonic()
        stamp = self._state()
        changed, self._stamp = stamp != self._stamp, stamp
        return changed

    def _state(self) -> tuple[int, int, int]:
        found = os.stat(self.path)
        return found.st_ino, found.st_mtime_ns, found.st_size
