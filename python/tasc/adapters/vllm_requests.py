"""What vLLM knows of its requests and does not pass to a proposer: names, extra arguments, LoRA adapters, cache salts.

`show_requests` wraps the method of the model runner that calls the proposer. `pass_cache_salt` wraps the scheduler's
message about new requests, which leaves the cache salt out. Written for vLLM 0.32. vLLM itself is not imported here.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from tasc.serving import RequestFields, Settings
from tasc.serving.tracker import BatchRequests

CACHE_SALT = "tasc_cache_salt"
"""Extra argument that carries a request's cache salt, or None, from the scheduler to the model runner."""

_log = logging.getLogger(__name__)


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

    def show(self, names: Sequence[Hashable], states: Mapping[Hashable, Any]) -> None:
        """Take the names of a batch's requests, by row, and the states of all requests by name."""
        self._shown = BatchRequests(names, states, lambda name: self._fields(states[name]))

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


def show_requests(runner: type) -> bool:
    """Wrap `propose_draft_token_ids` of a model runner's class, once: the proposer's `requests` is shown the batch.

    Returns:
        Whether the class has this method.
    """
    original: Any = getattr(runner, "propose_draft_token_ids", None)
    if original is None or hasattr(original, "shows_requests"):
        return original is not None

    @functools.wraps(original)
    def propose_draft_token_ids(self: Any, *args: Any, **options: Any) -> Any:
        proposer = getattr(self, "drafter", None)
        shown = getattr(getattr(proposer, "suffix_cache", proposer), "requests", None)
        names, states = getattr(getattr(self, "input_batch", None), "req_ids", None), getattr(self, "requests", None)
        if isinstance(shown, ShownRequests) and names is not None and states is not None:
            shown.show(names, states)
        return original(self, *args, **options)

    propose_draft_token_ids.shows_requests = True  # type: ignore[attr-defined]
    runner.propose_draft_token_ids = propose_draft_token_ids  # type: ignore[attr-defined]
    return True


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
