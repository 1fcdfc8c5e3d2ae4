"""Draft vocabulary: the ids that a draft model computes and drafts, a part of the target's ids.

The output head is most of a small model's weights, and a task's outputs use few ids. A draft with a draft vocabulary
computes the logits of its ids alone (FR-Spec, arXiv 2502.14856; EAGLE-3, arXiv 2503.01840). All other ids have
probability 0 in q, which the acceptance rule allows for any q, so the output stays the target's.

The saved checkpoint is an ordinary one: its head has a row for every id of the target, and `draft_vocabulary` in its
config names the ids. So every engine loads it. The rows of all other ids are the mean of the rows of these ids: their
logit is the mean logit, which is never above the greatest one, so greedy drafts hold ids of the draft vocabulary alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tasc.decoding.engine.weight_watcher import tensor_version
from tasc.errors import InputError

CONFIG_KEY = "draft_vocabulary"
"""Name in a model's config: ascending ids. The d2t of EAGLE-3 is each id minus its place in this list."""


def set_draft_vocabulary(model: Any, ids: Sequence[int] | None) -> None:
    """Write a draft vocabulary to a model's config; None: all ids."""
    setattr(model.config, CONFIG_KEY, None if ids is None else list(ids))


def draft_vocabulary(model: Any) -> list[int] | None:
    """Return the draft vocabulary in a model's config; None: all ids.

    Raises:
        InputError: It is not a list of ascending ids of the model.
    """
    ids = getattr(model.config, CONFIG_KEY, None)
    if ids is None:
        return None
    size = _num_ids(model)
    if (
        not (isinstance(ids, list) and ids and all(type(token) is int for token in ids))
        or any(a >= b for a, b in pairwise(ids))
        or ids[0] < 0
        or ids[-1] >= size
    ):
        raise InputError(f"{CONFIG_KEY} in the draft model's config is not a list of ascending ids below {size}")
    return ids


def cut_head(model: Any) -> None:
    """Replace a model's head by its rows of the draft vocabulary, which are then parameters of their own."""
    ids = draft_vocabulary(model)
    if ids is not None and not _is_cut(model, ids):
        model.set_output_embeddings(head_rows(model.get_output_embeddings(), torch.tensor(ids)))
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False


@torch.no_grad()
def expand_head(model: Any) -> None:
    """Undo `cut_head`: give the head a row for every id; the module's docstring describes the rows of other ids."""
    ids = draft_vocabulary(model)
    if ids is None or not _is_cut(model, ids):
        return
    rows = model.get_output_embeddings()
    whole = nn.Linear(rows.in_features, _num_ids(model), rows.bias is not None, rows.weight.device, rows.weight.dtype)
    for name, cut in rows.named_parameters():
        full = getattr(whole, name)
        full[:] = cut.mean(0)
        full[ids] = cut
    model.set_output_embeddings(whole)


class DraftHead:
    """Head of a draft model over its draft vocabulary; in use inside `applied()`.

    Without a draft vocabulary, or with a head that is no plain linear layer, the model's own head stays in use.

    Args:
        model: A draft model, with its whole head or a cut one.

    Attributes:
        ids: (n,) int64, the id of each logit, on the model's device; None: logits of all ids.
        max_id: The greatest of them.
    """

    def __init__(self, model: Any) -> None:
        ids = draft_vocabulary(model)
        self._model, self._is_cut = model, ids is not None and _is_cut(model, ids)
        if ids is not None and not self._is_cut and type(model.get_output_embeddings()) is not nn.Linear:
            ids = None
        self.max_id = -1 if ids is None else ids[-1]
        self.ids = None if ids is None else torch.tensor(ids, device=model.get_output_embeddings().weight.device)
        self._num_ids = _num_ids(model)
        self._made: tuple[Any, nn.Linear] | None = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Compute the logits of `ids` alone inside the `with` block."""
        if self.ids is None or self._is_cut:
            yield
            return
        whole = self._model.get_output_embeddings()
        version = [tensor_version(weight) for weight in whole.parameters()]
        if self._made is None or self._made[0] != version:
            self._made = version, head_rows(whole, self.ids).requires_grad_(False)
        self._model.set_output_embeddings(self._made[1])
        try:
            yield
        finally:
            self._model.set_output_embeddings(whole)

    def spread(self, logits: Tensor) -> Tensor:
        """Return (…, V) logits over all ids from (…, n) logits of `ids`: −inf for all other ids."""
        if self.ids is None:
            return logits
        full = logits.new_full((*logits.shape[:-1], self._num_ids), -torch.inf)
        full[..., self.ids] = logits
        return full


@torch.no_grad()
def head_rows(head: Any, ids: Tensor) -> nn.Linear:
    """Return a copy of some rows of an output head.

    It draws no random numbers: a run that makes these rows anew after a stop then chooses the same tokens as before.
    """
    weight = head.weight
    kind: dict[str, Any] = {"bias": head.bias is not None, "device": weight.device, "dtype": weight.dtype}
    make: Any = nn.utils.skip_init
    rows: nn.Linear = make(nn.Linear, weight.shape[1], len(ids), **kind)
    for name, cut in rows.named_parameters():
        cut.copy_(getattr(head, name)[ids.to(weight.device)])
    return rows


def _num_ids(model: Any) -> int:
    size: int = model.get_input_embeddings().weight.shape[0]
    return size


def _is_cut(model: Any, ids: Sequence[int]) -> bool:
    return len(ids) < _num_ids(model) and model.get_output_embeddings().weight.shape[0] == len(ids)
