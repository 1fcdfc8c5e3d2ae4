"""A time without drafts after a failure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST, LONGEST = 1.0, 300.0  # seconds


class Backoff:
    """Turns drafts off after a failure: for 1 s, twice as long after each further one, at most 300 s.

    The next pause is 1 s again if drafts have worked for twice as long as that pause would be.
    """

    def __init__(self) -> None:
        self._off_until, self._pause = 0.0, FIRST

    @property
    def is_on(self) -> bool:
        """Whether drafts are turned off now."""
        return time.monotonic() < self._off_until

    def begin(self) -> float:
        """Turn drafts off; return for how many seconds."""
        now = time.monotonic()
        if now - self._off_until > 2 * self._pause:
            self._pause = FIRST
        seconds, self._pause = self._pause, min(2 * self._pause, LONGEST)
        self._off_until = now + seconds
        return seconds

    def end(self) -> None:
        """Turn drafts on."""
        self._off_until = 0.0

    def run(self, draft: Callable[[], T], failed: Callable[[], None]) -> T | None:
        """Draft, unless drafts are turned off now. A failure is logged, and turns them off.

        Args:
            draft: Returns the drafts.
            failed: Called after it has raised. Only an interrupt and an exit go on to the caller.

        Returns:
            The drafts; None where there are none.
        """
        if self.is_on:
            return None
        try:
            return draft()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a panic of another extension is no Exception
            _log.exception("drafting failed; this engine goes on without drafts for %.0f s", self.begin())
            failed()
            return None
