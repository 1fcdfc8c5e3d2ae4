"""The verify loop: many requests through one model, each step verifying what their drafters propose."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tasc.data.ids import common_prefix_length
from tasc.decoding.engine.cache import RowCache
from tasc.decoding.engine.steps import StepRunner
from tasc.decoding.engine.target import Target
from tasc.decoding.grammar import GRAMMAR, GrammarState
from tasc.decoding.jobs import CheckedDraft, Job
from tasc.decoding.sampling import Sampler, Sampling, sample_batch
from tasc.decoding.verify import NO_TOKEN, argmax, verify
from tasc.drafting.costs import CostCurve, MeasuredCosts
from tasc.drafting.policy import DraftPolicy
from tasc.drafting.protocol import Costs, SafeDrafter
from tasc.errors import NoTokenError

_MAX_RECOMPUTED = 16  # tokens of a common prefix that are rather computed twice than waited for


@dataclass(slots=True)
class _Step:
    """State of one pass of the model over neighbouring cache rows.

    Attributes:
        first_row: Row of the first job.
        jobs: Jobs of the step.
        num_rows: Rows of a plain step: those that will be in use.
        costs: (max_draft + 1,) cost of k drafted tokens per row; None: no job can use a draft.
        drafts: By job, the draft to verify.
        unread: Most tokens per row that come before the draft.
        asked: Drafters that drafted, their jobs, and the seconds that they took.
        seconds: Seconds of the whole step by part of it.
    """

    first_row: int
    jobs: Sequence[Job]
    num_rows: int
    costs: Costs | None = None
    drafts: list[CheckedDraft] = field(default_factory=list)
    unread: int = 1
    asked: list[tuple[SafeDrafter, list[Job], float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Tokens to verify per row: the longest draft and one more."""
        return 1 + max(len(draft.tokens) for draft in self.drafts)

    def timed(self, part: str, begin: float) -> float:
        """Add the time since `begin` to a part of the step and return the time now."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - begin
        return now


class Loop:
    """Runs jobs in the rows of a cache.

    Active jobs fill rows 0, 1, …; a waiting job's prompt is prefilled into the next row, its first draft behind it, as
    soon as a row is free. A job that ends gives its row to the last active one. Rows keep their keys and
    values: a new prompt starts from the row that shares the longest prefix with it, among rows of its own salt: the
    time of a prefill tells no salt what another has asked.

    Jobs of one step may have different samplers and drafters. A loop belongs to one thread at a time.

    Args:
        target: The model.
        num_rows: Most jobs at once.
        max_draft: Longest draft.
        curve: Cost of verifying drafted tokens; None: measured before the first draft, and followed.
        cuda_graphs: As for `StepRunner`.
    """

    def __init__(
        self,
        target: Target,
        num_rows: int,
        max_draft: int,
        curve: CostCurve | None = None,
        cuda_graphs: bool | None = None,
    ) -> None:
        self._target = target
        self._cache = target.new_cache(num_rows)
        self._steps = StepRunner(target, self._cache, max_draft + 1, cuda_graphs)
        self._held: list[list[int]] = [[] for _ in range(num_rows)]
        self._kinds: list[tuple[bool, str | None]] = [(False, None)] * num_rows  # of the jobs that the rows held last
        self._active: list[Job] = []
        self._max_draft = max_draft
        self._curve = curve
        self._policy = DraftPolicy("padded")

    def run(self, jobs: Iterable[Job]) -> None:
        """Run jobs to their ends, in the order given as rows become free.

        Raises:
            NoTokenError: A job has no next token; the jobs that have not ended are dropped.
        """
        waiting = deque(jobs)
        self.prepare(waiting)
        try:
            while waiting or self._active:
                for job in self.advance(lambda free: [waiting.popleft() for _ in range(min(free, len(waiting)))]):
                    if job.error is not None:
                        raise job.error
        finally:
            self.drop()

    @torch.inference_mode()
    def prepare(self, jobs: Iterable[Job]) -> None:
        """Make room for jobs to come, and drop keys and values of weights that have changed since the last call.

        They are also dropped when the first job comes whose drafter reads the target's states: these are then kept.
        """
        jobs = list(jobs)
        changed = self._steps.prepare(max((job.num_prompt + job.max_tokens for job in jobs), default=0))
        if any(job.drafter is not None and job.drafter.reads_states for job in jobs):
            changed |= self._steps.keep_states()
        if changed:
            self._forget()

    @torch.inference_mode()
    def advance(self, take: Callable[[int], Sequence[Job]]) -> list[Job]:
        """Prefill new jobs into the free rows, then run one step of all active jobs.

        Args:
            take: `take(free)` returns the next jobs, at most `free`. It is called once: rows of jobs that end with
                their first token are filled again at the next step, so that short jobs do not keep long ones waiting.

        Returns:
            Jobs that have ended or were cancelled; they have left their rows.
        """
        ended = self._release()
        waiting = deque(take(self._cache.num_rows - len(self._active)))
        while waiting:
            self._admit(waiting)
            ended += self._release()
        for row, jobs in self._groups():
            self._step(row, jobs, len(jobs))
        return ended + self._release()

    def drop(self) -> None:
        """Drop the active jobs. Their rows stay valid up to the tokens that were computed before their last step."""
        for job in self._active:
            job.request = None  # as in `_release`: the job itself may live on in a traceback
        self._active = []

    def _forget(self) -> None:
        """Drop what the cache rows hold; active jobs compute all their tokens again in their next step."""
        self._cache.reset()
        self._held = [[] for _ in self._held]
        for job in self._active:
            job.cached = 0

    def _groups(self) -> list[tuple[int, Sequence[Job]]]:
        """Return the active jobs by pass of the model, each with the row of the first job."""
        regimes = {self._target.regime(len(job.tokens)) for job in self._active}
        if self._target.is_batched and len(regimes) == 1:
            return [(0, self._active)]
        return [(row, [job]) for row, job in enumerate(self._active)]

    def _admit(self, waiting: deque[Job]) -> None:
        """Prefill the first waiting jobs into the next rows, together with their first drafts."""
        begin = time.perf_counter()
        first_row = len(self._active)
        jobs: list[Job] = []
        while waiting and len(self._active) < self._cache.num_rows:
            source, shared = self._longest_prefix(waiting[0])
            if jobs and not self._goes_with(jobs, waiting[0], shared):
                break
            job = waiting.popleft()
            jobs.append(job)
            self._place(job, source, shared)
        placing = (time.perf_counter() - begin) / len(jobs)
        for job in jobs:
            job.stats.rest_seconds += placing
        num_rows = min(self._cache.num_rows, len(self._active) + len(waiting)) if self._target.is_batched else 1
        self._step(first_row, jobs, num_rows)

    def _goes_with(self, jobs: Sequence[Job], job: Job, shared: int) -> bool:
        """Whether a job is prefilled with others: waiting for them would not give it a longer shared prefix."""
        lengths = [len(job.tokens) - shared, *(len(other.tokens) - other.cached for other in jobs)]
        if len({self._target.regime(len(one.tokens)) for one in (job, *jobs)}) > 1:
            return False
        in_common = max(common_prefix_length(other.tokens, job.tokens) * (other.salt == job.salt) for other in jobs)
        return in_common <= shared + _MAX_RECOMPUTED and self._steps.should_prefill_together(lengths, self._max_draft)

    def _kind(self, job: Job) -> tuple[bool, str | None]:
        """Return what jobs have in common that share keys and values: the side of the RoPE switch, and the salt."""
        return self._target.regime(len(job.tokens)), job.salt

    def _longest_prefix(self, job: Job) -> tuple[int, int]:
        """Return the cache row that shares the longest prefix with a job's prompt, and the length of the prefix.

        Among equal rows the next free one is preferred.
        """
        row, kind, prompt = len(self._active), self._kind(job), job.tokens
        shared = [
            common_prefix_length(held, prompt) if held_kind == kind else 0
            for held, held_kind in zip(self._held, self._kinds, strict=True)
        ]
        source = max(range(len(shared)), key=lambda candidate: (shared[candidate], candidate == row))
        return source, min(shared[source], len(prompt) - 1)

    def _place(self, job: Job, source: int, shared: int) -> None:
        """Give a job the next cache row, with the prefix that another row shares with it."""
        row = len(self._active)
        self._cache.reserve(len(job.tokens))
        job.cached = self._cache.copy_row(source, row, shared)
        self._held[row] = job.tokens[: job.cached]
        self._kinds[row] = self._kind(job)
        job.stats.prompt_tokens = len(job.tokens)
        job.stats.reused_tokens = job.cached
        self._active.append(job)

    def _step(self, first_row: int, jobs: Sequence[Job], num_rows: int) -> None:
        """Propose, forward, verify, emit, update: one step of neighbouring rows, of `num_rows` that will be in use."""
        step = _Step(first_row, jobs, num_rows, unread=max(len(job.tokens) - job.cached for job in jobs))
        self._propose(step)
        choices = self._forward(step)
        emitted = [verify(draft.tokens, choose) for draft, choose in zip(step.drafts, choices, strict=True)]
        accepted = self._emit(step, emitted)
        self._update(step, accepted)

    def _propose(self, step: _Step) -> None:
        """Draft for each job of a step; the draft is empty without a drafter or room, or where none pays."""
        begin = time.perf_counter()
        groups: dict[SafeDrafter, list[Job]] = {}
        constrained: list[tuple[Job, GrammarState]] = []
        for row, job in enumerate(step.jobs, step.first_row):
            may_draft = self._cache.may_draft(row, len(job.tokens) - job.cached)
            if job.drafter is not None and job.can_draft and may_draft:
                groups.setdefault(job.drafter, []).append(job)
            if job.grammar is not None and may_draft:
                constrained.append((job, job.grammar))
        step.costs = self._costs(step) if groups else None
        begin = step.timed("rest", begin)
        drafts = {job: CheckedDraft() for job in step.jobs}
        for drafter, jobs in groups.items():
            drafts.update(self._asked(step, drafter, jobs))
        for job, grammar in constrained:
            longest = min(self._max_draft, job.max_draft_tokens)
            drafts[job] = grammar.constrain(drafts[job], job.tokens, longest)
        step.drafts = list(drafts.values())
        if step.costs is None and step.width > 1:  # the grammar alone drafts
            step.costs = self._costs(step)
        fixed = any(drafter.fixed_length for drafter, _, _ in step.asked)
        drawn = any(q is not None for draft in step.drafts for q in draft.dists)  # a drawn token must stay in its draft
        if step.costs is not None and not fixed and not drawn:
            lengths = self._policy.cut([draft.probs for draft in step.drafts], step.costs)
            step.drafts = [draft.cut(length) for draft, length in zip(step.drafts, lengths, strict=True)]
        step.timed("draft", begin)

    def _asked(self, step: _Step, drafter: SafeDrafter, jobs: list[Job]) -> dict[Job, CheckedDraft]:
        """Return the drafts of one drafter by job; empty if the drafter is paused."""
        assert step.costs is not None
        budget = self._policy.budget(drafter, step.costs)
        if budget is None:
            for job in jobs:
                job.stats.throttled_steps += 1
            return {}
        begin = time.perf_counter()
        for job in jobs:
            job.sync_request(self._target.vocab_size)
            if drafter.reads_states and job.request is not None and isinstance(self._cache, RowCache):
                row = step.first_row + step.jobs.index(job)
                job.request.read_states(self._cache.states(row, job.cached))
        longest = min(self._max_draft, max(job.max_draft_tokens for job in jobs))
        made = drafter.propose_batch([job.request for job in jobs if job.request is not None], longest, budget)
        drafts = {
            job: job.checked(draft, longest, self._target.vocab_size) for job, draft in zip(jobs, made, strict=True)
        }
        step.asked.append((drafter, jobs, time.perf_counter() - begin))
        return drafts

    def _costs(self, step: _Step) -> Costs:
        """Return the costs of a step: given, or measured on first use."""
        if self._curve is None:
            run, computed = self._steps.timing_step(), self._steps.num_computed_tokens
            num_rows = self._cache.num_rows if self._target.is_batched else 1
            self._curve = MeasuredCosts(run, self._max_draft, num_rows, computed=computed)
        return self._curve.costs(self._max_draft, len(step.jobs), step.unread, step.num_rows)

    def _forward(self, step: _Step) -> list[Callable[[int], int]]:
        """Run the model. Returns per job the function for `verify`: the target's token after each draft prefix."""
        begin = time.perf_counter()
        tokens = [job.tokens[job.cached :] + draft.tokens for job, draft in zip(step.jobs, step.drafts, strict=True)]
        where = step.first_row, tokens, [job.cached for job in step.jobs], step.width
        choices: list[Callable[[int], int]]
        if all(job.sampler is None and job.grammar is None for job in step.jobs):
            ids = self._steps.argmax(*where)
            choices = [row[-len(d.tokens) - 1 :].__getitem__ for row, d in zip(ids, step.drafts, strict=True)]
        else:
            choices = self._choices(step, self._steps.logits(*where))
        step.timed("model", begin)
        return choices

    @staticmethod
    def _choices(step: _Step, logits: Tensor) -> list[Callable[[int], int]]:
        """Return per job the function for `verify` from (n, W, V) logits; jobs of equal options may sample together."""
        greedy: list[list[int]] = argmax(logits).tolist() if any(job.sampler is None for job in step.jobs) else []
        choices: dict[int, Callable[[int], int]] = {}
        together: dict[Sampling, list[tuple[int, Sampler]]] = {}
        for row, (job, draft) in enumerate(zip(step.jobs, step.drafts, strict=True)):
            own = logits[row, -len(draft.tokens) - 1 :]
            if job.sampler is None:
                ids = greedy[row][-len(draft.tokens) - 1 :]
                choices[row] = ids.__getitem__ if job.grammar is None else job.grammar.choose(own, ids)
            elif job.sampler.prefers_batch and all(q is None for q in draft.dists):
                together.setdefault(job.sampler.sampling, []).append((row, job.sampler))
            else:
                choices[row] = job.sampler.choose_lazily(own, len(job.tokens), draft.tokens, draft.dists)
        for group in together.values():
            rows, samplers = [row for row, _ in group], [sampler for _, sampler in group]
            lengths = [len(step.jobs[row].tokens) for row in rows]
            chosen = logits if len(rows) == len(logits) else logits[rows]
            made = sample_batch(samplers, chosen, lengths, [step.drafts[row].tokens for row in rows])
            choices.update({row: sampler.choose_from(ids) for (row, sampler), ids in zip(group, made, strict=True)})
        return [choices[row] for row in range(len(step.jobs))]

    def _emit(self, step: _Step, emitted: Sequence[list[int]]) -> dict[Job, int]:
        """Append verified tokens to the jobs. Returns the accepted token count by job."""
        begin = time.perf_counter()
        accepted: dict[Job, int] = {}
        for row, (job, draft, ids) in enumerate(zip(step.jobs, step.drafts, emitted, strict=True), step.first_row):
            if ids[-1] == NO_TOKEN:
                self._fail(row, job, draft, len(ids) - 1)
                accepted[job] = 0
                continue
            accepted[job] = _append(job, draft, ids)
            job.cached = self._cache.keep(row, job.cached)
            if self._target.drive.recomputes and self._kind(job) != self._kinds[row]:
                job.cached, self._kinds[row] = 0, self._kind(job)
            self._held[row] = job.tokens[: job.cached]
        step.timed("rest", begin)
        return accepted

    def _fail(self, row: int, job: Job, draft: CheckedDraft, verified: int) -> None:
        """End a job whose logits leave no token, and empty its row: masks do not keep NaN out of later requests."""
        grammar_error = None if job.grammar is None else job.grammar.error
        job.error = NoTokenError(job.index, len(job.output) + verified, grammar_error)
        job.stats.count_step(draft.sources, 0, False)
        self._cache.clear_row(row)
        self._held[row] = []

    def _update(self, step: _Step, accepted: dict[Job, int]) -> None:
        """Pass the results of verification to requests, policy, cost curve and stats."""
        begin = time.perf_counter()
        by_drafters = [draft.count_without(GRAMMAR) for draft in step.drafts]
        drafted = dict(zip(step.jobs, by_drafters, strict=True))
        for drafter, jobs, seconds in step.asked:
            start = time.perf_counter()
            for job in jobs:
                job.sync_request(self._target.vocab_size)
                job.stats.drafter_errors += int(job.request is not None and job.request.failed)
            self._record(step, drafter, jobs, accepted, drafted, seconds + time.perf_counter() - start)
        for job, verified in zip(step.jobs, step.drafts, strict=True):
            if job.grammar is not None and step.costs is not None:
                job.grammar.record(verified, accepted[job], step.costs)
        begin = step.timed("draft", begin)
        is_prefill = step.jobs[0].stats.steps == 1
        if self._curve is not None and not is_prefill and self._steps.was_warm:
            computed = self._steps.num_computed_tokens(len(step.jobs), step.unread + step.width - 1)
            self._curve.observe(computed, step.seconds["model"])
        step.timed("rest", begin)  # the curve may have measured a point again
        draft, model, rest = (step.seconds[part] / len(step.jobs) for part in ("draft", "model", "rest"))
        for job in step.jobs:
            job.stats.draft_seconds += draft
            job.stats.rest_seconds += rest
            job.stats.prefill_seconds += model if is_prefill else 0.0
            job.stats.verify_seconds += 0.0 if is_prefill else model

    def _record(
        self,
        step: _Step,
        drafter: SafeDrafter,
        jobs: Sequence[Job],
        accepted: dict[Job, int],
        drafted: dict[Job, int],
        seconds: float,
    ) -> None:
        """Record the gain and the cost of a drafter's drafts, per row of a plain step.

        Args:
            step: The step.
            drafter: The drafter.
            jobs: Jobs that it drafted for.
            accepted: Accepted token count by job.
            drafted: Count of tokens that drafters drafted by job.
            seconds: Time that the drafter took.
        """
        assert step.costs is not None and self._curve is not None
        longest = max(drafted[job] for job in jobs)
        extra = float(step.costs[longest] - 1.0) * len(step.jobs) / step.num_rows
        gained = sum(min(accepted[job], drafted[job]) for job in jobs) / step.num_rows
        self._policy.record(drafter, gained, extra, self._curve.plain_steps(seconds, step.num_rows))

    def _release(self) -> list[Job]:
        """Give the cache rows of jobs that have ended or were cancelled to the last active ones; return these jobs."""
        ended: list[Job] = []
        for row in range(len(self._active) - 1, -1, -1):
            job = self._active[row]
            if job.has_ended:
                job.request = None  # what it held, such as its row in a draft model's cache, is free
                last = self._active.pop()
                if row < len(self._active):
                    self._active[row] = last
                    self._cache.move_row(len(self._active), row, last.cached)
                    self._held[row] = list(self._held[len(self._active)])
                    self._kinds[row] = self._kinds[len(self._active)]
                ended.append(job)
        return ended[::-1]


