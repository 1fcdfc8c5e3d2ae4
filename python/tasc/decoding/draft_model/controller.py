"""How far a draft model should draft: expected tokens against the cost of verifying them and of drafting them.

The rule of the n-gram draft (`docs/draft.md`) with one term more: every drafted token costs a pass of the draft
model. With ρ the running number of tokens per unit of cost, C(k) the cost of verifying k drafted tokens and c that of a
pass of the draft model, all in plain steps of the target, n more tokens after k drafted ones that survive with
probability S bring S·(α + α² + … + αⁿ) - ρ·(C(k + n) - C(k) + n·c), where α is how often the model's tokens were right
lately. Drafting goes on while some n brings more than nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tasc._core import Calibration
from tasc.drafting.policy import DraftThrottle
from tasc.drafting.protocol import Costs

clock = time.perf_counter

_MEMORY = 1.0 - 1.0 / 64.0
_SOME = 0.1  # weight of one measured time in its running average
_FIRST_GUESS = 0.2  # cost of a pass of the draft model before it was measured
_PROBE = 32  # rounds without the model after which it is tried though it is not expected to pay


class DraftLengthController:
    """The length rule of one draft model, and what it learns.

    Args:
        step_cost: Cost of one pass of the draft model in plain steps of the target; None: measured.
    """

    def __init__(self, step_cost: float | None = None) -> None:
        self._given = step_cost
        self._draft_seconds: float | None = None
        self._plain_seconds: float | None = None
        self._tokens, self._cost = 8.0, 4.0
        self._right, self._tested = 6.4, 8.0
        self._calibrations = (Calibration(), Calibration())  # greedy, drawn
        self._throttle = DraftThrottle()
        self._idle = 0
        self._tries = False

    @property
    def rate(self) -> float:
        """ρ, at least 1: plain decoding reaches that."""
        return max(1.0, self._tokens / self._cost)

    @property
    def alpha(self) -> float:
        """Share of the model's tokens that were right lately, of those tested."""
        return self._right / self._tested

    @property
    def step_cost(self) -> float:
        """c."""
        if self._given is not None:
            return self._given
        if self._draft_seconds is None or self._plain_seconds is None:
            return _FIRST_GUESS
        return self._draft_seconds / self._plain_seconds

    def calibrated(self, p: float, drawn: bool) -> float:
        """Chance that a token is accepted which has probability p, or, for a `drawn` one, the likeliest token has."""
        return self._calibrations[drawn](p)

    def pays(self, chance: float, survival: float, drafted: int, costs: Costs, passes: float = 0.0) -> bool:
        """Whether one more token should be drafted, counting what may follow it.

        Args:
            chance: That it is right, if all before it are.
            survival: Chance that those are.
            drafted: Their number, below `len(costs) - 1`.
            costs: (K + 1,) cost of verifying up to K tokens, the most that may be drafted.
            passes: Of the draft model that the token takes; 0 where its logits are there.
        """
        ahead = np.arange(len(costs) - 1 - drafted)
        gain = np.cumsum(survival * chance * self.alpha**ahead)
        cost = costs[drafted + 1 :] - costs[drafted] + self.step_cost * (passes + ahead)
        return bool((gain > self.rate * cost).any())

    def split(self, probs: Sequence[float], costs: Costs, feed: float, extendable: bool = True) -> tuple[int, bool]:
        """How much of a given chain to keep, and whether the model should draft after that.

        Args:
            probs: (n,) chance of each token of the chain, if all before it are right.
            costs: (K + 1,) as for `pays`, n ≤ K.
            feed: Cost of the pass that reads what the model has not seen, in its usual passes.
            extendable: Whether anything can follow the whole chain.
        """
        length, most = len(probs), len(costs) - 1
        chain = np.cumprod([1.0, *probs])
        kept = np.cumsum(chain) - 1.0 - self.rate * (costs[: length + 1] - costs[0])
        more = np.arange(1, most + 1)
        end = np.arange(length + 1)[:, None] + more  # (n + 1, K)
        gain = chain[:, None] * np.cumsum(self.alpha**more)
        cost = costs[np.minimum(end, most)] - costs[: length + 1, None] + self.step_cost * (more - 1 + feed)
        net = np.where(end <= most, gain - self.rate * cost, -np.inf)
        continued = net.max(1) if most else np.full(length + 1, -np.inf)
        # a token that is likelier right than the model's stays, whatever the model could add in its place
        continued[np.append(np.asarray(probs) >= self.alpha, not extendable)] = -np.inf
        best = int(np.argmax(kept + np.maximum(continued, 0.0)))
        if continued[best] <= 0:
            return length, False
        return best, True

    def should_skip(self) -> bool:
        """Whether the model sits this round out since its last drafts did not pay; counts the round."""
        return self._throttle.should_skip()

    def should_probe(self) -> bool:
        """Counts a round in which nothing was expected of the model; whether it is to be tried all the same.

        That is one round in 32, and the round after a try that was right.
        """
        self._idle = (self._idle + 1) % _PROBE
        self._tries = self._idle == 0
        return self._tries

    def record_token(self, p: float, drawn: bool, right: bool) -> None:
        """A drafted token was tested; p as for `calibrated`."""
        self._calibrations[drawn].learn(p, right)
        self._right = self._right * _MEMORY + right
        self._tested = self._tested * _MEMORY + 1.0
        if right and self._tries:
            self._idle = _PROBE - 1

    def record_step(self, tokens: float, cost: float) -> None:
        """A step of this cost emitted so many tokens, mean over rows."""
        self._tokens = self._tokens * _MEMORY + tokens
        self._cost = self._cost * _MEMORY + cost

    def record_gain(self, accepted: float, cost: float) -> None:
        """What the model's tokens brought in a round, mean over rows, and what drafting and verifying them cost."""
        self._throttle.record(accepted, cost)

    def record_time(self, *, draft: float | None = None, plain: float | None = None) -> None:
        """Seconds of a pass of the draft model, or of a plain step of the target."""
        if draft is not None:
            self._draft_seconds = _averaged(self._draft_seconds, draft)
        if plain is not None:
            self._plain_seconds = _averaged(self._plain_seconds, plain)


class Round:
    """One call's drafts, from proposal to verification: what they cost and brought.

    Args:
        controller: Learns from it.
        verification: Cost of verifying the drafts, in plain steps.
        without: The same without the model's tokens.
        drafting: Cost of the model's passes.
        is_prefill: Whether the step reads a prompt, so that its time says nothing of a plain step's.
    """

    def __init__(
        self, controller: DraftLengthController, verification: float, without: float, drafting: float, is_prefill: bool
    ) -> None:
        self._controller = controller
        self._verification = verification
        self._model_cost = drafting + verification - without
        self._cost = drafting + verification
        self._is_timed = not is_prefill
        self._emitted: list[int] = []
        self._gained = 0
        self._end = clock()

    def report(self, emitted: int, gained: int) -> None:
        """Take what verification made of one request's draft: tokens emitted, and those of the model among them."""
        if self._is_timed and not self._emitted:
            self._controller.record_time(plain=(clock() - self._end) / self._verification)
        self._emitted.append(emitted)
        self._gained += gained

    def close(self) -> None:
        """Tell the controller."""
        if self._emitted:
            self._controller.record_step(sum(self._emitted) / len(self._emitted), self._cost)
            if self._model_cost > 0:
                self._controller.record_gain(self._gained / len(self._emitted), self._model_cost)


def _averaged(old: float | None, new: float) -> float:
    """A running average in which one value counts as at most twice the old."""
    return new if old is None else old + _SOME * (min(new, 2.0 * old) - old)
