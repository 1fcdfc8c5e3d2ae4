"""The end token: every rule that tells which token ids end an output.

- Generation stops at *every* id of `eos_ids`: those of the generation settings (or of the model's config, if the
  settings name none), and the tokenizer's.
- Training rows and indexed outputs end with *one* id: `find_eos` chooses it when a tokenizer is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import Tokenizer

from tasc.errors import InputError
from tasc.files import read_json

END_TOKENS = (
    *("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|return|>", "<|end_of_role|>"),
    *("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]"),
    *("<|eom_id|>", "<|call|>"),
)
"""Names under which tokenizers keep the end of an answer: of a chat turn first, then of any text, then of a call."""

FindFile: TypeAlias = Callable[[str], Path | None]
"""Finds a file of a model's folder by its name."""


def eos_ids(model: Any, tokenizer: Any = None) -> frozenset[int]:
    """The ids that end an output; empty if none is known.

    Args:
        model: transformers model; its `generation_config` is asked first, then its `config`.
        tokenizer: Its Hugging Face tokenizer, or None.
    """
    return eos_ids_of((getattr(model, "generation_config", None), getattr(model, "config", None)), tokenizer)


def eos_ids_of(configs: Sequence[Any], tokenizer: Any = None) -> frozenset[int]:
    """The ids that end an output: `eos_token_id` of the first config that names one, and of the tokenizer.

    >>> sorted(eos_ids_of([{"eos_token_id": None}, {"eos_token_id": [2, 7]}]))
    [2, 7]

    Args:
        configs: Configurations, the preferred one first: objects, mappings or None.
        tokenizer: Hugging Face tokenizer, or None.
    """
    named = (_eos_of(config) for config in configs)
    first = next((ids for ids in named if ids), [])
    return frozenset(first + _eos_of(tokenizer))


def required_eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """`eos_ids`, at least one.

    Raises:
        InputError: Neither the model nor the tokenizer names one.
    """
    found = eos_ids(model, tokenizer)
    if not found:
        raise InputError("neither the model's settings nor its tokenizer name a token that ends an output")
    return found


def required_eos(tokenizer: Any) -> int:
    """The id that ends an output of a `TaskTokenizer`.

    Raises:
        InputError: The tokenizer names none.
    """
    if tokenizer.eos_id is None:
        raise InputError(f"the tokenizer {tokenizer.name!r} names no token that ends an output: give one with --eos")
    found: int = tokenizer.eos_id
    return found


def _eos_of(config: Any) -> list[int]:
    named = config.get("eos_token_id") if isinstance(config, Mapping) else getattr(config, "eos_token_id", None)
    return _listed(named)


def eos_hints(tokenizer: Tokenizer, find: FindFile) -> list[str | int]:
    """Candidates for the end token, from the files beside a tokenizer: texts or ids, the most reliable first."""
    several = read_settings(find, "generation_config.json").get("eos_token_id")
    found = _listed(several)
    names = [tokenizer.id_to_token(i) for i in found if isinstance(i, int) and i >= 0]
    if len(found) > 1:
        found = [end for end in END_TOKENS if end in names] + found
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        token = read_settings(find, file).get("eos_token")
        found += _listed(token.get("content") if isinstance(token, dict) else token)
    return found + _listed(read_settings(find, "config.json").get("eos_token_id"))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [] if value is None else [value]


def read_settings(find: FindFile, name: str) -> dict[str, Any]:
    """Read a JSON object of a model's folder; empty if the file is missing or holds something else."""
    file = find(name)
    content = None if file is None else read_json(file)
    return content if isinstance(content, dict) else {}


def find_eos(tokenizer: Tokenizer, eos: str | int | None, hints: Sequence[str | int]) -> int | None:
    """The id that ends an output: `eos` as text or id, or for "auto" the first candidate that the tokenizer holds.

    Raises:
        InputError: The tokenizer does not hold `eos`.
    """
    if eos is None:
        return None
    candidates = [*hints, *END_TOKENS] if eos == "auto" else [eos]
    found = next((i for c in candidates if (i := _id(tokenizer, c)) is not None), None)
    if found is None and eos != "auto":
        raise InputError(f"the tokenizer has no token {eos!r}; give the end token's text or id, or none")
    return found


def _id(tokenizer: Tokenizer, token: Any) -> int | None:
    if isinstance(token, str):
        found: int | None = tokenizer.token_to_id(token)
        return found
    known = isinstance(token, int) and 0 <= token < 2**32 and tokenizer.id_to_token(token) is not None
    return token if known else None
