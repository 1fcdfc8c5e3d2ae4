"""Corpus of SGLang's n-gram worker that drafts from a task's index. SGLang itself is not imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.protocol import SafeDrafter, SafeRequest, guarded
from tasc.errors import InputError
from tasc.serving.backoff import Backoff
from tasc.serving.routing import RequestFields

if TYPE_CHECKING:
    from tasc.drafting.protocol import TokenIds
    from tasc.serving.tasks import TaskDrafts

Choose: TypeAlias = "Callable[[TokenIds, RequestFields | None], TaskDrafts]"
"""Returns the task of a request, by its (L,) prompt and what came with it."""

Share: TypeAlias = Callable[[NDArray[np.int64]], None]
"""Replaces (N,) ids in place by those of the first rank."""

PAD = 0
"""Id that fills a draft up to its width. It is verified like any drafted token."""

_MAX_ABSENT = 256  # requests in no batch whose end is waited for: paused ones, and those that were aborted


class TascCorpus:
    """The corpus of an `NGRAMWorker`: drafts for the requests of each decoding step.

    The worker names its requests and passes the last tokens of each with the length of all, so a request is followed
    by its name and length. It begins at its prompt where `take_histories` has told it, else at the tokens passed.

    A draft is a chain, given as the tree that the worker verifies: node 0 is the request's last token, node i follows
    node i - 1. The worker verifies `width` nodes whatever is drafted, so a draft is as long as the index has evidence,
    and the rest of the nodes are `PAD`, as part of the chain. As siblings of the draft, sampling would count the token
    several times.

    Only an interrupt and an exit raise from it. A request whose drafter fails goes on without drafts, requests that
    start decode plainly for a while, and a warning says so (`TaskDrafts.failed`); after another failure, all of them do
    (`tasc.serving.backoff`).

    Args:
        choose: Returns the task of a request by its (L,) prompt (none where it is not known) and what came with it:
            `tasc.serving.Tasks.choose`. None: this rank drafts nothing, and verifies what `share` gives.
        width: Nodes of a tree, ≥ 2: the last token and what is drafted (the engine's `draft_token_num`).
        vocab_size: Ids of the model; a draft ends before one that is beyond. None: not known.
        share: Gives all ranks of a tensor-parallel group the same drafts. Drafts of their own would differ: each rank
            takes up a replaced index, and turns drafts off after a failure, at a time of its own.

    Raises:
        InputError: A width below 2.
    """

    def __init__(
        self, choose: Choose | None, width: int, vocab_size: int | None = None, share: Share | None = None
    ) -> None:
        if width < 2:
            raise InputError(f"width is {width}; a draft token beside the last one needs at least 2")
        self._choose, self._share = choose, share
        self._width = width
        self._vocab_size = vocab_size
        self._mask: NDArray[np.int64] = np.tri(width, dtype=np.int64).reshape(-1)
        self._costs = np.ones(width)  # a step costs the same, however many of its nodes are drafted
        self._histories: Mapping[str, tuple[Sequence[int], Sequence[int]]] = {}
        self._fields: Mapping[str, RequestFields | None] = {}
        self._running: dict[str, FollowedRequest] = {}
        self._backoff = Backoff()

    def take_histories(
        self,
        histories: Mapping[str, tuple[Sequence[int], Sequence[int]]],
        fields: Mapping[str, RequestFields | None] | None = None,
    ) -> None:
        """Take the whole (prompt ids, output ids so far) of the requests that the next `batch_get` names, and what came
        with them.
        """
        self._histories = histories
        self._fields = {} if fields is None else fields

    def batch_get(
        self, req_ids: Sequence[str], batch_tokens: Sequence[Sequence[int]], total_lens: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draft for B requests.

        Args:
            req_ids: Their names.
            batch_tokens: The last tokens of each, at least one.
            total_lens: Number of all tokens of each, the prompt's included.

        Returns:
            (B·width,) tokens, and (B·width·width,) the trees: 1 at [b, i, j] where node j of row b is node i or
            stands before it.
        """
        nodes = np.full((len(req_ids), self._width), PAD, np.int64)
        nodes[:, 0] = [tokens[-1] for tokens in batch_tokens]

        def draft() -> list[NDArray[np.int64]]:
            asked = zip(req_ids, batch_tokens, total_lens, strict=True)
            return self._drafted([self._followed(*one) for one in asked])

        made = None if self._choose is None else self._backoff.run(draft, self.reset)
        for row, drafted in zip(nodes, made or (), strict=False):
            row[1 : 1 + len(drafted)] = drafted
        tokens = nodes.reshape(-1)
        if self._share is not None:
            self._share(tokens)
        return tokens, np.tile(self._mask, len(req_ids))

    def batch_put(self, batch_tokens: Sequence[Sequence[int]]) -> None:
        """Do nothing: the next `batch_get` passes the emitted tokens."""

    def synchronize(self) -> None:
        """Do nothing: no work is pending."""

    def erase_match_state(self, req_ids: Sequence[str]) -> None:
        """Forget finished requests."""
        for name in req_ids:
            self._running.pop(name, None)

    def reset(self) -> None:
        """Forget all requests. The drafter keeps its learned state."""
        self._running.clear()

    def followed(self, name: str) -> FollowedRequest | None:
        """Return the request of this name in the last step; None where nothing drafts for it."""
        return self._running.get(name)

    def _followed(self, name: str, tokens: Sequence[int], length: int) -> FollowedRequest:
        """Return the request of this name, brought to these tokens, or a new one."""
        running = self._running.get(name)
        if running is None or not running.goes_on(tokens, length):
            running = self._running[name] = self._begun(name, tokens, length)
        new = tokens[len(tokens) - (length - running.length) :]
        running.length, running.tail = length, tokens
        running.steps += 1
        if len(new):
            running.request.update(new)
        return running

    def _begun(self, name: str, tokens: Sequence[int], length: int) -> FollowedRequest:
        """Start a request at its history; without a history that fits, at all tokens but the last."""
        prompt, output = self._histories.get(name, ((), ()))
        known, beginning = len(prompt) + len(output), prompt
        if known == 0 or not 0 <= length - known <= len(tokens):
            prompt, output, known, beginning = tokens[:-1], (), length - 1, ()
        running = FollowedRequest(known)
        fields, choose = self._fields.get(name), self._choose
        assert choose is not None
        guarded(
            [running.request],
            lambda: running.start(choose(np.asarray(beginning, np.int64), fields), np.asarray(prompt, np.int64)),
        )
        if len(output):
            running.request.update(np.asarray(output, np.int64))
        return running

    def _drafted(self, running: Sequence[FollowedRequest]) -> list[NDArray[np.int64]]:
        """Return a draft for each request; empty where there is none."""
        groups: dict[SafeDrafter, list[int]] = {}
        for at, one in enumerate(running):
            if one.drafter is not None:
                groups.setdefault(one.drafter, []).append(at)
        made = [np.empty(0, np.int64)] * len(running)
        for drafter, group in groups.items():
            drafts = drafter.propose_batch([running[at].request for at in group], self._width - 1, self._costs)
            for at, draft in zip(group, drafts, strict=True):
                made[at] = self._usable(draft.tokens)
        return made

    def _usable(self, tokens: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the draft up to the first id that the model does not have."""
        ids = np.asarray(tokens).astype(np.int64)[: self._width - 1]
        beyond = [] if self._vocab_size is None else np.flatnonzero(ids >= self._vocab_size).tolist()
        return ids[: beyond[0]] if beyond else ids


def request_fields(request: Any, salt: str | None) -> RequestFields:
    """Return what came with a request of the engine.

    Args:
        request: The engine's `Req`: its sampling parameters' `custom_params` hold `tasc_index` and `tasc_salt`, its
            `extra_key` the cache salt.
        salt: Field that holds the salt, of `SALT_FIELDS`; None: "tasc_salt".
    """
    sent = getattr(getattr(request, "sampling_params", None), "custom_params", None)
    sent = sent if isinstance(sent, dict) else {}
    key = sent.get("tasc_index")
    salted = getattr(request, "extra_key", None) if salt == "cache_salt" else sent.get("tasc_salt")
    return RequestFields(key=None if key is None else str(key), salt=None if salted is None else str(salted))


class FollowedRequest:
    """A request of the engine.

    Args:
        length: Number of its tokens.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.tail: Sequence[int] = ()
        """Its last tokens."""
        self.request = SafeRequest(lambda: None)
        self.drafter: SafeDrafter | None = None
        """The drafter that it was started with, whatever has replaced the index since."""
        self.steps = 1
        """Steps so far, that of its prompt included."""
        self._drafts: TaskDrafts | None = None
        self._input_text: str | None = None

    def start(self, drafts: TaskDrafts, prompt: TokenIds) -> None:
        """Start the drafter's request."""
        self._drafts = drafts
        self.drafter, self.request, self._input_text = drafts.start(prompt)

    def finished(self, output: TokenIds) -> None:
        """Pass its (T,) output, the end token included, to its task."""
        if self._drafts is not None:
            self._drafts.finished(self._input_text, output, self.steps)

    def goes_on(self, tokens: Sequence[int], length: int) -> bool:
        """Whether the last `tokens` of `length` continue this request; a name may be used again."""
        shared = len(tokens) - (length - self.length)
        return 0 <= shared <= len(tokens) and list(tokens[:shared]) == list(self.tail[len(self.tail) - shared :])


class EndWatch:
    """Looks how requests ended, and has outputs that ended with an end token learned.

    The engine books the end of a request after the worker's last step of it, so the end is seen at the next step of any
    request.

    Args:
        eos: Ids that end an output.
    """

    def __init__(self, eos: frozenset[int]) -> None:
        self._eos = eos
        self._watched: dict[int, tuple[Any, FollowedRequest]] = {}  # by the identity of the engine's request

    def watch(self, requests: Mapping[str, Any], followed: Callable[[str], FollowedRequest | None]) -> None:
        """Watch the engine's requests of a step, given by name."""
        for name, request in requests.items():
            self._watched.pop(id(request), None)
            found = followed(name)
            if found is not None:
                self._watched[id(request)] = (request, found)
        while len(self._watched) > len(requests) + _MAX_ABSENT:
            del self._watched[next(iter(self._watched))]  # longest absent

    def look(self) -> None:
        """Forget the requests that have ended; pass outputs with an end token to their tasks."""
        for key, (request, followed) in list(self._watched.items()):
            if getattr(request, "finished_reason", None) is not None:
                del self._watched[key]
                guarded((), partial(self._pass_on, request, followed), "a finished output was not learnt")

    def _pass_on(self, request: Any, followed: FollowedRequest) -> None:
        output = ended_output(request, self._eos)
        if output is not None:
            followed.finished(output)


def ended_output(request: Any, eos: frozenset[int]) -> NDArray[np.int64] | None:
    """Return the (T,) output of a request that the model itself has ended, with its end token; None for all others.

    Args:
        request: The engine's `Req`. A token that the client named (`stop_token_ids`), a stop string, a length limit, a
            complete grammar and an abortion end a request too; the model has not ended it then.
        eos: Ids that end an output.
    """
    ended_at = getattr(request.finished_reason, "matched", None)
    output = np.asarray(request.output_ids_through_stop, np.int64)
    if not isinstance(ended_at, int) or ended_at not in eos or len(output) == 0 or output[-1] != ended_at:
        return None
    return output
