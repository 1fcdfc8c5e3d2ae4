"""Optimizer, learning-rate schedule, and the precision of the arithmetic."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasc.progress import Clock

LR_FINAL_SHARE = 0.02
"""Share of the highest learning rate at the last optimizer step."""


@dataclass(slots=True)
class TimeLimit:
    """Wall time of a training run; it begins when the object is made.

    Attributes:
        seconds: Seconds of the run, above 0.
        clock: Returns seconds.
    """

    seconds: float
    clock: Clock = time.perf_counter
    _begin: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the time."""
        self._begin = self.clock()

    @property
    def spent(self) -> float:
        """Seconds since the begin."""
        return self.clock() - self._begin

    def timed(self, schedule: Callable[[int], float], steps: int) -> Callable[[int], float]:
        """Return a schedule of `steps` steps that also ends when the time is over."""
        return lambda step: schedule(max(step, int(min(steps, steps * self.spent / self.seconds))))


def dtype_of(precision: str, device: str) -> Any:
    """Return the torch dtype of a `precision` option on a device, `cpu` or `cuda`."""
    import torch

    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def rate_schedule(begin: int, steps: int, warmup: float) -> Callable[[int], float]:
    """Return the share of the highest rate by step: 0 before `begin`, a linear rise, a cosine to `LR_FINAL_SHARE`."""
    rise = max(1, round(warmup * (steps - begin)))

    def share(step: int) -> float:
        since = step - begin
        if since < 0:
            return 0.0
        if since < rise:
            return (since + 1) / rise
        done = min(1.0, (since - rise) / max(1, steps - begin - rise))
        return LR_FINAL_SHARE + (1 - LR_FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done))

    return share


def adamw(
    groups: Sequence[tuple[list[Any], float, float, int]], steps: int, warmup: float, limit: TimeLimit | None = None
) -> tuple[Any, Any]:
    """Return AdamW over groups of parameters, and its learning rate by step.

    Args:
        groups: Parameters, highest rate, weight decay, and the step at which their training begins.
        steps: Optimizer steps.
        warmup: Share of the steps in which the rate rises.
        limit: Time of the run; None: as long as the steps take.
    """
    import torch

    kept = [group for group in groups if group[0]]
    settings = [{"params": params, "lr": rate, "weight_decay": decay} for params, rate, decay, _ in kept]
    optimizer = torch.optim.AdamW(settings, betas=(0.9, 0.98))
    schedules = [rate_schedule(begin, steps, warmup) for *_, begin in kept]
    if limit is not None:
        schedules = [limit.timed(schedule, steps) for schedule in schedules]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, schedules)
