"""Draft length of a draft model: expected tokens against the cost of verification and of drafting.

The rule is that of the n-gram draft (`docs/draft.md`) with one more term, because drafting itself costs passes of the
draft model. After k drafted tokens, the gain of n more tokens is

    S·p₁·(1 + α + … + αⁿ⁻¹) - ρ·(C(k + n) - C(k) + m·c)

S is the probability that the k tokens are all right. p₁ is the probability that the next token is right. α is the share
of the model's recently tested tokens that were accepted. ρ is the recent number of tokens per unit of cost. C(k) is the
cost of verifying k drafted tokens, and c that of a pass over one token, both in plain steps of the target. m is the
number of passes, in passes over one token: n before the pass that gives the next token, where p₁ is α, and n - 1 after
it. Drafting continues while some n has a positive gain.
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
    """Length rule of one draft model, with its online state.

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
        """ρ: recent tokens per unit of cost; at least 1, the rate of plain decoding."""
        return max(1.0, self._tokens / self._cost)

    @property
    def alpha(self) -> float:
        """α: recent share of the model's tested tokens that were accepted."""
        return self._right / self._tested

    @property
    def pass_seconds(self) -> float | None:
        """Seconds of a pass of the draft model over one token of each row, a running average; None before the first."""
        return self._draft_seconds

    @property
    def step_cost(self) -> float:
        """c: cost of one pass of the draft model in plain steps of the target."""
        if self._given is not None:
            return self._given
        if self._draft_seconds is None or self._plain_seconds is None:
            return _FIRST_GUESS
        return self._draft_seconds / self._plain_seconds

    def calibrated(self, p: float, drawn: bool) -> float:
        """Return the chance that a token is accepted.

        Args:
            p: Probability of the token under the draft model; for a drawn token, that of the most probable token.
            drawn: Whether the token is drawn.
        """
        return self._calibrations[drawn](p)

    def pays(self, chance: float, survival: float, drafted: int, costs: Costs, passes: float = 0.0) -> bool:
        """Whether drafting one more token pays, with the tokens that may follow it.

        Args:
            chance: Chance that the token is accepted if all before it are.
            survival: Chance that all tokens before it are accepted.
            drafted: Number of tokens before it, below `len(costs) - 1`.
            costs: (K + 1,) cost of verifying up to K tokens, the most that may be drafted.
            passes: Passes of the draft model for the token; 0 if its logits are known.
        """
        ahead = np.arange(len(costs) - 1 - drafted)
        gain = np.cumsum(survival * chance * self.alpha**ahead)
        cost = costs[drafted + 1 :] - costs[drafted] + self.step_cost * (passes + ahead)
        return bool((gain > self.rate * cost).any())

    def split(self, probs: Sequence[float], costs: Costs, feed: float, extendable: bool = True) -> tuple[int, bool]:
        """Decide how much of an n-gram draft to keep, and whether the model drafts after it.

        Args:
            probs: (n,) chance of each token of the draft if all before it are accepted.
            costs: (K + 1,) as for `pays`, n ≤ K.
            feed: Cost of the pass over the tokens that the model has not read, in passes over one token.
            extendable: Whether a token can follow the whole draft.
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
        """Whether the model is paused in this round because its last drafts did not pay; counts the round."""
        return self._throttle.should_skip()

    def should_probe(self) -> bool:
        """Count a round in which drafting is not expected to pay. Returns whether the model drafts a token as a probe.

        It does in one round in 32, and in the round after a probe that was accepted.
        """
        self._idle = (self._idle + 1) % _PROBE
        self._tries = self._idle == 0
        return self._tries

    def record_token(self, p: float, drawn: bool, right: bool) -> None:
        """Record a tested token; `p` and `drawn` as for `calibrated`."""
        self._calibrations[drawn].learn(p, right)
        self._right = self._right * _MEMORY + right
        self._tested = self._tested * _MEMORY + 1.0
        if right and self._tries:
            self._idle = _PROBE - 1

    def record_step(self, tokens: float, cost: float) -> None:
        """Record the cost of a step and its emitted tokens, mean over rows."""
        self._tokens = self._tokens * _MEMORY + tokens
        self._cost = self._cost * _MEMORY + cost

    def record_gain(self, accepted: float, cost: float) -> None:
        """Record the model's accepted tokens of a round, mean over rows, and their cost."""
        self._throttle.record(accepted, cost)

    def record_time(self, *, draft: float | None = None, plain: float | None = None) -> None:
        """Record seconds of a pass of the draft model, or of a plain step of the target."""
        if draft is not None:
            self._draft_seconds = _averaged(self._draft_seconds, draft)
        if plain is not None:
            self._plain_seconds = _averaged(self._plain_seconds, plain)


class Round:
    """Drafts of one call from proposal to verification, with their cost and gain.

    Args:
        controller: Receives the results.
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
        """Take the result of one request: emitted tokens, and accepted tokens of the model among them."""
        if self._is_timed and not self._emitted:
            self._controller.record_time(plain=(clock() - self._end) / self._verification)
        self._emitted.append(emitted)
        self._gained += gained

    def close(self) -> None:
        """Pass the results to the controller."""
        if self._emitted:
            self._controller.record_step(sum(self._emitted) / len(self._emitted), self._cost)
            if self._model_cost > 0:
                self._controller.record_gain(self._gained / len(self._emitted), self._model_cost)


def _averaged(old: float | None, new: float) -> float:
    """Return a running average in which one value counts at most as twice the old average."""
    return new if old is None else old + _SOME * (min(new, 2.0 * old) - old)
