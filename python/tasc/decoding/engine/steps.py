"""Steps of a model over one cache: as CUDA graphs where there can be, else directly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from tasc.decoding.engine.cache import RowCache
from tasc.decoding.engine.cuda_graphs import StepGraphs, capture_on
from tasc.decoding.engine.target import Target
from tasc.decoding.engine.weight_watcher import WeightWatcher
from tasc.errors import InputError

_log = logging.getLogger(__name__)

_PROBE_CONTEXT = 64  # tokens that stand before a timed step
_MOST_RESERVED = 1024  # slots
_MOST_TOGETHER = 2048  # tokens of prompts and their drafts in one step of a GPU
_SHORT = 64  # tokens of a prompt beyond which a CPU is bound by arithmetic, and runs it alone
_MOST_SHORT = 512  # tokens of short prompts in one step of a CPU
_PASS = 20  # tokens that take a CPU as long as one more pass

T = TypeVar("T")


class Steps:
    """What the loop and draft models run a model with.

    Args:
        target: The model.
        cache: Its cache.
        most_kept: Most last positions whose logits are wanted.
        graphs: Whether steps are captured as CUDA graphs. None: where the model is on a CUDA device; one that cannot
            be captured, because it waits for numbers from the device, is then run directly, which is logged.

    Raises:
        InputError: Graphs are asked for and the model is not on a CUDA device.
    """

    def __init__(self, target: Target, cache: RowCache, most_kept: int, graphs: bool | None = None) -> None:
        self._target, self._cache, self._required = target, cache, bool(graphs)
        self._weights = WeightWatcher(target.model)
        capture = capture_on(target.device)
        if graphs and capture is None:
            raise InputError(
                f"cuda_graphs=True, but the model is on {target.device}; move it to a CUDA device, or leave it out"
            )
        wanted = capture if graphs is not False else None
        self._graphs = None if wanted is None else StepGraphs(target, cache, most_kept, wanted)

    @property
    def is_steady(self) -> bool:
        """Whether the last step's time tells something: no graph was prepared in it."""
        return self._graphs is None or self._graphs.is_steady

    def begin(self, num_slots: int) -> bool:
        """Before requests that need positions below `num_slots`; whether the model's weights are others than before, so
        that what the cache holds is of no use any more.

        Where there are graphs, room is made at once, since they are captured anew when buffers move.
        """
        changed = self._weights.changed()
        if self._graphs is not None:
            self._cache.reserve(min(num_slots, _MOST_RESERVED))
            if changed:
                self._graphs.forget()
        return changed

    def logits(self, first_row: int, tokens: Sequence[Sequence[int]], starts: Sequence[int], keep: int) -> Tensor:
        """(n, min(keep, Q), V) logits of `Target.step`; the next step may write over them."""
        made = self._try(lambda graphs: graphs.run(first_row, tokens, starts, keep, greedy=False))
        return self._target.step(self._cache, first_row, tokens, starts, keep) if made is None else made

    def likeliest(
        self, first_row: int, tokens: Sequence[Sequence[int]], starts: Sequence[int], keep: int
    ) -> list[list[int]]:
        """The argmax of `logits`: n rows of min(keep, Q) token ids."""
        made = self._try(lambda graphs: graphs.run(first_row, tokens, starts, keep, greedy=True))
        if made is None:
            made = self._target.step(self._cache, first_row, tokens, starts, keep).argmax(-1)
        ids: list[list[int]] = made.tolist()
        return ids

    def computed(self, rows: int, query: int) -> int:
        """Number of tokens that a step over `rows` rows of `query` tokens computes."""
        return rows * query if self._graphs is None else self._graphs.computed(rows, query)

    def takes_together(self, prompts: Sequence[int], draft: int) -> bool:
        """Whether prompts of so many tokens, with drafts of up to `draft`, are better run in one step."""
        rows, longest = len(prompts), max(prompts)
        if self._target.device.type == "cpu":
            padding = rows * longest - sum(prompts)
            return longest <= _SHORT and rows * longest <= _MOST_SHORT and padding <= _PASS * (rows - 1)
        return self.computed(rows, longest + draft) <= _MOST_TOGETHER

    def probe(self) -> Callable[[int], None]:
        """Runs steps of n tokens in one row, to be timed; the rows in use stay as they are."""
        limit, scratch = self._target.max_length, RowCache(1)

        def run(tokens: int) -> None:
            tokens = min(tokens, limit or tokens)
            if self._graphs is not None:
                self._try(lambda graphs: graphs.blank(tokens))
            if self._graphs is None:
                start = _PROBE_CONTEXT if limit is None else max(0, min(_PROBE_CONTEXT, limit - tokens))
                self._target.step(scratch, 0, [[0] * tokens], [start], tokens).argmax(-1).tolist()

        return run

    def _try(self, call: Callable[[StepGraphs], T | None]) -> T | None:
        """What a call makes of the graphs; None where there are none, or none for this, or none any more."""
        if self._graphs is None:
            return None
        try:
            return call(self._graphs)
        except torch.OutOfMemoryError:
            raise  # it would be no better without graphs
        except Exception as error:
            name = type(self._target.model).__name__
            if self._required:
                raise InputError(
                    f"cuda_graphs=True, but {name} cannot be captured: {error}; leave it out to run the model directly"
                ) from error
            _log.warning(
                "%s cannot be captured as CUDA graphs and is run directly, which is slower", name, exc_info=True
            )
            self._graphs = None
            return None
