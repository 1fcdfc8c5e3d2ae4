"""A tiny target, drafts of its vocabulary and a few rows, as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from vocabularies import make_tokenizer, saved

TOKENIZER = make_tokenizer("byte-level")
ROWS = [{"input": f"row {n}", "output": f"fly to boston at {n}:30" * (1 + n % 2)} for n in range(12)]
HELD_OUT = [{"input": f"held out {n}"} for n in range(4)]


def tiny(layers: int = 4, vocab: int | None = None, seed: int = 0, spread: float = 0.3, **options: Any) -> Any:
    """A random fp32 Llama."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        **{
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": layers, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": vocab or TOKENIZER.get_vocab_size() + 6,
            "max_position_embeddings": 256, "initializer_range": spread, "bos_token_id": None, "eos_token_id": 1,
            "pad_token_id": 0, "tie_word_embeddings": True, **options,
        }
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def folder(path: Path, model: Any, tokenizer: Any = TOKENIZER) -> Path:
    """A checkpoint with a tokenizer."""
    saved(tokenizer, path)
    model.save_pretrained(path)
    return path
