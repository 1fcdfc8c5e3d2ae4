"""One task as an engine serves it: its index, its requests, the input in their prompts, what finished outputs teach."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasc.drafting.prompt_input import PromptInputFinder, chat_markers
from tasc.drafting.protocol import Drafter, Request, TokenIds, served_log
from tasc.drafting.throttle import Brake
from tasc.errors import InputError, TascError

if TYPE_CHECKING:
    from tasc._core import TaskIndex

_log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds between two looks whether an index file was replaced."""

_MOST_WAITING = 4096  # finished outputs; later ones are not learnt from until the thread has caught up
_FAREWELL = 5.0  # seconds that a process waits at its end for what is to be learnt


class StartedRequest(NamedTuple):
    """A request that has begun, the drafter it began with, and the input."""

    drafter: Drafter
    request: Request
    input: str | None


class TaskDrafts:
    """Begins requests of one task. It learns from each, so keep one per index and process. Any number of threads may
    use it.

    An index that was given as a path is looked at again once a second: when another file stands there (put there by a
    rename, as tasc does), requests that begin from then on draft from it, and those running go on with the old one. A
    file that cannot be used is logged, and the old index stays.

    Args:
        index: The task's `TaskIndex`, or its path; None: each request's own context alone.
        tokenizer: The model's tokenizer: a fast transformers tokenizer, or whatever `tasc.data.load_tokenizer` takes.
            None: it works, but prompts are not looked into for their input, and drafts are shorter for that.
        drafter: A `Drafter` instead of an index.
        learn: Whether `finished` outputs are added to the drafter, and kept in the log beside the index. Where another
            process writes to that log they are kept in memory alone.
        **options: Of the `NgramDrafter` over the index, such as `served_bytes` and `log_bytes`.

    Raises:
        InputError: Both an index and a drafter, or a slow tokenizer.
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
        from tasc._core import TaskIndex
        from tasc.data import load_tokenizer

        if index is not None and drafter is not None:
            raise InputError("give index or drafter=, not both")
        self._path = Path(index) if isinstance(index, str | PathLike) else None
        self._stamp = None if self._path is None else _stamp(self._path)
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        self._markers = None if self._tokenizer is None else chat_markers(tokenizer)
        opened = index if self._path is None else TaskIndex.open(self._path)
        self.drafter = self._over(opened, learn, options) if drafter is None else drafter  # type: ignore[arg-type]
        self.brake = Brake()
        """Pauses its drafts where they do not pay."""
        self.reloads = 0
        """Times that a replaced index was taken up."""
        self._locator = self._new_locator()
        self._learner = _Learner(self) if learn else None
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    @property
    def is_cheap(self) -> bool:
        """Whether its drafter is."""
        return bool(getattr(self.drafter, "is_cheap", False))

    @property
    def name(self) -> str:
        """What reports call it: the index's file name, or the drafter's name."""
        index = self.index
        return self.drafter.name if index is None else Path(index.path).name

    @property
    def index(self) -> TaskIndex | None:
        """The index that requests begin with now."""
        found: TaskIndex | None = getattr(self.drafter, "index", None)
        return found

    def start(self, prompt_ids: TokenIds, input: str | None = None) -> Request:
        """Begin a request.

        Args:
            prompt_ids: (L,) ids of the whole prompt.
            input: The part of it that is the row's input, as text; None: found in the prompt where that is possible
                (see `tasc.drafting.prompt_input.PromptInputFinder`).
        """
        return self.begin(prompt_ids, input).request

    def begin(self, prompt_ids: TokenIds, input: str | None = None) -> StartedRequest:
        """The same, with the drafter that drafts for it whatever replaces the index, and the input, for `finished`."""
        self._look()
        if input is None and self._locator is not None:
            [input] = self._locator.find([[int(token) for token in prompt_ids]])
        drafter = self.drafter
        return StartedRequest(drafter, drafter.start(prompt_ids, input), input)

    def finished(self, input: str | None, ids: TokenIds) -> None:
        """Learn from an output that ended as the model wanted, shortly, on a thread of its own; if it learns at all.

        Args:
            input: What was asked.
            ids: (T,) the output with its end token.
        """
        if self._learner is not None:
            self._learner.put(input, np.array(ids, np.uint32))

    def close(self) -> None:
        """Learn what is waiting, and stop learning."""
        if self._learner is not None:
            self._learner.close()
            self._learner = None

    def _over(self, index: TaskIndex | None, learn: bool, options: dict[str, Any]) -> Drafter:
        from tasc.drafting.retokenizing import ngram_drafter

        log = served_log(index) if learn and index is not None else None
        try:
            return ngram_drafter(index, self._tokenizer, served=log, **options)
        except BlockingIOError:
            _log.warning("%s is written by another process; what is learnt here is kept in memory alone", log)
            return ngram_drafter(index, self._tokenizer, **options)

    def _new_locator(self) -> PromptInputFinder | None:
        """What finds inputs; None where the index does not look at them."""
        index, task = self.index, self._tokenizer
        if task is None or index is None or index.info()["inputs"] == 0:
            return None
        return PromptInputFinder(task, markers=self._markers)

    def _look(self) -> None:
        """Take up an index that has replaced the one in use."""
        if self._path is None or time.monotonic() - self._looked < LOOK_EVERY:
            return
        with self._lock:
            self._looked = time.monotonic()
            try:
                stamp = _stamp(self._path)
                if stamp == self._stamp:
                    return
                self._stamp = stamp
                self._replace()
            except (OSError, TascError) as error:
                _log.warning("%s cannot be used, the index before it stays: %s", self._path, error)

    def _replace(self) -> None:
        from tasc._core import TaskIndex

        assert self._path is not None
        before = self.index
        self.drafter = self.drafter.with_index(TaskIndex.open(self._path))  # type: ignore[attr-defined]
        if self._locator is None or before is None or before.info()["inputs"] == 0:
            self._locator = self._new_locator()
        self.reloads += 1
        _log.info("%s was replaced; requests draft from it now", self._path)


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when another file stands under a name."""
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


class _Learner:
    """Adds finished outputs to a task's drafter, on a thread: a write that waits for the disk keeps no step waiting."""

    def __init__(self, drafts: TaskDrafts) -> None:
        self._drafts = drafts
        self._waiting: queue.Queue[tuple[str | None, Any] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="tasc-learner", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def put(self, input: str | None, ids: Any) -> None:
        try:
            self._waiting.put_nowait((input, ids))
        except queue.Full:
            _log.debug("outputs end faster than they are written; one is not learnt from")

    def close(self) -> None:
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(_FAREWELL)

    def _run(self) -> None:
        while (row := self._waiting.get()) is not None:
            rows, last = [row], False
            while not self._waiting.empty() and not last:
                more = self._waiting.get()
                last = more is None
                if more is not None:
                    rows.append(more)
            try:
                self._drafts.drafter.serve(rows)  # type: ignore[attr-defined]
            except Exception:
                _log.warning("%d finished outputs could not be learnt from", len(rows), exc_info=True)
            if last:
                return
