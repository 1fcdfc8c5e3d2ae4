"""Linear layers whose weights are prepacked for small matrix products on a CPU.

A step over 2 to 32 tokens multiplies matrices with so few rows that reordering the weights costs more than the
product. The default fp32 product reorders them each time. oneDNN can keep a reordered copy: verifying 8 tokens then
costs little more than verifying one (docs/verify.md has figures). Results differ from the default product's in the
last bits only.

An int8 copy is a quarter as large, and a step that reads all weights from memory is that much faster. It changes the
model: each row of a weight matrix is rounded to 255 levels. Its products are exact integers, so the result for a token
does not depend on the other tokens of the step, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import accumulate
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tasc._core import activation_bytes
from tasc.decoding.engine.weight_watcher import merged_adapters, tensor_version
from tasc.errors import InputError

PackWeights: TypeAlias = bool | Literal["int8"] | None
"""Whether and how linear layers are packed; see `PrepackedLinears`."""

_Forward: TypeAlias = Callable[[Tensor], Tensor]
_AUTO_LIMIT = 2**30  # bytes of weights that are copied without being asked
_TUNED_ROWS = 16  # the layout is chosen for products of about this many rows
_LEVELS = 127  # highest int8 level
_ACTIVATION_LEVELS = 127 * 256 + 127  # highest level of an activation; see `activation_bytes`
_ZERO_POINT = 128  # of each byte of an activation, which the integer product takes as uint8


_applied: WeakKeyDictionary[nn.Module, dict[nn.Linear, _Forward]] = WeakKeyDictionary()  # by model, while in use


def _exchange(old: dict[nn.Linear, _Forward], new: dict[nn.Linear, _Forward]) -> None:
    """Take forward passes away from layers, and give others to layers."""
    for layer in old:
        del layer.forward
    for layer, forward in new.items():
        layer.forward = forward  # type: ignore[assignment, method-assign]


class PrepackedLinears:
    """Reordered copies of a model's linear weights; in use inside `applied()`.

    Args:
        model: A model on the CPU in fp32.
        enabled: True: prepack. "int8": round the weights to int8 and prepack these, which changes the model. False: do
            nothing. None: prepack if the model is on the CPU in fp32 and the copies take at most 1 GiB.

    Raises:
        InputError: The model, this machine or this build of torch cannot prepack as `enabled` asks for, or `enabled`
            has another value.
    """

    def __init__(self, model: nn.Module, enabled: PackWeights = None) -> None:
        if not (enabled is None or isinstance(enabled, bool) or enabled == "int8"):
            raise InputError(f"pack_weights={enabled!r}; it is True, False, None or 'int8'")
        self._model, self._enabled = model, enabled
        self._layers: list[nn.Linear] = []
        self._groups: list[list[nn.Linear]] = []
        self._packed: dict[nn.Linear, tuple[list[tuple[Any, ...]], list[_Forward]]] = {}
        self._is_int8 = enabled == "int8"
        self._find_layers()

    def _find_layers(self) -> None:
        """Find the layers to pack, again where some have been replaced."""
        layers = [] if self._enabled is False else _packable(self._model)
        self._merged = merged_adapters(self._model) if layers else {}
        if self._layers and list(map(id, layers)) == list(map(id, self._layers)):
            return
        self._layers, self._groups = layers, []
        self._packed.clear()
        has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        if self._enabled and not (layers and has_onednn):
            raise InputError(
                f"pack_weights={self._enabled!r} needs linear layers in fp32 on the CPU and a torch with oneDNN"
            )
        if self._is_int8 and not _multiplies_int8_exactly():
            raise InputError("pack_weights='int8' needs a CPU with int8 dot products (AVX-512 VNNI); use fp32 weights")
        if has_onednn and (self._enabled or _num_bytes(layers) <= _AUTO_LIMIT):
            self._groups = _grouped_by_input(self._model, layers) if self._is_int8 else [[layer] for layer in layers]

    @property
    def num_bytes(self) -> int:
        """Memory of the copies, in bytes."""
        size = sum(map(_num_bytes, self._groups))
        return size // 4 if self._is_int8 else size

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the copies inside the `with` block; copies of weights that have changed are made again.

        Blocks of the same model may be nested: the inner one's copies are used, or none if it has none.
        """
        self._find_layers()
        outer = _applied.get(self._model, {})
        mine = {
            layer: forward
            for group in self._groups
            for layer, forward in zip(group, self._packed_forwards(group), strict=True)
            if "forward" not in vars(layer) or layer in outer
        }
        _exchange(outer, mine)
        _applied[self._model] = mine
        try:
            yield
        finally:
            _exchange(mine, outer)
            _applied[self._model] = outer

    def _packed_forwards(self, group: list[nn.Linear]) -> list[_Forward]:
        versions = [(*tensor_version(layer.weight), self._merged.get(layer)) for layer in group]
        known = self._packed.get(group[0])
        if known is None or known[0] != versions:
            forwards: list[_Forward] = []
            with torch.inference_mode():
                forwards += _Int8Product(group).forwards() if self._is_int8 else [_PrepackedForward(group[0])]
            known = versions, forwards
            self._packed[group[0]] = known
        return known[1]


