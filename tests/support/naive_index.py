"""What follows a context in a task's outputs, found by looking everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

BOUNDARY = -1
"""Left of an output's first token and right of its last."""


class NaiveIndex:
    """The twin of `tasc.TaskIndex.successors`.

    Args:
        documents: (token ids, weight) of each output.

    Example:
        >>> NaiveIndex([([5, 6], 2), ([5, 7], 1)]).successors([5])
        (Counter({6: 2, 7: 1}), 2, 3)
    """

    def __init__(self, documents: Iterable[tuple[Sequence[int], int]]) -> None:
        self._documents = [([BOUNDARY, *ids, BOUNDARY], weight) for ids, weight in documents]

    def counts(self, context: Sequence[int]) -> Counter[int]:
        """Weighted counts of what follows exactly this context; `BOUNDARY` in front of it is the start of an output."""
        found: Counter[int] = Counter()
        size = len(context)
        for ids, weight in self._documents:
            for end in range(max(size, 1), len(ids)):
                if ids[end - size : end] == list(context):
                    found[ids[end]] += weight
        return found

    def successors(self, context: Sequence[int], *, from_start: bool = True) -> tuple[Counter[int], int, int]:
        """Counts for the longest suffix of a context that occurs, its length, and how often it occurs."""
        whole = [BOUNDARY, *context] if from_start else list(context)
        for size in range(len(whole), -1, -1):
            found = self.counts(whole[len(whole) - size :])
            if found:
                return found, size, found.total()
        return Counter(), 0, 0
