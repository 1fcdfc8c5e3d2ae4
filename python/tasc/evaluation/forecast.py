"""Forecast of the time per output on a task: a replay of known outputs against measured costs, before anything is run.

`own_outputs` lets the model answer some held-out prompts, and `agreement` compares them with the rows: an index of rows
that the model does not repeat speeds nothing up. `forecast` then simulates each method; `compare` measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasc.data.chat import encode_outputs, render_rows
from tasc.data.endings import required_eos_ids
from tasc.data.ids import common_prefix_length
from tasc.decoding.prompts import prompt_ids
from tasc.decoding.stats import Stats
from tasc.drafting.defaults import MAX_DRAFT
from tasc.drafting.protocol import Drafter, NullDrafter
from tasc.drafting.retokenizing import RetokenizingDrafter
from tasc.evaluation.bootstrap import Measure, divided, estimate
from tasc.evaluation.cost_profile import CostProfile
from tasc.evaluation.simulate import KnownRequest, Simulation, simulate
from tasc.progress import Clock, Progress

if TYPE_CHECKING:
    from tasc._core import MergePlan, TaskIndex
    from tasc.data import TaskTokenizer
    from tasc.decoding.generator import Generator

PLAIN, DRAFTS, VOCABULARY, BOTH = "plain", "drafts", "vocabulary", "both"
"""Methods: plain decoding; drafts from an index; a task vocabulary; drafts for a model with a task vocabulary."""

DRAFT_MODEL, DRAFTS_AND_MODEL = "draft model", "drafts + model"
"""Methods with a draft model: alone, and behind drafts from an index."""

LOADS = (1, 8)
"""Requests at once that a forecast is made for."""

_SAME = 0.9  # share of equal tokens from which the rows say what the model says
_CHUNK = 8  # prompts answered together
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, without their whole parts, lie evenly between 0 and 1
_GAIN = 1.05  # least speed-up that is worth an index


@dataclass(frozen=True, slots=True)
class Answers:
    """Outputs of a model for some rows.

    Attributes:
        requests: By row, its prompt and the model's output.
        expected: By row, the ids of the row's own output with the EOS.
        finished: By row, whether the output ended before the limit.
    """

    requests: list[KnownRequest]
    expected: list[list[int]]
    finished: list[bool]


def own_outputs(
    generator: Generator,
    tokenizer: Any,
    task_tokenizer: TaskTokenizer,
    rows: Sequence[Mapping[str, Any]],
    *,
    eos: int,
    system: str | None = None,
    max_tokens: int = 256,
    budget: float = 20.0,
    progress: Progress | None = None,
) -> Answers:
    """Let the model answer the rows' inputs greedily, until the time is over.

    Args:
        generator: The model. Drafts do not change its outputs, so it may draft.
        tokenizer: Its Hugging Face tokenizer.
        task_tokenizer: The tokenizer as `tasc.data.load_tokenizer` returns it.
        rows: Rows with input and output.
        eos: Id that ends a row's output.
        system: System prompt of every request.
        max_tokens: Most tokens per output.
        budget: Seconds after which no further prompts begin; the first 8 are always answered.
        progress: Called with (rows answered, rows).
    """
    system = generator.system if system is None else system
    prompts = prompt_ids(tokenizer, rows, None, system)
    requests: list[KnownRequest] = []
    finished: list[bool] = []
    begin = time.perf_counter()
    while len(requests) < len(rows) and (not requests or time.perf_counter() - begin < budget):
        part = slice(len(requests), len(requests) + _CHUNK)
        made = generator.generate(rows[part], system=system or "", max_tokens=max_tokens)
        texts = (row["input"] for row in rows[part])
        requests += [
            KnownRequest(prompt, one.ids, text) for prompt, one, text in zip(prompts[part], made, texts, strict=True)
        ]
        finished += [one.finish_reason == "eos" for one in made]
        if progress is not None:
            progress(len(requests), len(rows))
    task_tokenizer = replace(task_tokenizer, eos_id=eos)
    outputs = list(render_rows(task_tokenizer.chat_template, rows[: len(requests)], system))
    return Answers(requests, task_tokenizer.segment(encode_outputs(task_tokenizer, outputs)), finished)


def agreement(answers: Answers) -> dict[str, Any]:
    """Compare a model's outputs with the rows', each output that the limit cut off with as many tokens of its row.

    Returns:
        `rows`; `equal`: outputs equal to the row's; `shared`: share of the rows' tokens that the model's output begins
        with; `finished`: outputs that ended before the limit; `agrees`: whether the rows say what the model says;
        `sentence`: the finding in words.
    """
    pairs = [
        (one.output, theirs if has_end else theirs[: len(one.output)])
        for one, theirs, has_end in zip(answers.requests, answers.expected, answers.finished, strict=True)
    ]
    equal = sum(list(ours) == theirs for ours, theirs in pairs)
    shared = sum(common_prefix_length(ours, theirs) for ours, theirs in pairs)
    share = shared / max(1, sum(len(theirs) for _, theirs in pairs))
    facts = {"rows": len(pairs), "equal": equal, "shared": share, "finished": sum(answers.finished)}
    of = f"{equal} of {len(pairs)} outputs equal"
    if equal == 0 and share < 0.5:
        sentence = (
            f"the model does not say what the rows say ({of}): drafts from these rows do not fit it; "
            "tune it first: tasc tune"
        )
    elif share < _SAME:
        sentence = f"the model says something else than the rows in part ({of}, {share:.0%} of the tokens up to there)"
    else:
        sentence = f"the model says what the rows say ({of})"
    return {**facts, "agrees": equal > 0 or share >= 0.5, "sentence": sentence}


def evenly_by_length(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Order rows so that any neighbours have short and long outputs in the same shares as all rows.

    What a method brings depends on the length of the outputs. So rows of a prediction and rows that are measured differ
    less than random ones do. The same rows give the same order.

    Args:
        rows: Rows with an output.

    Examples:
        >>> rows = [{"output": "x" * length} for length in (1, 2, 3, 4, 5, 6, 7, 8)]
        >>> [len(row["output"]) for row in evenly_by_length(rows)]
        [1, 6, 3, 8, 5, 2, 7, 4]
    """
    by_length = sorted(rows, key=lambda row: len(row["output"]))
    return [by_length[k] for k in sorted(range(len(by_length)), key=lambda k: k * _GOLDEN % 1.0)]


