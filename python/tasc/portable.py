"""Checkpoints that transformers 4 and converters read too.

transformers 5 writes `rope_parameters`, `dtype` and the tokenizer class `TokenizersBackend`. Version 4 ignores or
refuses them: without `rope_theta` it computes with the default of the type, for example 10,000, whatever the model was
trained with. `make_portable` adds the older names beside the newer ones, with the same values. Version 5 reads the
result as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tasc.errors import import_optional
from tasc.files import read_json, write_json

__all__ = ["make_portable"]

Json = dict[str, Any]

_NAMES = {
    "gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "gpt_neox_japanese": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "modernbert-decoder": {"rope_theta": "global_rope_theta", "rope_local_base_freq": "local_rope_theta"},
}
"""Names in version 4 that differ from those of most model types."""

_SCALED_BY_LAYER = ("gemma3_text", "gemma3n_text", "olmo3")
"""Types with RoPE by layer type whose `rope_scaling` is that of the full attention, in both versions."""

_FIXED_SCALING = {
    "phi3": ("short_factor", "long_factor"),
    "phimoe": ("short_factor", "long_factor", "short_mscale", "long_mscale", "original_max_position_embeddings"),
}
"""Types for which version 4 accepts `rope_scaling` with `type` and exactly these fields."""

_READS_THE_FILE = "PreTrainedTokenizerFast"
"""Tokenizer class that takes everything from tokenizer.json in both versions.

Version 4 lacks some classes of version 5. Others build a tokenizer of their own there, for example with a BOS.
"""


def make_portable(folder: Path) -> None:
    """Adds to a folder that `save_pretrained` has just written the names that transformers 4 and converters read.

    Only `config.json` and `tokenizer_config.json` change, and no newer field does.

    Args:
        folder: Folder of a checkpoint. Give a new folder, never one of the user's.

    Examples:
        >>> import json, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> rope = {"rope_theta": 100000.0, "rope_type": "default"}
        >>> config = {"model_type": "llama", "dtype": "float32", "rope_parameters": rope}
        >>> _ = (folder / "config.json").write_text(json.dumps(config))
        >>> make_portable(folder)
        >>> read_json(folder / "config.json")["rope_theta"]
        100000.0
    """
    changes: dict[str, Callable[[Json], Json]] = {"config.json": _portable_config}
    if (folder / "tokenizer.json").is_file():
        changes["tokenizer_config.json"] = _portable_tokenizer
    for name, change in changes.items():
        if (file := folder / name).is_file():
            found = read_json(file)
            if (changed := change(found)) != found:
                write_json(file, changed, indent=2)


def _portable_config(config: Json) -> Json:
    added: Json = {name: _portable_config(value) for name, value in config.items() if _is_config(name, value)}
    if config.get("dtype") is not None:
        added["torch_dtype"] = config["dtype"]
    if isinstance(rope := config.get("rope_parameters"), dict):
        added |= dict(_rope_fields(config, rope))
    return config | added


def _is_config(name: str, value: Any) -> bool:
    return name.endswith("_config") and isinstance(value, dict)


def _rope_fields(config: Json, rope: Json) -> Iterator[tuple[str, Any]]:
    """Yield the fields of version 4 that say what `rope_parameters` says."""
    kind = config.get("model_type", "")
    names = _NAMES.get(kind, {})
    by_layer = {name: value for name, value in rope.items() if isinstance(value, dict)}
    full = by_layer.get("full_attention", {}) if by_layer else rope
    for field in ("rope_theta", "partial_rotary_factor"):
        if full.get(field) is not None:
            yield names.get(field, field), full[field]
    if by_layer.get("sliding_attention", {}).get("rope_theta") is not None:
        field = "rope_local_base_freq"
        yield names.get(field, field), by_layer["sliding_attention"]["rope_theta"]
    if by_layer and kind not in _SCALED_BY_LAYER:
        return
    scaling = {name: value for name, value in full.items() if name not in ("rope_theta", "partial_rotary_factor")}
    if scaling.get("rope_type", "default") == "default" and "mrope_section" not in scaling:
        return
    if scaling["rope_type"] == "longrope" and "original_max_position_embeddings" in scaling:
        yield "original_max_position_embeddings", scaling["original_max_position_embeddings"]
    if (fields := _FIXED_SCALING.get(kind)) is not None:
        scaling = {"type": scaling["rope_type"]} | {name: scaling[name] for name in fields if name in scaling}
    yield "rope_scaling", scaling


def _portable_tokenizer(settings: Json) -> Json:
    changed = dict(settings)
    if (name := settings.get("tokenizer_class")) is not None and name != _READS_THE_FILE:
        changed["tokenizer_class"] = _READS_THE_FILE
        for field, value in _class_defaults(name).items():
            changed.setdefault(field, value)
    if isinstance(settings.get("extra_special_tokens"), list):  # version 4 takes only a dictionary of them
        changed.setdefault("additional_special_tokens", changed.pop("extra_special_tokens"))
    return changed


def _class_defaults(name: str) -> Json:
    """Return what a tokenizer class sets where the settings do not: version 4 would also return token_type_ids."""
    found = getattr(import_optional("transformers", "hf"), name, None)
    inputs = getattr(found, "model_input_names", ("input_ids", "attention_mask"))
    return {"model_input_names": list(inputs), "padding_side": getattr(found, "padding_side", "right")}
