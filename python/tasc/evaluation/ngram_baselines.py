"""N-gram drafters as published: TASC-spec (arXiv 2602.24174) and N-Grammys (arXiv 2411.03786), for benchmarks.

They are measured beside tasc's own drafter by `benches/python/paper.py` and are no choice of any command.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tasc._core import Calibration
from tasc.data.ids import as_ids
from tasc.drafting.defaults import DEFAULT_SLOPE
from tasc.drafting.protocol import SOURCES, Costs, Draft, Drafter, Request, TokenDraft, TokenIds
from tasc.errors import InputError

_ID = 4  # bytes of a token id in a context
_RATE_DECAY = 1.0 - 1.0 / 64.0
_OTHER = SOURCES.index("other")


class NgramSuccessors:
    """Exact counts of a corpus's n-grams, n ≤ `n_max`, looked up by context: the n - 1 tokens before the last one.

    A context is given as the bytes of its ids, uint32 in native order.

    Example:
        >>> counts = NgramSuccessors([[7, 8, 9], [7, 8, 5], [7, 8, 9]], n_max=3)
        >>> match = counts.longest_match(np.array([4, 7, 8], np.uint32).tobytes(), 3)
        >>> counts.best(match), counts.prob(match, 5)
        ((9, 0.6666666666666666), 0.3333333333333333)
    """

    def __init__(self, documents: Iterable[TokenIds], n_max: int, p_min: int = 1) -> None:
        """Count.

        Args:
            documents: Token ids of each output, repeats included. No n-gram crosses from one to the next.
            n_max: Length of the longest n-grams.
            p_min: Least count; n-grams seen less often are pruned.

        Raises:
            InputError: `n_max` or `p_min` is below 1.

        Complexity:
            Time O(n_max · N log N), memory O(n_max · N) for N tokens.
        """
        if n_max < 1 or p_min < 1:
            raise InputError(f"n_max is {n_max} and p_min is {p_min}: both are at least 1")
        self.n_max = n_max
        self._groups: list[dict[bytes, int]] = []  # by context length: context -> its number
        self._starts: list[array[int]] = []  # by context length, then number: its successors are start .. next start
        self._tokens: list[array[int]] = []  # ascending within a context
        self._counts: list[array[int]] = []
        self._totals: list[array[int]] = []
        self._best: list[array[int]] = []  # place of the most frequent successor, ties to the least id
        arrays = [as_ids(document) for document in documents]
        ids = np.concatenate([*arrays, np.empty(0, np.uint32)])
        first = np.repeat(np.cumsum([0, *map(len, arrays)])[:-1], [len(one) for one in arrays])
        offset = np.arange(len(ids)) - first  # of each token in its document
        width = int(ids.max(initial=0)) + 1
        prefix = np.zeros(len(ids), np.int64)  # number of the n-gram that ends before each token
        for size in range(n_max):
            places = np.flatnonzero(offset >= size)
            keys, example, inverse, counts = np.unique(
                prefix[places] * width + ids[places], return_index=True, return_inverse=True, return_counts=True
            )
            kept = counts >= p_min
            self._add(size, ids, keys[kept] // width, ids[places[example[kept]]], counts[kept], places[example[kept]])
            following = np.full(len(ids) + 1, 0, np.int64)
            following[places + 1] = inverse
            prefix = following[:-1]

    def _add(
        self,
        size: int,
        ids: NDArray[np.uint32],
        contexts: NDArray[np.int64],
        tokens: NDArray[np.uint32],
        counts: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> None:
        """Add the n-grams of `size` + 1 tokens, ascending by context: its number, last token, count and one place."""
        starts = np.flatnonzero(np.diff(contexts, prepend=-1))
        owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(contexts)))
        order = np.lexsort((tokens, -counts, owner))
        self._groups.append({ids[p - size : p].tobytes(): n for n, p in enumerate(places[starts].tolist())})
        self._starts.append(array("Q", [*starts.tolist(), len(contexts)]))
        self._tokens.append(array("I", tokens.tolist()))
        self._counts.append(array("Q", counts.tolist()))
        self._totals.append(array("Q", np.add.reduceat(counts, starts).tolist() if len(starts) else []))
        self._best.append(array("Q", order[starts].tolist()))

    def longest_match(self, context: bytes, n_max: int) -> tuple[int, int] | None:
        """Find the longest end of `context` that the counts contain, of at most `n_max` - 1 tokens.

        Returns:
            A match for the other methods; the empty context matches whenever anything was counted, else None.
        """
        length = len(context)
        for size in range(min(n_max, self.n_max, length // _ID + 1) - 1, -1, -1):
            number = self._groups[size].get(context[length - _ID * size :])
            if number is not None:
                return size, number
        return None

    def best(self, match: tuple[int, int]) -> tuple[int, float]:
        """Return the most frequent token after a context and its relative frequency; ties to the least id."""
        size, number = match
        place = self._best[size][number]
        return self._tokens[size][place], self._counts[size][place] / self._totals[size][number]

    def prob(self, match: tuple[int, int], token: int) -> float:
        """Return the relative frequency of `token` after a context."""
        size, number = match
        starts, tokens = self._starts[size], self._tokens[size]
        end = starts[number + 1]
        place = bisect_left(tokens, token, starts[number], end)
        if place == end or tokens[place] != token:
            return 0.0
        return self._counts[size][place] / self._totals[size][number]

    def top_successors(self, k: int) -> dict[int, list[int]]:
        """Return the k most frequent successors of each token, the most frequent first; ties to the least id."""
        starts, tokens, counts = self._starts[1], self._tokens[1], self._counts[1]
        ranked = {}
        for context, number in self._groups[1].items():
            places = range(starts[number], starts[number + 1])
            best = sorted(places, key=lambda place: (-counts[place], tokens[place]))[:k]
            ranked[int(np.frombuffer(context, np.uint32)[0])] = [tokens[place] for place in best]
        return ranked


class ContextSuccessors:
    """Counts of the n-grams of one growing context, n ≤ `n_max`.

    Args:
        n_max: Length of the longest n-grams.
    """

    def __init__(self, n_max: int) -> None:
        self.ids = bytearray()
        self._after: dict[bytes, dict[int, int]] = {}
        self._n_max = n_max

    def extend(self, ids: TokenIds) -> None:
        """Append tokens."""
        for token in map(int, ids):
            recent = self.end(min(self._n_max - 1, len(self.ids) // _ID))
            for start in range(0, len(recent) + 1, _ID):
                successors = self._after.setdefault(recent[start:], {})
                successors[token] = successors.get(token, 0) + 1
            self.ids += token.to_bytes(_ID, sys.byteorder)

    def end(self, size: int) -> bytes:
        """Return the bytes of the last `size` tokens."""
        return bytes(self.ids[len(self.ids) - _ID * size :])

    def longest_match(self, context: bytes) -> dict[int, int]:
        """Return the counts of the tokens after the longest end of `context` that occurs; empty without any token."""
        length = len(context)
        for size in range(min(self._n_max, length // _ID + 1) - 1, -1, -1):
            successors = self._after.get(context[length - _ID * size :])
            if successors is not None:
                return successors
        return {}


def mixed_argmax(
    corpus: NgramSuccessors, match: tuple[int, int] | None, context: Mapping[int, int], share: float
) -> tuple[int, float] | None:
    """Return the most probable token under λ·p_corpus + (1 - λ)·p_prompt and its probability; ties to the least id.

    Only tokens of the context and the corpus's most frequent one can win, so no other token is looked at.

    Args:
        corpus: Counts of the corpus.
        match: Match in the corpus; None: p_corpus is 0.
        context: Counts of the tokens after the match in the running context; empty: p_prompt is 0.
        share: λ, the corpus's share.
    """
    total = sum(context.values())
    best, score, most = -1, 0.0, 0.0
    if match is not None:
        best, prob = corpus.best(match)
        most = share * prob
        score = most + (1.0 - share) * (context[best] / total) if best in context else most
    for token, count in context.items():
        own = (1.0 - share) * (count / total)
        if most + own < score:
            continue
        mixed = own if match is None else share * corpus.prob(match, token) + own
        if mixed > score or (mixed == score and token < best):
            best, score = token, mixed
    return (best, score) if score > 0.0 else None


class TascPaperDrafter(Drafter):
    """TASC-spec as published: p = λ·p_corpus + (1 - λ)·p_prompt, the longest match of each, one beam, γ tokens.

    p_corpus and p_prompt are the relative frequencies after the longest match of the running context among the n-grams
    of the task's outputs and of the running context itself (prompt and generated tokens). Without a match they are the
    frequencies of single tokens. Drafts end with the end token.

    With `gamma` None the length of a draft follows tasc's rule instead (docs/draft.md): probabilities are calibrated
    online, and the length maximises Σ_{k≤i} Π_{j≤k} p_j - ρ·(C(i) - C(0)).
    """

    def __init__(
        self, counts: NgramSuccessors, eos: int, *, n_max: int, gamma: int | None, share: float = 0.75
    ) -> None:
        """Take the counts of the task's outputs.

        Args:
            counts: N-grams of the task's outputs, with their end tokens.
            eos: Id of the end token.
            n_max: Length of the longest n-grams that are used, at most that of `counts`.
            gamma: γ, the number of drafted tokens; None: tasc's length rule.
            share: λ, the corpus's share.

        Raises:
            InputError: A value is out of range.
        """
        if not 1 <= n_max <= counts.n_max or not 0.0 <= share <= 1.0 or (gamma is not None and gamma < 1):
            raise InputError(
                f"n_max is {n_max}, λ {share} and γ {gamma}: n_max is 1 to {counts.n_max}, λ 0 to 1, γ at least 1"
            )
        self.name = "tasc-paper" if gamma is not None else "tasc-paper-length"
        self.fixed_length = gamma is not None
        self.counts, self.eos, self.n_max, self.gamma, self.share = counts, eos, n_max, gamma, share
        self.calibration = Calibration()
        self._emitted, self._cost = 8.0, 4.0  # of recent steps, as in the core

    @property
    def rate(self) -> float:
        """ρ: recent tokens per unit of cost, at least 1."""
        return max(1.0, self._emitted / self._cost)

    def record_step(self, tokens: int, cost: float) -> None:
        """Record the emitted tokens and the cost of a step."""
        self._emitted = self._emitted * _RATE_DECAY + tokens
        self._cost = self._cost * _RATE_DECAY + cost

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> TascPaperRequest:
        """Start a request with the prompt `prompt_ids` (L,)."""
        return TascPaperRequest(self, prompt_ids)


class TascPaperRequest(Request):
    """Request of `TascPaperDrafter`."""

    def __init__(self, drafter: TascPaperDrafter, prompt_ids: TokenIds) -> None:
        """Begin after `prompt_ids`, (L,) token ids."""
        self._drafter = drafter
        self._context = ContextSuccessors(drafter.n_max)
        self._context.extend(prompt_ids)
        self._last: list[tuple[int, float]] = []  # of the last draft, with those that the length rule cut
        self._step_cost = 1.0

    def draft(self, max_tokens: int, costs: Costs | None = None) -> Draft:
        """Draft γ tokens, or as many as pay by `costs`; at most `max_tokens`."""
        drafter = self._drafter
        curve: Costs = 1.0 + DEFAULT_SLOPE * np.arange(max_tokens + 1.0) if costs is None else costs
        if drafter.gamma is not None:
            found = list(islice(self.chain(), min(drafter.gamma, max_tokens)))
            length = len(found)
        else:
            found, length = self._as_long_as_it_pays(max_tokens, curve)
        self._last, self._step_cost = found, float(curve[length])
        tokens = np.array([token for token, _ in found[:length]], np.uint32)
        probs = np.array([prob for _, prob in found[:length]], np.float32)
        return TokenDraft(tokens, probs, np.full(length, _OTHER, np.uint8))

    def chain(self) -> Iterator[tuple[int, float]]:
        """Yield the next tokens and their probabilities, one after the other; the end token is the last."""
        drafter = self._drafter
        context = self._context.end(min(drafter.n_max - 1, len(self._context.ids) // _ID))
        while True:
            match = drafter.counts.longest_match(context, drafter.n_max)
            found = mixed_argmax(drafter.counts, match, self._context.longest_match(context), drafter.share)
            if found is None:
                return
            yield found
            if found[0] == drafter.eos:
                return
            context += found[0].to_bytes(_ID, sys.byteorder)
            context = context[max(0, len(context) - _ID * (drafter.n_max - 1)) :]

    def _as_long_as_it_pays(self, most: int, costs: Costs) -> tuple[list[tuple[int, float]], int]:
        """Return tokens and probabilities of a chain, and the length at which it is cut.

        Args:
            most: Most tokens.
            costs: (≥ `most` + 1,) cost of verifying k drafted tokens.
        """
        drafter, found, survivals = self._drafter, [], [1.0]
        threshold = drafter.rate * float(np.diff(costs[: most + 1]).min(initial=np.inf))
        for token, prob in islice(self.chain(), most):
            survival = survivals[-1] * drafter.calibration(prob)
            if survival <= threshold:  # no longer draft pays either
                break
            found.append((token, prob))
            survivals.append(survival)
        net = np.cumsum(survivals) - drafter.rate * (costs[: len(survivals)] - costs[0])
        return found, int(net.argmax())

    def update(self, ids: TokenIds) -> None:
        """Append tokens that the target has emitted; the length rule learns from them."""
        if self._drafter.gamma is None:
            for (token, prob), emitted in zip(self._last, map(int, ids), strict=False):
                self._drafter.calibration.learn(prob, token == emitted)
                if token != emitted:
                    break
            self._drafter.record_step(len(ids), self._step_cost)
        self._context.extend(ids)
        self._last, self._step_cost = [], 1.0


class NGrammysDrafter(Drafter):
    """N-Grammys: k chains of w tokens, from the context's n-grams and from bigrams.

    A bigram chain starts with the j-th most probable successor of the last token and goes on with the most probable
    successor of each token. With `query`, chains from the context come first: what followed earlier occurrences of the
    last `query` tokens, the most frequent first, the later one where they are equally frequent. Bigram chains fill up.

    The method verifies its chains as a batch. `draft` makes the first chain alone, as a decoder of one chain needs it.
    """

    def __init__(self, successors: Mapping[int, Sequence[int]], eos: int, *, query: int = 0) -> None:
        """Take the bigrams.

        Args:
            successors: Most probable successors of each token, the best first: of the model, or of the task's outputs.
            eos: Id of the end token. Chains end with it.
            query: Number of last tokens looked up in the context; 0: bigram chains only.

        Raises:
            InputError: `query` is negative.
        """
        if query < 0:
            raise InputError(f"query is {query}: it is a number of tokens, 0 or more")
        self.name = "ngrammys-mixed" if query else "ngrammys-bigram"
        self.successors, self.eos, self.query = successors, eos, query

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> NGrammysRequest:
        """Start a request with the prompt `prompt_ids` (L,)."""
        return NGrammysRequest(self, prompt_ids)


class NGrammysRequest(Request):
    """Request of `NGrammysDrafter`."""

    def __init__(self, drafter: NGrammysDrafter, prompt_ids: TokenIds) -> None:
        """Begin after `prompt_ids`, (L,) token ids."""
        self._drafter = drafter
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], list[int]] = {}  # n-gram -> positions after its occurrences
        self.update(prompt_ids)

    def chains(self, k: int, w: int) -> list[list[int]]:
        """Return up to `k` different chains of up to `w` tokens each."""
        ids, query = self._ids, self._drafter.query
        made: dict[tuple[int, ...], None] = {}
        if query and len(ids) >= query:
            places = self._after[tuple(ids[-query:])][:-1]
            windows = Counter(self._ended(ids[place : place + w]) for place in reversed(places))
            made = dict.fromkeys(window for window, _ in windows.most_common(k))
        for first in self._drafter.successors.get(ids[-1], ()) if ids else ():
            if len(made) >= k:
                break
            made.setdefault(self._bigram_chain(first, w))
        return [list(chain) for chain in made]

    def draft(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> Draft:
        """Draft the first chain of up to `max_tokens` tokens; `costs` is not used."""
        made = self.chains(1, max_tokens) if max_tokens else []
        return TokenDraft.of(made[0]) if made else TokenDraft()

    def update(self, ids: TokenIds) -> None:
        """Append tokens that the target has emitted."""
        for token in map(int, ids):
            self._ids.append(token)
            if 0 < self._drafter.query <= len(self._ids):
                self._after.setdefault(tuple(self._ids[-self._drafter.query :]), []).append(len(self._ids))

    def _bigram_chain(self, first: int, w: int) -> tuple[int, ...]:
        chain = [first]
        while len(chain) < w and chain[-1] != self._drafter.eos:
            following = self._drafter.successors.get(chain[-1], ())
            if not following:
                break
            chain.append(following[0])
        return tuple(chain)

    def _ended(self, chain: list[int]) -> tuple[int, ...]:
        """Return the chain up to its end token."""
        eos = self._drafter.eos
        return tuple(chain[: chain.index(eos) + 1] if eos in chain else chain)
