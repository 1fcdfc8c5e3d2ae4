"""Drafters, requests and drafts: what the verify loop, the adapters, the replay and the benchmarks expect of them."""

from __future__ import annotations

import copy
import hashlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tasc._core import Draft as CoreDraft
from tasc.errors import InputError

TokenIds: TypeAlias = Sequence[int] | NDArray[Any]

ServedRow: TypeAlias = tuple[str | None, Any] | tuple[str | None, Any, str | None]
"""A finished row: input text, output ids, and perhaps a key by which it can be removed."""
"""Token ids: a list, or a one-dimensional array of any integer type."""

Costs: TypeAlias = NDArray[np.float64]
"""(K + 1,) float64: the cost of verifying k drafted tokens in one step, in plain steps; `costs[0]` is 1."""

if TYPE_CHECKING:
    from torch import Tensor

    from tasc._core import TaskIndex
    from tasc.decoding.sampling import DraftSampler

INDEX_SOURCES: tuple[str, ...] = ("task", "context", "retrieved", "coverage", "copy")
"""Sources of an `NgramDrafter`; their codes are those of the core."""

SOURCES: tuple[str, ...] = (*INDEX_SOURCES, "model", "grammar", "other")
"""Names of the evidence codes in `Draft.sources`; a code past the end means the last, "other"."""

MAX_LEARNERS = 64
"""Processes that learn from one index at once, each with a log of its own."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


@runtime_checkable
class Draft(Protocol):
    """Tokens proposed for verification: a chain, one token after the other."""

    @property
    def tokens(self) -> NDArray[np.uint32]:
        """(K,) uint32, the chain."""

    @property
    def probs(self) -> NDArray[np.float32]:
        """(K,) float32, the probability of each token given that those before it are right; 1 where it is unknown.
        Drafts are cut by these probabilities.
        """

    @property
    def sources(self) -> NDArray[np.uint8]:
        """(K,) uint8, the source with the most evidence for each token: an index into `SOURCES`."""

    @property
    def dists(self) -> Sequence[Tensor | None]:
        """The distributions that tokens were drawn from; see `TokenDraft`. Empty: every token is a point mass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParams:
    """Parameters of a request that its drafter may use.

    Attributes:
        max_tokens: Most output tokens.
        eos: Ids that end the output.
        vocab_size: Ids of the target; None: not known.
        sampler: Samples drafted tokens above temperature 0, or applies a repetition penalty; None: greedy drafts.
    """

    max_tokens: int | None = None
    eos: frozenset[int] = frozenset()
    vocab_size: int | None = None
    sampler: DraftSampler | None = None


class Request(Protocol):
    """A running request, as its drafter sees it. Subclass it: `configure` has a default."""

    @abstractmethod
    def draft(self, max_tokens: int, costs: Costs | None = None) -> Draft:
        """Propose the next tokens.

        Args:
            max_tokens: Most tokens to draft, ≥ 0.
            costs: Cost of verifying k drafted tokens, as `Costs`; past its end it goes on with its last slope. None:
                1 + 0.02·k.
        """

    @abstractmethod
    def update(self, ids: TokenIds) -> None:
        """Take the tokens that verification emitted since the last draft: the accepted ones and one more."""

    def configure(self, params: RequestParams) -> None:
        """Take the request's parameters, once, before its first draft. The default ignores them."""
        return


