"""The acceptance rule of speculative sampling (Leviathan et al., arXiv 2211.17192), as pure functions.

A drafted token x was drawn from some distribution q. It is accepted with probability min(1, p(x)/q(x)), else the token
is drawn from max(p - q, 0), renormalised; the result follows the target's own distribution p, whatever q is. One
uniform number u decides both: x is accepted where u < a = min(1, p(x)/q(x)), and given that it is not, (u - a)/(1 - a)
is uniform again.

Most drafts are chains of fixed tokens: q puts all its mass on one token per position. The rule then reads: accept x
with probability p(x), else draw from p with x removed and renormalised. Drawing y from p first and accepting x exactly
when y = x *is* that rule: x is accepted with probability p(x), and given y ≠ x, y follows p without x. So for them the
loop draws one token per position as plain decoding would, and the draft only decides how many of these draws one
forward pass can serve. Each emitted token takes the uniform number of its output position and request
(`sampling.py`): with fixed drafts equal seeds give equal text with and without them, with drawn ones the text is equal
in distribution. At temperature 0 the draw is the argmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def verify(draft: Sequence[int], choose: Callable[[int], int]) -> list[int]:
    """Tokens that one verification emits: the accepted head of the draft and the target's own token after it.

    Args:
        draft: (K,) drafted token ids.
        choose: `choose(j)` is the target's token after `draft[:j]`, 0 ≤ j ≤ K. Called for j = 0, 1, … only while
            every earlier choice equals the draft.

    Returns:
        (a + 1,) token ids, where a ≤ K drafted tokens were accepted.

    >>> verify([5, 6, 7], [5, 6, 9, 1].__getitem__)
    [5, 6, 9]
    """
    emitted = []
    for position, drafted in enumerate(draft):
        token = choose(position)
        emitted.append(token)
        if token != drafted:
            return emitted
    emitted.append(choose(len(draft)))
    return emitted


def accept_or_replace(drafted: int, p: Tensor, q: Tensor, uniform: float) -> int:
    """The token that stands where `drafted`, drawn from q, was proposed: itself, or one drawn from max(p - q, 0).

    Args:
        drafted: Token id with q > 0.
        p: (V,) float64, the target's probabilities.
        q: (V,) float64, those that `drafted` was drawn from.
        uniform: In [0, 1).

    >>> p, q = torch.tensor([0.5, 0.5]).double(), torch.tensor([1.0, 0.0]).double()
    >>> accept_or_replace(0, p, q, 0.49), accept_or_replace(0, p, q, 0.51)
    (0, 1)
    """
    accepted = min(1.0, float(p[drafted] / q[drafted]))
    if uniform < accepted:
        return drafted
    return quantile((p - q).clamp(min=0.0), (uniform - accepted) / (1.0 - accepted), drafted)


def quantile(weights: Tensor, uniform: float, otherwise: int = 0) -> int:
    """The token at quantile `uniform` of a distribution, tokens taken in the order of their ids.

    Args:
        weights: (V,) float64, ≥ 0; need not sum to 1.
        uniform: In [0, 1).
        otherwise: The token where all weights are 0.
    """
    cumulative = weights.cumsum(-1)
    token = int(torch.searchsorted(cumulative, cumulative[-1] * uniform, right=True))
    if token < len(weights):
        return token
    positive = weights.nonzero()  # rounding carried uniform·total up to the total
    return int(positive[-1]) if len(positive) else otherwise


def quantiles(weights: Tensor, uniforms: Tensor) -> Tensor:
    """`quantile` for several distributions, without waiting for any.

    Args:
        weights: (n, V) float64, ≥ 0, some of each row > 0.
        uniforms: (n,) float64 in [0, 1).

    Returns:
        (n,) token ids.
    """
    cumulative = weights.cumsum(-1)
    totals = cumulative[:, -1:].contiguous()
    tokens = torch.searchsorted(cumulative, totals * uniforms[:, None], right=True)
    last = torch.searchsorted(cumulative, totals)  # rounding may carry uniform·total up to the total
    return torch.minimum(tokens, last)[:, 0]