def _append(job: Job, draft: CheckedDraft, emitted: list[int]) -> int:
    """Append verified tokens to a job and end it at an EOS, a stop string or its length.

    Returns:
        Number of accepted drafted tokens.
    """
    kept = len(emitted)
    for position, token in enumerate(emitted):
        if token in job.eos:
            kept, job.finish_reason = position + 1, "eos"
            break
    if job.detokenizer is not None:
        taken = job.detokenizer.add(emitted[:kept])
        if job.detokenizer.stopped:
            kept, job.finish_reason = taken, "eos" if emitted[taken - 1] in job.eos else "stop"
    ended_in_draft = job.finish_reason is not None and kept < len(emitted)
    emitted = emitted[:kept]
    if job.sampler is not None:
        job.sampler.append(len(job.tokens), emitted)
    accepted = kept if ended_in_draft else kept - 1
    job.tokens.extend(emitted)
    job.cached = len(job.tokens) - (0 if ended_in_draft else 1)
    job.stats.tokens += kept
    job.stats.count_step(draft.sources, accepted, ended_in_draft)
    if job.finish_reason is None and job.grammar is not None and job.max_draft_tokens >= 0:
        emitted = emitted + _ended_by_grammar(job, job.grammar)
    if job.finish_reason is None and job.max_draft_tokens < 0:
        job.finish_reason = "length"
    _stream(job, emitted)
    return accepted


def _ended_by_grammar(job: Job, grammar: GrammarState) -> list[int]:
    """Append the EOS where no other token may follow, without asking the model for it; return it, or nothing."""
    token = grammar.end(job.tokens)
    if token is None:
        return []
    job.finish_reason = "eos"
    job.tokens.append(token)
    job.stats.tokens += 1
    if job.detokenizer is not None:
        job.detokenizer.add([token])
    return [token]


def _stream(job: Job, emitted: list[int]) -> None:
    """Call a job's stream with new ids and text."""
    if job.emit is not None:
        text = ""
        if job.detokenizer is not None:
            text = job.detokenizer.release() + (job.detokenizer.finish() if job.finish_reason else "")
        job.emit(job.index, emitted, text)
