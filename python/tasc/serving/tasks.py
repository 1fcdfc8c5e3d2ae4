"""The tasks that an engine serves: an index's drafters, one for each salt, their reloading and their learning."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter, OrderedDict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from tasc.data import load_tokenizer
from tasc.data.prompt_notes import PromptWatch
from tasc.drafting.defaults import MAX_SALTS, MEMORY_BYTES
from tasc.drafting.prompt_input import PromptInputFinder, chat_delimiters
from tasc.drafting.protocol import (
    Drafter,
    NullDrafter,
    SafeDrafter,
    SafeRequest,
    TokenIds,
    guarded,
    salt_digest,
    served_log,
)
from tasc.drafting.retokenizing import ngram_drafter
from tasc.errors import InputError, TascError
from tasc.serving.backoff import Backoff
from tasc.serving.drift import DriftWatch
from tasc.serving.learner import OnlineLearner, Row
from tasc.serving.reload import FileWatcher, is_damaged, open_index
from tasc.serving.settings import MAX_SALT_LOGS

if TYPE_CHECKING:
    from tasc._core import NgramDrafter, TaskIndex
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

    After a failure of the drafter, requests that start decode plainly for a while: 1 s, twice as long each time, at
    most 300 s. Where the index proves to be damaged, they do so until another file replaces it.

    Args:
        index: The task's `TaskIndex`, or its path; None: each request's own context alone.
        tokenizer: The model's tokenizer: a fast transformers tokenizer, or whatever `tasc.load_tokenizer` takes. None:
            prompts are not searched for their input, and drafts are shorter for that.
        drafter: A `Drafter` instead of an index.
        learn: Whether `finished` outputs are added to the drafter, and kept in the log beside the index. Each process
            that learns has a log of its own (`tasc.drafting.protocol.served_logs`).
        learn_salted: The same for the drafters of salts; None: as `learn`.
        max_salts: Most salts whose drafters are in memory while no request runs.
        max_salt_logs: Most logs of salts beside the index; what a further salt learns is kept in memory alone.
        learner: Adds outputs to drafters; None: its own.
        name: The name in reports; None: the index's file name, or the drafter's name.
        memory_bytes: Largest index file that is held in memory. A larger one stays mapped: writing over it in place,
            instead of a rename, ends the process.
        verify: When an index file is verified before use; see `tasc.serving.reload.VERIFY`.
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
        learn_salted: bool | None = None,
        max_salts: int = MAX_SALTS,
        max_salt_logs: int = MAX_SALT_LOGS,
        learner: OnlineLearner | None = None,
        name: str | None = None,
        memory_bytes: int = MEMORY_BYTES,
        verify: str = "other_owner",
        **options: Any,
    ) -> None:
        if drafter is not None and (index is not None or options):
            given = "index" if index is not None else ", ".join(options)
            raise InputError(f"give drafter= or {given}, not both: {given} is for a drafter that is made here")
        path = Path(index) if isinstance(index, str | PathLike) else None
        self._watcher = None if path is None else FileWatcher(path)
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        self._delimiters = None if self._tokenizer is None else chat_delimiters(tokenizer)
        self._options = options
        self._name = name
        self._memory_bytes, self._verify = memory_bytes, verify
        self.faults: Counter[str] = Counter()
        """Number of faults by kind, those of salts included: see `tasc.serving.metrics`."""
        self.drift = DriftWatch()
        """Compares the last requests with what the index was worth when it was built, those of salts included."""
        self._prompts = PromptWatch(self._tokenizer)
        self._backoff = Backoff()
        self._plain = SafeDrafter(NullDrafter())
        self._complaint = ""
        opened = self._open_index(Path(index)) if isinstance(index, str | PathLike) else index
        log = served_log(opened) if learn and opened is not None else None
        self.drafter = SafeDrafter(self._over(opened, log) if drafter is None else drafter)
        self._lock = threading.Lock()
        """Held by the thread that replaces the drafter."""
        self.reloads = 0
        """Times that a replaced index was taken up."""
        self._finder = self._new_finder()
        if self.unsalted is self:
            self._prompts.begin(opened)
        learner = OnlineLearner() if learner is None else learner
        self._learner = learner if learn else None
        self._salted_learner = learner if (learn if learn_salted is None else learn_salted) else None
        self._salts: OrderedDict[str, TaskDrafts] = OrderedDict()  # by digest, the least recently used first
        self._used_salts: WeakValueDictionary[str, TaskDrafts] = WeakValueDictionary()  # with those of running requests
        self._salts_lock = threading.Lock()
        self._max_salts, self._max_salt_logs = max_salts, max_salt_logs
        self._logs_are_full = False

    @property
    def name(self) -> str:
        """The name in reports: the index's file name, or the drafter's name."""
        index = self.index
        if self._name is not None:
            return self._name
        return self.drafter.name if index is None else Path(index.path).name

    @property
    def index(self) -> TaskIndex | None:
        """The index that new requests draft from."""
        return self.drafter.index

    @property
    def unsalted(self) -> TaskDrafts:
        """The task of requests without a salt; reports count by it."""
        return self

    @property
    def num_salts(self) -> int:
        """Salts whose drafters are in memory."""
        return len(self._used_salts)

    @property
    def num_served(self) -> int:
        """Finished rows in memory, those of salts included."""
        with self._salts_lock:
            salted = list(self._used_salts.values())
        return self.drafter.num_served + sum(one.drafter.num_served for one in salted)

    def salted(self, salt: str) -> TaskDrafts:
        """Return the task of a salt: the same index, and a drafter of its own.

        What it learns (rows, mixture weights, calibration, the place of inputs in prompts) serves this salt's requests
        alone. Its log is `INDEX.served.DIGEST`. If there is a file `INDEX.DIGEST`, into which that log was compacted,
        it is used instead of the index. DIGEST is `salt_digest(salt)`. The least recently used salt is closed where
        there are more than `max_salts`.
        """
        digest = salt_digest(salt)
        with self._salts_lock:
            found = self._used_salts.get(digest)
            if found is None:
                found = self._used_salts[digest] = SaltedDrafts(self, digest)
            self._salts[digest] = found
            self._salts.move_to_end(digest)
            while len(self._salts) > self._max_salts:
                self._salts.popitem(last=False)
        return found

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> StartedRequest:
        """Start a request.

        Args:
            prompt_ids: (L,) ids of the whole prompt.
            input_text: The part of it that is the row's input, as text; None: found in the prompt where that is
                possible (see `tasc.drafting.prompt_input.PromptInputFinder`).

        Returns:
            The request, its drafter (which stays, whatever replaces the index), and the input text for `finished`. A
            request that fails, now or later, turns the drafter off for a while.
        """
        failed = SafeRequest(lambda: None, self.failed)
        started = guarded([failed], lambda: self._start(prompt_ids, input_text))
        return StartedRequest(self._plain, failed, input_text) if started is None else started

    def _start(self, prompt_ids: TokenIds, input_text: str | None) -> StartedRequest:
        self._take_up_replaced()
        if self._backoff.is_on or is_damaged(self.index):
            self.unsalted.faults["plain_requests"] += 1
            return StartedRequest(self._plain, self._plain.start(prompt_ids), input_text)
        self.unsalted._prompts.look(prompt_ids)
        if input_text is None and self._finder is not None:
            [input_text] = self._finder.find([[int(token) for token in prompt_ids]], self.index)
        drafter = self.drafter
        request = drafter.start(prompt_ids, input_text)
        request.on_failure = self.failed
        if request.failed:
            self.failed()
        return StartedRequest(drafter, request, input_text)

    def finished(self, input_text: str | None, ids: TokenIds, steps: int = 0) -> None:
        """Take an output that ended as the model wanted: compare its steps with the figure from build time, and learn.

        Learning happens shortly, on a thread of its own; if it learns at all.

        Args:
            input_text: The input.
            ids: (T,) the output with its end token.
            steps: Number of steps that it took; 0: not known.
        """
        row, index = (input_text, np.array(ids, np.uint32)), self.index
        if steps and index is not None and index is self.unsalted.index:
            self.unsalted.drift.finished(row, steps, index, self._tokenizer, self.name)
        if self._learner is not None and not self._learner.put(self._learn, row):
            self.unsalted.faults["unlearnt_rows"] += 1

    def failed(self) -> None:
        """Turn the drafter off for a while: a request of it has failed."""
        if self._backoff.is_on:
            return
        seconds = self._backoff.begin()
        _log.warning("%s failed; requests that start decode plainly for %.0f s", self.name, seconds)
        self.unsalted.faults["turned_off"] += 1

    def close(self) -> None:
        """Learn the outputs that wait, and stop learning."""
        for learner in (self._learner, self._salted_learner):
            if learner is not None:
                learner.close()
        self._learner = self._salted_learner = None

    def _learn(self, rows: list[Row]) -> None:
        def serve() -> bool:
            self.drafter.drafter.serve(rows)
            return True

        if not guarded((), serve, f"{len(rows)} finished rows could not be added to drafter {self.name!r}"):
            self.unsalted.faults["unlearnt_rows"] += len(rows)

    def _open_index(self, path: Path) -> TaskIndex:
        return open_index(path, self._memory_bytes, self._verify, self._count_damage)

    def _count_damage(self) -> None:
        self.unsalted.faults["damaged_files"] += 1

    def _over(self, index: TaskIndex | None, log: Path | None) -> NgramDrafter | RetokenizingDrafter:
        try:
            return ngram_drafter(index, self._tokenizer, served=log, **self._options)
        except BlockingIOError:
            _log.warning("%s and all logs beside it are in use; what is learnt here is kept in memory alone", log)
            return ngram_drafter(index, self._tokenizer, **self._options)

    def _new_finder(self) -> PromptInputFinder | None:
        """Finds inputs in prompts; None where the index does not use them."""
        if self._tokenizer is None or not _has_inputs(self.index):
            return None
        return PromptInputFinder(self._tokenizer, delimiters=self._delimiters)

    def _take_up_replaced(self) -> None:
        """Draft from the index that has replaced the one in use."""
        if self._watcher is None or not self._watcher.is_due():
            return
        path, had_inputs = self._watcher.path, _has_inputs(self.index)
        with self._lock:
            try:
                replaced = self._watcher.was_replaced() and self._use(path)
            except OSError as error:
                self._complain(path, error)
                return
            if not replaced:
                return
            if self._finder is None or not had_inputs:
                self._finder = self._new_finder()
            if self.unsalted is self:
                self._prompts.begin(self.index)
            self.reloads += 1
            self._backoff.end()
            self._complaint = ""
            _log.info("%s was replaced; requests draft from it now", path)

    def _use(self, path: Path) -> bool:
        """Draft from the index of a file, if it can be used."""
        try:
            self.drafter = self.drafter.with_index(self._open_index(path))
        except (OSError, TascError) as error:
            if self._watcher is not None:
                self._watcher.look_again()
            self._complain(path, error)
            return False
        return True

    def _complain(self, path: Path, error: Exception) -> None:
        """Count a file that cannot be used, and log why, once."""
        self.unsalted.faults["refused_files"] += 1
        if self._complaint != str(error):
            self._complaint = str(error)
            _log.warning("%s cannot be used, the index before it stays: %s", path, error)


class SaltedDrafts(TaskDrafts):
    """Starts requests of one task and one salt; `TaskDrafts.salted` makes it.

    The log is opened by the thread that learns, so that no step waits for it, and created with the first row.

    Args:
        unsalted: The task.
        digest: Digest of the salt.
    """

    def __init__(self, unsalted: TaskDrafts, digest: str) -> None:
        index = unsalted.index
        self._unsalted = unsalted
        super().__init__(
            index, unsalted._tokenizer, name=unsalted.name, memory_bytes=unsalted._memory_bytes,
            verify=unsalted._verify, **unsalted._options,
        )  # fmt: skip
        self._delimiters = unsalted._delimiters
        if index is not None:
            own = Path(f"{index.path}.{digest}")
            if own.exists():
                self._use(own)
            if unsalted._watcher is not None:
                self._watcher = FileWatcher(own, Path(index.path))
        self._finder = self._new_finder()
        self._log = None if index is None else served_log(index, digest)
        self._learner = None if index is None else unsalted._salted_learner
        if self._learner is not None and self._log is not None and self._log.exists():
            self._learner.put(self._learn, None)

    @property
    def unsalted(self) -> TaskDrafts:
        """The task of requests without a salt; reports count by it."""
        return self._unsalted

    def close(self) -> None:
        """Stop learning. The thread that learns goes on: it is the task's."""
        self._learner = None

    def _learn(self, rows: list[Row]) -> None:
        log, self._log = self._log, None
        if log is not None:
            self._open(log)
        super()._learn(rows)

    def _open(self, log: Path) -> None:
        """Go over to a drafter that reads and writes the salt's log."""
        most = self._unsalted._max_salt_logs
        if not log.exists() and _count_logs(log) >= most:
            if not self._unsalted._logs_are_full:
                _log.warning("there are %d logs like %s; what further salts learn is kept in memory alone", most, log)
            self._unsalted._logs_are_full = True
            return
        drafter = SafeDrafter(self._over(self.index, log))
        with self._lock:  # an index may have been taken up meanwhile
            index = self.drafter.index
            self.drafter = drafter if index is None or index is drafter.index else drafter.with_index(index)


def _count_logs(log: Path) -> int:
    """Number of logs of salts beside the same index, of all processes."""
    alike = re.compile(re.escape(log.stem) + r"\.[0-9a-f]{32}(?:\.\d+)?")
    return sum(1 for file in log.parent.iterdir() if alike.fullmatch(file.name))


def _has_inputs(index: TaskIndex | None) -> bool:
    return index is not None and index.info()["inputs"] > 0
