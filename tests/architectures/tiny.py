"""Tiny random models of every type of `AutoModelForCausalLM`.

A configuration starts from the defaults of its class. `SIZES` replaces each field that the class has. `layer_types`
keeps one layer of each kind. `KINDS` holds the fields that a type needs besides.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

SPREAD = 2.0  # standard deviation of weights, in units of 1/√fan-in
VOCAB = 257
CONTEXT = 256

SIZES: dict[str, Any] = {
    # vocabulary and context
    "vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None, "decoder_start_token_id": 1,
    "sep_token_id": 1, "cls_token_id": 1, "forced_eos_token_id": None, "begin_suppress_tokens": None,
    "max_position_embeddings": CONTEXT, "n_positions": CONTEXT, "max_seq_len": CONTEXT, "context_length": CONTEXT,
    "model_max_length": CONTEXT, "max_target_positions": CONTEXT, "vocab_size_per_layer_input": VOCAB,
    "unpadded_vocab_size": VOCAB, "type_vocab_size": 2, "shape_vocab_size": VOCAB, "pronunciation_vocab_size": VOCAB,
    "tie_word_embeddings": False,  # a tied head repeats the last token
    # widths
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "emb_dim": 32, "embedding_size": 32, "word_embed_proj_dim": 32,
    "embedding_dim": 32, "intermediate_size": 64, "ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_ffn_dim": 64,
    "d_inner": 64, "dim_ff": 64, "dff": 64, "n_inner": 64, "ffn_hidden_size": 64, "intermediate_size_mlp": 64,
    "dense_intermediate_size": 64, "hidden_size_per_layer_input": 8, "input_embedding_size": 16,
    "output_embedding_size": 24,
    # depth
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2, "encoder_layers": 2,
    "num_decoder_layers": 2, "num_encoder_layers": 2, "num_blocks": 2, "num_nextn_predict_layers": 0,
    # attention
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_attention_heads": 4, "num_decoder_attention_heads": 4,
    "num_encoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "d_head": 8, "kv_channels": 8, "rotary_dim": 4, "sliding_window": 6,
    "sliding_window_size": 6, "local_attention": 6, "attention_window_size": 6, "window_size": 6,
    "attention_chunk_size": 6, "keep_window_size": 8, "query_pre_attn_scalar": 8,
    "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2,
    "swa_head_dim": 8, "d_rel": 4, "rel_extent": 12, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "qk_head_dim": 12, "index_head_dim": 8, "index_n_heads": 2, "index_topk": 8,
    "original_max_position_embeddings": 16, "max_window_layers": 1,
    # scale of the logits
    "logit_scale": 1.0, "logits_mup_width_multiplier": 1.0,
    # experts
    "num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "num_experts_per_token": 2, "moe_topk": 2, "moe_k": 2, "n_group": 1, "topk_group": 1, "num_expert_group": 1,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "shared_intermediate_size": 16,
    "expert_ffn_hidden_size": 16, "n_shared_experts": 1, "num_shared_experts": 1, "moe_num_shared_experts": 1,
    "first_k_dense_replace": 1, "num_dense_layers": 1, "zero_expert_num": 2, "moe_shared_expert_intermediate_size": 16,
    # recurrent layers
    "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8,
    "mamba_expand": 2, "mamba_dt_rank": 4, "state_size": 8, "ssm_state_size": 8, "expand": 2, "time_step_rank": 4,
    "n_groups": 1, "chunk_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_num_heads": 4,
    "linear_head_dim": 8, "lru_width": 32,
    "is_encoder_decoder": False,
}  # fmt: skip
"""Fields of a tiny configuration, set where its class has them."""

DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_blocks")
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 6.0],
    "original_max_position_embeddings": 16,
}  # fmt: skip
WINDOWED = {"layer_types": ["sliding_attention", "full_attention"]}

# Layers by kind, for types whose defaults have one kind only, or list the kinds otherwise.
MAMBA_HYBRID = {"layers_block_type": ["linear_attention", "linear_attention", "hybrid", "linear_attention"]}
INDEXER = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
    "indexer_compress_ratio": 4, "hc_count": 2, "hc_lowrank": 8,
}  # fmt: skip
DOTS = {
    "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 16, "swa_kv_lora_rank": 16,
    "swa_head_dim": 12, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8, "shared_experts_intermediate_size": 16,
}  # fmt: skip
SHARED = {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2}
WINDOW = {"sliding_window": 6}
OLD_FALCON = {"new_decoder_architecture": False, "parallel_attn": False}
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0, "mrope_section": [2, 1, 1]}
QWEN_WINDOW = {"use_sliding_window": True, **WINDOW, **WINDOWED}

# Fields by type and configuration, besides `SIZES`; the configuration's name is "" where a type has one.
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "bamba": {"": {"attn_layer_indices": [1], "num_hidden_layers": 3}},
    "blt": {"": {"encoder_hash_byte_group_vocab": 64, "local_attention_window_len": 6}},
    "cohere_compass_text": {"": {"rope_parameters": {"full_attention": SECTIONS}}},
    "dbrx": {
        "": {
            "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
            "ffn_config": {"moe_num_experts": 4, "ffn_hidden_size": 64},
        }
    },
    "deepseek_v4": {
        "": {
            "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention", "sliding_attention"],
            "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
            "o_groups": 2, "o_lora_rank": 8, "num_key_value_heads": 1, "hc_mult": 2,
            "mlp_layer_types": ["hash_moe", "moe", "moe"],
        }
    },
    "dots1": {"": {}, "window": WINDOWED},
    "dory": {"": {"num_hidden_layers": 4, "n_input_layers": 1, "n_output_layers": 1, "layer_types": None}},
    "dots3_note": {
        "": {
            "text_config": DOTS, "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
            "vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32, "mlp_layer_types": ["dense"] * 2},
        }
    },
    "dots3_note_text": {"": DOTS},
    "falcon": {
        "rotary": {"alibi": False, "multi_query": False, **OLD_FALCON},
        "alibi": {"alibi": True, "multi_query": False, **OLD_FALCON},
        "multi-query": {"alibi": False, "multi_query": True, "new_decoder_architecture": False},
        "new decoder": {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2},
    },
    "falcon_h1": {"": {"mamba_d_ssm": 64}},
    "gemma3n_text": {"": SHARED, "own keys": {"num_kv_shared_layers": 0}},
    "gemma4_text": {"": {}, "shared keys": SHARED},
    "gemma4_assistant": {
        "": {
            "text_config": {
                "model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0,
                "layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2,
                "num_kv_shared_layers": 2,
            }
        }
    },
    "gpt_neo": {"": {"attention_types": [[["global", "local"], 1]]}},
    "granitemoehybrid": {
        "hybrid": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
        "hybrid dense": {"layer_types": ["linear_attention", "full_attention"], "num_local_experts": 0},
        "attention": {"layer_types": ["full_attention"] * 2},
        "attention dense": {"layer_types": ["full_attention"] * 2, "num_local_experts": 0},
    },
    "jamba": {
        "": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
        "dense": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1},
    },
    "laguna": {"": WINDOWED},
    "lfm2": {"": {"layer_types": ["conv", "full_attention", "conv"]}},
    "lfm2_moe": {"": {"layer_types": ["conv", "full_attention", "conv"]}},
    "mamba2": {"": {"head_dim": 16}},
    "mellum": {"": WINDOWED},
    "ministral3": {"": {}, "window": WINDOW},
    "mixtral": {"": {}, "window": WINDOW},
    "minimax": {"": {"block_size": 8}, "attention": {"layer_types": ["full_attention"] * 2}},
    "minimax_m3_vl_text": {
        "": {"mlp_layer_types": ["dense", "sparse"]},
        "sparse": {
            "layer_types": ["full_attention", "minimax_m3_sparse"], "index_block_size": 4, "index_topk_blocks": 2,
        },
    },
    "ministral": {"": {"layer_types": ["sliding_attention", "full_attention"]}},
    "nemotron_h": {
        "": {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"]},
        "attention": {"layers_block_type": ["full_attention", "mlp"]},
    },
    "phi3": {"": {}, "longrope": {"rope_parameters": LONGROPE}, "window": WINDOW},
    "phimoe": {"": {}, "longrope": {"rope_parameters": {**LONGROPE, "short_mscale": 1.1, "long_mscale": 1.3}}},
    "phi4_multimodal": {"before the RoPE switch": {"original_max_position_embeddings": CONTEXT}},
    "qwen2": {"": {}, "window": QWEN_WINDOW},
    "qwen2_moe": {"": {}, "window": QWEN_WINDOW},
    "qwen3": {"": {}, "window": QWEN_WINDOW},
    "qwen3_moe": {"": {}, "dense layers": {"mlp_only_layers": [0]}},
    "qwen4_exp": {"": {"text_config": INDEXER}},
    "qwen4_exp_text": {"": INDEXER},
    "recurrent_gemma": {"": {"num_hidden_layers": 3}},
    "reformer": {
        "decoder": {
            "is_decoder": True,
            "axial_pos_shape": [16, 16], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"],
            "attention_head_size": 8, "feed_forward_size": 64, "local_attn_chunk_length": 8,
            "lsh_attn_chunk_length": 8, "num_buckets": 4, "hash_seed": 0,
        }
    },
    "rwkv": {"": {"attention_hidden_size": 32}},
    "smollm3": {"": {}, "window": {"use_sliding_window": True, **WINDOW, "no_rope_layer_interval": 2}},
    "stablelm": {"": {}, "normed": {"use_qkv_bias": True, "qk_layernorm": True, "use_parallel_residual": True}},
    "starcoder2": {"": {}, "window": WINDOW},
    "xlm": {"": {"causal": True}},
    "xlstm": {"": {"hidden_size": 128, "embedding_dim": 128}},
    "zamba": {"": {**MAMBA_HYBRID, "num_hidden_layers": 4, "attention_hidden_size": 64, "attention_head_dim": 16}},
    "zamba2": {"": {**MAMBA_HYBRID, "num_hidden_layers": 4, "n_mamba_heads": 4}},
    "zaya": {
        "": {"layer_types": ["hybrid", "hybrid_sliding"], **WINDOW, "num_experts_per_tok": 1, "router_hidden_size": 8}
    },
}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {}, "bert-generation": {}, "big_bird": {"attention_type": "original_full"}, "camembert": {},
    "data2vec-text": {}, "electra": {}, "ernie": {}, "megatron-bert": {}, "rembert": {}, "roberta": {},
    "roberta-prelayernorm": {}, "roc_bert": {}, "roformer": {}, "xlm-roberta": {}, "xlm-roberta-xl": {},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip
"""Types that are encoders by default, with their fields."""

KINDS |= {
    encoder: {"decoder": {"is_decoder": True, **fields}, "encoder": fields} for encoder, fields in ENCODERS.items()
}


def cases() -> Iterator[tuple[str, str]]:
    """Yield (type, configuration) for every type of `AutoModelForCausalLM`."""
    for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        for name in KINDS.get(model_type, {"": {}}):
            yield model_type, name


def tiny_config(model_type: str, name: str = "") -> Any:
    """Return the tiny configuration of a type."""
    return _shrunken(CONFIG_MAPPING[model_type], KINDS.get(model_type, {}).get(name, {}))


def tiny_model(model_type: str, name: str = "", *, seed: int = 0) -> Any:
    """Build a tiny random fp32 model in evaluation mode, whose greedy text wanders.

    Raises:
        Exception: Whatever transformers raises where it cannot build the type.
    """
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_config(tiny_config(model_type, name), dtype=torch.float32)
    _spread(model)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    return model.eval()


def _shrunken(config_class: Any, given: dict[str, Any]) -> Any:
    """Return a configuration with `SIZES` and the given fields, where a dict holds those of a nested configuration."""
    default = _default(config_class, given)
    fields = {field: value for field, value in SIZES.items() if field in vars(default)}
    if not vars(default).get("sliding_window"):
        fields.pop("sliding_window", None)  # a type without a window by default
    if "kv_lora_rank" in fields:  # latent attention has a key and a value of its own for each head
        fields |= {"num_key_value_heads": 4, "head_dim": 4}
    kinds = list(dict.fromkeys(vars(default).get("layer_types") or ()))
    for name in getattr(config_class, "sub_configs", {}):
        inner = getattr(default, name, None)
        if inner is not None and given.get(name, {}) is not None:
            fields[name] = _shrunken(type(inner), given.get(name, {}))
    fields |= {field: value for field, value in given.items() if field not in config_class.sub_configs}
    if kinds and "layer_types" not in given:
        depth = max(2, len(kinds))
        fields["layer_types"] = (kinds * depth)[:depth]
    if fields.get("layer_types"):
        fields |= {field: len(fields["layer_types"]) for field in DEPTHS if field in fields}
    return config_class(**fields)


def _default(config_class: Any, given: dict[str, Any]) -> Any:
    """Return the default configuration; one with the given fields where there is no default."""
    try:
        return config_class()
    except Exception:
        return config_class(**given)


def _spread(model: Any) -> None:
    """Draw every matrix anew, wide enough that logits differ from token to token."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and not name.endswith("A_log"):
                weight.normal_(std=SPREAD / math.sqrt(weight.shape[-1]))
