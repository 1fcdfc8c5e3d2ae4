"""Losses: divergences of a draft's distributions from the target's, token by token.

Every loss takes logits and returns one number per token, in nats (`tvd` is in [0, 1], `lk` in between). It is
differentiable once in the draft's logits. All arithmetic is float32 or better, whatever the dtype of the logits. Value
and gradient are computed together, a few tokens at a time: one tensor of the logits' size is stored, where autograd
through the formula would store six.

A draft with a draft vocabulary has logits of n ids, and q is 0 for all others. Then `target` holds the target's logits
of these ids, and `rest` the log-sum-exp of all its other logits. p stays the target's distribution over all ids, so the
mass R = 1 − Σp outside counts as never accepted: `tvd`, `nla`, `jsd` and `reverse_kl` are the divergences over all ids.
KL(p ‖ q) would be infinite. `forward_kl` leaves out what no draft can change: it is (1 − R)·KL(p' ‖ q), with p' the
target restricted to the n ids and renormalised. Its gradient is that of the cross-entropy −Σ p·log q over the n ids, so
a token counts by the chance that the target's next token is in the draft vocabulary. EAGLE-3 (arXiv 2503.01840)
renormalises without this weight, which would teach the noise that is left where the target wants another id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tasc.errors import InputError

Loss: TypeAlias = Callable[..., Tensor]
"""`loss(target, draft, rest=None)`: (…, V) logits both, and (…) log-sum-exp of the target's other logits → (…)."""

_NEVER = -1e4
"""Log-probability in place of -inf, so that an impossible token adds 0 and not 0·∞. Its `exp` is 0."""

_CHUNK = 1 << 21
"""Number of logits per chunk: 8 MB, which fits into a processor's cache."""


def forward_kl(target: Tensor, draft: Tensor, rest: Tensor | None = None) -> Tensor:
    """KL(p ‖ q) of the target p from the draft q: the loss of DistillSpec and AdaSPEC.

    Args:
        target: (…, V) logits of the target; -inf for impossible tokens.
        draft: (…, V) logits of the draft.
        rest: (…) log-sum-exp of the target's logits of all other ids, for a draft with a draft vocabulary of V ids;
            None: there are no others.

    Returns:
        (…) float32 (float64 for float64 logits), ≥ 0 up to rounding, in nats.

    Raises:
        InputError: The shapes differ.

    Source: arXiv 2310.08461 (DistillSpec) §3; arXiv 2510.19779 (AdaSPEC) eq. 2.
    """
    return _divergence(_forward_kl, target, draft, rest)


def reverse_kl(target: Tensor, draft: Tensor, rest: Tensor | None = None) -> Tensor:
    """KL(q ‖ p): mode-seeking. Shapes and source as `forward_kl`."""
    return _divergence(_reverse_kl, target, draft, rest)


def jsd(target: Tensor, draft: Tensor, rest: Tensor | None = None) -> Tensor:
    """Jensen–Shannon divergence: the mean of KL(p ‖ m) and KL(q ‖ m) with m = (p + q)/2, in [0, ln 2].

    Shapes and source as `forward_kl`.
    """
    return _divergence(_jsd, target, draft, rest)


def tvd(target: Tensor, draft: Tensor, rest: Tensor | None = None) -> Tensor:
    """Total variation distance Σ|p − q|/2: 1 minus the probability that a token drawn from q is accepted.

    Shapes as `forward_kl`. Source: arXiv 2211.17192 theorem 3.5 (acceptance is 1 − TVD); as a loss DistillSpec §3.
    """
    return _divergence(_tvd, target, draft, rest)


def nla(target: Tensor, draft: Tensor, rest: Tensor | None = None) -> Tensor:
    """Negative log acceptance −log Σ min(p, q) = −log(1 − `tvd`), ≥ 0, in nats.

    Its gradient is that of `tvd` over the acceptance, so a draft that shares no token with the target still learns.
    Shapes as `forward_kl`. Source: arXiv 2602.23881 (LK losses).
    """
    return _divergence(_nla, target, draft, rest)


def lk(target: Tensor, draft: Tensor, rest: Tensor | None = None) -> Tensor:
    """λ·`forward_kl` + (1 − λ)·`tvd` with λ = exp(−3·α) of the token's acceptance α = 1 − `tvd`.

    Tokens that are rejected learn from KL(p ‖ q), tokens that are accepted learn from the acceptance itself. λ has no
    gradient. Shapes as `forward_kl`. Source: arXiv 2602.23881 (LK losses, hybrid).
    """
    return _divergence(_lk, target, draft, rest)


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jsd": jsd, "tvd": tvd, "nla": nla, "lk": lk}
)
"""Losses by the name in options and commands."""

_Formula: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Callable[[], Tensor]]]
"""Function of (n, V) log p and log q, and (n, 1) R, the target's mass on all other ids.

It returns the (n,) values and a function for their (n, V) gradient in the logits z.

With g = ∂L/∂q it is ∂L/∂z = q·(g − Σ q·g), as q = softmax(z).
"""


