"""What every drafter offers, so that the verify loop, the replay and the benchmarks take any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

TokenIds: TypeAlias = Sequence[int] | NDArray[Any]
"""Token ids: a list, or a one-dimensional array of any integer type."""

if TYPE_CHECKING:
    from torch import Tensor

    from tasc._core import TaskIndex
    from tasc.decoding.sampling import DraftSampler

INDEX_SOURCES: tuple[str, ...] = ("task", "context", "retrieved", "coverage", "copy")
"""Sources of an `NgramDrafter`; their codes are those of the core."""

SOURCES: tuple[str, ...] = (*INDEX_SOURCES, "model", "other")
"""Names of the evidence codes in `Draft.sources`; a code past the end means the last, "other"."""


@runtime_checkable
class Draft(Protocol):
    """Tokens proposed for verification.

    A draft may have a further attribute `dists`, see `TokenDraft`: the distributions that its tokens were drawn
    from. Without it every token is a point mass.
    """

    @property
    def tokens(self) -> NDArray[np.uint32]:
        """(K,) uint32, the chain."""

    @property
    def probs(self) -> NDArray[np.float32]:
        """(K,) float32, probability of each token given that those before it are right, 1 where nothing is known: the
        loop cuts drafts by them.
        """

    @property
    def sources(self) -> NDArray[np.uint8]:
        """(K,) uint8, which source spoke most for each token: an index into `SOURCES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParams:
    """What the loop tells a request that has a method `configure(terms)`, before its first draft.

    Attributes:
        max_tokens: Most output tokens.
        eos: Ids that end the output.
        vocab_size: Ids of the target; None: not known.
        proposer: Draws proposals above temperature 0, or applies a repetition penalty; None: propose greedily.
    """

    max_tokens: int | None = None
    eos: frozenset[int] = frozenset()
    vocab_size: int | None = None
    proposer: DraftSampler | None = None


class Request(Protocol):
    """One running request, as its drafter sees it."""

    def draft(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> Draft:
        """Propose what comes next.

        Args:
            max_tokens: Most tokens to draft, ≥ 0.
            costs: (≥ 1,) float64, `costs[k]` = cost of verifying k drafted tokens in one step, in units of a plain
                step; goes on with its last slope. None: 1 + 0.02·k.
        """

    def update(self, ids: TokenIds) -> None:
        """Take the tokens that verification has emitted since the last draft: those accepted and the one after."""


class Drafter(Protocol):
    """Makes requests and drafts for them.

    Optional beside what stands here: `always_drafts` (true: the loop neither pauses it nor cuts its drafts), `is_cheap`
    (true: tokens drafted in vain cost it no time worth mention, so that it is asked for more of them),
    `check_vocabulary(vocab_size, tokenizer)` (called with the target's before it drafts for it), `index` and `serve`
    (of drafters over an index).
    """

    @property
    def name(self) -> str:
        """What reports call it."""

    def start(self, prompt_ids: TokenIds, input: str | None = None) -> Any:
        """Begin a request whose output follows `prompt_ids`, (L,) token ids.

        Args:
            prompt_ids: The whole prompt.
            input: The part of it that is the row's input, as text; None: not known.
        """

    def propose_batch(
        self, requests: Sequence[Any], max_tokens: int, costs: NDArray[np.float64] | None = None
    ) -> Sequence[Draft]:
        """Draft for several requests at once; element i belongs to `requests[i]`."""


def served_log(index: TaskIndex) -> Path:
    """Where the rows served from an index are kept: beside its file, `task.tasc` has `task.tasc.served`."""
    return Path(f"{index.path}.served")


def _empty(dtype: type[np.generic]) -> NDArray[Any]:
    return np.empty(0, dtype=dtype)


@dataclass(frozen=True, slots=True)
class TokenDraft:
    """A `Draft` made in Python; certainty and source are optional.

    `dists` is empty, or has one entry per token: None for a point mass, that is, a token fixed by what stands before
    it, or the (V,) float64 probabilities that the token was drawn from. Whether a drawn token is in the draft must not
    depend on which token it is: leaving out unlikely draws would bend the output's distribution.
    """

    tokens: NDArray[np.uint32] = field(default_factory=lambda: _empty(np.uint32))
    probs: NDArray[np.float32] = field(default_factory=lambda: _empty(np.float32))
    sources: NDArray[np.uint8] = field(default_factory=lambda: _empty(np.uint8))
    dists: Sequence[Tensor | None] = ()

    @classmethod
    def of(cls, ids: TokenIds, source: str = "other") -> TokenDraft:
        """A draft of these tokens, each with probability 1 and one source.

        Args:
            ids: (K,) token ids.
            source: One of `SOURCES`.
        """
        tokens = np.asarray(ids, dtype=np.uint32)
        code = SOURCES.index(source)
        return cls(tokens, np.ones(len(tokens), np.float32), np.full(len(tokens), code, np.uint8))


class OneByOne:
    """Gives `propose_batch` to a drafter that drafts for one request at a time."""

    def propose_batch(
        self, requests: Sequence[Request], max_tokens: int, costs: NDArray[np.float64] | None = None
    ) -> list[Draft]:
        """Draft for each request in turn."""
        return [request.draft(max_tokens, costs) for request in requests]


class _NothingRequest:
    def draft(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> Draft:
        return TokenDraft()

    def update(self, ids: TokenIds) -> None:
        pass


class NullDrafter(OneByOne):
    """Never drafts: plain decoding."""

    name = "plain"

    def start(self, prompt_ids: TokenIds, input: str | None = None) -> Request:
        """Begin a request."""
        return _NothingRequest()
