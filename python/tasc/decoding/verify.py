"""The acceptance rule of speculative sampling (Leviathan et al., arXiv 2211.17192), as pure functions.

Let the drafted token x be drawn from a distribution q, and let p be the target's distribution. The rule accepts x with
probability min(1, p(x)/q(x)). If it rejects x, the token is drawn from max(p − q, 0), renormalised. The emitted token
then follows p, whatever q is. One uniform number u decides both: x is accepted if u < a = min(1, p(x)/q(x)); given a
rejection, (u − a)/(1 − a) is uniform again.

Most drafts are chains of fixed tokens: q puts all its mass on one token per position. The rule then accepts x with
probability p(x), and otherwise draws from p without x, renormalised. Drawing y from p and accepting x exactly if y = x
*is* this rule: x is accepted with probability p(x), and given y ≠ x, y follows p without x. For such drafts the loop
therefore draws one token per position as plain decoding would. The draft decides only how many of these draws one
forward pass can serve.

Each emitted token uses the uniform number of its output position and request (`sampling.py`). With fixed drafts, equal
seeds give equal text with and without drafts. With drawn drafts, the text is equal in distribution. At temperature 0
the draw is the argmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NO_TOKEN = -1
"""Stands for the target's token where its logits are NaN, or −inf everywhere. No draft holds it."""


def verify(draft: Sequence[int], choose: Callable[[int], int]) -> list[int]:
    """Return the tokens that one verification emits: the accepted prefix of the draft and one token of the target.

    Args:
        draft: (K,) drafted token ids.
        choose: `choose(j)` is the target's token after `draft[:j]`, 0 ≤ j ≤ K. It is called for j = 0, 1, … as long as
            all earlier choices equal the draft.

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


def argmax(logits: Tensor) -> Tensor:
    """Return the (…) ids of the greatest of (…, V) logits; `NO_TOKEN` where one is NaN or all are −inf.

    >>> argmax(torch.tensor([[1.0, 3.0], [1.0, float("nan")], [float("-inf"), float("-inf")]]))
    tensor([ 1, -1, -1])
    """
    ids = logits.argmax(-1)
    greatest = logits.gather(-1, ids[..., None])[..., 0]  # NaN if one logit is: argmax takes it for the greatest
    return ids.masked_fill(~(greatest > -torch.inf), NO_TOKEN)


def accept_or_replace(drafted: int, p: Tensor, q: Tensor, uniform: float) -> int:
    """Return `drafted`, a token drawn from q, if it is accepted; else a token drawn from max(p − q, 0).

    Args:
        drafted: Token id with q > 0.
        p: (V,) float64, the target's probabilities.
        q: (V,) float64, the probabilities that `drafted` was drawn from.
        uniform: Number in [0, 1).

    >>> p, q = torch.tensor([0.5, 0.5]).double(), torch.tensor([1.0, 0.0]).double()
    >>> accept_or_replace(0, p, q, 0.49), accept_or_replace(0, p, q, 0.51)
    (0, 1)
    """
    accepted = min(1.0, float(p[drafted] / q[drafted]))
    if uniform < accepted:
        return drafted
    return quantile((p - q).clamp(min=0.0), (uniform - accepted) / (1.0 - accepted), drafted)


def quantile(weights: Tensor, uniform: float, default: int = 0) -> int:
    """Return the token at a quantile of a distribution over tokens in the order of their ids (inverse CDF).

    Args:
        weights: (V,) float64, ≥ 0; need not sum to 1.
        uniform: The quantile, in [0, 1).
        default: Token to return if all weights are 0.

    >>> quantile(torch.tensor([1.0, 0.0, 3.0]).double(), 0.25)
    2
    """
    cumulative = weights.cumsum(-1)
    token = int(torch.searchsorted(cumulative, cumulative[-1] * uniform, right=True))
    if token < len(weights):
        return token
    positive = weights.nonzero()  # rounding carried uniform·total up to the total
    return int(positive[-1]) if len(positive) else default


def quantiles(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Compute `quantile` for several distributions without waiting for the device.

    Args:
        weights: (n, V) float64, ≥ 0, or NaN; with a positive weight in each row without NaN.
        uniforms: (n,) float64 in [0, 1).

    Returns:
        (n,) token ids; `NO_TOKEN` for a row with a NaN.
    """
    cumulative = weights.cumsum(-1)
    totals = cumulative[:, -1:].contiguous()
    tokens = torch.searchsorted(cumulative, totals * uniforms[:, None], right=True)
    last = torch.searchsorted(cumulative, totals)  # rounding may carry uniform·total up to the total
    return torch.minimum(tokens, last).masked_fill(totals.isnan(), NO_TOKEN)[:, 0]
