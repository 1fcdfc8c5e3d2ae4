"""Shrunken twins: small random models of the same class and code as a given model, for `probe.py`.

A twin has few layers, one of each kind, and narrow ones where the configuration allows. Its attention windows and
chunks hold a few tokens, so that a short sequence crosses them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import transformers
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig

from tasc.decoding.engine.target import CONTEXT_NAMES

_VOCAB = 128
_WINDOW, _CHUNK = 6, 8  # tokens
_MAX_EXPERTS, _MAX_CHOSEN = 4, 2
_FACTORS = (16, 8, 6, 4, 3, 2, 1)  # by which a twin is narrower, tried in turn
_MIN_CONTEXT = 160  # tokens
_MAX_SIZE = 60_000_000  # parameters
_MIN_WIDTH = 32  # of a twin; narrower ones hardly tell one token from another
_WIDTHS = ("size", "dim", "inner", "width", "embd", "d_model", "d_ssm", "ffn")
_FIXED = ("head", "vocab", "window", "chunk", "kernel", "position", "state", "rank", "patch", "image", "per_layer")
_STD = 2.0  # of the weights, over the square root of their inputs: texts then wander


def make_twin(model: Any, rope_switch: int | None = None) -> Any | None:
    """Return a shrunken twin of a model on the CPU in fp32; None where none can be made.

    Args:
        model: A causal language model.
        rope_switch: Length at which the twin's rotary factors change, in tokens; None: as in the model.
    """
    with quiet_transformers():
        return _first_that_runs(model, rope_switch)


def _first_that_runs(model: Any, rope_switch: int | None) -> Any | None:
    width = getattr(model.config.get_text_config(), "hidden_size", _MIN_WIDTH)
    for factor in (factor for factor in _FACTORS if factor == 1 or width // factor >= _MIN_WIDTH):
        try:
            twin = _built(model, factor, rope_switch)
            with torch.inference_mode():
                logits = twin(input_ids=torch.arange(1, 4)[None]).logits
            if logits.isfinite().all() and float(logits.std()) > 0:
                return twin
        except Exception:  # whatever a model's code raises for a width that it cannot have
            continue
    return None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from warning about a twin inside the `with` block."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def shrunken(config: Any, factor: int, rope_switch: int | None = None) -> Any:
    """Return the configuration of a twin that is `factor` times narrower."""
    small = copy.deepcopy(config)
    for part in _parts(small):
        _shrink_layers(part)
        _shrink_values(part, factor)
        if rope_switch is not None:
            _move_switch(part, rope_switch)
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(small, name):
            delattr(small, name)
    return small


def rope_switch(config: Any) -> int | None:
    """Return the length, in tokens, at which the configuration lets rotary factors change; None: no such length."""
    found = [part["original_max_position_embeddings"] for part in _switches(config)]
    found += [getattr(config, "original_max_position_embeddings", None)]
    return next((length for length in found if isinstance(length, int)), None)


def _built(model: Any, factor: int, switch: int | None) -> Any:
    config = shrunken(model.config, factor, switch)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in type(model)._from_config(copy.deepcopy(config)).parameters())
    if size > _MAX_SIZE:
        raise ValueError(f"a twin of {size} parameters takes long")
    options = {"attn_implementation": model.config._attn_implementation, "dtype": torch.float32}
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        twin = type(model)._from_config(config, **options).eval()
        with torch.no_grad():
            tables = {module.weight for module in twin.modules() if isinstance(module, nn.Embedding)}
            for weight in twin.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=1.0 if weight in tables else _STD / weight.shape[-1] ** 0.5)
    twin.generation_config = GenerationConfig(pad_token_id=0)  # type: ignore[no-untyped-call]
    return twin


def _parts(config: Any) -> Iterator[Any]:
    """A configuration and those inside it."""
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            yield from _parts(value)


def _shrink_layers(config: Any) -> None:
    """Keep two layers, or one of each kind."""
    total = getattr(config, "num_hidden_layers", None)
    if not isinstance(total, int):
        return
    values = dict(vars(config))
    for name, value in values.items():  # numbers of the layers of one kind
        if ("layer_ind" in name or "layer_ids" in name) and isinstance(value, list) and value:
            kept = [0, max(1, value[0])]
            _set(config, name, [kept.index(value[0])])
    named = [value for value in values.values() if _is_per_layer(value, total) and isinstance(value[0], str)]
    kinds = list(zip(*named, strict=True))
    periods = [v for name, v in values.items() if ("period" in name or "interval" in name) and isinstance(v, int)]
    periods += [len(v) for name, v in values.items() if "types" in name and _is_pattern(v) and len(v) < total]
    kept = list(range(min(total, max([2, *periods]))))
    if kinds:
        first = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
        kept = first * 2 if getattr(config, "num_kv_shared_layers", 0) or len(first) == 1 else first
    for name, value in values.items():
        if _is_per_layer(value, total):
            _set(config, name, [value[at] for at in kept])
    if getattr(config, "num_kv_shared_layers", 0):
        _set(config, "num_kv_shared_layers", len(kept) // 2)
    for name in ("first_k_dense_replace", "num_dense_layers", "max_window_layers"):
        if isinstance(getattr(config, name, None), int):
            _set(config, name, min(getattr(config, name), 1))
    _set(config, "num_hidden_layers", len(kept))


def _set(config: Any, name: str, value: Any) -> None:
    """Set a value of a configuration, unless its class refuses."""
    with suppress(Exception):
        setattr(config, name, value)


def _is_per_layer(value: Any, total: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == total > 0


def _is_pattern(value: Any) -> bool:
    """Whether a value lists kinds of layers by name; a list shorter than the layers is repeated."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _shrink_values(config: Any, factor: int) -> None:
    for name, value in dict(vars(config)).items():
        if type(value) is int:
            small: Any = _small(name, value, factor)
        elif isinstance(value, list) and "size" in name and all(type(item) is int for item in value):
            small = [_small(name, item, factor) for item in value]
        else:
            continue
        if small != value:
            _set(config, name, small)


def _small(name: str, value: int, factor: int) -> int:
    """Return a twin's value of one number of a configuration."""
    if name.endswith(("token_id", "token_index")):
        return 0
    if name in CONTEXT_NAMES:
        return max(value, _MIN_CONTEXT)
    if "vocab" in name:
        return min(value, _VOCAB)
    if "chunk_size" in name and "attention" in name:
        return _CHUNK
    if "window" in name and "layers" not in name:
        return _WINDOW
    if name in ("local_attention", "index_topk") or "budget" in name:
        return min(value, _CHUNK)
    if "experts" in name or name in ("moe_k", "moe_topk"):
        return min(value, _MAX_EXPERTS if name.endswith("experts") else _MAX_CHOSEN)
    if name in ("n_group", "topk_group"):
        return 1
    if "heads" in name or (any(word in name for word in _WIDTHS) and not any(word in name for word in _FIXED)):
        return max(1, value // factor) if value % factor == 0 or value < factor else value
    return value


def _switches(config: Any) -> Iterator[dict[str, Any]]:
    """Dictionaries of rotary settings that name a switch."""
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(config, name, None)
        for part in [found, *(found.values() if isinstance(found, dict) else ())]:
            if isinstance(part, dict) and part.get("original_max_position_embeddings"):
                yield part


def _move_switch(config: Any, length: int) -> None:
    for part in _switches(config):
        part["original_max_position_embeddings"] = length
    if getattr(config, "original_max_position_embeddings", None):
        config.original_max_position_embeddings = length
