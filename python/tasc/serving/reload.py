"""Notices that another file stands under an index's name."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

CHECK_SECONDS = 1.0
"""Seconds between two looks at the file."""


class FileWatcher:
    """Tells whether a file was replaced, looking at it once a second at most. Any number of threads may use it.

    Args:
        path: The file. It exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._state()
        self._checked = time.monotonic()
        self.lock = threading.Lock()
        """Held by the thread that takes up a new file."""

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
        found = os.stat(self._path)
        return found.st_ino, found.st_mtime_ns, found.st_size
