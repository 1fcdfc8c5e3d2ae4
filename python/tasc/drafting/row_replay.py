"""Replay of one known output: what a target that generates exactly this output would accept of the drafts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tasc.data.ids import common_prefix_length

if TYPE_CHECKING:
    from tasc.drafting.protocol import Costs, Request, TokenIds


def replay_steps(request: Request, output: TokenIds, max_tokens: int, costs: Costs) -> Iterator[tuple[int, int, int]]:
    """Yield (drafted, accepted, emitted) tokens of each step of the target; the request learns from each step.

    Args:
        request: Request that has just started.
        output: (T,) ids of the output, with its end token.
        max_tokens: Most tokens of a draft.
        costs: (≥ 1,) costs that the drafter receives; see `tasc.drafting.protocol.Request.draft`.
    """
    position = 0
    while position < len(output):
        draft = request.draft(max_tokens, costs).tokens
        accepted = common_prefix_length(draft, output[position:])
        emitted = output[position : position + accepted + 1]
        request.update(emitted)
        yield len(draft), accepted, len(emitted)
        position += len(emitted)
