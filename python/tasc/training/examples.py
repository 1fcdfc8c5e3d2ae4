"""Rows as what a causal model is trained on: the prompt as it will be asked, the output as it should be said."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasc.data import Row, TaskTokenizer
from tasc.decoding.prompts import prompt_ids
from tasc.errors import CorpusError, InputError

_log = logging.getLogger(__name__)

IGNORED = -100
"""Label of a position that the loss passes over, as transformers has it."""

WINDOW_BATCHES = 32
"""Rows are sorted by length within so many batches: long enough to save padding, short enough to stay shuffled."""


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one row, (P,) of the prompt and (C,) of the output with its end token.

    Its length is that in base tokens: the same rows make the same batches whatever the vocabulary.
    """

    prompt: list[int]
    completion: list[int]
    base_length: int
    """Base tokens of both."""

    def __len__(self) -> int:
        return self.base_length


def make_examples(
    rows: Iterable[Row], tokenizer: Any, task: TaskTokenizer, *, system: str | None = None
) -> list[Example]:
    """Token ids of rows: inputs as chats with the plain vocabulary, outputs with the task's new tokens.

    Args:
        rows: `{input, output}`.
        tokenizer: The transformers tokenizer, whose chat template makes the prompts.
        task: The same tokenizer as `load_tokenizer` gives it; its plan segments the outputs.
        system: System message before each input.

    Raises:
        CorpusError: There are no rows, or one has no input.
        InputError: The tokenizer names no token that ends an output.
    """
    if task.eos_id is None:
        raise InputError(f"the tokenizer {task.name} names no token that ends an output; give eos= as its text or id")
    kept = list(rows)
    if not kept:
        raise CorpusError("there are no rows to learn from")
    for number, row in enumerate(kept):
        if row.get("input") is None:
            raise CorpusError(f"row {number} has no input; fine-tuning needs rows with input and output")
    prompts = prompt_ids(tokenizer, [row["input"] for row in kept], None, system)
    old = task.encode_batch([row["output"] for row in kept])
    new = old if task.plan is None else [ids.tolist() for ids in task.plan.segment_batch(old)]
    return [
        Example(prompt, [*completion, task.eos_id], len(prompt) + len(before) + 1)
        for prompt, completion, before in zip(prompts, new, old, strict=True)
    ]


def short_enough(examples: list[Example], limit: int) -> tuple[list[Example], int]:
    """The examples of at most `limit` base tokens, and how many were longer.

    Raises:
        CorpusError: All are longer.
    """
    kept = [e for e in examples if len(e) <= limit]
    if not kept:
        shortest = min(len(e) for e in examples)
        raise CorpusError(f"every row is longer than max_tokens={limit}; the shortest has {shortest} tokens")
    if len(kept) < len(examples):
        _log.warning(
            "%d of %d rows are longer than %d tokens and left out", len(examples) - len(kept), len(examples), limit
        )
    return kept, len(examples) - len(kept)


def digest(examples: Iterable[Example]) -> str:
    """Return a digest of the examples and their order."""
    found = hashlib.sha256()
    for example in examples:
        found.update(json.dumps([example.prompt, example.completion]).encode())
    return found.hexdigest()


def shuffled_batches(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> list[int]:
    """Row numbers in the order of training: `steps` batches of `batch_size` rows of about the same length.

    Every row comes once before any comes twice. The order depends on the arguments alone.

    Returns:
        `steps · batch_size` row numbers.
    """
    if not lengths:
        raise CorpusError("there are no rows to learn from")
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < steps * batch_size:
        order += rng.sample(range(len(lengths)), len(lengths))
    order = order[: steps * batch_size]
    batches = []
    window = WINDOW_BATCHES * batch_size
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda row: lengths[row])
        batches += [part[k : k + batch_size] for k in range(0, len(part), batch_size)]
    rng.shuffle(batches)
    return [row for batch in batches for row in batch]


@dataclass(frozen=True)
class Collator:
    """Examples as one batch of tensors: prompts padded on the left, completions on the right, so that all completions
    begin in one column and the model reckons logits for those columns alone, where it can."""

    pad_id: int
    positions: bool
    """The model takes `position_ids`."""
    keeps: bool
    """The model takes `logits_to_keep`."""

    @classmethod
    def for_model(cls, model: Any, pad_id: int) -> Collator:
        """Return the parameter names of the forward pass of `model`, with or without adapters."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        known = inspect.signature(base.forward).parameters
        return cls(pad_id, "position_ids" in known, "logits_to_keep" in known)

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """(B, T) `input_ids`, `attention_mask`, `position_ids`; `labels` are (B, C + 1) beside `logits_to_keep`, else
        (B, T): the loss shifts them by one itself."""
        import torch

        left = max(len(e.prompt) for e in examples)
        right = max(len(e.completion) for e in examples)
        ids = np.full((len(examples), left + right), self.pad_id, np.int64)
        mask = np.zeros_like(ids)
        labels = np.full_like(ids, IGNORED)
        for k, e in enumerate(examples):
            begin, end = left - len(e.prompt), left + len(e.completion)
            ids[k, begin:end] = [*e.prompt, *e.completion]
            mask[k, begin:end] = 1
            labels[k, left:end] = e.completion
        batch: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self.positions:
            batch["position_ids"] = torch.from_numpy((mask.cumsum(1) - 1).clip(0))
        if self.keeps:
            # As indices, not as a number: a slice of the hidden states is not contiguous, and a CPU's matrix product
            # would copy the output head once per row.
            batch["logits_to_keep"] = torch.arange(left - 1, left + right)
            labels = labels[:, left - 1 :]
        batch["labels"] = torch.from_numpy(labels.copy())
        return batch
