"""Keeps a drafter from costing more than it brings."""

from __future__ import annotations

_CREDIT = 2.0  # plain steps that a drafter may lose before it is paused
_MOST_CREDIT = 8.0
_SHORTEST, _LONGEST = 4, 64  # steps


class Brake:
    """Pauses a drafter whose drafts do not pay.

    A step in which it was asked pays if it gains more tokens per row than it costs plain steps beyond one: a > C(k) - 1
    + the time of drafting, where step times are measured. Gains and losses go to an account with a little credit; when
    it is overdrawn, drafting pauses for 4 steps, and twice as long each time a try after the pause loses again, up to
    64. So a drafter that never hits costs a few steps at the start and one try in 64 later, whatever its own length
    rule does; so does one that hardly ever drafts, where its time counts, as on a GPU.
    """

    def __init__(self) -> None:
        self._balance = _CREDIT
        self._pause = _SHORTEST
        self._left = 0

    def holds(self) -> bool:
        """Whether this step goes without a draft; counts the step."""
        if self._left:
            self._left -= 1
            return True
        return False

    def observe(self, accepted: float, extra: float) -> None:
        """Take a step in which the drafter was asked.

        Args:
            accepted: Drafted tokens accepted, over the rows of a plain step.
            extra: Its cost beyond a plain step, in plain steps.
        """
        self._balance = min(self._balance + accepted - extra, _MOST_CREDIT)
        if accepted > extra:
            self._pause = _SHORTEST
        if self._balance < 0:
            self._balance = 0.0
            self._left = self._pause
            self._pause = min(2 * self._pause, _LONGEST)
