"""Tiny configurations, and the fields in which transformers 4 and converters read what `rope_parameters` says."""

from __future__ import annotations

from typing import Any

import transformers

SIZE = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SIZE, "num_key_value_heads": 2}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 1.2}
LINEAR = {"rope_type": "linear", "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 6.0]}
LONGROPE = {"rope_type": "longrope", **FACTORS, "original_max_position_embeddings": 16}
BY_LAYER = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
GEMMA = {**SIZE, "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8, **BY_LAYER}


def rope(kind: str, options: dict[str, Any] = GROUPED, theta: float = 70_000.0, **parameters: Any) -> Any:
    """A configuration with the given `rope_parameters`."""
    return getattr(transformers, kind)(
        **options, rope_parameters={"rope_type": "default", "rope_theta": theta, **parameters}
    )


def gemma3(**scaling: Any) -> Any:
    return transformers.Gemma3TextConfig(
        **GEMMA,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
            "full_attention": {"rope_type": "default", "rope_theta": 70_000.0, **scaling},
        },
    )


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (lambda: rope("LlamaConfig"), {"rope_theta": 70_000.0}),
    "llama-linear": (lambda: rope("LlamaConfig", **LINEAR), {"rope_theta": 70_000.0, "rope_scaling": LINEAR}),
    "llama-dynamic": (lambda: rope("LlamaConfig", **DYNAMIC), {"rope_theta": 70_000.0, "rope_scaling": DYNAMIC}),
    "llama-llama3": (lambda: rope("LlamaConfig", **LLAMA3), {"rope_theta": 70_000.0, "rope_scaling": LLAMA3}),
    "llama-longrope": (
        lambda: rope("LlamaConfig", **LONGROPE),
        {"rope_theta": 70_000.0, "rope_scaling": LONGROPE, "original_max_position_embeddings": 16},
    ),
    "qwen2": (lambda: rope("Qwen2Config"), {"rope_theta": 70_000.0}),
    "qwen3-yarn": (
        lambda: rope("Qwen3Config", {**GROUPED, "head_dim": 8}, **YARN),
        {"rope_theta": 70_000.0, "rope_scaling": YARN},
    ),
    "mistral": (lambda: rope("MistralConfig", {**GROUPED, "sliding_window": 6}), {"rope_theta": 70_000.0}),
    "gemma2": (
        lambda: rope("Gemma2Config", {**GEMMA, "num_attention_heads": 4}),
        {"rope_theta": 70_000.0},
    ),
    "gemma3": (gemma3, {"rope_theta": 70_000.0, "rope_local_base_freq": 700.0}),
    "gemma3-linear": (
        lambda: gemma3(**LINEAR),
        {"rope_theta": 70_000.0, "rope_local_base_freq": 700.0, "rope_scaling": LINEAR},
    ),
    "phi3": (
        lambda: rope("Phi3Config", {**GROUPED, "original_max_position_embeddings": 16}, partial_rotary_factor=0.5),
        {"rope_theta": 70_000.0, "partial_rotary_factor": 0.5, "original_max_position_embeddings": 16},
    ),
    "phi3-longrope": (
        lambda: rope("Phi3Config", {**GROUPED, "original_max_position_embeddings": 16}, **LONGROPE),
        {"rope_theta": 70_000.0, "rope_scaling": {"type": "longrope", **FACTORS}},
    ),
    "phi": (
        lambda: rope("PhiConfig", partial_rotary_factor=0.5),
        {"rope_theta": 70_000.0, "partial_rotary_factor": 0.5},
    ),
    "stablelm": (
        lambda: rope("StableLmConfig", partial_rotary_factor=0.5),
        {"rope_theta": 70_000.0, "partial_rotary_factor": 0.5},
    ),
    "gpt-neox": (
        lambda: rope("GPTNeoXConfig", SIZE, partial_rotary_factor=0.5),
        {"rotary_emb_base": 70_000.0, "rotary_pct": 0.5},
    ),
    "gpt2": (
        lambda: transformers.GPT2Config(
            vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=None, eos_token_id=1
        ),
        {},
    ),
}  # fmt: skip
"""By name: how to make the configuration, and the older fields that must be written."""
