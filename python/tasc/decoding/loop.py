"""The verify loop: many requests through one model, each step verifying what their drafters propose."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from tasc.data.ids import common_prefix_length
from tasc.decoding.detokenize import IncrementalDetokenizer
from tasc.decoding.engine.cache import RowCache
from tasc.decoding.engine.steps import StepRunner
from tasc.decoding.engine.target import Target
from tasc.decoding.sampling import Sampler, sample_batch
from tasc.decoding.stats import Stats
from tasc.decoding.verify import verify
from tasc.drafting.batch_length import Costs, common_length, told_costs
from tasc.drafting.costs import CostCurve
from tasc.drafting.protocol import Draft, Drafter, RequestParams
from tasc.drafting.throttle import Brake

_log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_BRAKES = 256
_MOST_TIME = 1.0  # plain steps that the time of one draft counts at most: a first one may take long
_RECOMPUTED = 16  # tokens of a common prefix that are rather computed twice than waited for


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One request, from its prompt to its last token.

    Attributes:
        index: Its place in the call.
        tokens: Prompt and output ids.
        num_prompt: Prompt ids among them.
        max_tokens: Most output ids.
        eos: Ids that end the output; they are part of it.
        drafter: Drafts for it; None decodes plainly.
        input: The input's text, where known: for the drafter.
        chooser: None takes the argmax.
        watcher: Present where text is needed on the way.
        emit: Called with new ids and new text.
        cached: Tokens whose keys and values are in its row.
        request: What its drafter drafts for; None until a draft is asked for, and after the end.
        known: Tokens that the request knows.
        stats: Its counts.
        finish_reason: "eos", "stop" (a stop string) or "length" once it has ended.
    """

    index: int
    tokens: list[int]
    num_prompt: int
    max_tokens: int
    eos: frozenset[int]
    drafter: Drafter | None = None
    input: str | None = None
    chooser: Sampler | None = None
    watcher: IncrementalDetokenizer | None = None
    emit: Callable[[int, list[int], str], None] | None = None
    cached: int = 0
    request: Any = None
    known: int = 0
    stats: Stats = field(default_factory=lambda: Stats(requests=1))
    finish_reason: str | None = None

    @property
    def output(self) -> list[int]:
        """Output ids so far."""
        return self.tokens[self.num_prompt :]

    @property
    def max_draft_tokens(self) -> int:
        """Longest draft of use: the target's own token after it fills the last place."""
        return self.num_prompt + self.max_tokens - len(self.tokens) - 1

    @property
    def can_draft(self) -> bool:
        """Whether a draft can be made for it, and is of use."""
        return self.drafter is not None and not self.stats.drafter_errors and self.max_draft_tokens > 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A drafter that was asked in a step, for which jobs, and the seconds that it took."""

    drafter: Drafter
    jobs: list[Job]
    seconds: float


class Loop:
    """Runs jobs in the rows of a cache.

    Active jobs fill rows 0, 1, …; a waiting job's prompt is prefilled into the next row, its first draft behind it, as
    soon as a row is free. A job that ends gives its row to the last active one. Rows keep what they held: a new
    prompt starts from the row that shares the longest prefix with it.

    Args:
        target: The model.
        num_rows: Most jobs at once.
        max_draft: Longest draft.
        costs: (max_draft + 1,) cost of verifying k drafted tokens; None: measured before the first draft, and followed.
        cuda_graphs: As for `Steps`.
    """

    def __init__(
        self,
        target: Target,
        num_rows: int,
        max_draft: int,
        costs: Costs | None = None,
        cuda_graphs: bool | None = None,
    ) -> None:
        self._target = target
        self._cache = RowCache(num_rows)
        self._steps = StepRunner(target, self._cache, max_draft + 1, cuda_graphs)
        self._held: list[list[int]] = [[] for _ in range(num_rows)]
        self._active: list[Job] = []
        self._max_draft = max_draft
        self._given = costs
        self._curve: CostCurve | None = None
        self._brakes: dict[int, tuple[Drafter, Brake]] = {}  # by id; the drafter is held so that its id stays its own

    def forget(self) -> None:
        """Let go of the drafters that were judged."""
        self._brakes.clear()

    @torch.inference_mode()
    def run(self, jobs: Iterable[Job]) -> None:
        """Run jobs to their ends, in the order given as rows become free."""
        waiting = deque(jobs)
        if self._steps.prepare(max((job.num_prompt + job.max_tokens for job in waiting), default=0)):
            self._held = [[] for _ in self._held]
        try:
            while waiting or self._active:
                while waiting and len(self._active) < self._cache.num_rows:
                    self._admit(waiting)
                if self._active:
                    self._step(0, self._active, len(self._active))
                    self._release()
        finally:
            self._active = []

    def _admit(self, waiting: deque[Job]) -> None:
        """Prefill the first waiting jobs into the next rows, together with their first drafts."""
        begin = time.perf_counter()
        first_row = len(self._active)
        jobs: list[Job] = []
        while waiting and len(self._active) < self._cache.num_rows:
            source, shared = self._longest_prefix(waiting[0].tokens)
            if jobs and not self._goes_with(jobs, waiting[0], shared):
                break
            job = waiting.popleft()
            jobs.append(job)
            self._place(job, source, shared)
        placing = (time.perf_counter() - begin) / len(jobs)
        for job in jobs:
            job.stats.rest_seconds += placing
        self._step(first_row, jobs, min(self._cache.num_rows, len(self._active) + len(waiting)))
        self._release()

    def _goes_with(self, jobs: Sequence[Job], job: Job, shared: int) -> bool:
        """Whether a job is prefilled in one step with others: no longer prefix is to be had by waiting for theirs."""
        lengths = [len(job.tokens) - shared, *(len(other.tokens) - other.cached for other in jobs)]
        in_common = max(common_prefix_length(other.tokens, job.tokens) for other in jobs)
        return in_common <= shared + _RECOMPUTED and self._steps.should_prefill_together(lengths, self._max_draft)

    def _longest_prefix(self, prompt: Sequence[int]) -> tuple[int, int]:
        """The row that shares the longest prefix with a prompt, the next one if it is among them, and its length."""
        row = len(self._active)
        shared = [common_prefix_length(held, prompt) for held in self._held]
        source = max(range(len(shared)), key=lambda candidate: (shared[candidate], candidate == row))
        return source, min(shared[source], len(prompt) - 1)

    def _place(self, job: Job, source: int, shared: int) -> None:
        """Give a job the next row, with what another row shares with it."""
        row = len(self._active)
        job.cached = shared
        self._cache.reserve(len(job.tokens))
        self._cache.copy_row(source, row, shared)
        self._held[row] = job.tokens[:shared]
        job.stats.prompt_tokens = len(job.tokens)
        job.stats.reused_tokens = shared
        self._active.append(job)

    def _sync_request(self, job: Job) -> None:
        """Begin a job's request with the prompt, and tell it what has come since it last heard."""
        assert job.drafter is not None
        try:
            if job.request is None:
                job.request = job.drafter.start(job.tokens[: job.num_prompt], job.input)
                job.known = job.num_prompt
                self._tell_terms(job)
            if job.known < len(job.tokens):
                job.request.update(job.tokens[job.known :])
                job.known = len(job.tokens)
        except Exception:
            _disable_drafting([job])

    def _tell_terms(self, job: Job) -> None:
        """Tell a request that asks for it how its job ends and is sampled."""
        take: Any = getattr(job.request, "configure", None)
        if take is not None:
            proposer = None if job.chooser is None else job.chooser.draft_sampler()
            vocab_size = self._target.vocab_size
            take(RequestParams(max_tokens=job.max_tokens, eos=job.eos, vocab_size=vocab_size, proposer=proposer))

    def _step(self, first_row: int, jobs: Sequence[Job], num_rows: int) -> None:
        """Draft, run the model, verify and emit for neighbouring rows, of `num_rows` that will be in use."""
        begin = time.perf_counter()
        costs = self._costs(jobs, num_rows) if any(job.can_draft for job in jobs) else None
        clock = [time.perf_counter()]
        drafts, asked = self._drafts(jobs, costs)
        clock.append(time.perf_counter())
        is_prefill = not jobs[0].stats.steps
        tokens = [job.tokens[job.cached :] + draft.tokens for job, draft in zip(jobs, drafts, strict=True)]
        width = 1 + max(len(draft.tokens) for draft in drafts)
        choices = self._choices(first_row, jobs, drafts, tokens, width)
        clock.append(time.perf_counter())
        accepted = {job.index: -job.stats.accepted for job in jobs}
        for number, (job, draft, choose) in enumerate(zip(jobs, drafts, choices, strict=True)):
            self._emit(job, draft, verify(draft.tokens, choose))
            self._held[first_row + number] = job.tokens[: job.cached]
            accepted[job.index] += job.stats.accepted
        clock.append(time.perf_counter())
        if costs is not None:
            longest = {job.index: len(draft.tokens) for job, draft in zip(jobs, drafts, strict=True)}
            for one in asked:
                self._record_outcome(one, accepted, longest, costs, num_rows)
        clock.append(time.perf_counter())
        drafting, model, rest, settling = (float(span) / len(jobs) for span in np.diff(clock))
        rest += (clock[0] - begin) / len(jobs)
        for job in jobs:
            job.stats.draft_seconds += drafting + settling
            job.stats.rest_seconds += rest
            if is_prefill:
                job.stats.prefill_seconds += model
            else:
                job.stats.verify_seconds += model
        if self._curve is not None and not is_prefill and self._steps.was_warm:
            self._curve.observe(self._steps.num_computed_tokens(len(jobs), width), model * len(jobs))

    def _costs(self, jobs: Sequence[Job], num_rows: int) -> Costs:
        """Cost curve of a step: given, or measured when first asked for."""
        if self._given is not None:
            return self._given
        if self._curve is None:
            self._curve = CostCurve(
                self._steps.timing_step(),
                self._max_draft,
                self._cache.num_rows,
                computed=self._steps.num_computed_tokens,
            )
        return self._curve.costs(len(jobs), max(len(job.tokens) - job.cached for job in jobs), num_rows)

    def _choices(
        self,
        first_row: int,
        jobs: Sequence[Job],
        drafts: Sequence[_Checked],
        tokens: Sequence[list[int]],
        width: int,
    ) -> list[Callable[[int], int]]:
        """Run the model; per job its own token after each beginning of its draft, to be asked as `verify` does."""
        starts = [job.cached for job in jobs]
        choosers = [job.chooser for job in jobs if job.chooser is not None]  # of all or none: a call samples alike
        if not choosers:
            argmax = self._steps.argmax(first_row, tokens, starts, width)
            return [ids[-len(draft.tokens) - 1 :].__getitem__ for ids, draft in zip(argmax, drafts, strict=True)]
        logits = self._steps.logits(first_row, tokens, starts, width)
        lengths = [len(job.tokens) for job in jobs]
        if choosers[0].prefers_batch and not any(q is not None for draft in drafts for q in draft.dists):
            made = sample_batch(choosers, logits, lengths, [draft.tokens for draft in drafts])
            return [chooser.choose_from(ids) for chooser, ids in zip(choosers, made, strict=True)]
        return [
            chooser.choose_lazily(row[-len(draft.tokens) - 1 :], length, draft.tokens, draft.dists)
            for chooser, row, length, draft in zip(choosers, logits, lengths, drafts, strict=True)
        ]

    def _drafts(self, jobs: Sequence[Job], costs: Costs | None) -> tuple[list[_Checked], list[_Asked]]:
        """A usable draft per job, empty where there is no drafter or no room; and which drafters were asked."""
        drafts = {job.index: _Checked([], [], []) for job in jobs}
        asked: list[_Asked] = []
        for drafter, group in _by_drafter(jobs):
            if not getattr(drafter, "always_drafts", False) and self._brake(drafter).holds():
                for job in group:
                    job.stats.throttled_steps += 1
                continue
            begin = time.perf_counter()
            for job in group:
                self._sync_request(job)
            group = [job for job in group if job.request is not None]
            longest = min(self._max_draft, max((job.max_draft_tokens for job in group), default=0))
            for job, draft in zip(group, _proposed(drafter, group, longest, costs), strict=False):
                drafts[job.index] = self._checked(job, draft, longest)
            group = [job for job in group if job.request is not None]
            asked.append(_Asked(drafter, group, time.perf_counter() - begin))
        made = list(drafts.values())
        fixed = any(getattr(one.drafter, "always_drafts", False) for one in asked)
        drawn = any(q is not None for draft in made for q in draft.dists)  # no token may be kept out once it is drawn
        if costs is not None and not fixed and not drawn:
            longest = common_length([draft.probs for draft in made], costs)
            made = [draft.cut(longest) for draft in made]
        return made, asked

    def _brake(self, drafter: Drafter) -> Brake:
        if id(drafter) not in self._brakes:
            if len(self._brakes) == _MOST_BRAKES:
                del self._brakes[next(iter(self._brakes))]  # the oldest: drafters made per call do not pile up
            self._brakes[id(drafter)] = (drafter, Brake())
        return self._brakes[id(drafter)][1]

    def _record_outcome(
        self, asked: _Asked, accepted: dict[int, int], drafted: dict[int, int], costs: Costs, num_rows: int
    ) -> None:
        """Tell a drafter's requests what became of their drafts, and its brake what they brought and cost.

        Args:
            asked: The drafter, the jobs it was asked for and the seconds that it took.
            accepted: Tokens by index of each job of the step.
            drafted: The same.
            costs: Of the step.
            num_rows: Rows of a plain step.
        """
        begin = time.perf_counter()
        for job in asked.jobs:
            self._sync_request(job)
        longest = max((drafted[job.index] for job in asked.jobs), default=0)
        extra = float(costs[longest] - 1.0) * len(accepted) / num_rows
        if self._curve is not None:
            seconds = asked.seconds + time.perf_counter() - begin
            extra += min(seconds / self._curve.plain_seconds(num_rows), _MOST_TIME)
        self._brake(asked.drafter).observe(sum(accepted[job.index] for job in asked.jobs) / num_rows, extra)

    def _checked(self, job: Job, draft: Draft, longest: int) -> _Checked:
        """The part of a draft that can be verified: ids of the vocabulary, up to the length limit or an EOS."""
        tokens = np.asarray(draft.tokens).astype(np.int64, copy=False)[:longest]
        junk = (tokens < 0) | (tokens >= self._target.vocab_size)
        if junk.any():
            job.stats.out_of_vocab_tokens += int(len(tokens) - junk.argmax())
            tokens = tokens[: junk.argmax()]
        ids: list[int] = tokens[: job.max_draft_tokens].tolist()
        for position, token in enumerate(ids):
            if token in job.eos:
                del ids[position + 1 :]
                break
        dists = tuple(getattr(draft, "dists", ()))[: len(ids)]
        return _Checked(ids, _of(ids, draft.sources, 255), _of(ids, getattr(draft, "probs", ()), 1.0), dists)

    def _emit(self, job: Job, draft: _Checked, emitted: list[int]) -> None:
        """Append verified tokens to a job, and end it where they say so."""
        kept = len(emitted)
        for position, token in enumerate(emitted):
            if token in job.eos:
                kept, job.finish_reason = position + 1, "eos"
                break
        if job.watcher is not None:
            taken = job.watcher.add(emitted[:kept])
            if job.watcher.stopped:
                kept, job.finish_reason = taken, "stop"
        ended_in_draft = job.finish_reason is not None and kept < len(emitted)
        emitted = emitted[:kept]
        if job.chooser is not None:
            job.chooser.append(len(job.tokens), emitted)
        accepted = kept if ended_in_draft else kept - 1
        job.tokens.extend(emitted)
        job.cached = len(job.tokens) - (0 if ended_in_draft else 1)
        job.stats.tokens += kept
        job.stats.count_step(draft.sources, accepted, ended_in_draft)
        if job.finish_reason is None and job.max_draft_tokens < 0:
            job.finish_reason = "length"
        self._tell(job, emitted)

    def _tell(self, job: Job, emitted: list[int]) -> None:
        if job.emit is not None:
            text = ""
            if job.watcher is not None:
                text = job.watcher.release() + (job.watcher.finish() if job.finish_reason else "")
            job.emit(job.index, emitted, text)

    def _release(self) -> None:
        """Give the rows of ended jobs to the last active ones."""
        for row in range(len(self._active) - 1, -1, -1):
            if self._active[row].finish_reason is not None:
                self._active[row].request = None  # what it held, such as its row in a draft model's cache, is free
                last = self._active.pop()
                if row < len(self._active):
                    self._active[row] = last
                    self._cache.copy_row(len(self._active), row, last.cached)
                    self._held[row] = list(self._held[len(self._active)])


