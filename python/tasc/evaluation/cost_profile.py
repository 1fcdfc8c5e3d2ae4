"""Cost profile of an engine on a device: seconds of a step by its rows and its tokens per row.

A profile turns the counts of a replay into seconds (`tasc.evaluation.simulate`). Its seconds are wall time of a whole
step: the pass of the model, the choice of tokens and the engine's own work. Only the time of the drafter is left out.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.costs import LearnedCosts, extrapolated, rising
from tasc.drafting.defaults import MAX_DRAFT
from tasc.drafting.protocol import Costs, Draft, Drafter, Request, TokenDraft
from tasc.errors import InputError
from tasc.files import read_json, write_json
from tasc.progress import Clock

Engine: TypeAlias = Literal["tasc", "vllm", "llama.cpp"]
"""Engines with a simulation: tasc's own loop, vLLM's `custom_class`, and llama-cpp-python."""

ENGINES: tuple[Engine, ...] = get_args(Engine)

_KIND = "tasc cost profile"
_VERSION = 1
_WORDS = ("device", "model", "dtype", "measured", "note")
_LENGTHS = (1, 2, 3, 5, 9, 17, 33, MAX_DRAFT + 1)
_BATCHES = (1, 8, 32)
_MOST_TOKENS = 600  # tokens of a measured step: more only continue the line
_MOST_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CostProfile:
    """Measured seconds of steps.

    Attributes:
        engine: One of `ENGINES`.
        device: Processor or GPU, in words.
        model: The model that was measured.
        dtype: Its type of weights.
        parameters: Number of its parameters; 0: not known.
        measured: Date of the measurement, as YYYY-MM-DD.
        steps: (rows, tokens per row, seconds) of each step measured.
        request_seconds: Seconds of a request beside its steps.
        token_seconds: Seconds that each accepted token adds to a step.
        cache_block: Tokens of a prompt that vLLM's prefix cache keeps or drops together: 16 on a GPU, 128 on a CPU.
        prompt_share: Cost of a prompt's token in vLLM as a share of a drafted one's, which needs logits too: above 0,
            at most 1.
        is_gpu: Whether the device is a GPU: how prompts are batched depends on it.
        note: How the figures came about, where that needs words.

    Raises:
        InputError: A value is out of its range; names it.

    Examples:
        >>> steps = [(1, 1, 0.010), (1, 3, 0.012), (8, 1, 0.020)]
        >>> profile = CostProfile(engine="tasc", device="a CPU", model="m", dtype="float32", steps=steps)
        >>> profile.seconds(1, [2, 5]).round(4).tolist(), round(float(profile.seconds(15, 1)), 4)
        ([0.011, 0.014], 0.03)
    """

    engine: Engine
    device: str
    model: str
    dtype: str
    parameters: int = 0
    measured: str = ""
    steps: Sequence[tuple[int, int, float]]
    request_seconds: float = 0.0
    token_seconds: float = 0.0
    cache_block: int = 16
    prompt_share: float = 1.0
    is_gpu: bool = False
    note: str = ""
    _curves: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the values and sort the steps."""
        if self.engine not in ENGINES:
            raise InputError(f"engine {self.engine!r} is none of {', '.join(ENGINES)}")
        for name in _WORDS:
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be text")
        if type(self.parameters) is not int or self.parameters < 0:
            raise InputError(f"parameters is {self.parameters!r}; it must be a whole number, at least 0")
        for name in ("request_seconds", "token_seconds"):
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be a number of seconds, at least 0")
        if type(self.cache_block) is not int or self.cache_block < 1:
            raise InputError(f"cache_block is {self.cache_block!r}; it must be a whole number of tokens, at least 1")
        if not _is_number(self.prompt_share) or not 0 < self.prompt_share <= 1:
            raise InputError(f"prompt_share is {self.prompt_share!r}; it must be above 0 and at most 1")
        if not isinstance(self.is_gpu, bool):
            raise InputError(f"is_gpu is {self.is_gpu!r}; it must be true or false")
        if not isinstance(self.steps, (list, tuple)) or not self.steps:
            raise InputError(f"steps is {self.steps!r}; it must list [rows, tokens per row, seconds]")
        curves: dict[int, dict[int, float]] = {}
        for step in self.steps:
            if not _is_step(step):
                raise InputError(f"steps holds {step!r}; give [rows ≥ 1, tokens per row ≥ 1, seconds > 0]")
            curves.setdefault(step[0], {})[step[1]] = float(step[2])
        found = {}
        for rows in sorted(curves):
            lengths = sorted(curves[rows])
            found[rows] = np.array(lengths, np.float64), np.array([curves[rows][n] for n in lengths])
        object.__setattr__(self, "_curves", found)
        object.__setattr__(self, "steps", tuple((int(r), int(n), float(s)) for r, n, s in self.steps))

    def seconds(self, rows: int, tokens: Any) -> Any:
        """Seconds of a step of `rows` rows with `tokens` tokens each.

        Between measured points the seconds lie on a line; beyond them the last line goes on. They may fall with the
        tokens: llama.cpp computes four tokens faster than three.

        Args:
            rows: Rows, ≥ 1.
            tokens: Tokens per row, ≥ 1: a number or an array; not whole where rows differ.

        Returns:
            float64 of the shape of `tokens`.
        """
        batches = np.array(list(self._curves), np.float64)
        by_batch = np.array([extrapolated(tokens, *curve) for curve in self._curves.values()])
        if len(batches) == 1:  # what a step computes is all that is known
            return extrapolated(np.asarray(tokens) * rows / batches[0], *next(iter(self._curves.values())))
        right = int(np.clip(np.searchsorted(batches, rows), 1, len(batches) - 1))
        share = (rows - batches[right - 1]) / (batches[right] - batches[right - 1])
        return by_batch[right - 1] + share * np.maximum(0.0, by_batch[right] - by_batch[right - 1])

    def slope(self, max_draft: int = MAX_DRAFT) -> float:
        """Cost of a drafted token at batch 1, in plain steps: the mean over a draft of `max_draft` tokens."""
        return float((self.seconds(1, max_draft + 1) / self.seconds(1, 1) - 1.0) / max_draft)

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        return {
            "kind": _KIND, "version": _VERSION, "engine": self.engine, **{name: getattr(self, name) for name in _WORDS},
            "parameters": self.parameters, "is_gpu": self.is_gpu,
            "request_seconds": self.request_seconds, "token_seconds": self.token_seconds,
            "cache_block": self.cache_block, "prompt_share": self.prompt_share,
            "steps": [list(step) for step in self.steps],
        }  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write the profile as JSON; return the file's path."""
        return write_json(path, self.as_dict(), indent=1)


