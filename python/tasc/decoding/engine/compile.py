"""Compilation of a model's small modules with torch.compile, for GPUs.

One step of a small model launches about a thousand kernels of about two microseconds each. Most of them belong to
norms, activations and the rotary embedding, each of which is a few lines of arithmetic. `torch.compile` fuses each
into one or two kernels. The compiled modules are the same in all layers, so that compilation takes seconds; compiling
a whole model takes minutes. Attention and the KV cache are not compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tasc.errors import InputError

_ROTARY = "apply_rotary_pos_emb"  # function that transformers' models call


class CompiledModules:
    """Compiled forward passes of a model's norms, MLPs and rotary embeddings; in use inside `applied()`.

    Results differ from the eager ones in the last bits, since fused operations round less often.

    Args:
        model: A model on a CUDA device.
        enabled: False: `applied()` does nothing.

    Raises:
        InputError: `enabled`, and the model is not on a CUDA device or has none of these modules.
    """

    def __init__(self, model: nn.Module, enabled: bool = False) -> None:
        self._functions: list[tuple[Any, str, Callable[..., Any]]] = []  # (owner, attribute, compiled function)
        if not enabled:
            return
        device = next(model.parameters()).device
        if not _can_compile(device):
            raise InputError(f"compile=True is for CUDA devices, but the model is on {device}; leave it out")
        owners: list[tuple[Any, str]] = [(module, "forward") for module in model.modules() if _is_norm_or_mlp(module)]
        sources = dict.fromkeys(sys.modules[type(module).__module__] for module in model.modules())
        owners += [(source, _ROTARY) for source in sources if hasattr(source, _ROTARY)]
        if not owners:
            raise InputError(f"compile=True finds no norms and MLPs in {type(model).__name__}; leave it out")
        self._functions = [(owner, name, torch.compile(getattr(owner, name), dynamic=True)) for owner, name in owners]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the compiled functions inside the `with` block."""
        before = [vars(owner).get(name) for owner, name, _ in self._functions]
        try:
            for owner, name, compiled in self._functions:
                setattr(owner, name, compiled)
            yield
        finally:
            for (owner, name, _), own in zip(self._functions, before, strict=True):
                if own is None:  # the attribute is its class's
                    delattr(owner, name)
                else:
                    setattr(owner, name, own)


def _is_norm_or_mlp(module: nn.Module) -> bool:
    """Whether a module is a norm or an MLP written in Python; those of torch itself are single kernels already."""
    kind = type(module)
    return kind.__name__.endswith(("Norm", "MLP")) and not kind.__module__.startswith("torch.")


def _can_compile(device: torch.device) -> bool:
    return device.type == "cuda"
