"""From the target's logits to its next token: greedy, or sampled with transformers' own processors and warpers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tasc.decoding.verify import accept_or_replace, quantile, quantiles
from tasc.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_MOST_SCORES = 2**25  # shaped at a time: 256 MiB as float64


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the target's distribution is shaped, in the order that transformers applies it.

    Attributes:
        temperature: 0 is greedy decoding; above it, logits are divided by it and a token is drawn.
        top_k: Keep the k likeliest tokens.
        top_p: Keep the likeliest tokens that together hold this mass.
        min_p: Keep tokens at least this likely relative to the likeliest.
        repetition_penalty: Divides (positive) or multiplies (negative) the logits of tokens that the prompt or the
            output already holds; 1 is off. It acts on greedy decoding too.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: An option is out of its range.
        """
        _check("temperature", self.temperature, self.temperature >= 0, "≥ 0; 0 is greedy decoding")
        _check("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "> 0; 1 is off")
        _check("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "≥ 1, or None for off")
        _check("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "in (0, 1], or None for off")
        _check("min_p", self.min_p, self.min_p is None or 0 <= self.min_p <= 1, "in [0, 1], or None for off")

    @property
    def is_argmax(self) -> bool:
        """Whether the next token is the argmax of the raw logits."""
        return self.temperature == 0 and self.repetition_penalty == 1.0

    def processors(self, device: torch.device) -> list[Callable[[Tensor, Tensor], Tensor]]:
        """transformers' processors for these options: each takes (1, L) ids and (1, V) scores, returns (1, V)."""
        from transformers.generation import logits_process as steps

        chain: list[Any] = []
        if self.repetition_penalty != 1.0:
            chain.append(steps.RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
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


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise InputError(f"{name} is {value}; it must be {allowed}")


class Sampler:
    """Chooses one request's next tokens.

    Token t of request i uses the t-th number of the Philox stream keyed by (seed, i): every emitted token takes
    exactly one, so the stream follows output positions whatever was drafted.

    Args:
        sampling: Options.
        prompt: (L,) prompt ids, the beginning of the history that penalties see.
        max_tokens: Most output tokens.
        seed: Of the call.
        request: Index of the request in its call.
        device: Where logits live.

    Attributes:
        sampling: Options.
        waits: Whether one choice more is one wait more for the device, so that all are better made at once.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int], max_tokens: int, seed: int, request: int, device: torch.device
    ) -> None:
        self.sampling = sampling
        self.waits = device.type == "cuda"
        self._processors = sampling.processors(device)
        self._bits = np.random.Philox(key=np.array([seed % 2**64, request], dtype=np.uint64))
        self._uniform = Uniforms(self._bits)
        size = len(prompt) + max_tokens + 1 if sampling.repetition_penalty != 1.0 else 0  # nothing else looks at it
        self._history = torch.zeros((1, size), dtype=torch.long, device=device)
        self.append(0, prompt)

    def proposer(self) -> Proposer:
        """What draws a draft model's proposals for this request, from a stream of numbers of its own."""
        return Proposer(self.sampling, self._bits.jumped())

    def choices(
        self, logits: Tensor, length: int, draft: Sequence[int], dists: Sequence[Tensor | None] = ()
    ) -> Callable[[int], int]:
        """Choices for one verification, made one by one as `verify` asks for them.

        Args:
            logits: (K + 1, V) target logits after the history and after each drafted token.
            length: Tokens of prompt and output so far.
            draft: (K,) drafted ids.
            dists: Those of `TokenDraft`.
        """
        self.append(length, draft)

        def choose(position: int) -> int:
            scores = logits[position : position + 1].float()
            for process in self._processors:
                scores = process(self._history[:, : length + position], scores)
            if self.sampling.temperature == 0:
                return int(scores.argmax())
            p = torch.softmax(scores[0].double(), dim=-1)
            q = dists[position] if position < len(dists) else None
            if q is None:
                return quantile(p, self._uniform())
            return accept_or_replace(draft[position], p, q.to(p.device), self._uniform())

        return choose

    def ahead(self, count: int) -> list[float]:
        """The uniform numbers of the next `count` choices."""
        return self._uniform.ahead(count)

    def chosen(self, logits: Tensor, histories: Tensor, uniforms: Tensor) -> Tensor:
        """(R,) token ids by (R, V) logits, the (R, L) ids before each and (R,) uniform numbers."""
        scores = logits.float()
        for process in self._processors:
            scores = process(histories, scores)
        if self.sampling.temperature == 0:
            return scores.argmax(-1)
        return quantiles(torch.softmax(scores.double(), dim=-1), uniforms)

    def taking(self, made: Sequence[int]) -> Callable[[int], int]:
        """Choices that `sample_batch` has made, to be asked for as those of `choices`."""

        def take(position: int) -> int:
            self._uniform()
            return made[position]

        return take

    def append(self, length: int, ids: Sequence[int]) -> None:
        """Write tokens to the history, `length` tokens of which stand already."""
        if self._history.shape[1]:
            self._history[0, length : length + len(ids)] = torch.tensor(ids, dtype=torch.long)

    def histories(self, length: int, draft: Sequence[int], width: int) -> Tensor:
        """What stands before each choice: (K + 1, width) ids, filled up with the first one, which counts no more for
        that; (K + 1, 0) where nothing looks at them.
        """
        self.append(length, draft)
        count = len(draft) + 1
        places = torch.arange(width if self._history.shape[1] else 0, device=self._history.device)
        stand = length + torch.arange(count, device=places.device)
        return self._history[0, torch.where(places < stand[:, None], places, 0)]


def sample_batch(
    choosers: Sequence[Sampler], logits: Tensor, lengths: Sequence[int], drafts: Sequence[Sequence[int]]
) -> list[list[int]]:
    """All choices of requests that are sampled alike, whether `verify` will ask for them or not, with one wait.

    Args:
        choosers: (n,) of the requests.
        logits: (n, W, V), the last K_b + 1 of request b after its history and after each drafted token.
        lengths: (n,) tokens of prompt and output so far.
        drafts: (n,) of K_b drafted ids.

    Returns:
        (n,) of K_b + 1 token ids.
    """
    counts = [len(draft) + 1 for draft in drafts]
    rows = torch.cat([each[-count:] for each, count in zip(logits, counts, strict=True)])  # (R, V)
    width = max(length + count - 1 for length, count in zip(lengths, counts, strict=True))
    given = zip(choosers, lengths, drafts, strict=True)
    histories = torch.cat([chooser.histories(length, draft, width) for chooser, length, draft in given])
    ahead = [number for chooser, count in zip(choosers, counts, strict=True) for number in chooser.ahead(count)]
    uniforms = torch.tensor(ahead, dtype=torch.float64, device=rows.device)
    some = max(1, _MOST_SCORES // rows.shape[1])
    parts = [slice(begin, begin + some) for begin in range(0, len(rows), some)]
    tokens = [choosers[0].chosen(rows[part], histories[part], uniforms[part]) for part in parts]
    made: list[int] = torch.cat(tokens).tolist()
    ends = np.cumsum(counts)
    return [made[end - count : end] for end, count in zip(ends, counts, strict=True)]


class Uniforms:
    """A stream of uniform numbers in [0, 1), which can be looked at ahead."""

    def __init__(self, bits: np.random.BitGenerator) -> None:
        self._draw: Callable[[], float] = np.random.Generator(bits).random
        self._seen: deque[float] = deque()

    def __call__(self) -> float:
        """The next number."""
        return self._seen.popleft() if self._seen else self._draw()

    def ahead(self, count: int) -> list[float]:
        """The next `count` numbers, which stay the next."""
        while len(self._seen) < count:
            self._seen.append(self._draw())
        return list(islice(self._seen, count))


class Proposer:
    """Draws one request's proposals from a draft model's distribution, shaped as the target's is.

    Args:
        sampling: Options of the target.
        bits: Stream of random numbers that nothing else draws from.
    """

    def __init__(self, sampling: Sampling, bits: np.random.BitGenerator) -> None:
        self._sampling = sampling
        self._processors = sampling.processors(torch.device("cpu"))
        self._uniform: Callable[[], float] = np.random.Generator(bits).random

    @property
    def draws(self) -> bool:
        """Whether proposals are drawn; they are the likeliest tokens otherwise."""
        return self._sampling.temperature > 0

    def shaped(self, logits: Tensor, history: Sequence[int]) -> Tensor:
        """(V,) float64 probabilities from the (V,) logits after the token ids `history`."""
        scores = logits[None].float()
        penalised = history if self._sampling.repetition_penalty != 1.0 else ()  # nothing else looks at it
        ids = torch.tensor([penalised], dtype=torch.long, device=logits.device)
        for process in self._processors:
            scores = process(ids, scores)
        return torch.softmax(scores[0].double(), dim=-1)

    def propose(self, probs: Tensor) -> int:
        """A token from (V,) probabilities."""
        return quantile(probs, self._uniform()) if self.draws else int(probs.argmax())
