"""Selection of the tokens that a distillation learns from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tasc.errors import InputError


def select_tokens(loss_draft: Tensor, loss_ref: Tensor, k: float, mask: Tensor | None = None) -> Tensor:
    """Selects the tokens with the largest difference between draft loss and reference loss: the draft can learn them.

    Args:
        loss_draft: (…) loss of the draft per token.
        loss_ref: (…) loss of the reference per token. The reference is a copy of the draft, distilled on all tokens.
        k: Share of the tokens to select, in (0, 1].
        mask: (…) bool, candidate tokens; None: all.

    Returns:
        (…) bool, true for exactly ceil(k·n) of the n candidates; of equal differences the first ones. Detached.

    Raises:
        InputError: `k` is out of range, shapes differ, or a difference is not a number.

    Source: AdaSPEC, arXiv 2510.19779 §3.2 (eq. 4–6). The paper's code cuts at a quantile and selects more
    tokens if values tie; here the number is exact.

    >>> select_tokens(torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.zeros(4), 0.5).tolist()
    [True, False, True, False]
    """
    if loss_draft.shape != loss_ref.shape:
        raise InputError(f"losses of {tuple(loss_draft.shape)} tokens and {tuple(loss_ref.shape)}: the same are needed")
    gain = (loss_draft - loss_ref).detach()
    _check(gain, k, mask)
    if torch.isnan(gain if mask is None else gain[mask]).any():
        raise InputError("a difference of losses is not a number: draft and reference must both have finite losses")
    return _largest(gain, k, mask)


def random_tokens(
    like: Tensor, k: float, mask: Tensor | None = None, *, generator: torch.Generator | None = None
) -> Tensor:
    """Selects as many tokens as `select_tokens`, at random: the control.

    Args:
        like: (…) any tensor of the tokens' shape.
        k: Share of the tokens to select, in (0, 1].
        mask: (…) bool, candidate tokens; None: all.
        generator: Random generator on the CPU; None: torch's global one.
    """
    _check(like, k, mask)
    return _largest(torch.rand(like.shape, generator=generator).to(like.device), k, mask)


def all_tokens(like: Tensor, mask: Tensor | None = None) -> Tensor:
    """Selects every candidate token: (…) bool."""
    return torch.ones(like.shape, dtype=torch.bool, device=like.device) if mask is None else mask.clone()


def _check(tokens: Tensor, k: float, mask: Tensor | None) -> None:
    if not 0 < k <= 1:
        raise InputError(f"k={k}: a share of the tokens, above 0 and at most 1")
    if mask is not None and mask.shape != tokens.shape:
        raise InputError(f"a mask of shape {tuple(mask.shape)} for tokens of shape {tuple(tokens.shape)}")


def _largest(score: Tensor, k: float, mask: Tensor | None) -> Tensor:
    """Mark the ceil(k·n) largest of the masked scores; of equal scores the first ones."""
    chosen = all_tokens(score, mask)
    count = math.ceil(round(k * int(chosen.sum()), 9))  # of k as a decimal number: 0.28·25 gives 7, not 8
    order = torch.where(chosen, score, -math.inf).flatten().argsort(descending=True, stable=True)
    # a masked-out token may tie with a score of -inf, so masked-out tokens are moved to the end
    order = order[chosen.flatten()[order].logical_not().long().argsort(stable=True)]
    kept = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
    kept[order[:count]] = True
    return kept.reshape(score.shape)
