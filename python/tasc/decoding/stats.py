"""Counts of a run: steps, drafted and accepted tokens, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasc.drafting.protocol import SOURCES


@dataclass(slots=True, kw_only=True)
class Stats:
    """Counts of one request, or the sum of several requests' counts.

    A *step* is one forward pass of the target for a request; the prefill is a step too. Step r drafts γ_r tokens
    (without those past the length limit or an end-of-sequence token) and accepts a_r of them. It tests
    s_r = min(a_r + 1, γ_r) tokens; if an accepted token ended the request, s_r = a_r. A forward pass over several
    requests is one step of each, and its time is shared equally among them.

    Attributes:
        requests: Number of requests.
        steps: Number of steps.
        prompt_tokens: Prompt tokens.
        reused_tokens: Prompt tokens whose keys and values were in the cache.
        tokens: Emitted tokens.
        drafted: Drafted tokens, Σγ.
        accepted: Accepted tokens, Σa.
        tested: Tested tokens, Σs.
        drafted_at: Drafted tokens by position in the draft, 0-based.
        tested_at: Tested tokens by position.
        accepted_at: Accepted tokens by position.
        drafted_by: Drafted tokens by source (`tasc.drafting.protocol.SOURCES`).
        accepted_by: Accepted tokens by source.
        out_of_vocab_tokens: Drafted tokens dropped because their ids are not in the model's vocabulary.
        throttled_steps: Steps without a draft because recent drafts cost more time than they saved.
        drafter_errors: Exceptions raised by the drafter; the request then continues without drafts.
        prefill_seconds: Time of the model on prompts.
        draft_seconds: Time of the drafters.
        verify_seconds: Time of the model after the prompt.
        rest_seconds: All other time: sampling, text, bookkeeping.
        divergences: Requests whose ids differ from plain decoding's; None if not checked.
        mode: How the model is run (`tasc.decoding.engine.target.Mode`); None where no model was run.

    Examples:
        >>> stats = Stats(requests=1, tokens=3)
        >>> stats.count_step([0, 0, 4], accepted=2, ended=False)  # the third of three drafted tokens is rejected
        >>> stats.alpha, stats.tau, dict(stats.drafted_by)
        (0.6666666666666666, 3.0, {'task': 2, 'copy': 1})
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
    tested_at: Counter[int] = field(default_factory=Counter)
    accepted_at: Counter[int] = field(default_factory=Counter)
    drafted_by: Counter[str] = field(default_factory=Counter)
    accepted_by: Counter[str] = field(default_factory=Counter)
    out_of_vocab_tokens: int = 0
    throttled_steps: int = 0
    drafter_errors: int = 0
    prefill_seconds: float = 0.0
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    rest_seconds: float = 0.0
    divergences: int | None = None
    mode: str | None = None

    @property
    def alpha(self) -> float | None:
        """Acceptance rate α = Σa/Σs; None if no token was tested."""
        return self.accepted / self.tested if self.tested else None

    @property
    def rates(self) -> list[float]:
        """(longest draft,) acceptance rate by position: accepted tokens / tested tokens."""
        return [self.accepted_at[j] / self.tested_at[j] for j in range(max(self.tested_at, default=-1) + 1)]

    @property
    def tau(self) -> float | None:
        """Emitted tokens per step τ; None before the first step."""
        return self.tokens / self.steps if self.steps else None

    @property
    def seconds(self) -> float:
        """Total time: the sum of the four times above."""
        return self.prefill_seconds + self.draft_seconds + self.verify_seconds + self.rest_seconds

    def count_step(self, sources: Sequence[int], accepted: int, ended: bool) -> None:
        """Count one verification.

        Args:
            sources: (γ,) source of each drafted token, an index into `SOURCES`.
            accepted: Number of accepted tokens, a.
            ended: Whether an accepted drafted token ended the request.
        """
        self.steps += 1
        self.drafted += len(sources)
        self.accepted += accepted
        tested = accepted if ended else min(accepted + 1, len(sources))
        self.tested += tested
        self.tested_at.update(range(tested))
        for position, code in enumerate(sources):
            name = SOURCES[code] if code < len(SOURCES) else SOURCES[-1]
            self.drafted_at[position] += 1
            self.drafted_by[name] += 1
            if position < accepted:
                self.accepted_at[position] += 1
                self.accepted_by[name] += 1

    def add(self, other: Stats) -> None:
        """Add the counts of `other` to this object."""
        for name in self.__slots__:
            ours, theirs = getattr(self, name), getattr(other, name)
            if isinstance(ours, Counter):
                ours.update(theirs)
            elif isinstance(theirs, str):
                setattr(self, name, theirs)
            elif theirs is not None:
                setattr(self, name, (ours or 0) + theirs)

    def as_dict(self) -> dict[str, Any]:
        """Return counts, rates and times as JSON values; counts by position become lists."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("drafted_at", "tested_at", "accepted_at"):
            values[name] = [values[name][position] for position in range(max(self.drafted_at, default=-1) + 1)]
        for name in ("drafted_by", "accepted_by"):
            values[name] = dict(values[name])
        return values | {"alpha": self.alpha, "tau": self.tau, "rates": self.rates, "seconds": self.seconds}

    @classmethod
    def teacher_forced(
        cls, hits: Sequence[bool] | Sequence[Sequence[bool]], length: int, *, ended: bool, max_tokens: int | None = None
    ) -> Stats:
        """Count a greedy request from one pass over its finished output, without running the loop.

        At temperature 0 the output does not depend on the drafts. The draft model's argmax after each prefix of the
        output therefore tells how many tokens of each draft of γ tokens the loop would have accepted. Steps, tokens,
        accepted and tested tokens equal the loop's (`ModelDrafter` with fixed length γ). Drafts are taken to end at
        their first wrong token, so that drafted = tested.

        Args:
            hits: (T,) whether the argmax of the draft model after the prompt and `output[:i]` is `output[i]`; of an
                EAGLE head (γ, T), the same for the first, second, … token of a draft. It drafts nothing for the first
                output token, since the target's states of the prompt come with it.
            length: γ, ≥ 1.
            ended: Whether the last token is an EOS; otherwise the output was cut at `max_tokens`.
            max_tokens: The request's limit of output tokens; None: a limit that the output did not come near.

        Source: AdaSPEC (arXiv 2510.19779 §4.1) reports α this way; the steps are those of speculative decoding
        (arXiv 2211.17192 §2).

        >>> Stats.teacher_forced([True, False, True], length=2, ended=True).as_dict()["steps"]
        2
        """
        stats = cls(requests=1)
        is_head = bool(hits) and isinstance(hits[0], Sequence)
        steps: Sequence[Any] = hits if is_head else [hits] * length
        total = len(steps[0])
        room = max_tokens if max_tokens is not None else total + length + 1
        while stats.tokens < total:
            most = 0 if is_head and stats.tokens == 0 else min(length, room - stats.tokens - 1, total - stats.tokens)
            ahead = [steps[j][stats.tokens + j] for j in range(most)]
            accepted = next((j for j, hit in enumerate(ahead) if not hit), len(ahead))
            at_end = ended and stats.tokens + accepted == total
            tested = accepted if at_end else min(accepted + 1, len(ahead))
            stats.count_step([len(SOURCES) - 1] * tested, accepted, at_end)
            stats.tokens += accepted if at_end else accepted + 1
        return stats
