"""Small parts of a model, each fused into a kernel or two by torch.compile, for steps on a GPU.

A small model's step is a thousand kernels of two microseconds each; most of them belong to norms, activations and the
rotary embedding, which are a few lines of arithmetic each. Compiled one by one they are the same for all layers, so it
takes seconds, where a whole model takes minutes. Attention and the cache stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tasc.errors import InputError

_ROTARY = "apply_rotary_pos_emb"  # what transformers' models call


class CompiledParts:
    """Compiled forward passes of a model's small parts, in force within `applied`.

    Results differ from the usual ones in the last bits: what is fused is rounded less often.

    Args:
        model: A model on a CUDA device.
        wanted: Whether to do anything.

    Raises:
        InputError: Wanted, and the model is not on a CUDA device or has no such parts.
    """

    def __init__(self, model: nn.Module, wanted: bool = False) -> None:
        self._parts: list[tuple[Any, str, Callable[..., Any]]] = []  # (object, attribute, compiled)
        if not wanted:
            return
        device = next(model.parameters()).device
        if not _compiles_on(device):
            raise InputError(f"compile=True is for CUDA devices, but the model is on {device}; leave it out")
        parts: list[tuple[Any, str]] = [(module, "forward") for module in model.modules() if _is_small(module)]
        homes = dict.fromkeys(sys.modules[type(module).__module__] for module in model.modules())
        parts += [(home, _ROTARY) for home in homes if hasattr(home, _ROTARY)]
        if not parts:
            raise InputError(f"compile=True finds no norms and MLPs in {type(model).__name__}; leave it out")
        self._parts = [(part, name, torch.compile(getattr(part, name), dynamic=True)) for part, name in parts]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the parts are the compiled ones."""
        before = [vars(part).get(name) for part, name, _ in self._parts]
        try:
            for part, name, compiled in self._parts:
                setattr(part, name, compiled)
            yield
        finally:
            for (part, name, _), own in zip(self._parts, before, strict=True):
                if own is None:  # its class has it
                    delattr(part, name)
                else:
                    setattr(part, name, own)


def _is_small(module: nn.Module) -> bool:
    """Whether a module is a norm or an MLP written in Python; those of torch itself are one kernel already."""
    kind = type(module)
    return kind.__name__.endswith(("Norm", "MLP")) and not kind.__module__.startswith("torch.")


def _compiles_on(device: torch.device) -> bool:
    return device.type == "cuda"
