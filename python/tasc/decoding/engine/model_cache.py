"""The model's own cache, one per row, for models that `RowCache` cannot serve.

Some models keep more than keys and values (recurrent and convolution states), or place tokens by the length of the
cache. They run one row at a time over the cache that transformers makes for them, as `generate` runs them. A rejected
draft is taken back in one of two ways:

- A cache that can be cropped loses the rejected tokens.
- Any other cache is replaced by the copy that was made at the row's mark, before the draft. The next step runs the
  accepted tokens again, together with its own.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    LinearAttentionCacheLayerMixin,
)

from tasc.errors import InputError

_ARGUMENTS = ("cache", "past_key_values", "cache_params", "state")  # names of the cache in `forward`
_MAX_RERUN = 48  # accepted tokens that a row may run again before a step without a draft saves its state
_MIN_PREFIX = 16  # tokens of a shared prefix that are worth a copy
_MAX_PREFIXES = 8  # copies kept


@dataclass(slots=True)
class _Row:
    """State of one row.

    Attributes:
        cache: The model's cache; None: empty.
        tokens: Token ids in it.
        floor: Number of tokens that a crop leaves at least: the cache records what it drops since then.
        mark: Copy of the cache with `floor` tokens; None where it can be cropped.
        next_copy: Length at which the next copy for other prompts is made; 0: none.
        rerun: Number of tokens that were run again since the last step without a draft.
    """

    cache: Any = None
    tokens: list[int] = field(default_factory=list)
    floor: int = 0
    mark: Any = None
    next_copy: int = 0
    rerun: int = 0


class ModelCaches:
    """One cache of the model's own kind per row; it has the interface of `RowCache` as far as the loop needs it.

    Args:
        model: A causal language model whose `forward` takes and returns a cache.
        num_rows: Most requests at once.
        device: The device of the model's inputs.
        continues: Whether several tokens may be run onto a filled cache at once. If not, they are run one by one, and
            prefixes are not reused.
        crops: Whether a cache that says so can be cropped.
    """

    num_moves = 0

    def __init__(
        self, model: Any, num_rows: int, device: torch.device, *, continues: bool = True, crops: bool = True
    ) -> None:
        self._model, self._device, self._continues, self._crops = model, device, continues, crops
        parameters = inspect.signature(model.forward).parameters
        self._argument = cache_argument(model)
        self._takes = {name for name in ("position_ids", "logits_to_keep") if name in parameters}
        self._rows = [_Row() for _ in range(num_rows)]
        self._prefixes: dict[tuple[int, ...], Any] = {}  # copies at the ends of shared prefixes, the last used one last

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def reserve(self, num_positions: int) -> None:
        """Do nothing: these caches grow by themselves."""

    def reserve_rows(self, num_rows: int) -> None:
        """Make room for `num_rows` rows; contents stay."""
        self._rows += [_Row() for _ in range(num_rows - len(self._rows))]

    def reset(self) -> None:
        """Empty all rows and forget the copies."""
        self._rows = [_Row() for _ in self._rows]
        self._prefixes.clear()

    def clear_row(self, row: int) -> None:
        """Empty a row and forget the copies, which may be of its prefix."""
        self._rows[row] = _Row()
        self._prefixes.clear()

    def copy_row(self, source: int, target: int, length: int) -> int:
        """Fill a row with the longest kept prefix of another row, of at most `length` tokens.

        If the prefix is much shorter, the next step makes a copy at `length`: other prompts may share it too.

        Returns:
            Number of tokens in the row.
        """
        shared = tuple(self._rows[source].tokens[:length])
        kept = max((prefix for prefix in self._prefixes if prefix == shared[: len(prefix)]), key=len, default=())
        row = self._rows[target] = _Row()
        if kept:
            self._prefixes[kept] = self._prefixes.pop(kept)
            row.cache, row.tokens, row.floor = _copied(self._prefixes[kept]), list(kept), len(kept)
        if self._continues and len(shared) - len(kept) >= _MIN_PREFIX:
            row.next_copy = len(shared)
        return len(kept)

    def move_row(self, source: int, target: int, length: int) -> None:
        """Give a row's whole state to another row; the source row becomes empty."""
        self._rows[target], self._rows[source] = self._rows[source], _Row()

    def mark(self, row: int) -> None:
        """Note the row's present end, to which `keep` can go back."""
        state = self._rows[row]
        state.floor = len(state.tokens)
        state.mark = None if self._can_crop(state.cache) else _copied(state.cache)

    def may_draft(self, row: int, unread: int) -> bool:
        """Whether a draft may follow a row's unread tokens.

        A cache that cannot be cropped goes back to its mark after a rejection, and the accepted tokens are run again in
        each step until a step ends without a rejection. After enough of them, one step goes without a draft. So does
        the prompt's step: a rejection would cost the whole prompt.
        """
        state = self._rows[row]
        if self._can_crop(state.cache):
            return True
        state.rerun += unread - 1
        if not state.tokens or state.rerun > _MAX_RERUN:
            state.rerun = 0
            return False
        return True

    def keep(self, row: int, length: int) -> int:
        """Take back the tokens behind the first `length` ones.

        Returns:
            Number of tokens in the row: `length`, or fewer if the row went back to its mark, or to nothing where the
            mark lies behind `length`.
        """
        state = self._rows[row]
        can_crop = self._can_crop(state.cache)
        if length < state.floor or (length < len(state.tokens) and not can_crop and state.mark is None):
            length, state.cache = 0, None
        elif can_crop:
            state.cache.crop(length - len(state.tokens))
        elif length < len(state.tokens):
            length, state.cache = state.floor, state.mark
        del state.tokens[length:]
        state.floor, state.mark = length, None
        return length

    def step(self, row: int, tokens: Sequence[int], start: int, keep: int) -> Tensor:
        """Run the next tokens of one row.

        Args:
            row: The row.
            tokens: (Q,) token ids.
            start: Number of tokens in the row; 0 empties it first.
            keep: Number of trailing positions whose logits are wanted; above 1, all but the first may be taken back.

        Returns:
            (1, min(keep, Q), V) logits.
        """
        state = self._rows[row]
        if start == 0:
            state.cache, state.tokens, state.floor, state.mark = None, [], 0, None
        assert len(state.tokens) == start, f"row {row} holds {len(state.tokens)} tokens, not {start}"
        before_copy, state.next_copy = state.next_copy - start, 0
        if 0 < before_copy <= len(tokens) - keep:
            self._forward(state, tokens[:before_copy], 1)
            self._prefixes[tuple(state.tokens)] = _copied(state.cache)
            while len(self._prefixes) > _MAX_PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            tokens = tokens[before_copy:]
        if keep > 1:
            self.mark(row)
        if start > 0 and not self._continues:
            return torch.cat([self._forward(state, [token], 1) for token in tokens], dim=1)[:, -keep:]
        return self._forward(state, tokens, keep)

    def _can_crop(self, cache: Any) -> bool:
        """Whether tokens can be taken off the end of a cache."""
        return self._crops and isinstance(cache, Cache) and cache.is_croppable

    def _forward(self, state: _Row, tokens: Sequence[int], keep: int) -> Tensor:
        start, end = len(state.tokens), len(state.tokens) + len(tokens)
        options: dict[str, Any] = {"use_cache": True}
        if state.cache is None and self._model._supports_default_dynamic_cache():
            state.cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        if state.cache is not None:
            options[self._argument] = state.cache
        if "position_ids" in self._takes:
            options["position_ids"] = torch.arange(start, end, device=self._device)[None]
        if "logits_to_keep" in self._takes:
            options["logits_to_keep"] = keep
        output = self._model(input_ids=torch.tensor([tokens], device=self._device), **options)
        state.cache = getattr(output, self._argument, None)
        if state.cache is None:
            raise InputError(f"{type(self._model).__name__} returns no cache")
        state.tokens += tokens
        if start == 0 and isinstance(state.cache, Cache):
            state.floor = end
            state.cache.activate_past_recording()  # type: ignore[no-untyped-call]
        logits: Tensor = output.logits[:, -keep:]
        return logits


def cache_argument(model: Any) -> str:
    """Return the name of the cache in a model's `forward`; "" if it has none."""
    known = inspect.signature(model.forward).parameters
    return next((name for name in _ARGUMENTS if name in known), "")


def _copied(value: Any) -> Any:
    """Return a copy of a cache that later steps do not change.

    Keys and values of growing layers are shared: a step replaces these tensors. All other tensors are copied.
    """
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    if isinstance(value, (Cache, CacheLayerMixin, LinearAttentionCacheLayerMixin)):
        shared = {"keys", "values"} if isinstance(value, DynamicLayer) else set()
        made = copy.copy(value)
        vars(made).update({key: item if key in shared else _copied(item) for key, item in vars(value).items()})
        return made
    return value
