"""Benchmark on a real model: plain decoding, other drafting methods and tasc, in one run, prompt by prompt.

Every method decodes every prompt. The order of methods rotates from prompt to prompt, so that a slower machine slows
all methods. Greedy decoding is lossless with every draft: each output is compared with that of plain decoding.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasc.data.chat import output_texts
from tasc.data.endings import required_eos_ids
from tasc.data.prompt_notes import PromptDefaults
from tasc.decoding.prompts import Input, prompt_ids
from tasc.decoding.stats import Stats
from tasc.drafting.defaults import MAX_DRAFT
from tasc.drafting.protocol import Drafter, NullDrafter
from tasc.drafting.retokenizing import ngram_drafter
from tasc.errors import InputError
from tasc.evaluation.baselines import (
    SuffixDecodingDrafter,
    check_suffix_decoding,
    suffix_decoding_installed,
    suffix_depth,
)
from tasc.evaluation.bootstrap import Measure, divided, estimate
from tasc.evaluation.machine import machine
from tasc.progress import Progress

if TYPE_CHECKING:
    from tasc.evaluation.replay_comparison import Task

PLAIN = "plain"
"""Baseline method for speed-ups: the loop of tasc without drafts."""

_LOOKUP, _STATIC = "transformers-prompt-lookup", "transformers-static"
_CAPTURED = 8  # warm-up requests on a GPU, which capture its CUDA graphs

DRAFTED = ("model", "combined")
"""Methods that need a draft model."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of a benchmark.

    Attributes:
        system: System prompt of every request; "" for none. None: the one that the model was tuned with, or else the
            indexed rows share.
        max_tokens: Maximum number of tokens per output.
        max_draft: Maximum number of tokens per draft.
        lookup_tokens: `prompt_lookup_num_tokens` of transformers.
        factors: Values of SuffixDecoding's `max_spec_factor`; one method each.
        methods: Names of methods; None for all that are installed. `plain` always runs. `transformers-static` runs only
            by name: on a GPU, transformers compiles the steps of its static cache, which takes minutes.
        draft_length: Tokens per draft of a draft model alone; None: adaptive.
        compile: Option of `Generator`, for all methods in the loop of tasc.
    """

    system: str | None = None
    max_tokens: int = 256
    max_draft: int = MAX_DRAFT
    lookup_tokens: int = 10
    factors: tuple[float, ...] = (1.0, 4.0, 16.0)
    methods: tuple[str, ...] | None = None
    draft_length: int | None = None
    compile: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Output of a method for one prompt: token ids without the EOS, text, seconds, and loop statistics if known."""

    ids: list[int]
    text: str
    seconds: float
    stats: Stats | None = None


class Method(Protocol):
    """Decoding method."""

    name: str

    def answer(self, asked: Input) -> Answer:
        """Decode a user's text or a conversation greedily."""


@dataclass(slots=True)
class Tally:
    """All answers of one method, and the number identical to plain decoding."""

    answers: list[Answer] = field(default_factory=list)
    identical: int = 0

    def seconds(self) -> NDArray[np.float64]:
        """Return (N,) seconds per request."""
        return np.array([a.seconds for a in self.answers])

    def summary(self) -> dict[str, Any]:
        """Return speed, latency and, if known, draft statistics; times in seconds."""
        seconds = self.seconds()
        tokens = sum(len(a.ids) for a in self.answers)
        facts = {
            "requests": len(self.answers),
            "tokens": tokens,
            "seconds": float(seconds.sum()),
            "tokens_per_second": tokens / max(float(seconds.sum()), 1e-9),
            "latency_p50": float(np.percentile(seconds, 50)),
            "latency_p90": float(np.percentile(seconds, 90)),
            "latency_p99": float(np.percentile(seconds, 99)),
            "identical": self.identical,
        }
        return facts | draft_facts([a.stats for a in self.answers if a.stats is not None])


def draft_facts(requests: Sequence[Stats]) -> dict[str, Any]:
    """Return the summed statistics of the requests; empty without statistics."""
    if not requests:
        return {}
    total = Stats()
    for stats in requests:
        total.add(stats)
    positions = range(max(total.drafted_at, default=-1) + 1)
    return {
        "steps": total.steps,
        "tau": total.tau,
        "alpha": total.alpha,
        "drafted_per_step": total.drafted / max(1, total.steps),
        "accepted": total.accepted / max(1, total.drafted),
        "drafted_by_position": [total.drafted_at[i] for i in positions],
        "accepted_by_position": [total.accepted_at[i] for i in positions],
        "drafted_by_source": dict(total.drafted_by),
        "accepted_by_source": dict(total.accepted_by),
        "time": {part: getattr(total, f"{part}_seconds") for part in ("prefill", "draft", "verify", "rest")},
    }


