"""Simulation of an engine on known outputs: the real draft policy, and the seconds of a cost profile for each step.

The rows say what the model emits, as in `tasc.evaluation.replay`. Requests share steps as they do in the engine, and
the engine's own classes choose the draft lengths. A step takes the seconds of the profile; drafting takes its real
time. So a minute of decoding on another device is predicted in about a second.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasc.data.ids import common_prefix_length
from tasc.decoding.stats import Stats
from tasc.drafting.defaults import MAX_DRAFT
from tasc.drafting.protocol import Drafter, DrafterWrapper, NullDrafter
from tasc.evaluation.cost_profile import CostProfile, ProfileCosts


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """Request whose output is known.

    Attributes:
        prompt: (L,) ids of the whole prompt.
        output: (T,) ids of the output, with the EOS if it has one.
        input: Text of the input in the prompt; None: not known.
    """

    prompt: Sequence[int]
    output: Sequence[int]
    input: str | None = None


@dataclass(slots=True)
class Simulation:
    """Result of a simulation.

    Attributes:
        seconds: (N,) seconds of each request: its share of the steps that it took part in, drafting included.
        stats: Counts of all requests; the times are simulated.
        requests: Counts of each request.
    """

    seconds: NDArray[np.float64]
    stats: Stats = field(default_factory=Stats)
    requests: Sequence[Stats] = ()

    @property
    def seconds_per_output(self) -> float:
        """Wall time per output."""
        return float(self.seconds.mean())


def simulate(
    profile: CostProfile,
    requests: Sequence[KnownRequest],
    drafter: Drafter | None = None,
    *,
    load: int = 1,
    max_draft: int = MAX_DRAFT,
    eos: frozenset[int] = frozenset(),
    vocab_size: int = 2**31 - 1,
) -> Simulation:
    """Decode known outputs with the steps of a profile.

    Args:
        profile: Engine, and seconds of its steps.
        requests: The requests, in order.
        drafter: Drafts for all of them, and learns from them; None decodes plainly.
        load: Requests at once. llama-cpp-python runs one at a time, so its time per output does not depend on it.
        max_draft: Longest draft.
        eos: Ids that end an output.
        vocab_size: Ids of the model. A draft model needs it, and a given `step_cost`: there is no plain step to time.

    Raises:
        InputError: `drafter` is no `Drafter`.

    Examples:
        >>> from tasc.evaluation.cost_profile import CostProfile
        >>> profile = CostProfile(engine="tasc", device="d", model="m", dtype="t", steps=[(1, 1, 0.5), (1, 9, 0.5)])
        >>> simulate(profile, [KnownRequest([1, 2], [5, 6, 7])]).seconds.round(2).tolist()
        [1.5]
    """
    run = {"tasc": _in_loop, "vllm": _in_vllm, "llama.cpp": _in_llama_cpp}[profile.engine]
    done = run(profile, requests, drafter, load, max_draft, eos, vocab_size)
    extra = profile.request_seconds + profile.token_seconds * np.array([s.accepted for s in done], np.float64)
    total = Stats()
    for stats in done:
        total.add(stats)
    return Simulation(np.array([stats.seconds for stats in done]) + extra, total, done)


def _in_loop(
    profile: CostProfile, requests: Sequence[KnownRequest], drafter: Drafter | None, load: int, max_draft: int,
    eos: frozenset[int], vocab_size: int,
) -> list[Stats]:  # fmt: skip
    """Run tasc's own loop over a target that knows the outputs."""
    from tasc.decoding.jobs import Job
    from tasc.drafting.protocol import SafeDrafter
    from tasc.evaluation.simulated_loop import SimulatedLoop

    safe = None if drafter is None else SafeDrafter(drafter)
    jobs = [
        Job(
            index=number, tokens=list(one.prompt), num_prompt=len(one.prompt), max_tokens=len(one.output), eos=eos,
            drafter=safe, input_text=one.input,
        )
        for number, one in enumerate(requests)
    ]  # fmt: skip
    SimulatedLoop(profile, [list(one.output) for one in requests], load, max_draft, vocab_size).run(jobs)
    for job in jobs:
        job.stats.rest_seconds = 0.0  # the loop's own work is in the profile
    return [job.stats for job in jobs]