@dataclass(frozen=True, slots=True)
class _Checked:
    """A draft ready for verification, (K,) each: token ids, source codes, probabilities, what they were drawn from."""

    tokens: list[int]
    sources: list[int]
    probs: list[float]
    dists: Sequence[Tensor | None] = ()

    def cut(self, longest: int) -> _Checked:
        """Its first tokens."""
        if len(self.tokens) <= longest:
            return self
        return _Checked(self.tokens[:longest], self.sources[:longest], self.probs[:longest], self.dists[:longest])


def _of(ids: Sequence[int], given: Any, otherwise: T) -> list[T]:
    """What a draft says of each of its tokens, as a list; of none that it does not speak of."""
    said: list[T] = np.asarray(given)[: len(ids)].tolist()
    return said if len(said) == len(ids) else [otherwise] * len(ids)


def _by_drafter(jobs: Sequence[Job]) -> list[tuple[Drafter, list[Job]]]:
    """Jobs that can use a draft, by the drafter that makes it."""
    groups: dict[int, tuple[Drafter, list[Job]]] = {}
    for job in jobs:
        if job.drafter is not None and job.can_draft:
            groups.setdefault(id(job.drafter), (job.drafter, []))[1].append(job)
    return list(groups.values())


def _proposed(drafter: Drafter, group: Sequence[Job], longest: int, costs: Costs | None) -> Sequence[Draft]:
    """What a drafter proposes for its jobs; nothing if there are none, or it fails."""
    try:
        told = None if costs is None else told_costs(drafter, costs)
        return drafter.propose_batch([job.request for job in group], longest, told) if group else []
    except Exception:
        _disable_drafting(group)
        return []


def _disable_drafting(jobs: Sequence[Job]) -> None:
    """Called while a drafter's exception is handled: logs it, and lets its jobs go on without drafts."""
    _log.warning("a drafter failed; %d request(s) go on without drafts", len(jobs), exc_info=True)
    for job in jobs:
        job.request = None
        job.stats.drafter_errors += 1
