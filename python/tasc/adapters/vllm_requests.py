"""What vLLM knows of its requests and does not pass to a proposer: names, extra arguments, LoRA adapters, cache salts.

`show_requests` wraps the method of the first model runner that calls the proposer, `show_new_requests` the method of
the second one that takes requests. `pass_cache_salt` wraps the scheduler's message about new requests, which leaves the
cache salt out. Written for vLLM 0.32 and 0.33. vLLM itself is not imported here.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tasc.serving import RequestFields, Settings
from tasc.serving.tracker import BatchRequests

CACHE_SALT = "tasc_cache_salt"
"""Extra argument that carries a request's cache salt, or None, from the scheduler to the model runner."""

_log = logging.getLogger(__name__)


class _State(NamedTuple):
    """What is read of a request: vLLM's own state of it has more, some of it large."""

    sampling_params: Any
    lora_request: Any
    num_prompt_tokens: int | None


class ShownRequests:
    """The requests that a model runner has shown for a step.

    Args:
        settings: Say which field holds the salt.
    """

    def __init__(self, settings: Settings) -> None:
        self._salt_field = settings.salt or "tasc_salt"
        self._needs_fields = settings.needs_fields
        self._shown: BatchRequests | None = None
        self._warned = False
        self._states: dict[Hashable, Any] = {}

    def follow(self, new: Iterable[Any], ended: Iterable[Hashable]) -> None:
        """Take the requests that begin, after the names of those that have ended."""
        for name in ended:
            self._states.pop(name, None)
        for state in new:
            self._states[state.req_id] = _State(
                state.sampling_params, state.lora_request, getattr(state, "prompt_len", None)
            )

    def show(self, names: Sequence[Hashable], states: Mapping[Hashable, Any] | None = None) -> None:
        """Take the names of a batch's requests, by row, and the states of all by name; None: those followed."""
        states = self._states if states is None else states
        self._shown = BatchRequests(
            names,
            states,
            lambda name: self._fields(states[name]),
            lambda name: getattr(states[name], "num_prompt_tokens", None),
        )

    def of_step(self) -> BatchRequests | None:
        """Return what was shown for this step; None, which is logged once, where nothing was."""
        if self._shown is None and not self._warned:
            self._warned = True
            effect = (
                "its settings need the fields of requests, so drafts come from each request's own context alone"
                if self._needs_fields
                else "requests are recognised by their tokens, and `tasc_index` and `tasc_salt` have no effect"
            )
            _log.warning("this version of vLLM does not show tasc its requests: %s", effect)
        return self._shown

    def _fields(self, state: Any) -> RequestFields | None:
        """Return what came with a request; None where its salt is not passed on."""
        extra = getattr(getattr(state, "sampling_params", None), "extra_args", None) or {}
        if self._salt_field == "tasc_salt":
            salt = extra.get("tasc_salt")
        elif CACHE_SALT in extra:
            salt = extra[CACHE_SALT]
        else:
            return None
        lora = getattr(state, "lora_request", None)
        return RequestFields(
            key=_text(extra.get("tasc_index")), salt=_text(salt), lora=None if lora is None else lora.lora_name
        )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def wrap_once(owner: Any, name: str, wrap: Callable[[Any], Any]) -> bool:
    """Replace the function `name` of a class or module by `wrap` of it, unless that was done before.

    Returns:
        Whether there is such a function.
    """
    original = getattr(owner, name, None)
    if original is None or hasattr(original, "wrapped_by_tasc"):
        return original is not None
    wrapped: Any = functools.wraps(original)(wrap(original))
    wrapped.wrapped_by_tasc = True
    setattr(owner, name, wrapped)
    return True


def show_requests(runner: type) -> bool:
    """Wrap `propose_draft_token_ids` of a model runner's class, once: the proposer's `requests` is shown the batch.

    Returns:
        Whether the class has this method.
    """

    def wrap(original: Any) -> Any:
        def propose_draft_token_ids(self: Any, *args: Any, **options: Any) -> Any:
            proposer = getattr(self, "drafter", None)
            shown = getattr(getattr(proposer, "suffix_cache", proposer), "requests", None)
            names = getattr(getattr(self, "input_batch", None), "req_ids", None)
            states = getattr(self, "requests", None)
            if isinstance(shown, ShownRequests) and names is not None and states is not None:
                shown.show(names, states)
            return original(self, *args, **options)

        return propose_draft_token_ids

    return wrap_once(runner, "propose_draft_token_ids", wrap)


def show_new_requests(runner: type) -> bool:
    """Wrap `add_requests` of the second model runner's class, once: the speculator's `drafts.requests` follows it.

    Returns:
        Whether the class has this method.
    """

    def wrap(original: Any) -> Any:
        def add_requests(self: Any, scheduler_output: Any) -> Any:
            shown = getattr(getattr(getattr(self, "speculator", None), "drafts", None), "requests", None)
            if isinstance(shown, ShownRequests):
                shown.follow(scheduler_output.scheduled_new_reqs, scheduler_output.finished_req_ids)
            return original(self, scheduler_output)

        return add_requests

    return wrap_once(runner, "add_requests", wrap)


def pass_cache_salt(message: type) -> None:
    """Wrap `from_request` of the class of the scheduler's new requests, once: their extra arguments hold the salt."""
    original: Any = message.from_request  # type: ignore[attr-defined]
    if hasattr(original, "passes_cache_salt"):
        return

    @functools.wraps(original)
    def from_request(cls: Any, request: Any, *args: Any, **options: Any) -> Any:
        made = original.__func__(cls, request, *args, **options)
        if made.sampling_params is None:
            return made
        params = copy.copy(made.sampling_params)
        params.extra_args = {**(params.extra_args or {}), CACHE_SALT: request.cache_salt}
        return dataclasses.replace(made, sampling_params=params)

    from_request.passes_cache_salt = True  # type: ignore[attr-defined]
    message.from_request = classmethod(from_request)  # type: ignore[attr-defined]


def watch_engine() -> None:
    """Wrap the classes of the installed vLLM, as far as it has them."""
    try:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    except ImportError:
        return
    show_requests(GPUModelRunner)


def watch_scheduler() -> None:
    """Have the installed vLLM's scheduler pass cache salts on, as far as it can."""
    try:
        from vllm.v1.core.sched.output import NewRequestData
    except ImportError:
        return
    pass_cache_salt(NewRequestData)
