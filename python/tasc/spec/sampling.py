"""From the target's logits to its next token: greedy, or sampled with transformers' own processors and warpers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tasc.errors import InputError
from tasc.spec.verify import accept_or_replace, quantile, quantiles

if TYPE_CHECKING:
    from torch import Tensor


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


class Chooser:
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
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int], max_tokens: int, seed: int, request: int, device: torch.device
    ) -> None:
        self.sampling = sampling
        self._makes_all = device.type == "cuda"
        self._processors = sampling.processors(device)
        self._bits = np.random.Philox(key=np.array([seed % 2**64, request], dtype=np.uint64))
        self._uniform = Uniforms(self._bits)
        self._history = torch.zeros((1, len(prompt) + max_tokens + 1), dtype=torch.long, device=device)
        self._history[0, : len(prompt)] = torch.tensor(prompt, dtype=torch.long, device=device)

    def proposer(self) -> Proposer:
        """What draws a draft model's proposals for this request, from a stream of numbers of its own."""
        return Proposer(self.sampling, self._bits.jumped())

    def choices(
        self, logits: Tensor, length: int, draft: Sequence[int], dists: Sequence[Tensor | None] = ()
    ) -> Callable[[int], int]:
        """Choices for one verification, to be asked for one by one as `verify` does.

        On a CPU each is made when it is asked for, on a GPU all at once: there it would take a wait to make one.

        Args:
            logits: (K + 1, V) target logits after the history and after each drafted token.
            length: Tokens of prompt and output so far.
            draft: (K,) drafted ids.
            dists: Those of `TokenDraft`.
        """
        self._history[0, length : length + len(draft)] = torch.tensor(draft, dtype=torch.long)
        if self._makes_all and all(q is None for q in dists):
            made = self.at_once(logits, length)

            def take(position: int) -> int:
                self._uniform()
                return made[position]

            return take

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

    def at_once(self, logits: Tensor, length: int) -> list[int]:
        """The choices after the history and after each drafted token, had they all been asked for.

        Args:
            logits: (K + 1, V) target logits; the draft stands in the history already.
            length: Tokens of prompt and output so far.
        """
        count = len(logits)
        places = torch.arange(length + count - 1, device=logits.device)
        known = places < length + torch.arange(count, device=logits.device)[:, None]
        histories = self._history[0, torch.where(known, places, 0)]  # (K + 1, L): the first token again counts no more
        scores = logits.float()
        for process in self._processors:
            scores = process(histories, scores)
        if self.sampling.temperature == 0:
            tokens = scores.argmax(-1)
        else:
            uniforms = torch.tensor(self._uniform.ahead(count), dtype=torch.float64, device=logits.device)
            tokens = quantiles(torch.softmax(scores.double(), dim=-1), uniforms)
        ids: list[int] = tokens.tolist()
        return ids

    def append(self, length: int, ids: Sequence[int]) -> None:
        """Write emitted tokens to the history, `length` tokens of which stand already."""
        self._history[0, length : length + len(ids)] = torch.tensor(ids, dtype=torch.long)


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
