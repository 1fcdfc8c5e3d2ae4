"""The requests that an engine is running, known by their tokens alone, and drafted for together.

Engines move the rows of their batch about, pause requests and take them up again, and name none of them. A request's
tokens so far are a name: those of the next step begin with them.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.protocol import Draft, Drafter, Request
from tasc.drafting.step_times import StepTimes
from tasc.serving.metrics import Metrics
from tasc.serving.task_drafts import TaskDrafts

_log = logging.getLogger(__name__)

_MOST_ABSENT = 256  # requests that are in no batch: paused, cut off, or ended without an end token

Ids = NDArray[np.int32]
"""(L,) token ids."""

_NO_IDS: Ids = np.empty(0, np.int32)
_NO_SOURCES: NDArray[np.uint8] = np.empty(0, np.uint8)


class TrackedRequest:
    """A request that the engine is running.

    Args:
        drafts: The task that it belongs to.
        prompt: (L,) its prompt.
    """

    def __init__(self, drafts: TaskDrafts, prompt: Ids) -> None:
        self.drafts = drafts
        self.num_prompt = len(prompt)
        self.drafter: Drafter = drafts.drafter
        """The one it began with, whatever has replaced the index since."""
        self.request: Request | None = None
        """None where the drafter has failed."""
        self.input: str | None = None
        self.drafted: Ids = _NO_IDS
        """(K,) the last draft."""
        self.sources: NDArray[np.uint8] = _NO_SOURCES
        """(K,) where its tokens came from."""
        self.learnt = False
        """Whether its output has ended once."""
        self._ids = np.empty(2 * len(prompt) + 256, np.int32)
        self._length = 0
        self._append(prompt)

    def begin(self) -> None:
        """Begin to draft for it."""
        self.drafter, self.request, self.input = self.drafts.begin(self.ids)

    @property
    def ids(self) -> Ids:
        """(L,) prompt and output so far."""
        return self._ids[: self._length]

    def emitted(self, ids: Sequence[int]) -> int:
        """Take the tokens of a step: those accepted and one of the model's own. Returns how many were accepted."""
        new = np.asarray(ids, np.int32)
        self._append(new)
        drafted = self.drafted[: len(new) - 1]
        right = new[: len(drafted)] == drafted
        if self.request is not None:
            self.request.update(new)
        return len(right) if right.all() else int(right.argmin())

    def hold_draft(self, draft: Draft, most: int) -> None:
        """Keep a draft, its first `most` tokens, to be compared with what is emitted next."""
        self.drafted = np.asarray(draft.tokens)[:most].astype(np.int32)
        self.sources = np.asarray(draft.sources)[:most]

    def drop_draft(self) -> None:
        """There is no draft."""
        self.drafted, self.sources = _NO_IDS, _NO_SOURCES

    def learn(self, eos: frozenset[int], since: int = 0) -> bool:
        """Teach the task this output, up to the first end token at or after output token `since`; the first time only.

        Returns:
            Whether there is one.
        """
        output = self.ids[self.num_prompt :]
        end = next((since + at for at, token in enumerate(output[since:].tolist()) if token in eos), None)
        if end is not None and not self.learnt:
            self.learnt = True
            self.drafts.finished(self.input, output[: end + 1])
        return end is not None

    def _append(self, ids: Ids) -> None:
        end = self._length + len(ids)
        if end > len(self._ids):
            self._ids = np.concatenate([self.ids, np.empty(2 * end, np.int32)])
        self._ids[self._length : end] = ids
        self._length = end


