"""Linear layers whose weights are prepacked for small matrix products on a CPU.

A step over 2 to 32 tokens multiplies matrices with so few rows that reordering the weights costs more than the
product. The default fp32 product reorders them each time. oneDNN can keep a reordered copy: verifying 8 tokens then
costs little more than verifying one (docs/verify.md has figures). Results differ from the default product's in the
last bits only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tasc.decoding.engine.weight_watcher import tensor_version
from tasc.errors import InputError

_AUTO_LIMIT = 2**30  # bytes of weights that are copied without being asked
_TUNED_ROWS = 16  # the layout is chosen for products of about this many rows


class PrepackedLinears:
    """Reordered copies of a model's linear weights; in use inside `applied()`.

    Args:
        model: A model on the CPU in fp32.
        enabled: True: prepack. False: do nothing. None: prepack if the model is on the CPU in fp32 and the copies take
            at most 1 GiB.

    Raises:
        InputError: `enabled` is True and the model or this build of torch cannot be prepacked.
    """

    def __init__(self, model: nn.Module, enabled: bool | None = None) -> None:
        self._layers: list[nn.Linear] = []
        self._packed: dict[nn.Linear, tuple[tuple[Any, ...], Tensor]] = {}
        if enabled is False:
            return
        layers = [module for module in model.modules() if type(module) is nn.Linear and _is_packable(module)]
        has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        if enabled and not (layers and has_onednn):
            raise InputError("pack_weights=True needs linear layers in fp32 on the CPU and a torch with oneDNN")
        if has_onednn and (enabled or _num_bytes(layers) <= _AUTO_LIMIT):
            self._layers = layers

    @property
    def num_bytes(self) -> int:
        """Memory of the copies, in bytes."""
        return _num_bytes(self._layers)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the copies inside the `with` block; copies of weights that have changed are made again."""
        replaced: list[nn.Linear] = []
        try:
            for layer in self._layers:
                if "forward" not in vars(layer):
                    layer.forward = _PrepackedForward(layer, self._packed_weight(layer))  # type: ignore[method-assign]
                    replaced.append(layer)
            yield
        finally:
            for layer in replaced:
                del layer.forward

    def _packed_weight(self, layer: nn.Linear) -> Tensor:
        version = tensor_version(layer.weight)
        known = self._packed.get(layer)
        if known is None or known[0] != version:
            with torch.inference_mode():
                known = (version, torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _TUNED_ROWS))
            self._packed[layer] = known
        return known[1]


class _PrepackedForward:
    """Forward pass of a prepacked layer; one token takes the default product, which is as fast for it."""

    __slots__ = ("_bias", "_packed", "_weight")

    def __init__(self, layer: nn.Linear, packed: Tensor) -> None:
        self._weight = layer.weight
        self._bias = layer.bias
        self._packed = packed

    def __call__(self, input: Tensor) -> Tensor:
        if input.numel() == input.shape[-1]:
            return nn.functional.linear(input, self._weight, self._bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self._packed, self._bias, "none", [], "")
        return product


def _is_packable(layer: nn.Linear) -> bool:
    """Return whether the layer's parameters are ordinary fp32 tensors in the CPU's memory.

    Left alone are quantised weights (tensor subclasses), weights kept on a disk or in another place (no parameter, or
    on the "meta" device), and weights that hooks compute before each forward pass (attributes, no parameters).
    """
    weight, bias = (layer._parameters.get(name) for name in ("weight", "bias"))
    plain = type(weight) is nn.Parameter and (layer.bias is None or type(bias) is nn.Parameter)
    return plain and weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() > 0


def _num_bytes(layers: list[nn.Linear]) -> int:
    return sum(layer.weight.nbytes for layer in layers)
