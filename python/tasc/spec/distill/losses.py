"""How far a draft's distributions are from the target's, token by token.

Every loss takes logits and gives one number in nats (total variation: in [0, 1]) per token, differentiable in the
draft's logits. All arithmetic is float32 or better, whatever the logits are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from tasc.errors import InputError

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`loss(target, draft)`: (…, V) logits both → (…) per token."""

_NEVER = -1e4
"""Log-probability in place of -inf, so that a token that never comes adds 0 and not 0·∞; its `exp` is 0."""


def forward_kl(target: Tensor, draft: Tensor) -> Tensor:
    """KL(p ‖ q) of the target p from the draft q: DistillSpec's and AdaSPEC's loss.

    Args:
        target: (…, V) logits of the target; -inf for tokens that never come.
        draft: (…, V) logits of the draft.

    Returns:
        (…) float32 (float64 for float64 logits), ≥ 0 up to rounding, in nats.

    Source: arXiv 2310.08461 (DistillSpec) §3; arXiv 2510.19779 (AdaSPEC) eq. 2.
    """
    log_p, log_q = _log_softmax(target, draft)
    return _divergence(log_p, log_q)


def reverse_kl(target: Tensor, draft: Tensor) -> Tensor:
    """KL(q ‖ p): seeks the target's modes. Shapes and source as `forward_kl`."""
    log_p, log_q = _log_softmax(target, draft)
    return _divergence(log_q, log_p)


def jsd(target: Tensor, draft: Tensor) -> Tensor:
    """Jensen–Shannon divergence: the mean of KL(p ‖ m) and KL(q ‖ m) with m = (p + q)/2, in [0, ln 2].

    Shapes and source as `forward_kl`.
    """
    log_p, log_q = _log_softmax(target, draft)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    return (_divergence(log_p, log_m) + _divergence(log_q, log_m)) / 2


def tvd(target: Tensor, draft: Tensor) -> Tensor:
    """Total variation distance Σ|p − q|/2: 1 less the probability that a token drawn from q is accepted.

    Shapes as `forward_kl`. Source: arXiv 2211.17192 theorem 3.5 (acceptance is 1 − TVD); as a loss DistillSpec §3.
    """
    log_p, log_q = _log_softmax(target, draft)
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jsd": jsd, "tvd": tvd}
)
"""By the name that options and commands use."""


def _log_softmax(target: Tensor, draft: Tensor) -> tuple[Tensor, Tensor]:
    if target.shape != draft.shape:
        what = "widths" if target.shape[:-1] == draft.shape[:-1] else "shapes"
        raise InputError(
            f"logits of different {what}: {tuple(target.shape)} of the target, {tuple(draft.shape)} of the draft; "
            "both must be of the same tokens over the same vocabulary"
        )
    precise = torch.promote_types(torch.promote_types(target.dtype, draft.dtype), torch.float32)
    return target.to(precise).log_softmax(-1).clamp(min=_NEVER), draft.to(precise).log_softmax(-1)


def _divergence(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a ‖ b) over the last axis."""
    return functional.kl_div(log_b, log_a, reduction="none", log_target=True).sum(-1)
