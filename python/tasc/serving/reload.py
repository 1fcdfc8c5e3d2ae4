"""Opens index files for an engine, and notices that another file stands under an index's name."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from weakref import WeakSet, WeakValueDictionary

from tasc._core import TaskIndex
from tasc.drafting.protocol import guarded

VERIFY = ("other_owner", "always", "later")
"""When an index is verified before use: where its file belongs to another user, always, or never. One that is not is
verified on a thread after it was opened.
"""

_log = logging.getLogger(__name__)

_opened: WeakValueDictionary[tuple[object, ...], TaskIndex] = WeakValueDictionary()
_damaged: WeakSet[TaskIndex] = WeakSet()
_lock = threading.Lock()


def open_index(path: Path, memory_bytes: int, verify: str, failed: Callable[[], None] = lambda: None) -> TaskIndex:
    """Open an index file, or return the index that this process has open of the same file.

    Args:
        path: The file.
        memory_bytes: Largest file that is read into memory; a larger one is mapped.
        verify: When it is verified; one of `VERIFY`.
        failed: Called if it proves to be damaged after this call has returned.

    Raises:
        FormatError: It is no index, or damaged.
        OSError: It cannot be read.
    """
    with _lock:
        state = file_state(path)
        key = (path.absolute(), state, memory_bytes)
        index = _opened.get(key)
        if index is not None:
            return index
        index = TaskIndex.open(path, memory_bytes=memory_bytes)
        if verify == "always" or (verify == "other_owner" and os.stat(path).st_uid != os.geteuid()):
            index.verify()
        else:
            _verify_later(index, failed)
        if not index.in_memory:
            _log.warning(
                "%s is larger than memory_bytes=%d and stays mapped: replace it by a rename only, as tasc does; a file "
                "that is written over ends this process",
                path, memory_bytes,
            )  # fmt: skip
        if file_state(path) == state:
            _opened[key] = index
        return index


def is_damaged(index: TaskIndex | None) -> bool:
    """Whether an index has failed its verification."""
    return index in _damaged


def file_state(path: Path) -> tuple[int, int, int, int]:
    """Return what differs between a file and the one that replaces it.

    Raises:
        OSError: There is none.
    """
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _verify_later(index: TaskIndex, failed: Callable[[], None]) -> None:
    """Verify an index on a thread, or here where no thread can be started."""

    def is_sound() -> bool:
        index.verify()
        return True

    def verify() -> None:
        if not guarded((), is_sound, f"{index.path} is damaged; it is turned off until another file replaces it"):
            _damaged.add(index)
            failed()

    try:
        threading.Thread(target=verify, name="tasc-verify", daemon=True).start()
    except RuntimeError:
        verify()


CHECK_SECONDS = 1.0
"""Seconds between two looks at the file."""


class FileWatcher:
    """Tells whether a file was replaced, looking at it once a second at most. Any number of threads may use it.

    Args:
        *paths: The file; or several, of which the first that exists counts.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._stamp: tuple[int, ...] | None = file_state(self.path)
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
        stamp = file_state(self.path)
        changed, self._stamp = stamp != self._stamp, stamp
        return changed

    def look_again(self) -> None:
        """Take the file for another one at the next look: it could not be used, perhaps because it is being written."""
        self._stamp = None