class ProfileCosts(LearnedCosts):
    """Cost curve of a profile: its seconds as the units of `CostCurve`. It does not change.

    Args:
        profile: The profile.
    """

    def __init__(self, profile: CostProfile) -> None:
        super().__init__(0.0)
        self._profile = profile

    def costs(self, max_draft: int, num_rows: int = 1, prompt: int = 1, in_use: int | None = None) -> Costs:
        """Cost of k drafted tokens per row; see `CostCurve.costs`."""
        in_use = in_use or num_rows
        seconds = rising(self._profile.seconds(num_rows, np.arange(prompt, prompt + max_draft + 1.0)))
        curve: Costs = 1.0 + (seconds - seconds[0]) / (self._profile.seconds(in_use, 1) * num_rows / in_use)
        return curve

    def step_costs(self, max_drafted: int, num_rows: int) -> Costs:
        """Cost of m drafted tokens in all rows together; see `LearnedCosts.step_costs`."""
        found = rising(self._profile.seconds(num_rows, 1.0 + np.arange(max_drafted + 1.0) / num_rows))
        found /= found[0]
        return found

    def plain_steps(self, seconds: float, num_rows: int) -> float:
        """Seconds as a number of plain steps at a batch size."""
        return float(seconds / self._profile.seconds(num_rows, 1))

    def observe(self, tokens: int, seconds: float) -> None:
        """Take a real step: ignored."""


