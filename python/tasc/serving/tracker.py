"""Tracks the running requests of an engine, by their names or by their tokens alone, and drafts for them together.

Engines move the rows of their batch, pause requests and resume them. Where they pass no names, the tokens of a request
identify it: the tokens of the next step begin with them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Container, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasc.data.ids import common_prefix_length
from tasc.drafting.costs import LearnedCosts
from tasc.drafting.policy import DraftPolicy
from tasc.drafting.protocol import Costs, Draft, SafeDrafter, SafeRequest, guarded
from tasc.serving.metrics import Metrics
from tasc.serving.routing import RequestFields
from tasc.serving.tasks import TaskDrafts

_MAX_ABSENT = 256  # requests in no batch: paused, aborted, or ended without an end token

Ids = NDArray[np.int32]
"""(L,) token ids."""


class BatchRequests(NamedTuple):
    """What an engine shows of the requests in its batch."""

    names: Sequence[Hashable]
    """By row, the name of its request."""
    known: Container[Hashable]
    """Names of all requests that the engine has not ended, in a batch or not."""
    fields: Callable[[Hashable], RequestFields | None]
    """Returns what came with a request; None: the engine does not show it."""
    num_prompt: Callable[[Hashable], int | None] = lambda name: None
    """Returns the number of a request's prompt tokens; None: all before the first step that is seen."""


