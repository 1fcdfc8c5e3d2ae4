"""Baselines: other training-free drafters as `Drafter`s, measured in the same loop as tasc.

`PromptLookupDrafter` is the n-gram lookup of transformers (`prompt_lookup_num_tokens`), `SuffixDecodingDrafter` is
SuffixDecoding as published in `arctic-inference` (arXiv 2411.04975), called as serving engines call it.
"""

import importlib
import importlib.util
import itertools
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.protocol import SOURCES, Draft, Drafter, Request, TokenDraft, TokenIds
from tasc.errors import InputError, TascError


class BaselineMissingError(TascError, ImportError):
    """A baseline is not installed."""


class PromptLookupDrafter(Drafter):
    """Drafter that copies the tokens after an earlier occurrence of the last n-gram, longest n-gram first.

    Like transformers, the leftmost earlier occurrence is copied. Unlike there the search is incremental, so that a
    long prompt does not cost a scan per step.
    """

    def __init__(self, max_ngram: int = 3) -> None:
        """Look up n-grams of at most `max_ngram` tokens."""
        if max_ngram < 1:
            raise InputError(f"max_ngram is {max_ngram}: a lookup needs n-grams of at least 1 token")
        self.name = "prompt-lookup"
        self._max_ngram = max_ngram

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> "PromptLookupRequest":
        """Start a request with the prompt `prompt_ids` (L,)."""
        return PromptLookupRequest(prompt_ids, self._max_ngram)


class PromptLookupRequest(Request):
    """Request of `PromptLookupDrafter`."""

    def __init__(self, prompt_ids: TokenIds, max_ngram: int) -> None:
        """Begin after `prompt_ids`, (L,) token ids."""
        self._ids: list[int] = []
        self._first: dict[tuple[int, ...], int] = {}  # n-gram -> the position after its first occurrence
        self._max_ngram = max_ngram
        self.update(prompt_ids)

    def draft(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> Draft:
        """Draft up to `max_tokens` tokens; `costs` is not used."""
        for n in range(min(self._max_ngram, len(self._ids)), 0, -1):
            at = self._first.get(tuple(self._ids[-n:]))
            if at is not None and at < len(self._ids):
                return TokenDraft.of(self._ids[at : at + max_tokens], "context")
        return TokenDraft()

    def update(self, ids: TokenIds) -> None:
        """Append tokens that the target has emitted."""
        for token in ids:
            self._ids.append(int(token))
            for n in range(1, min(self._max_ngram, len(self._ids)) + 1):
                self._first.setdefault(tuple(self._ids[-n:]), len(self._ids))


def suffix_decoding_installed() -> bool:
    """Return whether the package of `SuffixDecodingDrafter` is installed."""
    try:
        return importlib.util.find_spec("arctic_inference.suffix_decoding") is not None
    except ModuleNotFoundError:
        return False


def check_suffix_decoding() -> None:
    """Raise BaselineMissingError unless the package of `SuffixDecodingDrafter` is installed."""
    if not suffix_decoding_installed():
        raise BaselineMissingError(
            "SuffixDecoding needs the package arctic-inference, beside torch: "
            "pip install nanobind ninja cmake 'setuptools<82' wheel && "
            "pip install --no-build-isolation --no-deps arctic-inference"
        )


def suffix_depth(max_tokens: int) -> int:
    """Return the tree depth of SuffixDecoding for drafts of `max_tokens`; a draft cannot be longer than the tree."""
    return 24 if max_tokens <= 16 else max_tokens + 32


class SuffixDecodingDrafter(Drafter):
    """Drafter of SuffixDecoding, with a global cache of the task's outputs.

    A request's own output joins the global cache while it runs and is evicted when the request is dropped, so that
    held-out outputs do not help later ones. Eviction in 0.3.0 is not complete: replaying the same rows a second time
    on one cache comes out up to 2 % better. Compare factors on a cache each.
    """

    def __init__(
        self, outputs: Iterable[TokenIds], *, factor: float = 1.0, depth: int = 24, min_token_prob: float = 0.1
    ) -> None:
        """Fill the global cache.

        Args:
            outputs: Token ids of the task's outputs, with their EOS, repeats included.
            factor: `max_spec_factor`: a draft is at most this many times as long as the matched context.
            depth: Depth of the suffix trees.
            min_token_prob: Least estimated probability of a drafted chain.

        Raises:
            BaselineMissingError: If `arctic-inference` is not installed.
        """
        check_suffix_decoding()
        suffix_decoding = importlib.import_module("arctic_inference.suffix_decoding")
        self.name = f"suffix-{factor:g}"
        self.cache: Any = suffix_decoding.SuffixDecodingCache(depth, -1)
        self.depth = depth
        self.factor = factor
        self.min_token_prob = min_token_prob
        self._ids = itertools.count()
        for output in outputs:
            request_id = next(self._ids)
            self.cache.start_request(request_id, _int32([]))
            self.cache.add_active_response(request_id, _int32(output))
            self.cache.stop_request(request_id)

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> "SuffixDecodingRequest":
        """Start a request with the prompt `prompt_ids` (L,)."""
        return SuffixDecodingRequest(self, next(self._ids), prompt_ids)


class SuffixDecodingRequest(Request):
    """Request of `SuffixDecodingDrafter`."""

    def __init__(self, drafter: SuffixDecodingDrafter, request_id: int, prompt_ids: TokenIds) -> None:
        """Begin after `prompt_ids`, (L,) token ids, under an id that is new to the cache."""
        self._drafter = drafter
        self._id = request_id
        self._tail = _int32(prompt_ids)[-drafter.depth :]
        drafter.cache.start_request(request_id, _int32(prompt_ids))
        weakref.finalize(self, _forget, drafter.cache, request_id).atexit = False

    def draft(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> Draft:
        """Draft up to `max_tokens` tokens; `costs` is not used."""
        if max_tokens == 0:
            return TokenDraft()
        found = self.speculate(max_tokens)
        reached: NDArray[np.float32] = np.asarray(found.probs, np.float32)  # of the chain up to each token
        probs = reached.copy()
        probs[1:] /= reached[:-1]
        sources = np.full(len(probs), SOURCES.index("other"), np.uint8)
        return TokenDraft(np.asarray(found.token_ids, np.uint32), probs, sources)

    def speculate(self, max_tokens: int) -> Any:
        """Call the peer for at least one token and return its own result: the call to time."""
        drafter = self._drafter
        return drafter.cache.speculate(
            self._id,
            self._tail,
            max_spec_tokens=max_tokens,
            max_spec_factor=drafter.factor,
            min_token_prob=drafter.min_token_prob,
        )

    def update(self, ids: TokenIds) -> None:
        """Appends tokens that the model has emitted, to the request and to the global cache."""
        new = _int32(ids)
        self._tail = np.concatenate([self._tail, new])[-self._drafter.depth :]
        self._drafter.cache.add_active_response(self._id, new)


def _forget(cache: Any, request_id: int) -> None:
    cache.stop_request(request_id)
    cache.evict_cached_response(request_id)


def _int32(ids: TokenIds) -> NDArray[np.int32]:
    return np.ascontiguousarray(ids, dtype=np.int32)