@runtime_checkable
class Drafter(Protocol):
    """Starts requests and drafts for them. Subclass it: only `name`, `start` and the requests' methods are needed.

    Drafters are compared and hashed by identity.

    Attributes:
        name: The name in reports.
        fixed_length: Whether every draft has a fixed length. Such a drafter is neither paused nor are its drafts cut.
        negligible_cost: Whether drafting takes next to no time. Such a drafter is asked for longer drafts than pay for
            one request alone, and the decoder cuts them.
        index: The index that drafts are made from, if there is one.

    Examples:
        >>> class Repeat(Drafter):
        ...     name = "repeat"
        ...     def start(self, prompt_ids, input_text=None):
        ...         return RepeatRequest(int(prompt_ids[-1]))
        >>> class RepeatRequest(Request):
        ...     def __init__(self, last):
        ...         self.last = last
        ...     def draft(self, max_tokens, costs=None):
        ...         return TokenDraft.of([self.last] * max_tokens)
        ...     def update(self, ids):
        ...         self.last = int(ids[-1])
        >>> Repeat().start([5, 7]).draft(2).tokens.tolist()
        [7, 7]
    """

    name: str
    fixed_length: bool = False
    negligible_cost: bool = False
    index: TaskIndex | None = None

    @abstractmethod
    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> Any:
        """Start a request.

        Args:
            prompt_ids: (L,) ids of the whole prompt.
            input_text: The part of the prompt that is the row's input, as text; None: not known.

        Returns:
            A `Request` of this drafter.
        """

    def propose_batch(self, requests: Sequence[Any], max_tokens: int, costs: Costs | None = None) -> Sequence[Draft]:
        """Draft for several requests at once; element i belongs to `requests[i]`. The default drafts one by one."""
        return [request.draft(max_tokens, costs) for request in requests]

    def check_vocabulary(self, vocab_size: int, tokenizer: Any = None) -> None:
        """Refuse a target whose vocabulary does not fit. The default accepts any.

        Args:
            vocab_size: Rows of the target's embedding matrix.
            tokenizer: The target's tokenizer, where it is known.

        Raises:
            TokenizerMismatchError: The tokenizers differ.
            InputError: The vocabularies differ in size.
        """
        return

    def serve(self, rows: Sequence[ServedRow]) -> None:
        """Add finished rows for later drafts. The default ignores them."""
        return

    @property
    def num_served(self) -> int:
        """Finished rows in memory that drafts are made from."""
        return 0

    def with_index(self, index: TaskIndex) -> Any:
        """Return a drafter like this one over another index of the same tokenizer.

        Raises:
            InputError: The drafter has no index.
        """
        raise InputError(f"drafter {self.name!r} has no index to replace; make a new drafter over the index")


@runtime_checkable
class StateReader(Protocol):
    """Optional part of a drafter: its requests read the target's last hidden states.

    Before each draft, tasc's loop calls `read_states(states)` of such a request with (L, d) last hidden states at the
    first L tokens of prompt and output, whose keys and values the target has: all but the last one, and fewer before
    the prompt was run. The tensor is valid until the next step of the target. Other decoders do not call it.

    Attributes:
        reads_states: Whether this drafter's requests do.
    """

    reads_states: bool


class DrafterWrapper(Drafter):
    """Forwards everything to another drafter. Subclasses override what they change.

    Args:
        drafter: The drafter inside.
    """

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter
        self.name = drafter.name
        self.fixed_length = drafter.fixed_length
        self.negligible_cost = drafter.negligible_cost
        self.reads_states = isinstance(drafter, StateReader) and drafter.reads_states
        self.index = drafter.index

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> Any:
        """Start a request of the drafter inside."""
        return self.drafter.start(prompt_ids, input_text)

    def propose_batch(self, requests: Sequence[Any], max_tokens: int, costs: Costs | None = None) -> Sequence[Draft]:
        """Draft for several requests at once."""
        return self.drafter.propose_batch(requests, max_tokens, costs)

    def check_vocabulary(self, vocab_size: int, tokenizer: Any = None) -> None:
        """Let the drafter inside check the target's vocabulary."""
        self.drafter.check_vocabulary(vocab_size, tokenizer)

    def serve(self, rows: Sequence[ServedRow]) -> None:
        """Add finished rows to the drafter inside."""
        self.drafter.serve(rows)

    @property
    def num_served(self) -> int:
        """Finished rows in memory that drafts are made from."""
        return self.drafter.num_served

    def with_index(self, index: TaskIndex) -> Self:
        """Return the same wrapper around the drafter inside over another index."""
        other = copy.copy(self)
        other.drafter = self.drafter.with_index(index)
        other.index = index
        return other


