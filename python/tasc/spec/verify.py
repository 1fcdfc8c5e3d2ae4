"""The acceptance rule, as a pure function.

A draft is a chain of fixed tokens, that is, a proposal that puts all its mass on one token per position. The rule of
speculative sampling then reads: accept the drafted token x with probability p(x), else draw from p with x removed and
renormalised. Drawing y from p first and accepting x exactly when y = x *is* that rule: x is accepted with probability
p(x), and given y ≠ x, y follows p without x. So the loop draws one token per position as plain decoding would, from
the target's own distribution, and the draft only decides how many of these draws one forward pass can serve. Each draw
uses the uniform number of its output position and request (`sampling.py`), hence equal seeds give equal text with and
without a draft. At temperature 0 the draw is the argmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


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