def bench(
    model: Any,
    tokenizer: Any,
    task: "Task",
    options: BenchOptions | None = None,
    *,
    draft: Any = None,
    draft_tokenizer: Any = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Decode the held-out inputs of `task` with every method and compare.

    Args:
        model: A `PreTrainedModel` in evaluation mode.
        tokenizer: Hugging Face tokenizer of the model.
        task: Indexed rows, and the held-out rows whose inputs are the prompts.
        options: Options of the benchmark.
        draft: Draft model. Method `model` drafts with it alone, `combined` with it and the n-grams of `tasc`.
        draft_tokenizer: Tokenizer of the draft model, if known.
        progress: Called with (answers done, answers).

    Returns:
        A JSON-ready dictionary: `settings`, `machine`, `methods` (name → `Tally.summary`, `speedup` over plain with its
        interval, and `exact`, the number of outputs equal to the row's), and `requests` (input, output, seconds per
        method).

    Raises:
        InputError: If a held-out row has no input, a method's name is unknown, or the draft model does not fit.
        PromptError: If an input cannot be used; it is counted from 0 among the held-out rows with an input.
    """
    options = options or BenchOptions()
    system = PromptDefaults.of(_name(model), tokenizer, task.index).choose(options.system)
    options = replace(options, system=system or "")  # every method gets the same prompts
    rows = [r for r in task.held_out if r.get("input")]
    if not rows:
        raise InputError("no held-out row has an input, so there is nothing to prompt the model with")
    check_methods(options, has_draft=draft is not None)
    methods = list(_methods(model, tokenizer, task, options, draft, draft_tokenizer))
    plain = methods[0]
    assert isinstance(plain, LoopMethod)
    plain.check(rows)
    for row in rows[-1:] if model.device.type == "cpu" else rows[-_CAPTURED:]:
        for method in methods:
            method.answer(row["input"][::-1])  # warm-up with a prompt that is not measured
    tallies = {m.name: Tally() for m in methods}
    for i, row in enumerate(rows):
        for j in range(len(methods)):
            method = methods[(i + j) % len(methods)]
            tallies[method.name].answers.append(method.answer(row))
            if progress is not None:
                progress(i * len(methods) + j + 1, len(rows) * len(methods))
    references = output_texts(task.tokenizer, rows, options.system)
    return _result(tallies, rows, references, model, options, draft)


def _result(
    tallies: dict[str, Tally],
    rows: Sequence[dict[str, Any]],
    references: list[str],
    model: Any,
    options: BenchOptions,
    draft: Any,
) -> dict[str, Any]:
    plain = tallies[PLAIN].answers
    for tally in tallies.values():
        tally.identical = sum(a.ids == b.ids for a, b in zip(tally.answers, plain, strict=True))
    summaries = {name: tally.summary() for name, tally in tallies.items()}
    for name, tally in tallies.items():
        speed = summaries[name]["tokens_per_second"]
        summaries[name]["speedup"] = speed / summaries[PLAIN]["tokens_per_second"]
        summaries[name]["speedup_interval"] = _speedup_interval(tally, tallies[PLAIN])
        summaries[name]["exact"] = sum(
            a.text.strip() == reference.strip() for a, reference in zip(tally.answers, references, strict=True)
        )
    requests = [
        {
            "input": row["input"],
            "output": plain[i].text,
            "seconds": {name: tally.answers[i].seconds for name, tally in tallies.items()},
        }
        for i, row in enumerate(rows)
    ]
    return {
        "settings": {
            "model": _name(model),
            "draft": None if draft is None else _name(draft),
            "batch_size": 1,
            **asdict(options),
            "system": options.system or None,
        },
        "machine": machine(),
        "methods": summaries,
        "requests": requests,
    }


def _speedup_interval(tally: Tally, plain: Tally) -> dict[str, float | None]:
    """Return `value`, `low` and `high`: the speed-up over plain decoding and its interval over the prompts."""
    sides = [(len(answer.ids), answer.seconds) for side in (tally, plain) for answer in side.answers]
    counts = np.array(sides, np.float64).reshape(2, -1, 2)  # (side, prompt, tokens and seconds)
    return estimate(Measure(np.concatenate([*counts], axis=-1), _speed_ratio))


def _speed_ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ratio of two speeds from (…, 4) sums: tokens, seconds, tokens and seconds of the other."""
    return divided(sums[..., 0] * sums[..., 3], sums[..., 1] * sums[..., 2])


def check_methods(options: BenchOptions, *, has_draft: bool) -> None:
    """Check the names of methods and their packages, before a model is loaded.

    Raises:
        InputError: A name is unknown, or needs a draft model that is not given; or drafts are longer than `max_draft`.
        BaselineMissingError: A method needs SuffixDecoding, which is not installed.
    """
    suffixes = [_suffix(factor) for factor in options.factors]
    known = [PLAIN, "transformers", _STATIC, _LOOKUP, *suffixes, "tasc", *(DRAFTED if has_draft else ())]
    for name in options.methods or ():
        if name in DRAFTED and not has_draft:
            raise InputError(f"method {name!r} needs a draft model: give its folder with --draft")
        if name not in known:
            raise InputError(f"unknown method {name!r}: choose from {', '.join(known)}")
        if name in suffixes:
            check_suffix_decoding()
    if options.draft_length is not None and options.draft_length > options.max_draft:
        raise InputError(f"draft_length is {options.draft_length}; it must be at most max_draft, {options.max_draft}")


def _suffix(factor: float) -> str:
    return f"suffix-{factor:g}"


def _name(model: Any) -> str:
    return str(getattr(model.config, "name_or_path", ""))


def _methods(
    model: Any, tokenizer: Any, task: "Task", options: BenchOptions, draft: Any, draft_tokenizer: Any
) -> Iterator[Method]:
    from tasc.decoding.draft_model.hybrid import HybridDrafter
    from tasc.decoding.draft_model.loading import draft_model_drafter

    def transformers(name: str, **extra: Any) -> Callable[[], Method]:
        return lambda: TransformersMethod(name, model, tokenizer, options, extra)

    def loop(drafter: Callable[[], Drafter]) -> Callable[[], Method]:
        return lambda: LoopMethod(model, tokenizer, drafter(), options)

    def suffix(factor: float) -> Drafter:
        return SuffixDecodingDrafter(task.outputs(), factor=factor, depth=suffix_depth(options.max_draft))

    def ngram() -> Drafter:
        return ngram_drafter(task.index, task.tokenizer)

    suffixes = {_suffix(factor): loop(partial(suffix, factor)) for factor in options.factors}
    makers: dict[str, Callable[[], Method]] = {
        PLAIN: loop(NullDrafter),
        "transformers": transformers("transformers"),
        _STATIC: transformers(_STATIC, cache_implementation="static"),
        _LOOKUP: transformers(_LOOKUP, prompt_lookup_num_tokens=options.lookup_tokens),
        **suffixes,
        "tasc": loop(ngram),
    }
    if draft is not None:
        drafter = partial(draft_model_drafter, draft, draft_tokenizer, name="model")
        makers["model"] = loop(partial(drafter, length=options.draft_length))
        makers["combined"] = loop(lambda: HybridDrafter(ngram(), drafter()))
    left_out = {_STATIC} if suffix_decoding_installed() else {_STATIC, *suffixes}
    chosen = makers.keys() - left_out if options.methods is None else {PLAIN, *options.methods}
    return (make() for name, make in makers.items() if name in chosen)


class LoopMethod:
    """Decoding loop of tasc with a drafter; the method has the drafter's name."""

    def __init__(self, model: Any, tokenizer: Any, drafter: Drafter, options: BenchOptions) -> None:
        """Decode with the drafts of `drafter`."""
        from tasc.decoding.generator import Generator

        self.name = drafter.name
        self._options = options
        self._eos = required_eos_ids(model, tokenizer)
        self._generator = Generator(
            model, tokenizer, drafter=drafter, max_draft=options.max_draft, compile=options.compile
        )

    def check(self, inputs: Sequence[Input]) -> None:
        """Check inputs, without decoding."""
        self._generator.check(inputs, system=self._options.system)

    def answer(self, asked: Input) -> Answer:
        """Decode a user's text or a conversation greedily."""
        begin = time.perf_counter()
        made = self._generator.generate(
            inputs=[asked], system=self._options.system, max_tokens=self._options.max_tokens
        )[0]
        seconds = time.perf_counter() - begin
        return Answer(without_eos(made.ids, self._eos), made.text, seconds, made.stats)


class TransformersMethod:
    """Greedy `generate` of transformers on the same prompt ids."""

    def __init__(self, name: str, model: Any, tokenizer: Any, options: BenchOptions, extra: dict[str, Any]) -> None:
        """Decode with further arguments `extra` of `generate`."""
        self.name = name
        self._model = model
        self._tokenizer = tokenizer
        self._options = options
        self._extra = extra
        self._eos = required_eos_ids(model, tokenizer)

    def answer(self, asked: Input) -> Answer:
        """Decode a user's text or a conversation greedily."""
        import torch

        begin = time.perf_counter()
        prompt = torch.tensor(
            prompt_ids(self._tokenizer, [asked], None, self._options.system), device=self._model.device
        )
        with torch.inference_mode():
            made = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=self._options.max_tokens,
                eos_token_id=sorted(self._eos),
                pad_token_id=min(self._eos),
                **self._extra,
            )
        ids = without_eos(made[0, prompt.shape[1] :].tolist(), self._eos)
        output = self._tokenizer.decode(ids, skip_special_tokens=True)
        return Answer(ids, output, time.perf_counter() - begin)


def without_eos(ids: Sequence[int] | NDArray[Any], eos: frozenset[int]) -> list[int]:
    """Return the ids before the first EOS."""
    return list(takewhile(lambda token: token not in eos, map(int, ids)))
