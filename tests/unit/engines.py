"""An engine that batches as vLLM does: rows move when others leave, requests are paused and taken up again by running
all their tokens anew, long prompts take several steps. It knows what each request will say, and verifies drafts so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter, TokenDraft

Propose = Callable[[list[list[int]], Any, Any], list[list[int]]]


@dataclass
class Asked:
    """A request: what it asks, what will be said, and how far that is."""

    prompt: list[int]
    says: list[int]
    at: int = 0
    """When it comes, in steps."""
    output: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    chunks: int = 0
    """Steps that its prompt still takes, besides the one that says the first token."""
    steps: int = 0


class Engine:
    """Runs requests in at most `rows` rows.

    Args:
        propose: (emitted by row, lengths (rows,), tokens (rows, longest)) → drafts by row.
        rows: Most requests at once.
        pauses: How many of the last rows lose their place before each of the first steps; they come back when they can.
        chunks: Steps that a prompt takes besides the last, by request.
    """

    def __init__(
        self, propose: Propose, rows: int = 4, pauses: Sequence[int] = (), chunks: Sequence[int] = (0,)
    ) -> None:
        self._propose, self._rows, self._pauses, self._chunks = propose, rows, pauses, chunks

    def run(self, asked: Sequence[Asked]) -> int:
        """Run all of them to their end; returns the number of steps."""
        waiting, batch, step = list(asked), list[Asked](), 0
        longest = max(len(one.prompt) + len(one.says) for one in asked) + 8
        tokens = np.zeros((self._rows, longest), np.int32)
        lengths = np.zeros(self._rows, np.int32)
        while waiting or batch:
            for _ in range(min(self._pauses[step] if step < len(self._pauses) else 0, len(batch))):
                paused = batch.pop()
                paused.draft = []
                waiting.insert(0, paused)
            for one in [one for one in waiting if one.at <= step][: self._rows - len(batch)]:
                waiting.remove(one)
                one.chunks = self._chunks[asked.index(one) % len(self._chunks)]
                batch.append(one)
            emitted = [self._step(one) for one in batch]
            for row, one in enumerate(batch):
                said = [*one.prompt, *one.output]
                tokens[row, : len(said)] = said
                tokens[row, len(said) :] = -7
                lengths[row] = len(said)
            drafts = self._propose(emitted, lengths, tokens)
            assert len(drafts) == len(batch)
            for one, draft in zip(batch, drafts, strict=True):
                one.draft = draft
            done = [row for row, one in enumerate(batch) if len(one.output) == len(one.says)]
            for row in reversed(done):  # the last row takes the place of one that leaves
                batch[row] = batch[-1]
                batch.pop()
            step += 1
        return step

    def _step(self, one: Asked) -> list[int]:
        if one.chunks:
            one.chunks -= 1
            return []
        ahead = one.says[len(one.output) :]
        right = 0
        while right < min(len(one.draft), len(ahead) - 1) and one.draft[right] == ahead[right]:
            right += 1
        new = ahead[: right + 1]
        one.output += new
        one.steps += 1
        return new


class Coin(Drafter):
    """Drafts the token 7 again and again, each with probability P. The model says it so often, and 8 otherwise."""

    name = "coin"
    P = 0.6

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Coin.Request:
        return self.Request()

    def said(self, drafted: int, random: np.random.Generator) -> list[int]:
        """What a step emits behind so many drafted tokens."""
        right = random.random(drafted) < self.P
        return [7] * int(np.argmin([*right, False])) + [8]

    class Request(protocol.Request):
        def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
            probs = np.full(max_tokens, Coin.P, np.float32)
            return TokenDraft(np.full(max_tokens, 7, np.uint32), probs, np.zeros(max_tokens, np.uint8))

        def update(self, ids: Any) -> None:
            pass
