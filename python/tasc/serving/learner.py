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

Learn: TypeAlias = Callable[[list[Row]], None]
"""Adds rows to one drafter."""


class OnlineLearner:
    """Adds finished outputs to drafters on a thread of its own: a write that waits for the disk delays no step.

    The thread starts with the first output. Where none can be started, the output is dropped and the next one tries
    again. What a drafter raises is logged.
    """

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Learn, Row | None] | None] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def put(self, learn: Learn, row: Row | None) -> bool:
        """Queue a row for a drafter (None: a call without rows); it is dropped where too many wait.

        Returns:
            Whether it was queued.
        """
        try:
            with self._lock:
                if self._closed:
                    return False
                if self._thread is None:
                    self._start()
            self._waiting.put_nowait((learn, row))
            return True
        except queue.Full:
            _log.debug("outputs end faster than they are written; one is not learnt from")
        except RuntimeError as error:
            _log.debug("no thread can be started to learn on, an output is not learnt from: %s", error)
        return False

    def close(self) -> None:
        """Learn the rows that wait, for a few seconds at most, and end the thread."""
        atexit.unregister(self.close)
        with self._lock:
            self._closed, thread = True, self._thread
        if thread is not None and thread.is_alive():
            self._waiting.put(None)
            thread.join(_EXIT_SECONDS)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="tasc-learner", daemon=True)
        thread.start()
        self._thread = thread
        atexit.register(self.close)

    def _run(self) -> None:
        last = False
        while not last:
            rows, last = self._take()
            while rows:  # a drafter that nothing else keeps is closed before the next one opens its log
                self._learn(*rows.popitem())

    def _take(self) -> tuple[dict[Learn, list[Row]], bool]:
        """Wait for rows; return all that wait, by drafter, and whether they are the last."""
        found = [self._waiting.get()]
        while not self._waiting.empty():
            found.append(self._waiting.get())
        rows: dict[Learn, list[Row]] = {}
        for one in found:
            if one is not None:
                learn, row = one
                rows.setdefault(learn, []).extend([] if row is None else [row])
        return rows, None in found

    @staticmethod
    def _learn(learn: Learn, rows: list[Row]) -> None:
        try:
            learn(rows)
        except BaseException:  # a panic of another extension is no Exception
            _log.warning("%d finished outputs could not be learnt from", len(rows), exc_info=True)
