"""What `Generator.submit` and `Generator.stream` give back: the future of an output, and pieces of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from tasc.decoding.jobs import Job
from tasc.decoding.scheduler import Call, Scheduler
from tasc.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasc.decoding.generator import Generation
    from tasc.decoding.grammar import Grammar
    from tasc.drafting.protocol import Drafter


class RequestOptions(TypedDict, total=False):
    """Options of `Generator.submit` and `Generator.stream`, as of `Generator.generate`.

    Attributes:
        system: System message for the input.
        max_tokens: Most output tokens.
        temperature: 0 is greedy.
        top_p: Mass kept.
        top_k: Tokens kept.
        min_p: Relative probability kept.
        repetition_penalty: None: the model's generation config.
        seed: With `position`, decides the request's random numbers. None: a fresh one.
        position: Position of the prompt in a list that several calls share; 0 by default.
        eos: Ids that end the output.
        stop: Strings that end the output.
        grammar: What the output may be.
        index: Instead of the generator's index.
        salt: Draft with what was learnt under this salt.
        drafter: Instead of the generator's drafter.
    """

    system: str | None
    max_tokens: int
    temperature: float
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    position: int
    eos: int | Sequence[int] | None
    stop: str | Sequence[str]
    grammar: Grammar | None
    index: Any
    salt: str | None
    drafter: Drafter | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """New tokens of a streamed output.

    Attributes:
        ids: New ids.
        text: New text. The texts joined are the output's text; none ends within a character.
        generation: The whole output, with the last piece; None before.
    """

    ids: list[int]
    text: str
    generation: Generation | None = None


class GenerationFuture(Future["Generation"]):
    """Future of a submitted request's `Generation`. `Generator.submit` makes it.

    It is a `concurrent.futures.Future`: `result`, `exception`, `add_done_callback`, `as_completed` and
    `asyncio.wrap_future` work as usual. `cancel` also works while the request runs. Done callbacks run in the thread
    that runs the model, so they must be short, and must not wait for a generator of the same model.

    Args:
        scheduler: Runs the request.
        job: The request.
        generation: Makes the output of a job that has ended.
        all_ended: See `Call`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        job: Job,
        generation: Callable[[Job], Generation],
        all_ended: Callable[[Sequence[Job]], None] | None,
    ) -> None:
        super().__init__()
        self._scheduler, self._process = scheduler, os.getpid()
        self._call = Call([job], all_ended=all_ended, ended=partial(self._settle, generation), has_place=True)
        scheduler.submit(self._call)

    def cancel(self) -> bool:
        """Cancel the request, whether it waits or runs; it leaves the batch at the next step.

        Returns:
            Whether it is cancelled; False if it has ended already.
        """
        self._scheduler.stop(self._call)
        return self.cancelled()

    def result(self, timeout: float | None = None) -> Generation:
        """Wait for the output.

        Args:
            timeout: Seconds; None: no limit.

        Raises:
            TimeoutError: It has not ended in time; it goes on.
            CancelledError: It was cancelled, or its generator closed.
            NoTokenError: Its logits are NaN, or leave no token.
            InputError: The present thread must not wait for it, or a parent process submitted it.
        """
        self._check_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, and return the error or None; raises as `result`, but for the request's own error."""
        self._check_wait()
        return super().exception(timeout)

    def _check_wait(self) -> None:
        if self.done():
            return
        self._scheduler.refuse_worker()
        if os.getpid() != self._process:
            raise InputError(
                f"process {self._process} submitted this request, and its output comes there alone; "
                "submit another one in this process"
            )

    def _settle(self, generation: Callable[[Job], Generation], call: Call) -> None:
        if call.is_cancelled:
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        if call.error is not None:
            self.set_exception(call.error)
            return
        try:
            made = generation(call.jobs[0])
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result(made)