def usual_request(requests: Sequence[KnownRequest]) -> KnownRequest:
    """Return the request of median length: steps are measured behind its tokens."""
    by_length = sorted(requests, key=lambda one: 2 * len(one.prompt) + len(one.output))
    return by_length[len(requests) // 2]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a method decodes, and how.

    Attributes:
        requests: The requests, in the method's tokens.
        drafter: Called with the number of requests at once; returns a fresh drafter. None: plain decoding.
        vocab_size: Ids of the model; a draft model has as many.
    """

    requests: Sequence[KnownRequest]
    drafter: Callable[[int], Drafter] | None = None
    vocab_size: int = 2**31 - 1


def method_plans(
    requests: Sequence[KnownRequest],
    index: TaskIndex | None,
    tokenizer: TaskTokenizer,
    vocabulary: MergePlan | None = None,
) -> dict[str, Plan]:
    """Return what each method decodes. A task vocabulary is taken to be used wherever it can be (adoption 1).

    Args:
        requests: Requests with the model's outputs.
        index: Index of the rows to draft from; None: each request's own context alone.
        tokenizer: The model's tokenizer.
        vocabulary: New tokens; None leaves out the methods with a task vocabulary.
    """
    from tasc._core import NgramDrafter

    def ngram(load: int) -> Drafter:
        drafter: Drafter = NgramDrafter(index, tokenizer=None if index is None else tokenizer)
        return drafter

    plans = {PLAIN: Plan(requests), DRAFTS: Plan(requests, ngram)}
    if vocabulary is not None:
        outputs = vocabulary.segment_batch([np.asarray(one.output, np.uint32) for one in requests])
        new = [KnownRequest(one.prompt, ids.tolist(), one.input) for one, ids in zip(requests, outputs, strict=True)]
        plans[VOCABULARY] = Plan(new)
        plans[BOTH] = Plan(new, lambda load: RetokenizingDrafter(ngram(load), vocabulary))
    return plans


def forecast(
    profile: CostProfile,
    plans: Mapping[str, Plan],
    *,
    eos: frozenset[int],
    loads: Sequence[int] = LOADS,
    max_draft: int = MAX_DRAFT,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict the seconds per output of each method.

    Args:
        profile: Engine and device.
        plans: By method, what it decodes; `plain` among them.
        eos: Ids that end an output.
        loads: Requests at once.
        max_draft: Longest draft.
        progress: Called with (simulations done, simulations).

    Returns:
        A JSON-ready dictionary: `time` (UTC), `engine`, `device`, `model`, `requests`, `slope` (cost of a drafted token
        in plain steps), and `loads`: by load, by method `seconds_per_output`, `speedup` over plain decoding (`value`,
        `low`, `high`), `tau`, `drafted_per_step`, `accepted` and `tokens_per_output`; with `acceptance` of the drafts.
    """
    found: dict[str, Any] = {}
    for done, load in enumerate(loads):
        runs: dict[str, Simulation] = {}
        for at, (name, plan) in enumerate(plans.items()):
            drafter = None if plan.drafter is None else plan.drafter(load)
            runs[name] = simulate(
                profile, plan.requests, drafter, load=load, max_draft=max_draft, eos=eos, vocab_size=plan.vocab_size
            )
            if progress is not None:
                progress(done * len(plans) + at + 1, len(loads) * len(plans))
        found[str(load)] = {name: _facts(run, runs[PLAIN]) for name, run in runs.items()}
    about = {name: getattr(profile, name) for name in ("engine", "device", "model", "dtype", "parameters", "measured")}
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), **about, "requests": len(plans[PLAIN].requests),
        "max_draft": max_draft, "slope": profile.slope(max_draft), "loads": found,
    }  # fmt: skip