class TrackedRequest:
    """A request that the engine runs.

    Args:
        drafts: The task of the request; its drafter's request is started.
        prompt: (L,) ids of the prompt.
        metrics: Counts the request, its steps, tokens and failures.
        name: Name in the engine; None: not known.
    """

    def __init__(self, drafts: TaskDrafts, prompt: Ids, metrics: Metrics, name: Hashable = None) -> None:
        self.drafts = drafts
        self.name = name
        self._metrics = metrics
        self.num_prompt = len(prompt)
        self.drafter: SafeDrafter = drafts.drafter
        """The drafter that the request was started with, whatever has replaced the index since."""
        self.request: SafeRequest = SafeRequest(lambda: None)
        self.input_text: str | None = None
        self.drafted: Ids = np.empty(0, np.int32)
        """(K,) ids of the last draft."""
        self.sources: NDArray[np.uint8] = np.empty(0, np.uint8)
        """(K,) source of each drafted token."""
        self.probs: NDArray[np.float32] = np.empty(0, np.float32)
        """(K,) probability of each token, given that those before it are right."""
        self.learnt = False
        """Whether the output has ended once."""
        self.steps = 0
        """Number of steps that emitted tokens."""
        self._failure_seen = False
        self._has_begun_before = False
        self._ids = np.empty(2 * len(prompt) + 256, np.int32)
        self._length = 0
        self._append(prompt)
        metrics.count(drafts, "requests")
        guarded([self.request], self._start)
        self._count_failure()

    def _start(self) -> None:
        self.drafter, self.request, self.input_text = self.drafts.start(self.ids)

    def _count_failure(self) -> None:
        """Count the request once its drafter has failed."""
        if self.request.failed and not self._failure_seen:
            self._failure_seen = True
            self._metrics.count(self.drafts, "failures")

    @property
    def ids(self) -> Ids:
        """(L,) prompt and output so far."""
        return self._ids[: self._length]

    def emitted(self, ids: Sequence[int]) -> int:
        """Take and count the tokens of a step: the accepted ones and one more. The draft is dropped.

        Returns:
            Number of accepted tokens.
        """
        new = np.asarray(ids, np.int32)
        self._append(new)
        self.steps += 1
        accepted = common_prefix_length(self.drafted, new[:-1])
        self.request.update(new)
        self._count_failure()
        self._metrics.step(self.drafts, len(new), self.sources, accepted)
        self.cut_draft(0)
        return accepted

    def begun_before(self, ids: Ids) -> None:
        """Take output of steps that were not seen: the engine dropped the tokens after it, or drafting had failed."""
        if len(ids):
            self._has_begun_before = True
            self._append(ids)
            self.request.update(ids)
            self._count_failure()

    def hold_draft(self, draft: Draft, most: int) -> None:
        """Keep the first `most` tokens of a draft, for comparison with the tokens emitted next."""
        self._count_failure()
        self.drafted = np.asarray(draft.tokens)[:most].astype(np.int32)
        self.sources = np.asarray(draft.sources)[:most]
        probs = np.asarray(draft.probs)[:most]
        self.probs = probs if len(probs) == len(self.drafted) else np.ones(len(self.drafted), np.float32)

    def cut_draft(self, length: int) -> None:
        """Keep the draft's first `length` tokens."""
        self.drafted, self.sources, self.probs = self.drafted[:length], self.sources[:length], self.probs[:length]

    def learn(self, eos: frozenset[int], since: int = 0) -> bool:
        """Pass this output to the task, up to the first end token at or after output token `since`; once only.

        Returns:
            Whether there is an end token.
        """
        output = self.ids[self.num_prompt :]
        end = next((since + at for at, token in enumerate(output[since:].tolist()) if token in eos), None)
        if end is not None and not self.learnt:
            self.learnt = True
            steps = 0 if self._has_begun_before else self.steps  # 0: not known
            self.drafts.finished(self.input_text, output[: end + 1], steps=steps)
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
        choose: Returns the task of a request, by its (L,) prompt and what came with it, as `Tasks.choose`.
        max_draft: Longest draft, ≥ 1.
        max_length: Most tokens of prompt and output.
        vocab_size: Ids of the model; larger ids are not drafted.
        eos: Ids that end an output.
        curve: Cost of steps.
        metrics: Counts requests, steps and tokens.
    """

    def __init__(
        self,
        choose: Callable[[Ids, RequestFields | None], TaskDrafts],
        *,
        max_draft: int,
        max_length: int,
        vocab_size: int,
        eos: frozenset[int],
        curve: LearnedCosts,
        metrics: Metrics,
    ) -> None:
        self._choose = choose
        self._max_draft, self._max_length, self._vocab_size = max_draft, max_length, vocab_size
        self._eos = eos
        self._curve, self._metrics = curve, metrics
        self._policy = DraftPolicy("packed")
        self._rows: list[TrackedRequest | None] = []
        self._absent: OrderedDict[int, TrackedRequest] = OrderedDict()  # by `id`, those absent longest first
        self._returned: float | None = None

    def propose(
        self,
        emitted: Sequence[Sequence[int]],
        lengths: Any,
        tokens: Any,
        requests: BatchRequests | None = None,
        most: int | None = None,
    ) -> list[list[int]]:
        """Take a step of the engine and draft for the next.

        Args:
            emitted: By row, the ids that the step emitted; empty while the row's prompt is prefilled.
            lengths: (≥ R,) number of ids of prompt and output, by row.
            tokens: (≥ R, ≥ L) ids of prompt and output, by row.
            requests: The requests of the rows; None: they are recognised by their tokens.
            most: Most tokens of a draft in this step, ≥ 0; None: `max_draft`.

        Returns:
            By row, the ids of the draft; empty where drafting does not pay.
        """
        begin = time.perf_counter()
        rows, fresh = self._follow(emitted, lengths, tokens, requests)
        self._time(begin, rows, fresh)
        most = self._max_draft if most is None else min(most, self._max_draft)
        costs = self._curve.costs(self._max_draft, max(1, len(rows)))
        ready: dict[SafeDrafter, list[TrackedRequest]] = {}
        outcomes: dict[SafeDrafter, list[tuple[int, float]]] = {}
        for row, new in zip(rows, emitted, strict=True):
            if row is None:
                continue
            drafted, accepted = len(row.drafted), row.emitted(new)
            if drafted:
                outcomes.setdefault(row.drafter, []).append((accepted, float(costs[drafted]) - 1.0))
            ended = row.learn(self._eos, len(row.ids) - row.num_prompt - len(new))
            if not ended and not row.request.failed and min(most, self._room(row)) >= 1:
                ready.setdefault(row.drafter, []).append(row)
        for drafter, found in outcomes.items():
            accepted, extra = np.sum(found, axis=0) / len(rows)
            self._policy.record(drafter, float(accepted), float(extra))
        if self._curve.lacks_plain_steps(sum(row is not None for row in rows)):
            ready = {}
        for drafter, group in ready.items():
            self._draft(drafter, group, costs, most)
        if not any(drafter.fixed_length for drafter in ready):
            self._cut([row for row in rows if row is not None])
        self._rows = rows
        self._returned = time.perf_counter()
        self._metrics.drafting(self._returned - begin)
        return [[] if row is None else row.drafted.tolist() for row in rows]

    @property
    def probs(self) -> list[list[float]]:
        """By row of the last step, the probability of each drafted token, given that those before it are right."""
        return [[] if row is None else row.probs.tolist() for row in self._rows]

    def _follow(
        self, emitted: Sequence[Sequence[int]], lengths: Any, tokens: Any, requests: BatchRequests | None
    ) -> tuple[list[TrackedRequest | None], bool]:
        """Find the request of each row.

        Returns:
            By row, the request, or None if the row emitted nothing; and whether the step held a prompt.
        """
        before = self._rows
        names: Sequence[Hashable] = [None] * len(emitted) if requests is None else requests.names
        rows: list[TrackedRequest | None] = [None] * len(emitted)
        seen: list[tuple[int, Ids]] = []
        for at, new in enumerate(emitted):
            if not new:
                continue
            known = tokens[at, : int(lengths[at]) - len(new)]
            row = before[at] if at < len(before) else None
            if row is not None and row.name == names[at] and np.array_equal(row.ids, known):
                rows[at] = row
                before[at] = None
            else:
                seen.append((at, known))
        for row in before:
            if row is not None and not row.learnt:
                self._absent[id(row)] = row
        if requests is not None:
            for key in [key for key, row in self._absent.items() if row.name not in requests.known]:
                del self._absent[key]
        fresh = any(not new for new in emitted)
        by_length: dict[int, list[TrackedRequest]] = {}
        for row in self._absent.values() if seen else ():
            by_length.setdefault(len(row.ids), []).append(row)
        for at, known in seen:
            candidates = by_length.get(len(known), [])
            alike = (one for one in reversed(candidates) if one.name == names[at] and np.array_equal(one.ids, known))
            row = next(alike, None)
            if row is None:
                row, fresh = self._begin(names[at], known, requests), True
            else:
                candidates.remove(row)
                del self._absent[id(row)]
            rows[at] = row
        while len(self._absent) > _MAX_ABSENT:
            self._absent.popitem(last=False)
        return rows, fresh

    def _begin(self, name: Hashable, known: Ids, requests: BatchRequests | None) -> TrackedRequest:
        """Start a request with the ids that it has so far: its prompt, and output that it may have already."""
        prompt, fields = known, None
        if requests is not None:
            prompt, fields = known[: requests.num_prompt(name)], requests.fields(name)
        row = TrackedRequest(self._choose(prompt, fields), np.array(prompt, np.int32), self._metrics, name)
        row.begun_before(known[len(prompt) :])
        return row

    def _time(self, begin: float, rows: Sequence[TrackedRequest | None], fresh: bool) -> None:
        """Record the duration of the last step, if it held no prompt and the engine was not idle before it."""
        if fresh or self._returned is None:
            return
        running = [row for row in rows if row is not None]
        if running:
            seconds = begin - self._returned
            self._metrics.stepped(seconds)
            self._curve.observe(sum(1 + len(row.drafted) for row in running), seconds)

    def _draft(self, drafter: SafeDrafter, rows: Sequence[TrackedRequest], costs: Costs, most: int) -> None:
        """Draft for requests of one drafter, unless it is paused."""
        budget = self._policy.budget(drafter, costs)
        if budget is None:
            for row in rows:
                self._metrics.count(row.drafts, "paused")
            return
        drafts = drafter.propose_batch([row.request for row in rows], most, budget)
        for row, draft in zip(rows, drafts, strict=True):
            unknown = np.flatnonzero(np.asarray(draft.tokens) >= self._vocab_size)
            row.hold_draft(draft, min(self._room(row), int(unknown[0]) if len(unknown) else most))

    def _cut(self, rows: Sequence[TrackedRequest]) -> None:
        """Cut the drafts of a step to the tokens that pay for themselves."""
        probs = [row.probs.tolist() for row in rows]
        drafted = sum(map(len, probs))
        if drafted:
            lengths = self._policy.cut(probs, self._curve.step_costs(drafted, len(rows)))
            for row, length in zip(rows, lengths, strict=True):
                row.cut_draft(length)

    def _room(self, row: TrackedRequest) -> int:
        """Return the most tokens that can be drafted: the model adds one after them."""
        return self._max_length - len(row.ids) - 1
