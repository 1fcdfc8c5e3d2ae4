"""Rates by step, and the precision of the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

LEAST_RATE = 0.02
"""Of the highest rate, at the end."""


def dtype_of(precision: str, device: str) -> Any:
    """The torch dtype that a `precision` option means on a device, `cpu` or `cuda`."""
    import torch

    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def share_of_rate(begin: int, steps: int, warmup: float) -> Callable[[int], float]:
    """Share of the highest rate by step: nothing before `begin`, then a rise, then a cosine down to `LEAST_RATE`."""
    rise = max(1, round(warmup * (steps - begin)))

    def share(step: int) -> float:
        since = step - begin
        if since < 0:
            return 0.0
        if since < rise:
            return (since + 1) / rise
        done = min(1.0, (since - rise) / max(1, steps - begin - rise))
        return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))

    return share
