"""The tasks that an engine serves: which index drafts for a request, its reloading and its learning."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasc._core import TaskIndex
from tasc.data import load_tokenizer
from tasc.drafting.prompt_input import PromptInputFinder, chat_delimiters
from tasc.drafting.protocol import Drafter, SafeDrafter, SafeRequest, TokenIds, served_log
from tasc.drafting.retokenizing import ngram_drafter
from tasc.errors import InputError, TascError
from tasc.serving.learner import OnlineLearner
from tasc.serving.reload import FileWatcher
from tasc.serving.settings import Settings

if TYPE_CHECKING:
    from tasc._core import NgramDrafter
    from tasc.drafting.retokenizing import RetokenizingDrafter

_log = logging.getLogger(__name__)


class StartedRequest(NamedTuple):
    """A request that was started, the drafter that it belongs to, and its input text."""

    drafter: SafeDrafter
    request: SafeRequest
    input_text: str | None


class TaskDrafts:
    """Starts requests of one task. Its drafter learns from each, so keep one per index and process. Any number of
    threads may use it.

    An index that was given as a path is looked at again once a second. When another file stands there (put there by a
    rename, as tasc does), requests that start from then on draft from it, and those running continue with the old one.
    A file that cannot be used is logged, and the old index stays.

    Args:
        index: The task's `TaskIndex`, or its path; None: each request's own context alone.
        tokenizer: The model's tokenizer: a fast transformers tokenizer, or whatever `tasc.load_tokenizer` takes. None:
            prompts are not searched for their input, and drafts are shorter for that.
        drafter: A `Drafter` instead of an index.
        learn: Whether `finished` outputs are added to the drafter, and kept in the log beside the index. Where another
            process writes to that log they are kept in memory alone.
        **options: Of the `NgramDrafter` over the index, such as `served_bytes` and `log_bytes`.

    Raises:
        InputError: An index and a drafter, a drafter and options of an index, or a slow tokenizer.
        TokenizerMismatchError: The index was made with another tokenizer.
        FormatError: The index's file is none, or damaged.
    """

    def __init__(
        self,
        index: TaskIndex | str | PathLike[str] | None = None,
        tokenizer: Any = None,
        *,
        drafter: Drafter | None = None,
        learn: bool = False,
        **options: Any,
    ) -> None:
        if drafter is not None and (index is not None or options):
            given = "index" if index is not None else ", ".join(options)
            raise InputError(f"give drafter= or {given}, not both: {given} is for a drafter that is made here")
        self._path = Path(index) if isinstance(index, str | PathLike) else None
        self._watcher = None if self._path is None else FileWatcher(self._path)
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        self._delimiters = None if self._tokenizer is None else chat_delimiters(tokenizer)
        opened = TaskIndex.open(Path(index)) if isinstance(index, str | PathLike) else index
        self.drafter = SafeDrafter(self._over(opened, learn, options) if drafter is None else drafter)
        self.reloads = 0
        """Times that a replaced index was taken up."""
        self._finder = self._new_finder()
        self._learner = OnlineLearner(lambda rows: self.drafter.serve(rows)) if learn else None

    @property
    def name(self) -> str:
        """The name in reports: the index's file name, or the drafter's name."""
        index = self.index
        return self.drafter.name if index is None else Path(index.path).name

    @property
    def index(self) -> TaskIndex | None:
        """The index that new requests draft from."""
        return self.drafter.index

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> StartedRequest:
        """Start a request.

        Args:
            prompt_ids: (L,) ids of the whole prompt.
            input_text: The part of it that is the row's input, as text; None: found in the prompt where that is
                possible (see `tasc.drafting.prompt_input.PromptInputFinder`).

        Returns:
            The request, its drafter (which stays, whatever replaces the index), and the input text for `finished`.
        """
        self._take_up_replaced()
        if input_text is None and self._finder is not None:
            [input_text] = self._finder.find([[int(token) for token in prompt_ids]])
        drafter = self.drafter
        return StartedRequest(drafter, drafter.start(prompt_ids, input_text), input_text)

    def finished(self, input_text: str | None, ids: TokenIds) -> None:
        """Learn from an output that ended as the model wanted, shortly, on a thread of its own; if it learns at all.

        Args:
            input_text: The input.
            ids: (T,) the output with its end token.
        """
        if self._learner is not None:
            self._learner.put((input_text, np.array(ids, np.uint32)))

    def close(self) -> None:
        """Learn the outputs that wait, and stop learning."""
        if self._learner is not None:
            self._learner.close()
            self._learner = None

    def _over(
        self, index: TaskIndex | None, learn: bool, options: dict[str, Any]
    ) -> NgramDrafter | RetokenizingDrafter:
        log = served_log(index) if learn and index is not None else None
        try:
            return ngram_drafter(index, self._tokenizer, served=log, **options)
        except BlockingIOError:
            _log.warning("%s is written by another process; what is learnt here is kept in memory alone", log)
            return ngram_drafter(index, self._tokenizer, **options)

    def _new_finder(self) -> PromptInputFinder | None:
        """Finds inputs in prompts; None where the index does not use them."""
        if self._tokenizer is None or not _has_inputs(self.index):
            return None
        return PromptInputFinder(self._tokenizer, delimiters=self._delimiters)

    def _take_up_replaced(self) -> None:
        """Draft from the index that has replaced the one in use."""
        if self._watcher is None or self._path is None or not self._watcher.is_due():
            return
        with self._watcher.lock:
            try:
                if self._watcher.was_replaced():
                    self._replace(TaskIndex.open(self._path))
            except (OSError, TascError) as error:
                _log.warning("%s cannot be used, the index before it stays: %s", self._path, error)

    def _replace(self, index: TaskIndex) -> None:
        had_inputs = _has_inputs(self.index)
        self.drafter = self.drafter.with_index(index)
        if self._finder is None or not had_inputs:
            self._finder = self._new_finder()
        self.reloads += 1
        _log.info("%s was replaced; requests draft from it now", self._path)


def _has_inputs(index: TaskIndex | None) -> bool:
    return index is not None and index.info()["inputs"] > 0


class Tasks:
    """The tasks of an engine's settings, one per index.

    Args:
        settings: Indexes and options.
        tokenizer: The model's tokenizer; see `TaskDrafts`.

    Raises:
        InputError: `prompt_contains` chooses an index, and there is no tokenizer to decode prompts.
        TokenizerMismatchError: An index was made with another tokenizer.
        FormatError: An index is none, or damaged.
    """

    def __init__(self, settings: Settings, tokenizer: Any) -> None:
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        self._marked: list[tuple[str, TaskDrafts]] = []
        rest: TaskDrafts | None = None
        for one in settings.indexes:
            drafts = TaskDrafts(
                one.path, tokenizer, learn=settings.learn, served_bytes=settings.served_bytes,
                log_bytes=settings.log_bytes,
            )  # fmt: skip
            if one.prompt_contains:
                self._marked.append((one.prompt_contains, drafts))
            else:
                rest = drafts
        if self._marked and self._tokenizer is None:
            raise InputError("`prompt_contains` needs the model's tokenizer, which is not known here")
        self._rest = TaskDrafts(None, tokenizer) if rest is None else rest

    def choose(self, prompt: TokenIds) -> TaskDrafts:
        """Return the first task whose `prompt_contains` occurs in a prompt of (L,) ids, else the task without one.

        Without such a task, drafts come from the request's own context.
        """
        if self._marked and self._tokenizer is not None:
            decoded = self._tokenizer.decode(prompt)
            for text, drafts in self._marked:
                if text in decoded:
                    return drafts
        return self._rest

    def close(self) -> None:
        """Learn the outputs that wait, and stop learning."""
        for drafts in (self._rest, *(drafts for _, drafts in self._marked)):
            drafts.close()