def _facts(run: Simulation, plain: Simulation) -> dict[str, Any]:
    stats = run.stats
    return {
        "seconds_per_output": run.seconds_per_output,
        "speedup": speedup(plain.seconds, run.seconds),
        "tokens_per_output": stats.tokens / stats.requests,
        "tau": stats.tau,
        "drafted_per_step": stats.drafted / max(1, stats.steps),
        "accepted": stats.accepted / max(1, stats.drafted),
        "acceptance": acceptance(stats),
    }


def speedup(plain: NDArray[np.float64], ours: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the ratio of summed seconds, (N,) each of the same requests, with its bootstrap interval over requests."""
    pairs = np.stack([plain, ours], axis=-1)
    return estimate(Measure(pairs, lambda sums: divided(sums[..., 0], sums[..., 1])))


def acceptance(stats: Stats) -> dict[str, Any]:
    """Return how drafts are accepted, in the form that simulators of engines take.

    Returns:
        `synthetic_acceptance_length`: mean tokens per step, accepted ones and one more. `synthetic_acceptance_rates`:
        by position in the draft, the share of all steps whose draft is accepted up to there. Both names are vLLM's, of
        `speculative_config` with `"rejection_sample_method": "synthetic"`, which takes one of them. `conditional`: by
        position, the share among the drafts that were right before it.
    """
    steps = max(1, stats.steps)
    positions = range(max(stats.accepted_at, default=-1) + 1)
    return {
        "synthetic_acceptance_length": 1.0 + stats.accepted / steps,
        "synthetic_acceptance_rates": [stats.accepted_at[j] / steps for j in positions],
        "conditional": stats.rates,
    }


def recommended(found: Mapping[str, Any], load: int = 1) -> dict[str, Any]:
    """Choose a method from a forecast.

    Returns:
        `method`: the faster of those that need no tuning; one with a draft model only where it is 1.05 times as fast
        as those without. `is_worth_it`: whether its interval lies above 1.05.
        `with_tuning`: the fastest method with a task vocabulary, where it is 1.05 times as fast again; else None.
        `settings`: what the engine is given: vLLM's `--speculative-config`, options of `TascDraft` for llama.cpp.
    """
    methods = found["loads"][str(load)]

    def fastest(*names: str) -> str:
        return min((name for name in names if name in methods), key=lambda n: methods[n]["seconds_per_output"])

    def gained(slow: str, fast: str) -> float:
        return float(methods[slow]["seconds_per_output"] / methods[fast]["seconds_per_output"])

    now = fastest(PLAIN, DRAFTS)
    trained = fastest(now, DRAFT_MODEL, DRAFTS_AND_MODEL)
    if gained(now, trained) >= _GAIN:
        now = trained
    later = fastest(now, VOCABULARY, BOTH)
    low = methods[now]["speedup"]["low"] or methods[now]["speedup"]["value"]
    settings = {
        "tasc": {},
        "vllm": {
            "method": "custom_class",
            "model": "tasc.adapters.vllm.TascProposer",
            "num_speculative_tokens": found["max_draft"],
        },
        "llama.cpp": {"max_draft": found["max_draft"], "costs": round(found["slope"], 4)},
    }[found["engine"]]
    return {
        "method": now, "load": load, "is_worth_it": now != PLAIN and low >= _GAIN,
        "with_tuning": later if gained(now, later) >= _GAIN else None, "settings": settings if now != PLAIN else {},
    }  # fmt: skip


def compare(
    generator: Generator,
    rows: Sequence[Mapping[str, Any]],
    drafter: Drafter,
    *,
    method: str = DRAFTS,
    load: int = 1,
    system: str | None = None,
    max_tokens: int = 256,
    budget: float = 60.0,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure drafts against plain decoding, in turns on the same rows, until the time is over.

    Args:
        generator: The model, with room for `load` rows.
        rows: Rows with an input, other than those of the forecast.
        drafter: The drafter.
        method: Name of the method with the drafter.
        load: Requests at once.
        system: System prompt of every request.
        max_tokens: Most tokens per output.
        budget: Seconds to spend, about.
        clock: Returns seconds; see `measure_profile`.
        progress: Called with (rows done, rows).

    Returns:
        `rows`, `seconds_per_output` by method, `speedup` (value, low, high: a bootstrap over the batches measured),
        `different`: outputs that differ between the methods, and `time` (UTC).
    """
    sides: dict[str, Drafter] = {PLAIN: NullDrafter(), method: drafter}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    different, done = 0, 0
    # full for most of its time; and the last prompt of a side is not the other's first, so not cached
    size = 4 * load if load > 1 else 2

    def answered(name: str, texts: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        began = clock()
        made = generator.generate(texts, system=system, max_tokens=max_tokens, drafter=sides[name])
        seconds[name].append(clock() - began)
        return [one.ids for one in made]

    begin = clock()
    for name in sides:  # not counted: caches are cold, and the cost of verifying is measured
        generator.generate([rows[-1]["input"][::-1] or "?"], system=system, max_tokens=8, drafter=sides[name])
    while done < len(rows) and (done == 0 or clock() - begin < budget):
        texts = rows[done : done + size]
        turn = list(sides) if done // size % 2 == 0 else list(sides)[::-1]
        ids = {name: answered(name, texts) for name in turn}
        different += sum(a != b for a, b in zip(ids[PLAIN], ids[method], strict=True))
        done += len(texts)
        if progress is not None:
            progress(done, len(rows))
    plain, ours = (np.array(seconds[name]) for name in sides)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "rows": done, "load": load, "different": different,
        "seconds_per_output": {PLAIN: float(plain.sum() / done), method: float(ours.sum() / done)},
        "speedup": speedup(plain, ours),
    }  # fmt: skip


def eos_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an output of a model."""
    return required_eos_ids(model, tokenizer)