class SafeDrafter(DrafterWrapper):
    """Guards a decoder against a drafter that fails: nothing raises from its requests.

    A request whose drafter raises is marked `failed`, gets empty drafts from then on, and a warning is logged with the
    traceback. Only an interrupt and an exit pass through.

    Args:
        drafter: Any `Drafter`.

    Raises:
        InputError: It is no `Drafter`.
    """

    def __init__(self, drafter: Drafter) -> None:
        super().__init__(checked_drafter(drafter))

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> SafeRequest:
        """Start a request; one that cannot be started has failed."""
        return SafeRequest(lambda: self.drafter.start(prompt_ids, input_text))

    def propose_batch(
        self, requests: Sequence[SafeRequest], max_tokens: int, costs: Costs | None = None
    ) -> list[Draft]:
        """Draft for several requests at once; empty drafts for those that have failed."""
        running = [request for request in requests if not request.failed]
        inner = [request.inner for request in running]
        call = self.drafter.propose_batch
        made = guarded(running, lambda: list(call(inner, max_tokens, costs))) if running else None
        if made is not None and len(made) != len(running):
            fail(running, f"drafter {self.name!r} made {len(made)} drafts for {len(running)} requests")
            made = None
        checked: dict[SafeRequest, Draft | None] = {}
        for request, draft in zip(running, made or (), strict=False):
            checked[request] = guarded([request], lambda draft=draft: _well_formed(draft))  # type: ignore[misc]
        return [checked.get(request) or _NO_DRAFT for request in requests]

    def serve(self, rows: Sequence[ServedRow]) -> None:
        """Add finished rows to the drafter inside; a failure, such as a full disk, is logged."""
        reason = f"{len(rows)} finished rows could not be added to drafter {self.name!r}"
        guarded((), lambda: self.drafter.serve(rows), reason)


class SafeRequest(Request):
    """Request of a `SafeDrafter`.

    Args:
        start: Starts the request inside.
        on_failure: Called once if the request fails.
    """

    def __init__(self, start: Callable[[], Any], on_failure: Callable[[], None] | None = None) -> None:
        self.failed, self.on_failure = False, on_failure
        self.inner: Any = guarded([self], start)

    def draft(self, max_tokens: int, costs: Costs | None = None) -> Draft:
        """Propose the next tokens; none after a failure."""
        made = None if self.failed else guarded([self], lambda: _well_formed(self.inner.draft(max_tokens, costs)))
        return TokenDraft() if made is None else made

    def update(self, ids: TokenIds) -> None:
        """Take the tokens that verification emitted."""
        if not self.failed:
            guarded([self], lambda: self.inner.update(ids))

    def configure(self, params: RequestParams) -> None:
        """Pass the request's parameters on."""
        if not self.failed:
            guarded([self], lambda: self.inner.configure(params))

    def read_states(self, states: Tensor) -> None:
        """Pass the target's states on to the request of a `StateReader`."""
        if not self.failed:
            guarded([self], lambda: self.inner.read_states(states))


