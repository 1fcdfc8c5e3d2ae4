"""What a run did: steps, drafts, acceptance, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasc.spec.drafter import SOURCES


@dataclass(slots=True, kw_only=True)
class Stats:
    """Counts of one request, or their sum over many.

    A *step* is one pass of a request through the target, the prefill included. Step r drafts γ_r tokens (after those
    past the length limit or an end-of-sequence token were dropped), accepts a_r and tests s_r = min(a_r + 1, γ_r) of
    them; where an accepted token ended the request, s_r = a_r. A step that served several requests counts once
    for each of them, and its time is shared equally among them.

    Attributes:
        requests: Requests summed here.
        steps: Steps.
        prompt_tokens: Tokens of the prompts.
        reused_tokens: Prompt tokens whose keys and values were there already.
        tokens: Tokens emitted.
        drafted: Σγ.
        accepted: Σa.
        tested: Σs.
        drafted_at: Drafted tokens per position of the draft, 0-based.
        accepted_at: Accepted tokens per position.
        drafted_by: Drafted tokens per source (`tasc.spec.SOURCES`).
        accepted_by: Accepted tokens per source.
        refused: Drafted tokens dropped because they are no ids of the model's vocabulary.
        failures: Times that a drafter raised; its request went on without drafts.
        prefill_seconds: In the model, for prompts.
        draft_seconds: In drafters.
        verify_seconds: In the model, after the prompt.
        rest_seconds: Everything else: choosing, text, bookkeeping.
        divergences: Requests whose ids differ from plain decoding's; None where that was not checked.
    """

    requests: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    tested: int = 0
    drafted_at: Counter[int] = field(default_factory=Counter)
    accepted_at: Counter[int] = field(default_factory=Counter)
    drafted_by: Counter[str] = field(default_factory=Counter)
    accepted_by: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    failures: int = 0
    prefill_seconds: float = 0.0
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    rest_seconds: float = 0.0
    divergences: int | None = None

    @property
    def alpha(self) -> float | None:
        """Acceptance rate α = Σa/Σs; None where nothing was tested."""
        return self.accepted / self.tested if self.tested else None

    @property
    def tau(self) -> float | None:
        """Tokens per step τ; None before the first step."""
        return self.tokens / self.steps if self.steps else None

    @property
    def seconds(self) -> float:
        """Sum of the four times."""
        return self.prefill_seconds + self.draft_seconds + self.verify_seconds + self.rest_seconds

    def count_step(self, sources: Sequence[int], accepted: int, ended: bool) -> None:
        """Count one verification.

        Args:
            sources: (γ,) source code of each drafted token.
            accepted: a.
            ended: Whether an accepted drafted token ended the request.
        """
        self.steps += 1
        self.drafted += len(sources)
        self.accepted += accepted
        self.tested += accepted if ended else min(accepted + 1, len(sources))
        for position, code in enumerate(sources):
            name = SOURCES[code] if code < len(SOURCES) else SOURCES[-1]
            self.drafted_at[position] += 1
            self.drafted_by[name] += 1
            if position < accepted:
                self.accepted_at[position] += 1
                self.accepted_by[name] += 1

    def add(self, other: Stats) -> None:
        """Add another's counts to these."""
        for name in self.__slots__:
            ours, theirs = getattr(self, name), getattr(other, name)
            if isinstance(ours, Counter):
                ours.update(theirs)
            elif theirs is not None:
                setattr(self, name, (ours or 0) + theirs)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; counts per position become lists."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("drafted_at", "accepted_at"):
            values[name] = [values[name][position] for position in range(max(self.drafted_at, default=-1) + 1)]
        for name in ("drafted_by", "accepted_by"):
            values[name] = dict(values[name])
        return values | {"alpha": self.alpha, "tau": self.tau, "seconds": self.seconds}