def _forward_kl(log_p: Tensor, log_q: Tensor, rest: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    p, inside = log_p.exp(), 1.0 - rest
    value = _sum(p, log_p - log_q) - torch.xlogy(inside, inside)[:, 0]
    return value, lambda: inside * log_q.exp() - p


def _reverse_kl(log_p: Tensor, log_q: Tensor, rest: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    q, apart = log_q.exp(), log_q - log_p
    value = _sum(q, apart)
    return value, lambda: q * (apart - value[:, None])


def _jsd(log_p: Tensor, log_q: Tensor, rest: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    q, apart = log_q.exp(), log_q - log_m
    half = _sum(q, apart)
    outside = math.log(2.0) * rest[:, 0]
    return (_sum(log_p.exp(), log_p - log_m) + outside + half) / 2, lambda: q * (apart - half[:, None]) / 2


def _tvd(log_p: Tensor, log_q: Tensor, rest: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    q = log_q.exp()
    over = q - log_p.exp()

    def slope() -> Tensor:
        sign = over.sign()
        return q * (sign - _sum(q, sign)[:, None]) / 2

    return (over.abs().sum(-1) + rest[:, 0]) / 2, slope


def _nla(log_p: Tensor, log_q: Tensor, rest: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    log_accepted = torch.minimum(log_p, log_q).logsumexp(-1)

    def slope() -> Tensor:
        # ∂/∂z = q·Q/A − 1[q < p]·q/A with Q = Σ q·1[q < p] ≤ A: both quotients are at most 1, also where A underflows
        share = (log_q - log_accepted[:, None]).masked_fill(log_q >= log_p, -math.inf).exp()
        return log_q.exp() * share.sum(-1, keepdim=True) - share

    return -log_accepted, slope


def _lk(log_p: Tensor, log_q: Tensor, rest: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    kl, kl_slope = _forward_kl(log_p, log_q, rest)
    tv, tv_slope = _tvd(log_p, log_q, rest)
    weight = torch.exp(-3.0 * (1.0 - tv))

    def slope() -> Tensor:
        return weight[:, None] * kl_slope() + (1.0 - weight)[:, None] * tv_slope()

    return weight * kl + (1.0 - weight) * tv, slope


def _sum(weights: Tensor, values: Tensor) -> Tensor:
    """Return (n,) Σ w·x over the last axis."""
    found: Tensor = torch.linalg.vecdot(weights, values)
    return found


def _divergence(formula: _Formula, target: Tensor, draft: Tensor, rest: Tensor | None) -> Tensor:
    if target.shape != draft.shape:
        what = "widths" if target.shape[:-1] == draft.shape[:-1] else "shapes"
        raise InputError(
            f"logits of different {what}: {tuple(target.shape)} of the target, {tuple(draft.shape)} of the draft; "
            "both must be of the same tokens over the same vocabulary"
        )
    if rest is not None and rest.shape != target.shape[:-1]:
        raise InputError(
            f"rest has shape {tuple(rest.shape)}, the tokens have {tuple(target.shape[:-1])}; give one per token"
        )
    width = target.shape[-1]
    apply: Any = _Divergence.apply
    outside = None if rest is None else rest.detach().reshape(-1)
    found: Tensor = apply(formula, target.detach().reshape(-1, width), draft.reshape(-1, width), outside)
    return found.reshape(target.shape[:-1])


class _Divergence(torch.autograd.Function):
    """Evaluation of a formula over (n, V) logits, a few tokens at a time, together with its gradient."""

    @staticmethod
    def forward(ctx: Any, formula: _Formula, target: Tensor, draft: Tensor, rest: Tensor | None) -> Tensor:
        """Return the (n,) values."""
        precise = torch.promote_types(torch.promote_types(target.dtype, draft.dtype), torch.float32)
        wanted = ctx.needs_input_grad[2]
        slopes = torch.empty_like(draft) if wanted else None
        values = torch.empty(len(draft), dtype=precise, device=draft.device)
        step = max(1, _CHUNK // max(1, draft.shape[-1]))
        for begin in range(0, len(draft), step):
            part = slice(begin, begin + step)
            log_p, outside = _log_probabilities(target[part].to(precise), None if rest is None else rest[part])
            log_q = draft[part].to(precise).log_softmax(-1).clamp_(min=_NEVER)
            values[part], slope = formula(log_p, log_q, outside)
            if slopes is not None:
                slopes[part] = slope()
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[None, None, Tensor, None]:
        """Return ∂L/∂draft."""
        (slopes,) = ctx.saved_tensors
        return None, None, slopes * weights[:, None].to(slopes.dtype), None


def _log_probabilities(logits: Tensor, rest: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (n, V) log p and (n, 1) R from (n, V) logits and the (n,) log-sum-exp of all others."""
    if rest is None:
        return logits.log_softmax(-1).clamp_(min=_NEVER), logits.new_zeros(len(logits), 1)
    rest = rest.to(logits.dtype)[:, None]
    total = torch.logaddexp(logits.logsumexp(-1, keepdim=True), rest)
    return (logits - total).clamp_(min=_NEVER), (rest - total).exp()
