"""The tokens that end an output."""

from __future__ import annotations

from typing import Any

from tasc.errors import InputError


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end an output: those of the model's generation settings and of the tokenizer.

    Args:
        model: transformers model.
        tokenizer: Its Hugging Face tokenizer.

    Raises:
        InputError: If neither names one.
    """
    named = model.generation_config.eos_token_id
    found = set([named] if isinstance(named, int) else named or ())
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    if not found:
        raise InputError("neither the model's generation settings nor its tokenizer name a token that ends an output")
    return frozenset(found)