@dataclass(slots=True, eq=False)
class _Running:
    """Request of a simulated engine: its place in the list, and the tokens emitted and drafted."""

    number: int
    request: KnownRequest
    stats: Stats = field(default_factory=lambda: Stats(requests=1))
    emitted: int = 0
    draft: list[int] = field(default_factory=list)

    def verify(self) -> list[int]:
        """Return the tokens that a step emits, and count them."""
        ahead = list(self.request.output[self.emitted :])
        accepted = common_prefix_length(self.draft, ahead)
        new = ahead[: accepted + 1]
        self.stats.count_step([0] * len(self.draft), accepted, ended=accepted == len(ahead))
        self.stats.tokens += len(new)
        self.emitted += len(new)
        return new

    @property
    def is_done(self) -> bool:
        return self.emitted >= len(self.request.output)


class _KnownInputs(DrafterWrapper):
    """Drafter that is told the input of each prompt, which engines find in it."""

    def __init__(self, drafter: Drafter, requests: Sequence[KnownRequest]) -> None:
        super().__init__(drafter)
        self._inputs = {tuple(one.prompt): one.input for one in requests}

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Any:
        known = self._inputs.get(tuple(int(token) for token in prompt_ids), input_text)
        return self.drafter.start(prompt_ids, known)


def _in_vllm(
    profile: CostProfile, requests: Sequence[KnownRequest], drafter: Drafter | None, load: int, max_draft: int,
    eos: frozenset[int], vocab_size: int,
) -> list[Stats]:  # fmt: skip
    """Run the proposer's request tracker; prompts are computed in the steps of the others, behind a prefix cache."""
    from tasc.serving import Metrics, RequestTracker
    from tasc.serving.tasks import TaskDrafts

    drafts = TaskDrafts(drafter=NullDrafter() if drafter is None else _KnownInputs(drafter, requests))
    longest = max(len(one.prompt) + len(one.output) for one in requests) + max_draft + 2
    tracker = RequestTracker(
        lambda ids, fields: drafts, max_draft=max_draft, max_length=longest, vocab_size=vocab_size, eos=eos,
        curve=ProfileCosts(profile), metrics=Metrics(),
    )  # fmt: skip
    waiting = deque(_Running(number, one) for number, one in enumerate(requests))
    done = [one.stats for one in waiting]
    running: list[_Running] = []
    table = np.zeros((load, longest), np.int32)
    cached: list[Sequence[int]] = []
    while waiting or running:
        computed = float(sum(1 + len(one.draft) for one in running))
        while waiting and len(running) < load:
            running.append(waiting.popleft())
            prompt = running[-1].request.prompt
            shared = max((common_prefix_length(old, prompt) for old in cached), default=0)
            kept = min(shared, len(prompt) - 1) // profile.cache_block * profile.cache_block
            computed += max(1.0, profile.prompt_share * (len(prompt) - kept))  # the last token needs logits
            cached.append(prompt)
        seconds = float(profile.seconds(len(running), computed / len(running))) / len(running)
        emitted = [one.verify() for one in running]
        for row, one in enumerate(running):
            one.stats.verify_seconds += seconds
            ids = [*one.request.prompt, *one.request.output[: one.emitted]]
            table[row, : len(ids)] = ids
        lengths = [len(one.request.prompt) + one.emitted for one in running]
        begin = time.perf_counter()
        made = [[]] * len(running) if drafter is None else tracker.propose(emitted, lengths, table)
        drafting = (time.perf_counter() - begin) / len(running)
        for one, draft in zip(running, made, strict=True):
            one.draft = draft
            one.stats.draft_seconds += drafting
        running = [one for one in running if not one.is_done]
    return done


def _in_llama_cpp(
    profile: CostProfile, requests: Sequence[KnownRequest], drafter: Drafter | None, load: int, max_draft: int,
    eos: frozenset[int], vocab_size: int,
) -> list[Stats]:  # fmt: skip
    """Run the adapter of llama-cpp-python, with the profile's costs; a prompt begins where it leaves the last one."""
    from tasc.adapters.llama_cpp import TascDraft

    costs = ProfileCosts(profile).costs(max_draft)
    propose: Callable[[Any], Any] | None = None
    if drafter is not None:
        propose = TascDraft(drafter=_KnownInputs(drafter, requests), max_draft=max_draft, costs=costs.tolist())
    done, held = [], list[int]()
    for number, request in enumerate(requests):
        one, ids = _Running(number, request), list(request.prompt)
        tokens = len(ids) - min(common_prefix_length(held, ids), len(ids) - 1)
        while not one.is_done:
            one.stats.verify_seconds += float(profile.seconds(1, tokens))
            ids += one.verify()
            begin = time.perf_counter()
            one.draft = [] if propose is None or one.is_done else propose(np.array(ids, np.intc)).tolist()
            one.stats.draft_seconds += time.perf_counter() - begin
            tokens = 1 + len(one.draft)
        done.append(one.stats)
        held = ids
    return done
