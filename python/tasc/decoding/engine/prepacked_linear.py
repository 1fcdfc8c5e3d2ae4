"""WeightWatcher laid out for small matrix products on a CPU.

A step over 2 to 32 tokens multiplies matrices of so few rows that rearranging the weights, which the usual fp32 product
does each time, costs more than the product. oneDNN can keep a rearranged copy: verifying 8 tokens then costs little
more than one (docs/verify.md has figures). Results differ from the usual product's in the last bits only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tasc.decoding.engine.weight_watcher import place
from tasc.errors import InputError

_AUTO_LIMIT = 2**30  # bytes of weights up to which a copy is made unasked
_ROWS = 16  # the layout is chosen for about this many tokens


class PrepackedLinears:
    """Rearranged copies of a model's linear weights, in force within `applied`.

    Args:
        model: A model on the CPU in fp32.
        wanted: True: pack; False: do nothing; None: pack if the model is on the CPU in fp32 and the copy takes at
            most 1 GiB.

    Raises:
        InputError: Packing is asked for and cannot be had.
    """

    def __init__(self, model: nn.Module, wanted: bool | None = None) -> None:
        self._layers: list[nn.Linear] = []
        self._packed: dict[nn.Linear, tuple[tuple[int, int], Tensor]] = {}
        if wanted is False:
            return
        layers = [module for module in model.modules() if type(module) is nn.Linear and _is_packable(module.weight)]
        if wanted and not (layers and _has_onednn()):
            raise InputError("pack_weights=True needs linear layers in fp32 on the CPU and a torch with oneDNN")
        if _has_onednn() and (wanted or 0 < _num_bytes(layers) <= _AUTO_LIMIT):
            self._layers = layers

    @property
    def num_bytes(self) -> int:
        """Memory that the copies take."""
        return _num_bytes(self._layers)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the model's linear layers use the copies, which are renewed where weights have changed."""
        done: list[nn.Linear] = []
        try:
            for layer in self._layers:
                if "forward" not in vars(layer):
                    layer.forward = _Forward(layer, self._of(layer))  # type: ignore[method-assign]
                    done.append(layer)
            yield
        finally:
            for layer in done:
                del layer.forward

    def _of(self, layer: nn.Linear) -> Tensor:
        state = place(layer.weight)
        known = self._packed.get(layer)
        if known is None or known[0] != state:
            with torch.inference_mode():
                known = (state, torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _ROWS))
            self._packed[layer] = known
        return known[1]


class _Forward:
    """What a packed layer does with its input: a single token takes the usual product, which is as fast for it."""

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


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _is_packable(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() > 0


def _num_bytes(layers: list[nn.Linear]) -> int:
    return sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
