"""The target's tokenizer, and who it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasc.data.ids import as_ids
from tasc.errors import InputError

END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "</s>", "<eos>")
"""Names under which tokenizers keep their end of turn, tried in this order where nothing else tells."""


@dataclass(frozen=True)
class TaskTokenizer:
    """A fast tokenizer with what tasc needs to know of it."""

    tokenizer: Tokenizer
    name: str
    """For people; the fingerprint is what counts."""
    eos_id: int | None
    """The token that ends an output, None when there is none."""

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits: SHA-256 of the tokenizer's canonical JSON, truncation and padding left out."""
        state = json.loads(self.tokenizer.to_str())
        state["truncation"] = state["padding"] = None
        canonical = json.dumps(state, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(self, text: str) -> NDArray[np.uint32]:
        """(T,) uint32 ids of a text, without special tokens around it."""
        return np.asarray(self.tokenizer.encode(text, add_special_tokens=False).ids, np.uint32)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for many texts, on all cores."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Any) -> str:
        """The text of (T,) ids, special tokens left out."""
        text: str = self.tokenizer.decode(as_ids(ids).tolist(), skip_special_tokens=True)
        return text


def load_tokenizer(source: Any, *, eos: str | int | None = "auto") -> TaskTokenizer:
    """A tokenizer from wherever it is.

    Args:
        source: A folder with `tokenizer.json`, that file itself, a name on the model hub, a `tokenizers.Tokenizer`,
            a fast transformers tokenizer, or a `TaskTokenizer`.
        eos: The token that ends an output: "auto" looks into the files beside `tokenizer.json`, then for the usual
            names; or a token's text or id; None: there is none.

    Raises:
        InputError: Nothing there, a slow tokenizer, or an end token that the vocabulary does not hold.
    """
    if isinstance(source, TaskTokenizer):
        return (
            source if eos == "auto" else TaskTokenizer(source.tokenizer, source.name, _eos(source.tokenizer, eos, []))
        )
    if isinstance(source, Tokenizer):
        return TaskTokenizer(source, "tokenizer", _eos(source, eos, []))
    if isinstance(source, str | Path):
        tokenizer, hints = _from_path(Path(source)) if Path(source).exists() else _from_hub(str(source))
        return TaskTokenizer(tokenizer, Path(source).name, _eos(tokenizer, eos, hints))
    backend = getattr(source, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(f"{type(source).__name__} is no fast tokenizer; give a folder with tokenizer.json or its path")
    own = [source.eos_token_id] if getattr(source, "eos_token_id", None) is not None else []
    name = Path(str(getattr(source, "name_or_path", "") or "tokenizer")).name
    return TaskTokenizer(backend, name, _eos(backend, eos, own))


def _from_path(path: Path) -> tuple[Tokenizer, list[str | int]]:
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.exists():
        raise InputError(f"{path} holds no tokenizer.json; save a fast tokenizer there")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{file} is no tokenizer: {error}") from error
    return tokenizer, _hints(file.parent) if path.is_dir() else []


def _from_hub(name: str) -> tuple[Tokenizer, list[str | int]]:
    try:
        return Tokenizer.from_pretrained(name), []
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{name!r} is neither a path nor a tokenizer that the model hub gives: {error}") from error


def _hints(folder: Path) -> list[str | int]:
    """What the files beside a tokenizer say of its end token, the most telling first."""
    found: list[str | int] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _json(folder / name).get("eos_token")
        found += [token["content"] if isinstance(token, dict) else token] if token else []
    for name in ("generation_config.json", "config.json"):
        ids = _json(folder / name).get("eos_token_id")
        found += ids if isinstance(ids, list) else [ids] if ids is not None else []
    return found


def _json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _eos(tokenizer: Tokenizer, eos: str | int | None, hints: Sequence[str | int]) -> int | None:
    if eos is None:
        return None
    if eos != "auto":
        found = _id(tokenizer, eos)
        if found is None:
            raise InputError(f"the tokenizer has no token {eos!r}; give the end token's text or id, or none")
        return found
    candidates = [*hints, *END_TOKENS]
    return next((i for c in candidates if (i := _id(tokenizer, c)) is not None), None)


def _id(tokenizer: Tokenizer, token: str | int) -> int | None:
    if isinstance(token, int):
        return token if tokenizer.id_to_token(token) is not None else None
    found: int | None = tokenizer.token_to_id(token)
    return found