class _PrepackedForward:
    """Forward pass of a prepacked layer; one token takes the default product, which is as fast for it."""

    __slots__ = ("_layer", "_packed")

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _TUNED_ROWS)

    def __call__(self, input: Tensor) -> Tensor:
        if input.numel() == input.shape[-1]:
            return nn.functional.linear(input, self._layer.weight, self._layer.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self._packed, self._layer.bias, "none", [], "")
        return product


class _Int8Product:
    """Product of activations with the int8 weights of one or more layers that read the same activations.

    Weights have one scale per output channel. Activations are rounded to 16 bits, with one scale per token. Their error
    is below 2^-15 of the token's largest activation; the rounding of the weights is what counts. The two bytes of
    each activation are two rows of one integer product, which reads the weights once.

    Args:
        layers: Layers in the order in which they run.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self._layers = layers
        levels, scales = zip(*(int8_levels(layer.weight.detach()) for layer in layers), strict=True)
        self._packed = torch.ops.onednn.qlinear_prepack(torch.cat(levels), None)
        self._scales = torch.cat(scales) / _ACTIVATION_LEVELS
        self._zero_points = torch.zeros(len(self._scales), dtype=torch.int32)
        self._last: tuple[Tensor, Tensor] | None = None  # activations, and products for the layers that follow

    def forwards(self) -> list[_Forward]:
        """Return the forward pass of each layer."""
        ends = list(accumulate(layer.out_features for layer in self._layers))
        return [
            partial(self._forward, slice(end - layer.out_features, end), layer)
            for layer, end in zip(self._layers, ends, strict=True)
        ]

    def _forward(self, channels: slice, layer: nn.Linear, input: Tensor) -> Tensor:
        if self._last is None or not torch.equal(self._last[0], input):
            output = self._products(input.reshape(-1, input.shape[-1])).view(*input.shape[:-1], len(self._scales))
            if len(self._layers) > 1:
                self._last = (input.clone(), output)
        else:
            output = self._last[1]
        if layer is self._layers[-1]:
            self._last = None
        if len(self._layers) > 1:
            output = output[..., channels].clone(memory_format=torch.contiguous_format)
        return output if layer.bias is None else output.add_(layer.bias)

    def _products(self, rows: Tensor) -> Tensor:
        """Return the (M, N) products of (M, K) activations."""
        octets, peaks = map(torch.from_numpy, activation_bytes(rows.contiguous().numpy()))
        products = _int8_product(octets, self._packed, self._scales, self._zero_points)
        low, high = products[: len(rows)], products[len(rows) : 2 * len(rows)]
        return low.add_(high, alpha=256).mul_(peaks)


def int8_levels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round the rows of a weight matrix to int8, symmetrically.

    Args:
        weight: (N, K) fp32.

    Returns:
        (N, K) int8 levels from −127 to 127, and (N,) fp32 scales; level times scale is the rounded weight.
    """
    scales = weight.abs().amax(1).clamp(min=torch.finfo(weight.dtype).tiny) / _LEVELS
    return (weight / scales[:, None]).round().to(torch.int8), scales


def _int8_product(activations: Tensor, packed: Tensor, scales: Tensor, zero_points: Tensor) -> Tensor:
    """Multiply (M, K) uint8 activations with prepacked int8 weights; return (M, N) fp32."""
    product: Tensor = torch.ops.onednn.qlinear_pointwise.default(
        activations, 1.0, _ZERO_POINT, packed, scales, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product


def _grouped_by_input(model: nn.Module, layers: list[nn.Linear]) -> list[list[nn.Linear]]:
    """Group the layers that read one tensor, such as queries, keys and values, as a forward pass of one token shows.

    Layers that do not run for this token stand alone.
    """
    groups: list[list[nn.Linear]] = []
    last: list[Tensor] = []
    waiting = dict.fromkeys(layers)

    def record(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if layer not in waiting:
            return
        del waiting[layer]
        if groups and last and inputs and inputs[0] is last[0]:
            groups[-1].append(layer)
        else:
            groups.append([layer])
        last[:] = inputs[:1]

    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        with torch.inference_mode():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long))
    finally:
        for hook in hooks:
            hook.remove()
    return groups + [[layer] for layer in waiting]


@cache
def _multiplies_int8_exactly() -> bool:
    """Return whether the largest products are right: CPUs without int8 dot products saturate sums of two."""
    size = 64
    try:
        packed = torch.ops.onednn.qlinear_prepack(torch.full((size, size), _LEVELS, dtype=torch.int8), None)
        largest = torch.full((size, size), 255, dtype=torch.uint8)
        product = _int8_product(largest, packed, torch.ones(size), torch.zeros(size, dtype=torch.int32))
    except (AttributeError, RuntimeError):  # a torch without these operators
        return False
    return bool((product == size * _LEVELS * (255 - _ZERO_POINT)).all())


def _packable(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if type(module) is nn.Linear and _is_packable(module)]


def _is_packable(layer: nn.Linear) -> bool:
    """Return whether the layer's parameters are ordinary fp32 tensors in the CPU's memory.

    Left alone are quantised weights (tensor subclasses), weights kept on a disk or in another place (on the "meta"
    device), and weights that hooks compute before each forward pass (attributes, no parameters).
    """
    weight, bias = (layer._parameters.get(name) for name in ("weight", "bias"))
    if type(weight) is not nn.Parameter or (layer.bias is not None and type(bias) is not nn.Parameter):
        return False
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() > 0


def _num_bytes(layers: list[nn.Linear]) -> int:
    return sum(layer.weight.nbytes for layer in layers)
