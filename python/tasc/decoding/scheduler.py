"""Continuous batching across callers: whose jobs run next, in which thread, and what happens when a caller goes.

A call that is alone runs the loop in its own thread. As soon as there are several, a worker thread runs it for all of
them: rows that become free take the callers' jobs in turn. Callbacks of a call run in the caller's own thread, while it
holds neither the loop nor the model, so that they may use the generator.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any
from weakref import WeakSet

from tasc.decoding.jobs import Job
from tasc.decoding.loop import Loop
from tasc.errors import InputError

_log = logging.getLogger(__name__)

_SLICE_SECONDS = 0.1  # a generator keeps the model so long at least while another one waits for it
_EXIT_SECONDS = 5.0  # seconds that `close` waits for calls of other threads


class ModelLock:
    """Re-entrant lock of a model that serves threads in the order in which they come.

    Generators of one model take turns: steps change the model's layers for a time.

    Examples:
        >>> lock = ModelLock()
        >>> with lock, lock:
        ...     lock.is_wanted
        False
    """

    def __init__(self) -> None:
        self._owner: int | None = None
        self._depth = 0
        self.forget_waiting()

    def forget_waiting(self) -> None:
        """Forget the threads that wait: a forked child does not have them."""
        self._changed = threading.Condition()
        self._turns: deque[object] = deque()

    @property
    def is_wanted(self) -> bool:
        """Whether another thread waits for the model."""
        return bool(self._turns)

    @property
    def is_mine(self) -> bool:
        """Whether the present thread has the model."""
        return self._owner == threading.get_ident()

    def __enter__(self) -> None:
        """Wait for the model."""
        me, turn = threading.get_ident(), object()
        with self._changed:
            if self._owner != me:
                self._turns.append(turn)
                try:
                    self._changed.wait_for(lambda: self._owner is None and self._turns[0] is turn)
                    self._owner = me
                finally:  # after an interrupt, the next thread has its turn
                    self._turns.remove(turn)
                    self._changed.notify_all()
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        """Leave the model to the next thread."""
        with self._changed:
            self._depth -= 1
            if self._depth == 0:
                self._owner = None
                self._changed.notify_all()


class Call:
    """The jobs of one caller.

    Args:
        jobs: The jobs, in the order in which they start.
        job_ended: Called with each job that ends, in the thread that runs the loop.
        all_ended: Called with all jobs when the last one has ended, in the same thread.
        ended: Called with the call when it has ended in any way, in the same thread or in the one that cancels it.
        has_place: Whether it is a submitted call, which holds a place (`Scheduler.ask`).

    Attributes:
        jobs: The jobs; none once it has ended, since they hold drafters and their logs.
        waiting: Jobs that have not started.
        left: Number of jobs that have not ended.
        has_ended: Whether no job of it will run any more.
        is_cancelled: Whether it was cancelled.
        error: What stopped it.
        wake: Set when something has happened that the caller waits for.
        thread: Thread that made it.
        needs_worker: Whether its caller does not run the loop now.
        is_prepared: Whether the loop has made room for it.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        job_ended: Callable[[Job], None] | None = None,
        all_ended: Callable[[Sequence[Job]], None] | None = None,
        ended: Callable[[Call], None] | None = None,
        has_place: bool = False,
    ) -> None:
        self.jobs, self.waiting, self.left = jobs, deque(jobs), len(jobs)
        self.job_ended, self.all_ended, self._ended = job_ended, all_ended, ended
        self.has_place = self.needs_worker = has_place
        self.has_ended = not jobs
        self.is_cancelled = False
        self.error: BaseException | None = None
        self.wake = threading.Event()
        self.thread = threading.get_ident()
        self.is_prepared = False

    def end(self) -> None:
        """Tell the caller that the call has ended."""
        self.has_ended = True
        ended, self.job_ended, self.all_ended, self._ended = self._ended, None, None, None  # no cycles of references
        try:
            if ended is not None:
                ended(self)
        finally:
            self.jobs = ()
            self.wake.set()


