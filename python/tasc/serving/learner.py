"""Learning from finished outputs while an engine serves."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

_log = logging.getLogger(__name__)

_MAX_WAITING = 4096  # finished outputs; later ones are not learnt from until the thread has caught up
_EXIT_SECONDS = 5.0  # seconds that a process waits at its end for the outputs that wait

Row: TypeAlias = tuple[str | None, Any]
"""The input text, or None, and the (T,) uint32 ids of the output with its end token."""


class OnlineLearner:
    """Adds finished outputs to a drafter on a thread of its own: a write that waits for the disk delays no step.

    Args:
        serve: Takes rows; what it raises is logged.
    """

    def __init__(self, serve: Callable[[list[Row]], None]) -> None:
        self._serve = serve
        self._waiting: queue.Queue[Row | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="tasc-learner", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def put(self, row: Row) -> None:
        """Queue a row; it is dropped where too many wait."""
        try:
            self._waiting.put_nowait(row)
        except queue.Full:
            _log.debug("outputs end faster than they are written; one is not learnt from")

    def close(self) -> None:
        """Learn the rows that wait, for a few seconds at most, and end the thread."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(_EXIT_SECONDS)

    def _run(self) -> None:
        while (row := self._waiting.get()) is not None:
            rows, last = [row], False
            while not self._waiting.empty() and not last:
                more = self._waiting.get()
                last = more is None
                if more is not None:
                    rows.append(more)
            try:
                self._serve(rows)
            except Exception:
                _log.warning("%d finished outputs could not be learnt from", len(rows), exc_info=True)
            if last:
                return
