"""Checks of linear layers that a library has replaced, such as quantised ones, for `probe.py`.

A token's output must not depend on the other tokens of a forward pass: drafts and other requests would then change the
text. A layer that rounds its inputs to 8 bits makes larger steps out of differences in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

_TOKENS = 4
_LARGE = 100.0  # times the inputs of the token that is looked at
_TOLERANCE = 1e-3  # of an output's spread; above rounding in fp32, below that of 8-bit inputs


def mixing_layer(model: nn.Module) -> str | None:
    """Return a replaced layer whose output for a token depends on other tokens of the pass; None if there is none."""
    return _first(model, _mixes_tokens)


def rounding_layer(model: nn.Module) -> str | None:
    """Return a replaced layer of an fp32 model that rounds its inputs more than fp32 does; None if there is none."""
    return _first(model, _rounds_inputs) if getattr(model, "dtype", None) == torch.float32 else None


def _first(model: nn.Module, holds: Callable[[nn.Module, Tensor], bool]) -> str | None:
    generator = torch.Generator().manual_seed(1)
    for name, layer in _replaced(model):
        device = next((weight.device for weight in layer.parameters()), getattr(model, "device", "cpu"))
        inputs = torch.randn(2, _TOKENS, layer.in_features, generator=generator)
        with suppress(Exception):  # a layer that does not run: the model's own passes show it
            if holds(layer, inputs.to(device, getattr(model, "dtype", torch.float32))):
                return f"{name} ({type(layer).__name__})"
    return None


def _replaced(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Linear layers that are not torch's own over ordinary weights, one of each kind."""
    seen = set()
    for name, layer in model.named_modules():
        if not isinstance(getattr(layer, "in_features", None), int) or next(layer.children(), None) is not None:
            continue
        weight: Any = getattr(layer, "weight", None)
        kind = type(layer), type(weight), getattr(weight, "dtype", None), "forward" in vars(layer)
        is_ordinary = kind[:2] == (nn.Linear, nn.Parameter) and weight.is_floating_point() and not kind[3]
        if not is_ordinary and kind not in seen:
            seen.add(kind)
            yield name, layer


def _mixes_tokens(layer: nn.Module, inputs: Tensor) -> bool:
    """Compare a token's outputs beside zeros and beside large values, in passes of the same shape."""
    token, others = inputs[:1, :1], inputs[:1, 1:]
    alone, beside = (layer(torch.cat([token, others * factor], dim=1))[:, 0] for factor in (0.0, _LARGE))
    return _differ(alone, beside)


def _rounds_inputs(layer: nn.Module, inputs: Tensor) -> bool:
    """Compare the output of a sum with the sum of outputs."""
    a, b = inputs[:1], inputs[1:]
    return _differ(layer(a + b) + layer(torch.zeros_like(a)), layer(a) + layer(b))


def _differ(made: Tensor, wanted: Tensor) -> bool:
    made, wanted = made.float(), wanted.float()
    return float((made - wanted).abs().max()) > _TOLERANCE * float(wanted.std())
