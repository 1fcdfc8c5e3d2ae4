"""What a run did: steps, drafts, acceptance, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasc.drafting.protocol import SOURCES
from tasc.errors import InputError
from tasc.evaluation.bootstrap import Floats, Measure, bootstrap_interval, ratio


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
        tested_at: Tested tokens per position: those before were accepted.
        accepted_at: Accepted tokens per position.
        drafted_by: Drafted tokens per source (`tasc.drafting.protocol.SOURCES`).
        accepted_by: Accepted tokens per source.
        refused: Drafted tokens dropped because they are no ids of the model's vocabulary.
        paused: Steps without a draft because the drafter's last ones did not pay (`brake.py`).
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
    tested_at: Counter[int] = field(default_factory=Counter)
    accepted_at: Counter[int] = field(default_factory=Counter)
    drafted_by: Counter[str] = field(default_factory=Counter)
    accepted_by: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    paused: int = 0
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
    def alpha_draft(self) -> float | None:
        """Σa/Σγ, the share of all drafted tokens; falls as drafts get longer: never compare it across lengths."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def rates(self) -> list[float]:
        """(longest draft,) acceptance rate per position: accepted of those tested there."""
        return [self.accepted_at[j] / self.tested_at[j] for j in range(max(self.tested_at, default=-1) + 1)]

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
        for name in ("drafted_at", "tested_at", "accepted_at"):
            values[name] = [values[name][position] for position in range(max(self.drafted_at, default=-1) + 1)]
        for name in ("drafted_by", "accepted_by"):
            values[name] = dict(values[name])
        return values | {"alpha": self.alpha, "tau": self.tau, "rates": self.rates, "seconds": self.seconds}

    @classmethod
    def teacher_forced(cls, hits: Sequence[bool], length: int, *, ended: bool, max_tokens: int | None = None) -> Stats:
        """The counts of a greedy request, from one pass over its finished output instead of the loop.

        At temperature 0 the output does not depend on the draft, so where a draft of γ tokens would be right is known
        from what the draft model says after each true prefix. Steps, tokens, accepted and tested ones are exactly the
        loop's (`ModelDrafter` of fixed length γ); a draft is taken to stop at its first miss, hence drafted = tested.

        Args:
            hits: (T,) whether the draft's likeliest token after the prompt and `output[:i]` is `output[i]`.
            length: γ, ≥ 1.
            ended: Whether the last token is an EOS; otherwise the output was cut at `max_tokens`.
            max_tokens: Most output tokens that were asked for; None: so many that the output did not come near.

        Source: AdaSPEC (arXiv 2510.19779 §4.1) reports α so; the rounds are those of speculative decoding
        (arXiv 2211.17192 §2).
        """
        stats = cls(requests=1)
        room = max_tokens if max_tokens is not None else len(hits) + length + 1
        while stats.tokens < len(hits):
            ahead = hits[stats.tokens :][: min(length, room - stats.tokens - 1)]
            accepted = next((j for j, hit in enumerate(ahead) if not hit), len(ahead))
            at_end = ended and stats.tokens + accepted == len(hits)
            tested = accepted if at_end else min(accepted + 1, len(ahead))
            stats.count_step([len(SOURCES) - 1] * tested, accepted, at_end)
            stats.tokens += accepted if at_end else accepted + 1
        return stats


@dataclass(frozen=True, kw_only=True, eq=False)
class Acceptance:
    """How often a draft was right over N prompts, each figure as a `Measure`: with a bootstrap interval over prompts.

    Two drafts over the same prompts are compared by a paired interval: `bootstrap_interval(a.alpha, against=b.alpha)`.

    Attributes:
        accepted: (N,) Σa of each prompt.
        tested: (N,) Σs.
        tokens: (N,) tokens emitted.
        steps: (N,) steps.
        expected: (N,) Σ(1 − TVD) over the tokens of each prompt's output, or None where no distribution was looked at.
        rates: (longest draft,) acceptance rate per position, all prompts together.
    """

    accepted: Floats
    tested: Floats
    tokens: Floats
    steps: Floats
    expected: Floats | None = None
    rates: list[float]

    @classmethod
    def of(cls, requests: Sequence[Stats], overlaps: Sequence[Any] | None = None) -> Acceptance:
        """Of requests' counts, by the loop or `Stats.teacher_forced`.

        Args:
            requests: One per prompt.
            overlaps: By prompt, (T,) 1 − TVD of each output token's distributions.

        Raises:
            InputError: There is no request, or `overlaps` are of another number of prompts.
        """
        if not requests or (overlaps is not None and len(overlaps) != len(requests)):
            given = "no" if overlaps is None else len(overlaps)
            raise InputError(f"{len(requests)} requests and {given} overlaps: at least one of the first, and as many")
        total = Stats()
        for stats in requests:
            total.add(stats)
        columns = {
            name: np.array([getattr(stats, name) for stats in requests], np.float64)
            for name in ("accepted", "tested", "tokens", "steps")
        }
        expected = None if overlaps is None else np.array([float(np.sum(row)) for row in overlaps])
        return cls(**columns, expected=expected, rates=total.rates)

    @property
    def alpha(self) -> Measure:
        """α = Σa/Σs over all prompts (micro): the headline."""
        return ratio(self.accepted, self.tested)

    @property
    def alpha_per_prompt(self) -> Measure:
        """The mean over prompts of each one's α; prompts where nothing was tested aside."""
        some = self.tested > 0
        return ratio(np.where(some, self.accepted / np.maximum(self.tested, 1.0), 0.0), some)

    @property
    def tau(self) -> Measure:
        """τ, tokens per step."""
        return ratio(self.tokens, self.steps)

    @property
    def alpha_exp(self) -> Measure | None:
        """Mean of 1 − TVD over output tokens: the acceptance rate to expect at temperature 1."""
        return None if self.expected is None else ratio(self.expected, self.tokens)

    def summary(self, *, seed: int = 0) -> dict[str, Any]:
        """Every figure as `{value, low, high}` (95 %), and the rates per position, as plain JSON values."""
        figures = {name: getattr(self, name) for name in ("alpha", "alpha_per_prompt", "tau", "alpha_exp")}
        found: dict[str, Any] = {}
        for name, measure in figures.items():
            if measure is not None:
                interval = bootstrap_interval(measure, seed=seed)
                ends = {} if interval is None else {"low": interval.low, "high": interval.high}
                found[name] = {"value": measure.value, **ends}
        return {"prompts": len(self.tested), **found, "rates": self.rates}
