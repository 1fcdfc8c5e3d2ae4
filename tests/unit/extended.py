"""A byte tokenizer with new tokens, a plan that says so, and a model that says what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tiny_models import EOS, VOCAB, byte_tokenizer
from tokenizers import Tokenizer

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

    def expand(self, ids: Any) -> NDArray[np.uint32]:
        out: list[int] = []
        for token in map(int, ids):
            out += [token] if token < VOCAB else self.expansions[token - VOCAB]
        return np.array(out, np.uint32)


@dataclass(frozen=True)
class Extended(TaskTokenizer):
    """A tokenizer with a plan."""

    plan: Any = None


def tokenizers() -> tuple[Any, TaskTokenizer, Any, Extended]:
    """The Hugging Face tokenizer and ours, without new tokens and with them."""
    plain = byte_tokenizer()
    base = load_tokenizer(plain)
    state = plain.backend_tokenizer.to_str()
    made = Tokenizer.from_str(state)
    letters = [[made.id_to_token(i) for i in base.encode(text)] for text in NEW]
    added = {"".join(parts): VOCAB + k for k, parts in enumerate(letters)}
    vocab = dict(made.get_vocab()) | added
    from tokenizers import decoders, models, pre_tokenizers

    extended = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    extended.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    extended.decoder = decoders.ByteLevel()
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=extended, eos_token="<eos>")
    known = load_tokenizer(theirs)
    plan = SlowPlan([base.encode(text).tolist() for text in NEW])
    return plain, base, theirs, Extended(known.tokenizer, "extended", known.eos_id, plan)


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