class RequestTracker:
    """Follows the requests of an engine from step to step and drafts for all of them.

    Args:
        choose: The task of a request, by its (L,) prompt.
        max_draft: Longest draft, ≥ 1.
        max_length: Most tokens of prompt and output together.
        vocab_size: Ids from here on are not drafted.
        eos: Ids that end an output.
        times: What steps cost.
        metrics: Where everything is counted.
    """

    def __init__(
        self,
        choose: Callable[[Ids], TaskDrafts],
        *,
        max_draft: int,
        max_length: int,
        vocab_size: int,
        eos: frozenset[int],
        times: StepTimes,
        metrics: Metrics,
    ) -> None:
        self._choose = choose
        self._max_draft, self._max_length, self._vocab_size = max_draft, max_length, vocab_size
        self._eos = eos
        self._times, self._metrics = times, metrics
        self._rows: list[TrackedRequest | None] = []
        self._absent: OrderedDict[int, TrackedRequest] = OrderedDict()  # by id(), those absent longest first
        self._returned: float | None = None

    def propose(self, emitted: Sequence[Sequence[int]], lengths: Any, tokens: Any) -> list[list[int]]:
        """Take a step of the engine and draft for the next.

        Args:
            emitted: By row, the ids that the step has emitted; none: the row's prompt is not through.
            lengths: (≥ R,) ids of prompt and output so far, by row.
            tokens: (≥ R, ≥ L) those ids.

        Returns:
            By row, the draft; empty where none pays.
        """
        begin = time.perf_counter()
        rows, fresh = self._follow(emitted, lengths, tokens)
        self._time(begin, rows, fresh)
        costs = self._times.costs(max(1, len(rows)), self._max_draft)
        groups: dict[int, list[TrackedRequest]] = {}
        for row, new in zip(rows, emitted, strict=True):
            if row is not None and self._goes_on(row, new, costs):
                groups.setdefault(id(row.drafter), []).append(row)
        for group in groups.values():
            self._draft(group, costs)
        self._rows = rows
        self._returned = time.perf_counter()
        self._metrics.drafting(self._returned - begin)
        return [[] if row is None else row.drafted.tolist() for row in rows]

    def _follow(
        self, emitted: Sequence[Sequence[int]], lengths: Any, tokens: Any
    ) -> tuple[list[TrackedRequest | None], bool]:
        """The request of each row, None where it has emitted nothing; and whether a prompt was in the step."""
        before = self._rows
        rows: list[TrackedRequest | None] = [None] * len(emitted)
        seen: list[tuple[int, Ids]] = []
        for at, new in enumerate(emitted):
            if not new:
                continue
            known = tokens[at, : int(lengths[at]) - len(new)]
            row = before[at] if at < len(before) else None
            if row is not None and np.array_equal(row.ids, known):
                rows[at] = row
                before[at] = None
            else:
                seen.append((at, known))
        for row in before:
            if row is not None and not row.learnt:
                self._absent[id(row)] = row
        fresh = any(not new for new in emitted)
        by_length: dict[int, list[TrackedRequest]] = {}
        for row in self._absent.values() if seen else ():
            by_length.setdefault(len(row.ids), []).append(row)
        for at, known in seen:
            candidates = by_length.get(len(known), [])
            row = next((one for one in reversed(candidates) if np.array_equal(one.ids, known)), None)
            if row is None:
                row, fresh = self._begin(known), True
            else:
                candidates.remove(row)
                del self._absent[id(row)]
            rows[at] = row
        while len(self._absent) > _MOST_ABSENT:
            self._absent.popitem(last=False)
        return rows, fresh

    def _begin(self, prompt: Ids) -> TrackedRequest:
        row = TrackedRequest(self._choose(prompt), np.array(prompt, np.int32))
        self._metrics.began(row.drafts)
        try:
            row.begin()
        except Exception:
            self._failed([row])
        return row

    def _time(self, begin: float, rows: Sequence[TrackedRequest | None], fresh: bool) -> None:
        """Learn what the step that has just ended cost, where it held no prompt and nothing was idle before it."""
        if fresh or self._returned is None:
            return
        running = [row for row in rows if row is not None]
        if running:
            seconds = begin - self._returned
            self._metrics.stepped(seconds)
            self._times.observe(sum(1 + len(row.drafted) for row in running), seconds)

    def _goes_on(self, row: TrackedRequest, new: Sequence[int], costs: NDArray[np.float64]) -> bool:
        """Bring a request up to what it has emitted; returns whether to draft for it now."""
        accepted = 0
        try:
            accepted = row.emitted(new)
        except Exception:
            self._failed([row])
        self._metrics.step(row.drafts, len(new), row.sources, accepted)
        if len(row.drafted):
            row.drafts.brake.observe(accepted, float(costs[len(row.drafted)]) - 1.0)
        row.drop_draft()
        if row.learn(self._eos, len(row.ids) - row.num_prompt - len(new)) or row.request is None or self._room(row) < 1:
            return False
        if row.drafts.brake.holds():
            self._metrics.paused(row.drafts)
            return False
        return True

    def _draft(self, rows: Sequence[TrackedRequest], costs: NDArray[np.float64]) -> None:
        """Draft for requests of one drafter."""
        try:
            drafts = rows[0].drafter.propose_batch([row.request for row in rows], self._max_draft, costs)
        except Exception:
            self._failed(rows)
            return
        for row, draft in zip(rows, drafts, strict=True):
            strange = np.flatnonzero(np.asarray(draft.tokens) >= self._vocab_size)
            row.hold_draft(draft, min(self._room(row), int(strange[0]) if len(strange) else self._max_draft))

    def _room(self, row: TrackedRequest) -> int:
        """How many tokens can be drafted at most: the model says one more after them."""
        return self._max_length - len(row.ids) - 1

    def _failed(self, rows: Sequence[TrackedRequest]) -> None:
        """These requests go on plainly: a drafter must never take the engine down."""
        _log.warning("a drafter failed; %d requests go on without drafts", len(rows), exc_info=True)
        for row in rows:
            row.request = None
            self._metrics.failed(row.drafts)
