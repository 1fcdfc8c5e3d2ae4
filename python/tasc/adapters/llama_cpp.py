"""llama-cpp-python: an object for `Llama(…, draft_model=…)` that drafts from a task's index.

The interface passes only the ids so far. It tells neither where a request begins nor which tokens were accepted.
`TascDraft` infers both from the ids. They do not show how an output ended either: the engine asks for no draft after an
end token. `with_learning` shows the tokens of `Llama.generate` to the `TascDraft`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from os import PathLike
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.costs import CostCurve, GivenCosts, LearnedCosts
from tasc.drafting.defaults import MAX_DRAFT
from tasc.drafting.policy import DraftPolicy
from tasc.drafting.protocol import guarded
from tasc.errors import InputError
from tasc.serving.backoff import Backoff
from tasc.serving.tasks import StartedRequest, TaskDrafts

if TYPE_CHECKING:
    from tasc._core import TaskIndex
    from tasc.drafting.protocol import Drafter

try:
    from llama_cpp.llama_speculative import LlamaDraftModel
except ImportError:  # the engine asks for no more than a callable
    LlamaDraftModel = object

_log = logging.getLogger(__name__)


class TascDraft(LlamaDraftModel):  # type: ignore[misc]
    """Drafts for one `Llama` object, whose requests follow each other.

    Verification emits the accepted prefix of a draft and one more token. So ids that extend the last ids by a prefix of
    the last draft and one token continue the running request. A proper prefix of the last ids rewinds the request. All
    other ids start a new request: llama-cpp-python asks for the first draft after the model's first token, so all ids
    but the last are the prompt.

    Args:
        index: The task's `TaskIndex`, or its path; None: each request's own context alone.
        tokenizer: The model's tokenizer, as `tasc.data.load_tokenizer` takes it: a folder with the `tokenizer.json`
            that the GGUF file was made from. None: prompts are not looked into for their input.
        drafter: A `Drafter` instead of an index.
        max_draft: Longest draft.
        costs: Cost of verifying drafted tokens, in plain steps: a slope c for 1 + c·k, or an array [k]. None: learnt
            from the time between a draft and the next call. It differs much between machines and kinds of weights.
        learn: Whether outputs that ended with an end token are added to the drafter, and kept in the log beside the
            index. It needs `with_learning`.
        **options: Of `tasc.serving.TaskDrafts`, such as `served_bytes`, `log_bytes` and `log_days`.

    Raises:
        InputError: An option is out of its range.
        TokenizerMismatchError: The index was made with another tokenizer.

    Examples:
        >>> llm = Llama("model.gguf", draft_model=TascDraft("task.tasc", "path/to/tokenizer"))  # doctest: +SKIP
    """

    def __init__(
        self,
        index: TaskIndex | str | PathLike[str] | None = None,
        tokenizer: Any = None,
        *,
        drafter: Drafter | None = None,
        max_draft: int = MAX_DRAFT,
        costs: float | Sequence[float] | None = None,
        learn: bool = False,
        **options: Any,
    ) -> None:
        if max_draft < 1:
            raise InputError(f"max_draft is {max_draft}; it must be at least 1")
        self.drafts = TaskDrafts(index, tokenizer, drafter=drafter, learn=learn, **options)
        """Starts the requests, and learns from those that ended."""
        self.learn = learn
        self._max_draft = max_draft
        self._curve: CostCurve = LearnedCosts() if costs is None else GivenCosts(costs)
        self._costs = self._curve.costs(max_draft)
        self._called = self._returned = 0.0  # seconds at the start and the end of the last calls
        self._policy = DraftPolicy("padded")
        self._backoff = Backoff()
        self._running: StartedRequest | None = None
        self._is_watched = self._has_warned = False
        self._num_prompt = self._num_drafts = 0
        self._ids: NDArray[np.intc] = np.empty(0, np.intc)
        self._drafted: NDArray[np.intc] = np.empty(0, np.intc)

    def __call__(self, input_ids: NDArray[np.intc], /, **kwargs: Any) -> NDArray[np.intc]:
        """(L,) intc ids of prompt and output so far → (K,) intc, the tokens that may come next, K ≤ `max_draft`.

        Only an interrupt and an exit raise from here: after a failure, decoding continues plainly for a while.
        """
        ids: NDArray[np.intc] = np.array(input_ids, np.intc)  # a copy: the engine passes a view of its own buffer
        if len(ids) == 0:
            return ids
        if self.learn and not self._is_watched and not self._has_warned:
            self._has_warned = True
            _log.warning("learn=True has no effect before tasc.adapters.llama_cpp.with_learning(llama)")
        self._called = perf_counter()
        drafted = self._backoff.run(lambda: self._draft(ids), self._forget)
        self._returned = perf_counter()
        return np.empty(0, np.intc) if drafted is None else drafted

    def watched(
        self, generated: Generator[int, Any, None], prompt: Sequence[int], is_end: Callable[[int], bool]
    ) -> Generator[int, Any, None]:
        """Pass the tokens of a request on, and learn its output once the model has emitted an end token.

        Whoever stops before that (a length limit, a stop string, a stopping criterion, an exception) leaves an output
        that is not learned. The same holds for an output into which the caller has sent tokens.

        Args:
            generated: What `Llama.generate` returns.
            prompt: (L,) ids of the prompt.
            is_end: Whether a token ends an output.
        """
        self._is_watched = True
        ids = np.array(prompt, np.intc)
        started = self._backoff.run(lambda: self._begun(ids), self._forget)
        output: list[int] = []
        can_learn, sent = started is not None, None
        with closing(generated):
            while True:
                try:
                    token = generated.send(sent)
                except StopIteration:
                    return
                output.append(token)
                if can_learn and started is not None and is_end(token):
                    can_learn = False
                    text, steps = started.input_text, self._num_drafts + 1
                    row = functools.partial(self.drafts.finished, text, np.array(output), steps)
                    guarded((), row, "a finished output was not learnt")
                begin = perf_counter()
                sent = yield token
                self._returned += perf_counter() - begin  # the caller's time is not the step's
                can_learn = can_learn and sent is None

    def _begun(self, prompt: NDArray[np.intc]) -> StartedRequest:
        """Start a request of (L,) ids."""
        self._ids, self._drafted = prompt, np.empty(0, np.intc)
        self._num_prompt, self._num_drafts = len(prompt), 0
        self._running = self.drafts.start(prompt)
        return self._running

    def _forget(self) -> None:
        self._running = None

    def _draft(self, ids: NDArray[np.intc]) -> NDArray[np.intc]:
        drafter, request, _ = self._follow(ids)
        self._num_drafts += 1
        self._ids, self._drafted = ids, np.empty(0, np.intc)
        self._costs = self._curve.costs(self._max_draft)
        budget = self._policy.budget(drafter, self._costs)
        if self._curve.lacks_plain_steps():
            budget = None
        if budget is not None:
            draft = request.draft(self._max_draft, budget)
            length = self._policy.cut([draft.probs.tolist()], self._costs)[0]
            self._drafted = draft.tokens[: None if drafter.fixed_length else length].astype(np.intc)
        return self._drafted.copy()

    def _follow(self, ids: NDArray[np.intc]) -> StartedRequest:
        """Bring the running request to these ids, or start another."""
        new = ids[len(self._ids) :]
        if self._running is not None and np.array_equal(ids[: len(self._ids)], self._ids):
            if len(new) == 0:
                return self._running
            if np.array_equal(new[:-1], self._drafted[: len(new) - 1]):
                if self._num_drafts:  # else the step computed the prompt
                    self._curve.observe(1 + len(self._drafted), self._called - self._returned)
                if len(self._drafted):
                    self._policy.record(self._running.drafter, len(new) - 1, self._costs[len(self._drafted)] - 1.0)
                self._running.request.update(new)
                return self._running
        taken_back = self._num_prompt < len(ids) < len(self._ids) and np.array_equal(ids, self._ids[: len(ids)])
        started = self._begun(ids[: self._num_prompt if taken_back else len(ids) - 1])
        started.request.update(ids[self._num_prompt :])
        return started


def with_learning(llama: Any) -> Any:
    """Lets the `TascDraft` of a `llama_cpp.Llama` object see how outputs end, so that it can learn from them.

    Args:
        llama: The `Llama` object, made with `draft_model=TascDraft(…, learn=True)`. Its `generate` is replaced.

    Returns:
        `llama`.

    Raises:
        InputError: Its draft model is no `TascDraft` with `learn=True`.

    Examples:
        >>> draft = TascDraft("task.tasc", "path/to/tokenizer", learn=True)       # doctest: +SKIP
        >>> llama = with_learning(Llama("model.gguf", draft_model=draft))         # doctest: +SKIP
    """
    import llama_cpp

    draft, generate = llama.draft_model, llama.generate
    if not isinstance(draft, TascDraft) or not draft.learn:
        raise InputError("the draft model is no TascDraft with learn=True; give draft_model=TascDraft(…, learn=True)")
    if getattr(generate, "shows_requests", False):
        return llama
    vocabulary = llama._model.vocab

    @functools.wraps(generate)
    def watched(tokens: Sequence[int], *args: Any, **options: Any) -> Generator[int, Any, None]:
        prompt = list(tokens)
        is_end = functools.partial(llama_cpp.llama_vocab_is_eog, vocabulary)
        return draft.watched(generate(prompt, *args, **options), prompt, is_end)

    watched.shows_requests = True  # type: ignore[attr-defined]
    llama.generate = watched
    return llama