def shipped_profiles() -> dict[str, Path]:
    """Return the files of the profiles in this package, by name."""
    folder = Path(str(files("tasc.evaluation"))) / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def load_profile(name: str | Path) -> CostProfile:
    """Read a profile.

    Args:
        name: A name of `shipped_profiles`, or a file that `CostProfile.save` wrote.

    Raises:
        InputError: There is no such profile, or the file is none; one line.
    """
    shipped = shipped_profiles()
    path = shipped.get(str(name), Path(name))
    if not path.exists():
        raise InputError(f"there is no cost profile {str(name)!r}: give a file, or one of {', '.join(shipped)}")
    found = read_json(path)
    if not isinstance(found, dict) or found.get("kind") != _KIND:
        raise InputError(f"{path} is no cost profile; write one with tasc check --save-profile")
    if found.get("version") != _VERSION:
        raise InputError(f"{path} has version {found.get('version')!r}; this tasc reads {_VERSION}: write it again")
    values = {name: value for name, value in found.items() if name not in ("kind", "version")}
    try:
        return CostProfile(**values)
    except TypeError as error:  # a name too many or too few
        raise InputError(f"{path} is no whole cost profile: {str(error).split('__init__() ')[-1]}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def chosen_profiles(devices: Sequence[str], engine: str | None = None) -> list[CostProfile]:
    """Read the profiles of devices.

    Args:
        devices: Names or files as for `load_profile`; with an engine also the part before `-ENGINE`, such as `epyc`.
        engine: "tasc", "vllm" or "llama-cpp": all profiles must be of it. Without devices, all shipped ones of it are
            read; for tasc none, because its costs are measured. None: any.

    Raises:
        InputError: There is no such engine or profile, or a profile is of another engine; one line.

    Examples:
        >>> [profile.engine for profile in chosen_profiles(["epyc"], "llama-cpp")]
        ['llama.cpp']
    """
    if engine is None:
        return [load_profile(name) for name in devices]
    name = engine.replace("-", ".")
    if name not in ENGINES:
        raise InputError(f"engine {engine!r} is none of {', '.join(one.replace('.', '-') for one in ENGINES)}")
    shipped = shipped_profiles()
    ours = [one for one in shipped if one.endswith(f"-{engine}")]
    if not devices and engine != "tasc":
        devices = ours
    found = [load_profile(f"{one}-{engine}" if f"{one}-{engine}" in shipped else one) for one in devices]
    for device, profile in zip(devices, found, strict=True):
        if profile.engine != name:
            raise InputError(
                f"the cost profile {device!r} is of {profile.engine}, not {engine}: give {' or '.join(ours)} or a file"
            )
    return found


def measure_profile(
    model: Any,
    tokenizer: Any,
    prompt: Sequence[int],
    output: Sequence[int] = (),
    *,
    name: str,
    batches: Iterable[int] = _BATCHES,
    budget: float = 20.0,
    clock: Clock = time.perf_counter,
) -> CostProfile:
    """Measure the seconds of steps in tasc's loop, by decoding with drafts of known lengths.

    Args:
        model: A `PreTrainedModel` in evaluation mode.
        tokenizer: Its Hugging Face tokenizer.
        prompt: (L,) ids of a usual prompt, such as that of `tasc.evaluation.forecast.usual_request`.
        output: (T,) ids of its output. A step takes longer behind more tokens, and it is padded to its longest row: n
            rows are measured behind n / (n + 1) of the output, where the longest of n rows is on average.
        name: Name of the model.
        batches: Rows of the steps.
        budget: Seconds to spend, about, shared equally; each step is measured at least once.
        clock: Returns seconds. Where other work disturbs the machine, `time.process_time` with one thread measures the
            work that a step takes.

    Raises:
        PromptError: The prompt cannot be used.
    """
    from tasc.evaluation.machine import device_name

    batches = list(batches)
    steps: list[tuple[int, int, float]] = []
    for done, rows in enumerate(batches):
        begin = clock()
        context = [*prompt, *output[: len(output) * rows // (rows + 1)]]
        steps += _measured_steps(model, tokenizer, context, rows, budget / (len(batches) - done), clock)
        budget = max(0.0, budget - (clock() - begin))
    return CostProfile(
        engine="tasc", device=device_name(model.device), model=name, dtype=str(model.dtype).removeprefix("torch."),
        parameters=num_parameters(model), measured=date.today().isoformat(), steps=steps,
        is_gpu=model.device.type != "cpu",
    )  # fmt: skip


def num_parameters(model: Any) -> int:
    """Return the number of parameters of a model, each tied one once."""
    return sum(weight.numel() for weight in model.parameters())


def _measured_steps(
    model: Any, tokenizer: Any, prompt: Sequence[int], rows: int, budget: float, clock: Clock
) -> list[tuple[int, int, float]]:
    """Measure the steps of one batch size, in rounds over all lengths. Plain steps come between the others: every
    prediction needs them, and they are short.

    The rows have different lengths, as requests in a batch have. Rows of one length need no attention mask in a plain
    step, which is then about 5 % faster.
    """
    from tasc.decoding.generator import Generator

    lengths = [n for n in _LENGTHS if n == 1 or n * rows <= _MOST_TOKENS]
    drafter = TimedNoise(prompt, rows, lengths, budget, clock)
    generator = Generator(model, tokenizer, drafter=drafter, batch_size=rows, max_draft=MAX_DRAFT, costs=0.0)
    tokens = drafter.num_steps + MAX_DRAFT
    with contextlib.suppress(_Measured):
        prompts = [np.resize(prompt, len(prompt) + row).tolist() for row in range(rows)]
        generator.generate(prompts=prompts, max_tokens=tokens, eos=())
    return [(rows, n, seconds) for n, seconds in drafter.medians().items()]


class _Measured(SystemExit):
    """Ends the decoding of `TimedNoise`: of a drafter's exceptions, the loop lets exits alone pass."""


class TimedNoise(Drafter):
    """Drafts wrong tokens, so that each step has a known length, and takes the time from one draft to the next.

    Args:
        prompt: (L,) ids that the tokens are drawn from.
        rows: Rows of a step that counts.
        lengths: Tokens per row of the steps, the last emitted one included. A round has one step of each, and a plain
            step before each of the others.
        budget: Seconds after which no further round begins.
        clock: Returns seconds.
        rounds: Most rounds.

    Attributes:
        num_steps: Most steps until the rounds are over.
    """

    name = "noise"
    fixed_length = True

    def __init__(
        self,
        prompt: Sequence[int],
        rows: int,
        lengths: Sequence[int],
        budget: float,
        clock: Clock = time.perf_counter,
        *,
        rounds: int = _MOST_ROUNDS,
    ) -> None:
        self._clock, self._rounds = clock, rounds
        self._rng, self._ids = np.random.default_rng(0), np.asarray(prompt, np.uint32)
        self._rows, self._budget = rows, budget
        self._lengths = [length for n in lengths if n > 1 for length in (1, n)] or [1]
        self._seconds: dict[int, list[float]] = {n: [] for n in sorted(set(self._lengths))}
        self.num_steps = rounds * len(self._lengths) + 2
        self._length, self._next = 0, 0
        self._began = self._asked = 0.0

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Request:
        """Start a request."""
        return _NoiseRequest(self)

    def propose_batch(self, requests: Sequence[Any], max_tokens: int, costs: Costs | None = None) -> list[Draft]:
        """Draft the next length's tokens, where all rows take part."""
        now = self._clock()
        if self._length:
            self._seconds[self._length].append(now - self._asked)
        self._length = self._following(now) if len(requests) == self._rows else 0
        noise = [self._rng.choice(self._ids, max(0, self._length - 1)) for _ in requests]
        drafts: list[Draft] = [TokenDraft.of(ids) for ids in noise]
        self._asked = self._clock()
        return drafts

    def medians(self) -> dict[int, float]:
        """Return the seconds by length: the median of the rounds, the least of one or two."""
        taken = {n: seconds for n, seconds in self._seconds.items() if seconds}
        return {n: float(np.median(seconds) if len(seconds) > 2 else min(seconds)) for n, seconds in taken.items()}

    def _following(self, now: float) -> int:
        """Return the next length; the first step of all warms up and is none."""
        turn, at = divmod(self._next - 1, len(self._lengths))
        self._next += 1
        if turn < 0:
            self._began = now
            return 0
        spent = now - self._began
        if at == 0 and turn and (turn >= self._rounds or spent * (turn + 1) / turn > self._budget):
            raise _Measured
        return self._lengths[at]


class _NoiseRequest(Request):
    def __init__(self, drafter: TimedNoise) -> None:
        self._drafter = drafter

    def draft(self, max_tokens: int, costs: Costs | None = None) -> Draft:
        return self._drafter.propose_batch([self], max_tokens, costs)[0]

    def update(self, ids: Any) -> None:
        pass


def _is_number(value: Any) -> bool:
    """Return whether it is a finite number; a whole one may be larger than any float, which numpy does not take."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_step(step: Any) -> bool:
    if not isinstance(step, (list, tuple)) or len(step) != 3 or not all(map(_is_number, step)):
        return False
    rows, tokens, seconds = step
    return isinstance(rows, int) and isinstance(tokens, int) and rows >= 1 and tokens >= 1 and seconds > 0
