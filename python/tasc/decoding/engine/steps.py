"""Steps of a model over one cache: CUDA graphs where possible, else eager forward passes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from tasc.decoding.engine.cache import RowCache
from tasc.decoding.engine.cuda_graphs import StepGraphs, capture_for
from tasc.decoding.engine.model_cache import ModelCaches
from tasc.decoding.engine.target import AnyCache, Target, TokenLists
from tasc.decoding.engine.weight_watcher import WeightWatcher
from tasc.decoding.verify import argmax
from tasc.errors import InputError

_log = logging.getLogger(__name__)

_TIMING_CONTEXT = 64  # tokens before a timed step
_MAX_RESERVED = 1024  # positions reserved in advance
_MAX_GPU_BATCH = 2048  # tokens of prompts and their drafts in one step on a GPU
_MAX_CPU_PROMPT = 64  # tokens of a prompt; a longer one is compute-bound on a CPU and runs alone
_MAX_CPU_BATCH = 512  # tokens of short prompts in one step on a CPU
_PASS_OVERHEAD = 20  # tokens whose computation takes a CPU as long as the fixed cost of one more pass

T = TypeVar("T")


class StepRunner:
    """Runs the steps of a target or a draft model.

    Args:
        target: The model.
        cache: Its cache.
        max_keep: Most trailing positions per row whose logits are computed.
        cuda_graphs: Whether steps are captured as CUDA graphs. None: if the model is on a CUDA device; a model that
            cannot be captured, because its forward pass waits for the device, then runs eagerly, and a warning is
            logged.

    Raises:
        InputError: `cuda_graphs` is True and the model is not on a CUDA device.
    """

    def __init__(self, target: Target, cache: AnyCache, max_keep: int, cuda_graphs: bool | None = None) -> None:
        self._target, self._cache, self._required = target, cache, bool(cuda_graphs)
        self._weights = WeightWatcher(target.model)
        new_capture = capture_for(target.device)
        if cuda_graphs and new_capture is None:
            raise InputError(
                f"cuda_graphs=True, but the model is on {target.device}; move it to a CUDA device, or leave it out"
            )
        self._graphs = None
        if new_capture is not None and cuda_graphs is not False and isinstance(cache, RowCache):
            self._graphs = StepGraphs(target, cache, max_keep, new_capture)

    @property
    def was_warm(self) -> bool:
        """Whether the duration of the last step is representative: no graph was prepared in it."""
        return self._graphs is None or self._graphs.was_replay

    def prepare(self, num_positions: int) -> bool:
        """Prepare for requests with positions below `num_positions`.

        With CUDA graphs, up to 1024 positions are reserved in advance, because a cache that grows is captured again.

        Returns:
            Whether the model's weights have changed since the last call, which makes the cache's contents invalid.
        """
        changed = self._weights.changed()
        if self._graphs is not None:
            self._cache.reserve(min(num_positions, _MAX_RESERVED))
            if changed:
                self._graphs.clear()
        return changed

    def keep_states(self) -> bool:
        """Keep the last hidden states of all tokens from now on. Returns whether they were not kept before.

        Only a `RowCache` keeps them.
        """
        if not isinstance(self._cache, RowCache) or self._cache.keeps_states:
            return False
        self._cache.keeps_states = True
        if self._graphs is not None:
            self._graphs.clear()
        return True

    def logits(self, first_row: int, tokens: TokenLists, starts: Sequence[int], keep: int) -> Tensor:
        """Run a step; see `Target.step`. Returns (n, min(keep, Q), V) logits, which the next step may overwrite."""
        output = self._try_graphs(lambda graphs: graphs.run(first_row, tokens, starts, keep, greedy=False))
        return self._target.step(self._cache, first_row, tokens, starts, keep) if output is None else output

    def argmax(self, first_row: int, tokens: TokenLists, starts: Sequence[int], keep: int) -> list[list[int]]:
        """Run a step; return the `argmax` of its logits, n lists of min(keep, Q) token ids or `NO_TOKEN`."""
        output = self._try_graphs(lambda graphs: graphs.run(first_row, tokens, starts, keep, greedy=True))
        if output is None:
            output = argmax(self._target.step(self._cache, first_row, tokens, starts, keep))
        ids: list[list[int]] = output.tolist()
        return ids

    def num_computed_tokens(self, num_rows: int, query_length: int) -> int:
        """Number of tokens that a step computes, with the padding of a graph's shape."""
        if self._graphs is None:
            return num_rows * query_length
        return self._graphs.num_computed_tokens(num_rows, query_length)

    def should_prefill_together(self, lengths: Sequence[int], max_draft: int) -> bool:
        """Whether one prefill step over several prompts is faster than one step each.

        Args:
            lengths: Number of tokens to compute of each prompt.
            max_draft: Longest draft behind a prompt, in tokens.
        """
        rows, longest = len(lengths), max(lengths)
        if not self._target.is_batched:
            return False
        if self._target.device.type == "cpu":
            padding = rows * longest - sum(lengths)
            is_short = longest <= _MAX_CPU_PROMPT and rows * longest <= _MAX_CPU_BATCH
            return is_short and padding <= _PASS_OVERHEAD * (rows - 1)
        return self.num_computed_tokens(rows, longest + max_draft) <= _MAX_GPU_BATCH

    def timing_step(self) -> Callable[[int], None]:
        """Return a function that runs a step of n tokens in one cache row and waits for its end, to be timed.

        It does not change the cache rows in use.
        """
        limit, scratch = self._target.max_length, self._target.new_cache(1)
        if isinstance(scratch, ModelCaches):
            return self._timing_step_over(scratch)

        def run(num_tokens: int) -> None:
            num_tokens = min(num_tokens, limit or num_tokens)
            if self._graphs is not None:
                self._try_graphs(lambda graphs: graphs.run_padding(num_tokens))
            if self._graphs is None:
                start = _TIMING_CONTEXT if limit is None else max(0, min(_TIMING_CONTEXT, limit - num_tokens))
                self._target.step(scratch, 0, [[0] * num_tokens], [start], num_tokens).argmax(-1).tolist()

        return run

    def _timing_step_over(self, scratch: ModelCaches) -> Callable[[int], None]:
        """`timing_step` over a cache of the model's own: drafts are taken back, single tokens stay in the context."""
        limit = self._target.max_length
        context = _TIMING_CONTEXT if limit is None else max(1, min(_TIMING_CONTEXT, limit // 2))
        scratch.step(0, [0] * context, 0, 1)

        def run(num_tokens: int) -> None:
            nonlocal context
            num_tokens = num_tokens if limit is None else max(1, min(num_tokens, limit - context))
            scratch.step(0, [0] * num_tokens, context, num_tokens).argmax(-1).tolist()
            context = scratch.keep(0, context + (num_tokens == 1))

        return run

    def _try_graphs(self, call: Callable[[StepGraphs], T | None]) -> T | None:
        """Return `call(graphs)`; None without graphs, or after they have failed and were switched off."""
        if self._graphs is None:
            return None
        try:
            return call(self._graphs)
        except torch.OutOfMemoryError:
            raise  # eager steps would run out of memory too
        except Exception as error:
            name = type(self._target.model).__name__
            if self._required:
                raise InputError(
                    f"cuda_graphs=True, but {name} cannot be captured: {error}; leave it out to run the model directly"
                ) from error
            _log.warning("%s cannot be captured as CUDA graphs and runs eagerly, which is slower", name, exc_info=True)
            self._graphs = None
            return None
