"""A time without drafts after a failure."""

from __future__ import annotations

import time

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