class Scheduler:
    """Runs the calls of one generator through its loop. Any number of threads may use it.

    Args:
        loop: The loop.
        session: Returns a context in which the model is ready for steps; it takes the model's lock.
        model_lock: Lock of the model.
        places: Most submitted calls that have not ended.

    Attributes:
        preparing: Held while a caller finds the drafters of its requests.
    """

    def __init__(
        self, loop: Loop, session: Callable[[], AbstractContextManager[Any]], model_lock: ModelLock, places: int
    ) -> None:
        self._loop, self._session, self._model_lock = loop, session, model_lock
        self.preparing = threading.RLock()
        self._num_places = places
        self._changed = threading.Condition()
        self._calls: deque[Call] = deque()  # those that have not ended
        self._callers: dict[Job, Call] = {}  # of the jobs in the loop
        self._free_places = places
        self._asking: deque[Future[None]] = deque()
        self._driver: int | None = None  # thread that runs the loop
        self._worker: threading.Thread | None = None
        self._is_closing = False
        _schedulers.add(self)

    def run(self, call: Call, dispatch: Callable[[], None]) -> None:
        """Run a call to its end.

        Args:
            call: The call, made in this thread.
            dispatch: Called in this thread whenever `call.wake` was set, and at the end.

        Raises:
            BaseException: What stopped the call.
        """
        self.refuse_worker()
        with self._changed:
            if not call.has_ended:
                self._calls.append(call)
        try:
            while not call.has_ended:
                try:
                    if self._claim(call):
                        self._drive(deque([call]), lambda: call.wake.is_set() or len(self._calls) > 1)
                    else:
                        call.wake.wait()
                finally:
                    self._leave()
                    call.needs_worker = False
                    call.wake.clear()
                    dispatch()
            dispatch()  # what came between the last one and the end
        except BaseException:
            self._leave()  # an interrupt may have come before the one above
            self.stop(call)
            raise
        if call.error is not None:
            raise call.error

    def submit(self, call: Call) -> None:
        """Let the worker run a call that has a place."""
        with self._changed:
            self._start_worker()
            self._calls.append(call)
            self._changed.notify_all()

    def stop(self, call: Call, error: BaseException | None = None) -> bool:
        """Cancel a call, or end it with an error; its jobs leave the loop at the next step.

        Returns:
            False if it has ended already.
        """
        with self._changed:
            if call not in self._calls:
                return False
            self._remove(call)
        call.error, call.is_cancelled = error, error is None
        self._tell(call)
        return True

    def ask(self) -> Future[None]:
        """Ask for a place for a call to submit. The future is done when there is one; places are given in turn."""
        place: Future[None] = Future()
        with self._changed:
            self._asking.append(place)
            self._give_places()
        return place

    def give_back(self, place: Future[None]) -> None:
        """Give back a place that no call uses, or ask for it no longer."""
        if not place.cancel() and place.exception() is None:
            with self._changed:
                self._free_places += 1
                self._give_places()

    def refuse_worker(self) -> None:
        """Raise an error in a thread that runs the loop, or the model, for others: it would wait for itself.

        Raises:
            InputError: The present thread is the worker, or has the model.
        """
        if threading.current_thread() is self._worker or self._model_lock.is_mine:
            raise InputError(
                "a done callback of submit() waits for an output of the same model, which waits for the callback; "
                "wait in another thread"
            )

    def wait(self) -> None:
        """Wait until all submitted calls have ended."""
        self.refuse_worker()
        with self._changed:
            self._changed.wait_for(lambda: not any(call.has_place for call in self._calls))

    def close(self) -> None:
        """Cancel the submitted calls and end the worker; a later call starts another one."""
        with self._changed:
            calls, asking = [call for call in self._calls if call.has_place], list(self._asking)
            self._asking.clear()
            worker = self._worker
            self._is_closing = worker is not None
            self._changed.notify_all()
        for place in asking:
            if place.set_running_or_notify_cancel():
                place.set_exception(InputError("the generator was closed while a request waited for a place"))
        for call in calls:
            self.stop(call)
        if worker is not None and worker is not threading.current_thread():
            worker.join(_EXIT_SECONDS)

    @staticmethod
    def hold(schedulers: Sequence[Scheduler]) -> None:
        """Wait for the end of a step of each, and let none begin before `let_go`, which the same thread calls.

        All models come first: a done callback, which has a model, may submit to any of the generators.
        """
        for each in schedulers:
            each._model_lock.__enter__()
        for each in schedulers:
            each.preparing.acquire()
        for each in schedulers:
            each._changed.acquire()

    def let_go(self) -> None:
        """End `hold`."""
        self._changed.release()
        self.preparing.release()
        self._model_lock.__exit__()

    def let_go_in_child(self) -> None:
        """End `hold` in a forked child, which has one thread of its parent and keeps the calls of this thread alone."""
        me = threading.get_ident()
        self._model_lock.forget_waiting()
        self._model_lock.__exit__()
        self.preparing.release()
        self._changed = threading.Condition()
        gone = {call for call in self._calls if call.has_place or call.thread != me}
        self._calls = deque(call for call in self._calls if call not in gone)
        for job, call in self._callers.items():
            job.is_cancelled |= call in gone
        self._free_places, self._asking = self._num_places, deque()
        self._driver, self._is_closing, self._worker = None, False, None

    def _give_places(self) -> None:
        while self._asking and self._free_places > 0:
            place = self._asking.popleft()
            if place.set_running_or_notify_cancel():
                self._free_places -= 1
                place.set_result(None)

    def _claim(self, call: Call) -> bool:
        """Take the loop for a call that is alone; leave it to the worker otherwise."""
        with self._changed:
            if self._driver is not None or len(self._calls) > 1:
                call.needs_worker = True
                self._start_worker()
                self._changed.notify_all()
                return False
            self._driver = threading.get_ident()
            return True

    def _leave(self) -> None:
        """Give the loop back, if this thread has it."""
        with self._changed:
            if self._driver == threading.get_ident():
                self._driver = None
                self._drop_cancelled()
                self._changed.notify_all()

    def _drop_cancelled(self) -> None:
        """Let go of the jobs of cancelled calls where no step will do it."""
        if self._driver is None and not self._calls:
            self._loop.drop()
            self._callers.clear()

    def _start_worker(self) -> None:
        if self._worker is None:
            worker = threading.Thread(target=self._work, name="tasc-generator", daemon=True)
            worker.start()
            self._worker = worker

    def _work(self) -> None:
        """Run all calls, until the scheduler is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._driver is None and (self._is_closing or self._has_work()))
                if not self._has_work():
                    self._worker, self._is_closing = None, False
                    return
                self._driver = threading.get_ident()
            with suppress(BaseException):  # its calls have it
                self._drive(self._calls, lambda: not self._calls)

    def _has_work(self) -> bool:
        return any(call.needs_worker for call in self._calls)

    def _drive(self, calls: deque[Call], until: Callable[[], bool]) -> None:
        """Run the loop in this thread, which has taken it, until a condition holds; then give it back.

        What a step raises stops the calls that it was for, and is raised.

        Args:
            calls: Calls whose jobs start. A caller's thread starts its own alone: an interrupt is for no other call,
                and done callbacks run in the worker.
            until: The condition.
        """
        try:
            while not until():
                with self._session():
                    self._loop.prepare(())
                    latest = time.monotonic() + _SLICE_SECONDS
                    while True:
                        for job in self._loop.advance(partial(self._take, calls)):
                            self._end(job)
                        if until() or (self._model_lock.is_wanted and time.monotonic() > latest):
                            break
        except BaseException as error:
            for job in [job for job in self._callers if job.finish_reason is not None]:
                self._end(job)
            running = {call for call in self._callers.values() if not call.has_ended}
            for call in running or list(calls):  # none: the model cannot even be made ready
                self.stop(call, error)
            self._loop.drop()
            self._callers.clear()
            raise
        finally:
            self._leave()

    def _take(self, calls: deque[Call], free: int) -> list[Job]:
        """Take the next jobs for so many free rows: one of each call in turn."""
        taken: list[Job] = []
        with self._changed:
            fresh = [call for call in calls if not call.is_prepared]
            while len(taken) < free and any(call.waiting for call in calls):
                call = calls[0]
                calls.rotate(-1)
                if call.waiting:
                    job = call.waiting.popleft()
                    self._callers[job] = call
                    taken.append(job)
        for call in fresh:
            call.is_prepared = True
            self._loop.prepare(call.jobs)
        return taken

    def _end(self, job: Job) -> None:
        """Report a job that has left the loop."""
        call = self._callers.pop(job)
        with self._changed:
            if call not in self._calls:  # cancelled
                return
            job_ended, all_ended = call.job_ended, call.all_ended
            call.left -= 1
            is_last = call.left == 0 or job.error is not None
            if is_last:
                self._remove(call)
        if is_last:
            call.error = job.error
        try:
            if job.error is None:
                if job_ended is not None:
                    job_ended(job)
                if is_last and all_ended is not None:
                    all_ended(call.jobs)
        finally:
            if is_last:
                self._tell(call)

    def _tell(self, call: Call) -> None:
        """Tell the caller that its call has ended. A done callback that exits stops no other call."""
        try:
            call.end()
        except BaseException:  # what is no Exception passes through a future
            if threading.current_thread() is not self._worker:
                raise
            _log.exception("a done callback of submit() raised")

    def _remove(self, call: Call) -> None:
        """Forget a call; its jobs that have not ended leave the loop at the next step."""
        self._calls.remove(call)
        call.waiting.clear()
        for job in call.jobs:
            job.is_cancelled = not job.has_ended
        if call.has_place:
            self._free_places += 1
            self._give_places()
        self._drop_cancelled()
        self._changed.notify_all()


_schedulers: WeakSet[Scheduler] = WeakSet()
_forking = threading.Lock()
_held: list[Scheduler] = []  # while the process forks


def _before_fork() -> None:
    """Let no step be under way: locks would stay locked in the child, and the model as a step needs it."""
    _forking.acquire()
    _held.extend(sorted(_schedulers, key=id))
    Scheduler.hold(_held)


def _after_fork(let_go: Callable[[Scheduler], None]) -> None:
    for each in reversed(_held):
        let_go(each)
    _held.clear()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=partial(_after_fork, Scheduler.let_go),
        after_in_child=partial(_after_fork, Scheduler.let_go_in_child),
    )
