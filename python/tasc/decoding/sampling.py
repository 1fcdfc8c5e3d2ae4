"""Choice of the target's next token from its logits: greedy or sampled, after transformers' own processors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.generation import logits_process as steps

from tasc.checks import number, whole_number
from tasc.decoding.verify import NO_TOKEN, accept_or_replace, argmax, quantile, quantiles
from tasc.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from tasc.decoding.processors import Processor

_WARPERS = (steps.TemperatureLogitsWarper, steps.TopKLogitsWarper, steps.TopPLogitsWarper, steps.MinPLogitsWarper)
_MIN_TEMPERATURE = 1e-30  # a smaller one carries logits / temperature out of float32
_MAX_SCORES = 2**25  # scores processed at once: 256 MiB as float64


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Sampling options, applied in transformers' order: penalty, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: 0 decodes greedily. From 1e-30 on, logits are divided by it and a token is sampled.
        top_k: Keep the k most probable tokens.
        top_p: Keep the smallest set of most probable tokens whose probabilities sum to at least top_p.
        min_p: Keep tokens whose probability is at least min_p times the highest one.
        repetition_penalty: Divides (positive) or multiplies (negative) the logits of tokens that the prompt or the
            output contains; 1 is off. It applies to greedy decoding too.

    Examples:
        >>> sampling = Sampling(temperature=0.7, top_p=0.9)
        >>> [type(step).__name__ for step in sampling.processors()]
        ['TemperatureLogitsWarper', 'TopPLogitsWarper']
        >>> Sampling(top_p=1.5)
        Traceback (most recent call last):
        ...
        tasc.errors.InputError: top_p is 1.5; it must be in (0, 1], or None for off
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: An option is no number or out of its range.
        """
        for name in ("temperature", "repetition_penalty", "top_p", "min_p"):
            if getattr(self, name) is not None or name in ("temperature", "repetition_penalty"):
                number(name, getattr(self, name))
        if self.top_k is not None:
            whole_number("top_k", self.top_k)
        is_scale = self.temperature == 0 or _MIN_TEMPERATURE <= self.temperature < math.inf
        _check("temperature", self.temperature, is_scale, f"0 for greedy decoding, or ≥ {_MIN_TEMPERATURE} and finite")
        penalises = 0 < self.repetition_penalty < math.inf
        _check("repetition_penalty", self.repetition_penalty, penalises, "> 0 and finite; 1 is off")
        _check("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "≥ 1, or None for off")
        _check("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "in (0, 1], or None for off")
        _check("min_p", self.min_p, self.min_p is None or 0 <= self.min_p <= 1, "in [0, 1], or None for off")

    def processors(self) -> list[Processor]:
        """Return transformers' processors for these options: each maps (n, L) ids and (n, V) scores to (n, V) scores.

        Those of the target come from its generation config too: see `tasc.decoding.processors.logits_processors`.
        """
        chain: list[Any] = []
        if self.repetition_penalty != 1.0:
            chain.append(steps.RepetitionPenaltyLogitsProcessor(float(self.repetition_penalty)))
        if self.temperature == 0:
            return chain
        if self.temperature != 1.0:
            chain.append(steps.TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k is not None:
            chain.append(steps.TopKLogitsWarper(self.top_k))
        if self.top_p is not None and self.top_p < 1.0:
            chain.append(steps.TopPLogitsWarper(self.top_p))
        if self.min_p is not None:
            chain.append(steps.MinPLogitsWarper(self.min_p))
        return chain


def before_warpers(processors: Sequence[Processor], own: Processor) -> list[Processor]:
    """Return processors with one more: after those that score tokens, before those that scale or cut the distribution.

    A mask there leaves top-k, top-p and min-p to choose among the tokens that it allows.
    """
    at = next((k for k, one in enumerate(processors) if isinstance(one, _WARPERS)), len(processors))
    return [*processors[:at], own, *processors[at:]]


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise InputError(f"{name} is {value}; it must be {allowed}")


class Sampler:
    """Samples the next tokens of one request from the target's logits.

    Output token t of request i uses number t of the Philox stream with key (seed, i). Every emitted token uses exactly
    one number, so that the numbers follow the output positions whatever was drafted.

    Args:
        sampling: Options.
        prompt: (L,) prompt ids, the start of the history that penalties read.
        max_tokens: Most output tokens.
        seed: Seed of the call.
        request: Index of the request in the call.
        device: Device of the logits.
        processors: Processors of the logits (`logits_processors`); None: those of the options.

    Attributes:
        sampling: Options.
        prefers_batch: Whether `sample_batch` is faster than `choose_lazily`: on a GPU, each lazy choice waits for the
            device. False if a processor reads more of the history than the set of its ids.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        max_tokens: int,
        seed: int,
        request: int,
        device: torch.device,
        processors: Sequence[Processor] | None = None,
    ) -> None:
        self.sampling = sampling
        self._processors = sampling.processors() if processors is None else processors
        readers = {type(process) for process in self._processors} - set(_WARPERS)
        self.prefers_batch = device.type == "cuda" and readers <= {steps.RepetitionPenaltyLogitsProcessor}
        self._bits = np.random.Philox(key=np.array([seed % 2**64, request % 2**64], dtype=np.uint64))
        self._uniform = UniformStream(self._bits)
        size = len(prompt) + max_tokens + 1 if readers else 0
        self._history = torch.zeros((1, size), dtype=torch.long, device=device)
        self.append(0, prompt)

    def draft_sampler(self) -> DraftSampler:
        """Return a sampler for a draft model's tokens of this request, with a random stream of its own."""
        return DraftSampler(self.sampling, self._bits.jumped())

    def choose_lazily(
        self, logits: Tensor, length: int, draft: Sequence[int], dists: Sequence[Tensor | None] = ()
    ) -> Callable[[int], int]:
        """Return the `choose` function of `verify`, which samples a token when it is asked for.

        So every processor is called once per output position, in order. The token is `NO_TOKEN` where the logits are
        NaN, or −inf everywhere.

        Args:
            logits: (K + 1, V) target logits after the history and after each drafted token.
            length: Number of prompt and output tokens.
            draft: (K,) drafted ids.
            dists: `TokenDraft.dists`: the distributions that the drafted tokens were drawn from.
        """
        self.append(length, draft)

        def choose(position: int) -> int:
            scores = logits[position : position + 1].float()
            for process in self._processors:
                scores = process(self._history[:, : length + position], scores)
            if self.sampling.temperature == 0:
                return int(argmax(scores))
            p = torch.softmax(scores[0].double(), dim=-1)
            if p[0].isnan():  # then all of p is
                return NO_TOKEN
            q = dists[position] if position < len(dists) else None
            if q is None:
                return quantile(p, self._uniform())
            return accept_or_replace(draft[position], p, q.to(p.device), self._uniform())

        return choose

    def choose_from(self, tokens: Sequence[int]) -> Callable[[int], int]:
        """Return the `choose` function of `verify` for (K + 1,) token ids that `sample_batch` has sampled."""

        def choose(position: int) -> int:
            self._uniform()
            return tokens[position]

        return choose

    def sample(self, logits: Tensor, histories: Tensor, uniforms: Tensor) -> Tensor:
        """Sample one token per row: (R,) ids from (R, V) logits, (R, L) preceding ids and (R,) uniform numbers.

        `NO_TOKEN` stands where the logits are NaN, or −inf everywhere.
        """
        scores = logits.float()
        for process in self._processors:
            scores = process(histories, scores)
        if self.sampling.temperature == 0:
            return argmax(scores)
        return quantiles(torch.softmax(scores.double(), dim=-1), uniforms)

    def append(self, length: int, ids: Sequence[int]) -> None:
        """Write tokens to the history behind its first `length` tokens."""
        if self._history.shape[1]:
            self._history[0, length : length + len(ids)] = torch.tensor(ids, dtype=torch.long)

    def histories(self, length: int, draft: Sequence[int], width: int) -> Tensor:
        """Return the tokens before each choice: (K + 1, width) ids; (K + 1, 0) where no processor reads them.

        Shorter histories are padded with their first token, which a penalty counts once however often it occurs.
        """
        self.append(length, draft)
        places = torch.arange(width if self._history.shape[1] else 0, device=self._history.device)
        lengths = length + torch.arange(len(draft) + 1, device=places.device)
        return self._history[0, torch.where(places < lengths[:, None], places, 0)]


def sample_batch(
    samplers: Sequence[Sampler], logits: Tensor, lengths: Sequence[int], drafts: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Sample all choices of several requests with equal options at once, with a single wait for the device.

    Args:
        samplers: (n,) samplers of the requests.
        logits: (n, W, V); the last K_b + 1 of request b are those after its history and after each drafted token.
        lengths: (n,) number of prompt and output tokens.
        drafts: (n,) lists of K_b drafted ids.

    Returns:
        (n,) lists of K_b + 1 token ids, whether `verify` will ask for them or not.
    """
    counts = [len(draft) + 1 for draft in drafts]
    rows = torch.cat([each[-count:] for each, count in zip(logits, counts, strict=True)])  # (R, V)
    width = max(length + count - 1 for length, count in zip(lengths, counts, strict=True))
    requests = zip(samplers, lengths, drafts, strict=True)
    histories = torch.cat([sampler.histories(length, draft, width) for sampler, length, draft in requests])
    numbers = [
        number for sampler, count in zip(samplers, counts, strict=True) for number in sampler._uniform.peek(count)
    ]
    uniforms = torch.tensor(numbers, dtype=torch.float64, device=rows.device)
    chunk = max(1, _MAX_SCORES // rows.shape[1])
    chunks = [slice(begin, begin + chunk) for begin in range(0, len(rows), chunk)]
    tokens = [samplers[0].sample(rows[part], histories[part], uniforms[part]) for part in chunks]
    sampled: list[int] = torch.cat(tokens).tolist()
    ends = np.cumsum(counts)
    return [sampled[end - count : end] for end, count in zip(ends, counts, strict=True)]


class UniformStream:
    """A stream of uniform numbers in [0, 1) that can be read ahead."""

    def __init__(self, bits: np.random.BitGenerator) -> None:
        self._draw: Callable[[], float] = np.random.Generator(bits).random
        self._peeked: deque[float] = deque()

    def __call__(self) -> float:
        """Return the next number."""
        return self._peeked.popleft() if self._peeked else self._draw()

    def peek(self, count: int) -> list[float]:
        """Return the next `count` numbers and keep them in the stream."""
        while len(self._peeked) < count:
            self._peeked.append(self._draw())
        return list(islice(self._peeked, count))


class DraftSampler:
    """Samples the draft tokens of one request from a draft model's logits, with the target's sampling options.

    Args:
        sampling: Options of the target.
        bits: Random stream that nothing else uses.
    """

    def __init__(self, sampling: Sampling, bits: np.random.BitGenerator) -> None:
        self._sampling = sampling
        self._processors = sampling.processors()
        self._uniform: Callable[[], float] = np.random.Generator(bits).random

    @property
    def is_random(self) -> bool:
        """Whether tokens are sampled; otherwise they are the most probable ones."""
        return self._sampling.temperature > 0

    def probabilities(self, logits: Tensor, history: Sequence[int]) -> Tensor:
        """Return (V,) float64 probabilities from (V,) logits and the token ids before them."""
        scores = logits[None].float()
        penalised = history if self._sampling.repetition_penalty != 1.0 else ()  # only the penalty reads it
        ids = torch.tensor([penalised], dtype=torch.long, device=logits.device)
        for process in self._processors:
            scores = process(ids, scores)
        return torch.softmax(scores[0].double(), dim=-1)

    def sample(self, probs: Tensor) -> int:
        """Return a token id from (V,) probabilities."""
        return quantile(probs, self._uniform()) if self.is_random else int(probs.argmax())
