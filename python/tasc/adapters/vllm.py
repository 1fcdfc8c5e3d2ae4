"""vLLM: drafts from a task's index, as a proposer of its `custom_class` method (`vllm_suffix`: of its `suffix`).

    TASC_INDEX=task.tasc vllm serve MODEL --speculative-config '{"method": "custom_class",
        "model": "tasc.adapters.vllm.TascProposer", "num_speculative_tokens": 32}'

vLLM verifies the drafts with its own sampler. Its configuration takes no further keys, so `tasc.serving.Settings` come
from the variable TASC_INDEX. `TascProposer` is for vLLM's first model runner; `vllm_v2` has the drafter of the second.
Written for vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tasc.adapters.vllm_requests import ShownRequests, watch_engine
from tasc.data.endings import eos_ids_of
from tasc.drafting.costs import LearnedCosts
from tasc.serving import Metrics, RequestTracker, Settings, Tasks
from tasc.serving.backoff import Backoff

_log = logging.getLogger(__name__)

T = TypeVar("T")

_WRITE_EVERY = 5.0  # seconds between two writes of the metrics file


class EngineDrafts:
    """Drafts for all requests of an engine, under either model runner.

    Args:
        vllm_config: `vllm.config.VllmConfig`; `num_speculative_tokens` is the longest draft.
        settings: What to serve.
        curve: Cost of the engine's steps.

    Raises:
        InputError: An index is not there.
        TokenizerMismatchError: An index was made with another tokenizer than the model's.
        FormatError: An index is none, or damaged.
    """

    def __init__(self, vllm_config: Any, settings: Settings, curve: LearnedCosts) -> None:
        model = vllm_config.model_config
        tokenizer = engine_tokenizer(model)
        self.requests = ShownRequests(settings)
        """What the model runner shows of its requests."""
        self._tasks = Tasks(settings, tokenizer, getattr(model, "served_model_name", None))
        self.metrics = Metrics()
        """Counts of drafted and accepted tokens by index and source."""
        self._new_batch = partial(
            RequestTracker,
            self._tasks.choose,
            max_draft=vllm_config.speculative_config.num_speculative_tokens,
            max_length=model.max_model_len,
            vocab_size=model.get_vocab_size(),
            eos=engine_eos_ids(model, tokenizer),
            curve=curve,
            metrics=self.metrics,
        )
        self.batch = self._new_batch()
        """The running requests."""
        self._file, self._written = settings.metrics, 0.0
        self._backoff = Backoff()

    def run(self, draft: Callable[[], T]) -> T | None:
        """Draft for a step by calling `draft`, which uses `batch`.

        Returns:
            What `draft` returned. None: it was not called or has raised. Nothing raises from here but an interrupt and
            an exit: after a failure, which is logged and counted, decoding continues plainly for a while
            (`tasc.serving.backoff`).
        """

        def step() -> T:
            found = draft()
            self._write()
            return found

        return self._backoff.run(step, self._failed)

    def _failed(self) -> None:
        self.metrics.engine_failed()
        self.batch = self._new_batch()

    def _write(self) -> None:
        now = time.monotonic()
        if self._file is None or now - self._written < _WRITE_EVERY:
            return
        self._written = now
        try:
            self.metrics.write(self._file)
        except Exception as error:
            _log.warning("metrics cannot be written: %s", error)


class TascProposer(EngineDrafts):
    """Proposer for vLLM. Draft lengths follow the cost of steps at the present load; see docs/policy.md.

    Args:
        vllm_config: As for `EngineDrafts`. The settings come from TASC_INDEX.

    Raises:
        InputError: The settings are missing or invalid. `EngineDrafts` has the other errors.
    """

    def __init__(self, vllm_config: Any) -> None:
        settings = Settings.from_environment()
        watch_engine()
        super().__init__(vllm_config, settings, LearnedCosts(settings.cost))

    def load_model(self, *_: Any, **__: Any) -> None:
        """Do nothing: there is no draft model to load."""

    def propose(
        self,
        sampled_token_ids: Sequence[Sequence[int]],
        num_tokens_no_spec: NDArray[np.int32],
        token_ids_cpu: NDArray[np.int32],
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Draft for the next step.

        Args:
            sampled_token_ids: By row of the batch, the ids that the step emitted; empty while a prompt is prefilled.
            num_tokens_no_spec: (max_num_seqs,) number of tokens of each row, the emitted ones included.
            token_ids_cpu: (max_num_seqs, max_model_len) tokens of each row.
            slot_mappings: Not used.

        Returns:
            By row, the ids of the draft; all empty after a failure (`EngineDrafts.run`).
        """
        drafts = self.run(
            lambda: self.batch.propose(sampled_token_ids, num_tokens_no_spec, token_ids_cpu, self.requests.of_step())
        )
        return [[] for _ in sampled_token_ids] if drafts is None else drafts


def engine_tokenizer(model: Any) -> Any:
    """Load the engine's tokenizer with transformers: its chat template shows where inputs are."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model.tokenizer, trust_remote_code=model.trust_remote_code)


def engine_eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an output: those of the model's generation settings and of the tokenizer."""
    return eos_ids_of([model.try_get_generation_config()], tokenizer)
