"""vLLM's `method: "suffix"` from a task's index: the surface of Arctic Inference's cache, and its plug-in.

    TASC_INDEX=task.tasc vllm serve MODEL --speculative-config '{"method": "suffix", "num_speculative_tokens": 32}'

For engines whose configuration must stay as it is. `tasc.adapters.vllm.TascProposer` also learns the cost of steps.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Hashable, KeysView, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tasc.adapters.vllm_requests import ShownRequests, watch_engine, watch_scheduler
from tasc.adapters.vllm_v2 import watch_second_runner
from tasc.drafting.costs import LearnedCosts
from tasc.drafting.defaults import MAX_DRAFT
from tasc.drafting.policy import DraftPolicy
from tasc.errors import InputError
from tasc.serving import Metrics, Settings, Tasks, TrackedRequest
from tasc.serving.settings import VARIABLE

STANDS_FOR = "arctic_inference.suffix_decoding"
"""Module that vLLM imports its cache from."""

_log = logging.getLogger(__name__)


class Speculation(NamedTuple):
    """A draft: a chain of K tokens, each the child of the one before."""

    token_ids: list[int]
    parents: list[int]
    probs: list[float]
    score: float
    match_len: int


class SuffixDecodingCache:
    """Replaces the class of this name in `arctic_inference` by drafts of tasc.

    Of its limits `max_spec_tokens` holds. `max_spec_factor`, `min_token_prob` and the depth do not: a draft is as long
    as it pays where a token costs `Settings.cost` (else `DEFAULT_SLOPE`) at the number of requests running.

    Args:
        max_tree_depth: Accepted and not used.
        max_cached_requests: Accepted and not used: online rows are bounded in bytes.
        settings: None: `Settings.from_environment()`.
        tokenizer: The model's tokenizer; None: that of the vLLM engine being built.
        eos: Ids that end an output; None: those of that engine.

    Raises:
        InputError: The settings are not there or wrong.
        TokenizerMismatchError: An index was made with another tokenizer than the model's.
    """

    def __init__(
        self,
        max_tree_depth: int = 64,
        max_cached_requests: int = -1,
        *,
        settings: Settings | None = None,
        tokenizer: Any = None,
        eos: Sequence[int] | None = None,
    ) -> None:
        settings = Settings.from_environment() if settings is None else settings
        model = None
        if tokenizer is None:
            from vllm.config import get_current_vllm_config

            from tasc.adapters.vllm import engine_eos_ids, engine_tokenizer

            model = get_current_vllm_config().model_config
            tokenizer = engine_tokenizer(model)
            eos = sorted(engine_eos_ids(model, tokenizer)) if eos is None else eos
        self.max_tree_depth, self.max_cached_requests = max_tree_depth, max_cached_requests
        self.metrics = Metrics()
        """What was drafted and accepted, by index and source."""
        self._curve, self._policy = LearnedCosts(settings.cost), DraftPolicy("packed")
        self._eos = frozenset(eos or ())
        self._tasks = Tasks(settings, tokenizer, getattr(model, "served_model_name", None))
        watch_engine()
        self.requests = ShownRequests(settings)
        """What the model runner shows of its requests."""
        self._running: dict[Hashable, TrackedRequest] = {}

    @property
    def active_requests(self) -> KeysView[Hashable]:
        """Names of the started requests that were not stopped."""
        return self._running.keys()

    @property
    def cached_requests(self) -> KeysView[Hashable]:
        """Always empty: outputs are not kept under request names."""
        return dict[Hashable, Any]().keys()

    def start_request(self, req_id: Hashable, prompt_token_ids: Any) -> None:
        """Begin a request.

        Args:
            req_id: Name of the request.
            prompt_token_ids: (L,) ids.

        Raises:
            ValueError: It is active already.
        """
        if req_id in self._running:
            raise ValueError(f"request {req_id!r} is active already; stop it first")
        prompt, shown = np.array(prompt_token_ids, np.int32), self.requests.of_step()
        drafts = self._tasks.choose(prompt, None if shown is None else shown.fields(req_id))
        self._running[req_id] = TrackedRequest(drafts, prompt, self.metrics, req_id)

    def add_active_response(self, req_id: Hashable, token_ids: Any) -> None:
        """Take the (T,) ids that a step has emitted."""
        new = np.asarray(token_ids, np.int32)
        if len(new):
            running = self._of(req_id)
            drafted, accepted = len(running.drafted), running.emitted(new.tolist())
            if drafted:
                extra = float(self._curve.costs(drafted, len(self._running))[-1]) - 1.0
                self._policy.record(running.drafter, accepted / len(self._running), extra / len(self._running))

    def speculate(
        self, req_id: Hashable, context: Any, max_spec_tokens: int | None = None, **limits: Any
    ) -> Speculation:
        """Draft what comes next.

        Args:
            req_id: An active request.
            context: Not used: the request is followed from its beginning.
            max_spec_tokens: Longest draft; None: 64.
            **limits: `max_spec_factor` and the others; not used.

        Raises:
            ValueError: The request is not active.
        """
        running = self._of(req_id)
        longest = MAX_DRAFT if max_spec_tokens is None else max(0, max_spec_tokens)
        budget = self._policy.budget(running.drafter, self._curve.costs(longest, len(self._running)))
        if budget is None:
            self.metrics.count(running.drafts, "paused")
            return Speculation([], [], [], 0.0, 0)
        draft = running.request.draft(longest, budget)
        running.hold_draft(draft, longest)
        ids, probs = running.drafted.tolist(), [float(p) for p in draft.probs[: len(running.drafted)]]
        return Speculation(ids, list(range(-1, len(ids) - 1)), probs, sum(probs), len(ids))

    def stop_request(self, req_id: Hashable) -> None:
        """End a request; where it ended with an end token it is learnt from.

        Raises:
            ValueError: It is not active.
        """
        running = self._of(req_id)
        del self._running[req_id]
        running.learn(self._eos)

    def evict_cached_response(self, req_id: Hashable) -> None:
        """Refuse: no response is kept under a name.

        Raises:
            ValueError: Always, as for any name that is not cached.
        """
        raise ValueError(f"request {req_id!r} is not cached")

    def _of(self, req_id: Hashable) -> TrackedRequest:
        if req_id not in self._running:
            raise ValueError(f"request {req_id!r} is not active; call start_request first")
        return self._running[req_id]


def register() -> None:
    """Put `SuffixDecodingCache` where vLLM looks for Arctic Inference's, if TASC_INDEX is set.

    An entry point of `vllm.general_plugins`, which vLLM calls in each of its processes. The scheduler's passes cache
    salts on where the settings ask for them. `vllm_v2` makes `TascProposer` run in the second model runner.
    """
    watch_second_runner()
    if not os.environ.get(VARIABLE):
        return
    with suppress(InputError):  # the proposer raises it where it is seen
        if Settings.from_environment().salt == "cache_salt":
            watch_scheduler()
    package = STANDS_FOR.partition(".")[0]
    if package not in sys.modules and find_spec(package) is None:
        sys.modules[package] = _module(package)
    module = sys.modules[STANDS_FOR] = _module(STANDS_FOR)
    module.SuffixDecodingCache = SuffixDecodingCache  # type: ignore[attr-defined]


def _module(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    return module