def guarded(requests: Sequence[SafeRequest], call: Callable[[], T], reason: str = "a drafter failed") -> T | None:
    """Run a call of a drafter for some requests. If it raises, the requests have failed and None is returned."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException:  # a panic of another extension is no Exception
        fail(requests, reason)
        return None


def fail(requests: Sequence[SafeRequest], reason: str) -> None:
    """Mark requests as failed and log why."""
    _log.warning("%s; %d request(s) go on without drafts", reason, len(requests), exc_info=True)
    for request in requests:
        request.failed, request.inner = True, None
        if request.on_failure is not None:
            request.on_failure()
            request.on_failure = None


def _well_formed(draft: Draft) -> Draft:
    """Return a draft whose arrays have the right shapes and types.

    Raises:
        TypeError: They have not.
        ValueError: A token id is negative.
    """
    if isinstance(draft, CoreDraft):
        return draft
    tokens, probs, sources = (np.asarray(array) for array in (draft.tokens, draft.probs, draft.sources))
    integers = all(array.dtype.kind in "iu" or not array.size for array in (tokens, sources))
    if not integers or probs.dtype.kind not in "fiu" or (tokens.ndim, probs.ndim, sources.ndim) != (1, 1, 1):
        raise TypeError(
            f"a draft holds tokens {tokens.dtype}{tokens.shape}, probs {probs.dtype}{probs.shape} and sources "
            f"{sources.dtype}{sources.shape}; give (K,) integers, (K,) floats and (K,) integers"
        )
    if tokens.size and tokens.min() < 0:
        raise ValueError(f"a draft holds the token id {tokens.min()}; ids are at least 0")
    if len(draft.dists) not in (0, len(tokens)) or any(q is not None and q.ndim != 1 for q in draft.dists):
        raise TypeError("a draft holds dists of another number or shape; give (V,) probabilities or None per token")
    return draft


def checked_drafter(drafter: Any) -> Drafter:
    """Return a drafter once it has proved to be one.

    Raises:
        InputError: It is no `Drafter`; names what is missing.
    """
    if isinstance(drafter, Drafter) and not isinstance(drafter, type) and isinstance(drafter, Hashable):
        return drafter
    if isinstance(drafter, type):
        raise InputError(f"{drafter.__name__} is the class of a drafter; give an object of it")
    if not isinstance(drafter, Hashable):
        raise InputError(f"{type(drafter).__name__} is not hashable; drafters are told apart by identity")
    members = ("name", "fixed_length", "negligible_cost", "index", "start", "propose_batch", "check_vocabulary")
    missing = [name for name in (*members, "serve", "with_index") if name not in dir(drafter)]
    raise InputError(
        f"{type(drafter).__name__} is no drafter: it lacks {', '.join(missing)}; subclass tasc.Drafter, which has "
        "defaults for all but name and start"
    )


def served_log(index: TaskIndex, digest: str | None = None) -> Path:
    """Path of the log of online rows of an index: beside its file, `task.tasc` has `task.tasc.served`.

    Args:
        index: The index.
        digest: Digest of a salt, whose log is another one: `task.tasc.served.DIGEST`.
    """
    log = f"{index.path}.served"
    return Path(log if digest is None else f"{log}.{digest}")


def served_logs(log: Path) -> list[Path]:
    """Existing logs of the processes that learn at once: LOG, and LOG.1, LOG.2, … of those that found it in use.

    Args:
        log: The first one's path, as from `served_log`.
    """
    return [each for each in _log_names(log) if each.exists()]


def opened_log(log: Path, open: Callable[[Path], T]) -> T:
    """Open the first log of `served_logs` that no other drafter or process writes to, new or left by an earlier one.

    Args:
        log: The first log's path.
        open: Opens a log of this path; raises `BlockingIOError` if another one writes to it.

    Raises:
        BlockingIOError: All of them are in use.
    """
    for name in _log_names(log):
        try:
            return open(name)
        except BlockingIOError as error:
            in_use = error
    raise in_use


def _log_names(log: Path) -> list[Path]:
    return [log, *(log.with_name(f"{log.name}.{number}") for number in range(1, MAX_LEARNERS))]


def salt_digest(salt: str) -> str:
    """Return what stands for a salt in file names: the first 32 hexadecimal digits of the SHA-256 of its UTF-8.

    >>> salt_digest("customer 7")
    'a8564eeb8ba3b25fa1da9c7ca13a2c90'
    """
    return hashlib.sha256(salt.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _empty(dtype: type[np.generic]) -> NDArray[Any]:
    return np.empty(0, dtype=dtype)


@dataclass(frozen=True, slots=True)
class TokenDraft:
    """A `Draft` made in Python.

    `dists` is empty, or has one entry per token: None for a point mass, that is, a token fixed by the tokens before
    it, or the (V,) float64 probabilities that the token was drawn from. Whether a drawn token is in the draft must not
    depend on which token it is: leaving out unlikely draws would change the output's distribution.
    """

    tokens: NDArray[np.uint32] = field(default_factory=lambda: _empty(np.uint32))
    probs: NDArray[np.float32] = field(default_factory=lambda: _empty(np.float32))
    sources: NDArray[np.uint8] = field(default_factory=lambda: _empty(np.uint8))
    dists: Sequence[Tensor | None] = ()

    @classmethod
    def of(cls, ids: TokenIds, source: str = "other") -> TokenDraft:
        """Make a draft of these tokens, each with probability 1 and one source.

        Args:
            ids: (K,) token ids.
            source: One of `SOURCES`.
        """
        tokens = np.asarray(ids, dtype=np.uint32)
        code = SOURCES.index(source)
        return cls(tokens, np.ones(len(tokens), np.float32), np.full(len(tokens), code, np.uint8))


_NO_DRAFT = TokenDraft()


class _NullRequest(Request):
    def draft(self, max_tokens: int, costs: Costs | None = None) -> Draft:
        return TokenDraft()

    def update(self, ids: TokenIds) -> None:
        pass


class NullDrafter(Drafter):
    """Never drafts: plain decoding."""

    name = "plain"

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> Request:
        """Start a request that never drafts."""
        return _NullRequest()
