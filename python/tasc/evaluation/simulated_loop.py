"""tasc's verify loop over a target that knows the outputs, with the seconds of a cost profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tasc.decoding.jobs import Job
from tasc.decoding.loop import Loop
from tasc.evaluation.cost_profile import CostProfile, ProfileCosts


class SimulatedLoop(Loop):
    """`Loop` that runs no model. Everything else is the loop itself: admission, shared prefixes, drafts, policy.

    Args:
        profile: Seconds of the steps.
        outputs: By job index, the ids of the output.
        num_rows: Most jobs at once.
        max_draft: Longest draft.
        vocab_size: Ids of the model.
    """

    def __init__(
        self, profile: CostProfile, outputs: Sequence[list[int]], num_rows: int, max_draft: int, vocab_size: int
    ) -> None:
        target: Any = _KnownTarget(profile, vocab_size)
        super().__init__(target, num_rows, max_draft, ProfileCosts(profile), cuda_graphs=False)
        self._profile, self._outputs = profile, outputs

    def _forward(self, step: Any) -> list[Callable[[int], int]]:
        """Count the step's seconds and return what the target says after each draft prefix."""
        pairs = zip(step.jobs, step.drafts, strict=True)
        width = max(len(job.tokens) - job.cached + len(draft.tokens) for job, draft in pairs)
        step.seconds["model"] = float(self._profile.seconds(len(step.jobs), width))
        return [self._said(job) for job in step.jobs]

    def _said(self, job: Job) -> Callable[[int], int]:
        ahead = self._outputs[job.index][len(job.output) :]
        return lambda j: ahead[j] if j < len(ahead) else 0


class _KnownTarget:
    """What the loop asks of a target that runs in a batch."""

    is_batched = True
    max_length = None

    def __init__(self, profile: CostProfile, vocab_size: int) -> None:
        from tasc.decoding.engine.target import Drive

        self.model, self.drive = torch.nn.Identity(), Drive()
        self.device = torch.device("cuda" if profile.is_gpu else "cpu")
        self.vocab_size = vocab_size

    def new_cache(self, num_rows: int) -> Any:
        return _KnownCache(num_rows)

    def regime(self, length: int) -> bool:
        return False


class _KnownCache:
    """Cache rows without contents."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def reset(self) -> None:
        pass

    def reserve(self, num_positions: int) -> None:
        pass

    def may_draft(self, row: int, unread: int) -> bool:
        return True

    def copy_row(self, source: int, row: int, length: int) -> int:
        return length

    def move_row(self, source: int, row: int, length: int) -> None:
        pass

    def keep(self, row: int, length: int) -> int:
        return length
