"""Acceptance rates over a set of prompts, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasc.decoding.stats import Stats
from tasc.errors import InputError
from tasc.evaluation.bootstrap import Floats, Measure, estimate, ratio


@dataclass(frozen=True, kw_only=True, eq=False)
class Acceptance:
    """Acceptance of a draft over N prompts; each figure is a `Measure`, with a bootstrap interval over prompts.

    A paired interval compares two drafts over the same prompts: `bootstrap_interval(a.alpha, against=b.alpha)`.

    Attributes:
        accepted: (N,) accepted tokens Σa by prompt.
        tested: (N,) tested tokens Σs by prompt.
        tokens: (N,) emitted tokens by prompt.
        steps: (N,) steps by prompt.
        expected: (N,) Σ(1 − TVD) over the tokens of each prompt's output; None if distributions were not compared.
        rates: (longest draft,) acceptance rate by position, over all prompts.

    Examples:
        >>> requests = [Stats.teacher_forced([True, False, True], length=2, ended=True) for _ in range(3)]
        >>> Acceptance.of(requests).alpha.value
        0.6666666666666666
    """

    accepted: Floats
    tested: Floats
    tokens: Floats
    steps: Floats
    expected: Floats | None = None
    rates: list[float]

    @classmethod
    def of(cls, requests: Sequence[Stats], overlaps: Sequence[Any] | None = None) -> Acceptance:
        """Collect the counts of several requests, made by the loop or by `Stats.teacher_forced`.

        Args:
            requests: (N,) counts, one per prompt.
            overlaps: (N,) arrays (T,) with 1 − TVD of the two distributions of each output token.

        Raises:
            InputError: There are no requests, or another number of `overlaps`.
        """
        if not requests or (overlaps is not None and len(overlaps) != len(requests)):
            given = "no" if overlaps is None else len(overlaps)
            raise InputError(
                f"{len(requests)} requests and {given} overlaps: give at least one request, and overlaps for each"
            )
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
        """α = Σa/Σs over all prompts (micro-average): the main figure."""
        return ratio(self.accepted, self.tested)

    @property
    def alpha_per_prompt(self) -> Measure:
        """Mean of the prompts' α (macro-average), without prompts where no token was tested."""
        some = self.tested > 0
        return ratio(np.where(some, self.accepted / np.maximum(self.tested, 1.0), 0.0), some)

    @property
    def tau(self) -> Measure:
        """Emitted tokens per step, τ."""
        return ratio(self.tokens, self.steps)

    @property
    def alpha_exp(self) -> Measure | None:
        """Mean of 1 − TVD over output tokens: the expected acceptance rate at the teacher's temperature."""
        return None if self.expected is None else ratio(self.expected, self.tokens)

    def summary(self, *, seed: int = 0) -> dict[str, Any]:
        """Return each figure as `{value, low, high}` (95 % interval) and the rates by position, as JSON values."""
        figures = {name: getattr(self, name) for name in ("alpha", "alpha_per_prompt", "tau", "alpha_exp")}
        found = {name: estimate(measure, seed=seed) for name, measure in figures.items() if measure is not None}
        return {"prompts": len(self.tested), **found, "rates": self.rates}
