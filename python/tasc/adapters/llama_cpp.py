"""llama-cpp-python: an object for `Llama(…, draft_model=…)` that drafts from a task's index.

The interface passes only the ids so far. It tells neither where a request begins nor which tokens were accepted.
`TascDraft` infers both from the ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.costs import GivenCosts
from tasc.drafting.defaults import DEFAULT_SLOPE, MAX_DRAFT
from tasc.drafting.policy import DraftPolicy
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
        costs: Cost of verifying drafted tokens, in plain steps: a slope c for 1 + c·k, or an array [k].

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
        costs: float | Sequence[float] = DEFAULT_SLOPE,
    ) -> None:
        if max_draft < 1:
            raise InputError(f"max_draft is {max_draft}; it must be at least 1")
        self._drafts = TaskDrafts(index, tokenizer, drafter=drafter)
        self._max_draft, self._costs = max_draft, GivenCosts(costs).costs(max_draft)
        self._policy = DraftPolicy("padded")
        self._backoff = Backoff()
        self._running: StartedRequest | None = None
        self._num_prompt = 0
        self._ids: NDArray[np.intc] = np.empty(0, np.intc)
        self._drafted: NDArray[np.intc] = np.empty(0, np.intc)

    def __call__(self, input_ids: NDArray[np.intc], /, **kwargs: Any) -> NDArray[np.intc]:
        """(L,) intc ids of prompt and output so far → (K,) intc, the tokens that may come next, K ≤ `max_draft`.

        Only an interrupt and an exit raise from here: after a failure, decoding continues plainly for a while.
        """
        ids: NDArray[np.intc] = np.array(input_ids, np.intc)  # a copy: the engine passes a view of its own buffer
        if len(ids) == 0:
            return ids
        drafted = self._backoff.run(lambda: self._draft(ids), self._forget)
        return np.empty(0, np.intc) if drafted is None else drafted

    def _forget(self) -> None:
        self._running = None

    def _draft(self, ids: NDArray[np.intc]) -> NDArray[np.intc]:
        drafter, request, _ = self._follow(ids)
        self._ids, self._drafted = ids, np.empty(0, np.intc)
        budget = self._policy.budget(drafter, self._costs)
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
                if len(self._drafted):
                    self._policy.record(self._running.drafter, len(new) - 1, self._costs[len(self._drafted)] - 1.0)
                self._running.request.update(new)
                return self._running
        taken_back = self._num_prompt < len(ids) < len(self._ids) and np.array_equal(ids, self._ids[: len(ids)])
        self._num_prompt = self._num_prompt if taken_back else len(ids) - 1
        self._running = self._drafts.start(ids[: self._num_prompt])
        self._running.request.update(ids[self._num_prompt :])
        return self._running
