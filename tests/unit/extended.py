"""A byte tokenizer with new tokens, a plan that says so, and a model that says what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tiny_models import EOS, VOCAB, byte_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tasc.data import TaskTokenizer, load_tokenizer

NEW = ("from ", '"to": ', "ab", "abc", "bc")
"""Texts of the new tokens, ids `VOCAB` and on."""


class SlowPlan:
    """What evaluation asks of a `MergePlan`, by dynamic programming."""

    def __init__(self, expansions: Sequence[Sequence[int]]) -> None:
        self.expansions = [list(e) for e in expansions]
        self.base_vocab_size = VOCAB

    def __len__(self) -> int:
        return len(self.expansions)

    def segment(self, ids: Any) -> NDArray[np.uint32]:
        """Fewest tokens, of those the longest first."""
        left = [int(i) for i in ids]
        best: list[list[int]] = [[]]
        for at in range(len(left) - 1, -1, -1):
            known = [([left[at]], left[at])] + [(e, VOCAB + k) for k, e in enumerate(self.expansions)]
            fit = [(e, token) for e, token in known if left[at : at + len(e)] == e]
            ways = [(1 + len(best[-len(e)]), -len(e), [token, *best[-len(e)]]) for e, token in fit]
            best.append(min(ways)[2])
        return np.array(best[-1], np.uint32)

    def segment_batch(self, rows: Sequence[Any]) -> list[NDArray[np.uint32]]:
        return [self.segment(row) for row in rows]

    def expand(self, ids: Any) -> NDArray[np.uint32]:
        out: list[int] = []
        for token in map(int, ids):
            out += [token] if token < VOCAB else self.expansions[token - VOCAB]
        return np.array(out, np.uint32)


def tokenizers() -> tuple[Any, TaskTokenizer, Any, TaskTokenizer]:
    """The Hugging Face tokenizer and ours, without new tokens and with them."""
    plain = byte_tokenizer()
    base = load_tokenizer(plain)
    vocab = dict(plain.get_vocab())
    for k, text in enumerate(NEW):
        vocab["".join(plain.convert_ids_to_tokens(base.encode(text).tolist()))] = VOCAB + k
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    extended = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")
    plan: Any = SlowPlan([base.encode(text).tolist() for text in NEW])
    return plain, base, extended, replace(load_tokenizer(extended), plan=plan)


class Scripted:
    """A model that answers each prompt with its ids, as `generate` of transformers does."""

    device = "cpu"

    def __init__(self, outputs: dict[tuple[int, ...], list[int]], context: int | None = None) -> None:
        self.outputs = outputs
        self.generation_config: Any = SimpleNamespace(eos_token_id=EOS)
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=context))
        self.batches: list[int] = []

    def generate(self, ids: torch.Tensor, *, attention_mask: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
        self.batches.append(len(ids))
        prompts = [row[mask.bool()].tolist() for row, mask in zip(ids, attention_mask, strict=True)]
        said = [self.outputs[tuple(prompt)][:max_new_tokens] for prompt in prompts]
        longest = max(map(len, said))
        return torch.cat([ids, torch.tensor([s + [EOS] * (longest - len(s)) for s in said])], dim=1)
