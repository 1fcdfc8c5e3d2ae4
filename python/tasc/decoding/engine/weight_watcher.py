"""Whether a model still is what it was: keys and values that are kept, and CUDA graphs, are of its weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class WeightWatcher:
    """A model's weights as they were when last looked at: which tensors they are, where they lie, how often they were
    changed in place, and which adapters of peft act.

    What is done to `weight.data` behind torch's back, in the same memory, is not seen.

    Args:
        model: Any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._look()

    def changed(self) -> bool:
        """Whether anything is otherwise than when last looked at.

        Complexity: a tenth of a millisecond for 270 tensors; more when something has changed.
        """
        if self._state() == self._known:
            return False
        self._look()
        return True

    def _look(self) -> None:
        modules = [vars(module) for module in self._model.modules()]
        self._children = [own["_modules"] for own in modules if own["_modules"]]
        self._parameters = [own["_parameters"] for own in modules if own["_parameters"]]
        self._adapters = [own for own in modules if "_active_adapter" in own]
        self._known = self._state()

    def _state(self) -> list[Any]:
        """Equal as long as nothing has changed."""
        children = [id(child) for each in self._children for child in each.values()]
        tensors = [place(tensor) for each in self._parameters for tensor in each.values() if tensor is not None]
        acting = [str([own.get(name) for name in _ADAPTERS]) for own in self._adapters]
        return [children, tensors, acting]


_ADAPTERS = ("_active_adapter", "_disable_adapters", "merged_adapters")


def place(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor lies, and how often it was changed there."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
