"""Training examples of a causal model: prompt ids and completion ids of rows, and their batches."""

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
from tasc.data.chat import encode_outputs, render_rows
from tasc.decoding.prompts import prompt_ids
from tasc.errors import CorpusError, InputError

_log = logging.getLogger(__name__)

IGNORED = -100
"""Label of a position that the loss ignores, as in transformers."""

ROWS = "rows like {'input': 'text', 'output': 'text'}"
"""What rows of training are, for errors."""

WINDOW_BATCHES = 32
"""Number of batches in which rows are sorted by length: enough to save padding, few enough to stay shuffled."""


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one row: prompt (P,), and output with its end token (C,).

    Its `len` is its length in base tokens, so that equal rows form equal batches with every vocabulary.
    """

    prompt: list[int]
    completion: list[int]
    base_length: int
    """Number of base tokens of prompt and completion."""

    def __len__(self) -> int:
        return self.base_length


def make_examples(
    rows: Iterable[Row], tokenizer: Any, task: TaskTokenizer, *, system: str | None = None
) -> list[Example]:
    """Tokenize rows: inputs as chats in base tokens, outputs with the task's new tokens.

    Args:
        rows: `{input, output}`, or with `messages`, which become what the chat template writes.
        tokenizer: Transformers tokenizer, whose chat template makes the prompts.
        task: The tokenizer as `load_tokenizer` returns it; its plan segments the outputs.
        system: System message before each input.

    Raises:
        CorpusError: There are no rows, or a row has no input.
        InputError: The tokenizer has no end token.
    """
    if task.eos_id is None:
        raise InputError(f"the tokenizer {task.name} names no token that ends an output; give eos= as its text or id")
    rows = list(rows)
    check_rows(rows, "row", outputs=True)
    prompts = prompt_ids(tokenizer, rows, None, system)
    outputs = encode_outputs(task, list(render_rows(task.chat_template, rows, system)))
    return [
        Example(prompt, completion, len(prompt) + len(base))
        for prompt, completion, base in zip(prompts, task.segment(outputs), outputs, strict=True)
    ]


def check_rows(rows: Sequence[Row], what: str, *, outputs: bool = False) -> None:
    """Check that all rows have an input (with `outputs`: and an output).

    Raises:
        CorpusError: There is no row, or a row lacks a field or has one that is no text.
    """
    if not rows:
        raise CorpusError(f"there are no {what}s to learn from")
    for number, row in enumerate(rows):
        if row.get("input") is None:
            raise CorpusError(f"{what} {number} has no input; training needs rows with one")
        for field in ("input", "output"):
            if not isinstance(row.get(field), str | None):
                raise CorpusError(f"{what} {number}: field {field!r} is {type(row[field]).__name__}, it must be text")
        if outputs and row.get("output") is None:
            raise CorpusError(
                f"{what} {number} has no output; give one, or learn from the target's (distill with outputs='target')"
            )


def short_enough(examples: list[Example], limit: int, config: Any) -> tuple[list[Example], int]:
    """Return the examples of at most `limit` base tokens that the model's context holds, and the number of longer ones.

    Args:
        examples: The examples.
        limit: Most base tokens of an example, prompt and output together.
        config: Configuration of the model.

    Raises:
        CorpusError: All examples are longer.
    """
    from tasc.decoding.engine.target import context_length  # which imports torch

    context = context_length(config)
    what = f"max_tokens={limit}"
    if context is not None and context < limit:
        limit, what = context, f"the model's context of {context} tokens"
    kept = [e for e in examples if len(e) <= limit]
    if not kept:
        raise CorpusError(f"every row is longer than {what}; the shortest has {min(map(len, examples))} tokens")
    if len(kept) < len(examples):
        _log.warning(
            "%d of %d rows are longer than %d tokens and skipped", len(examples) - len(kept), len(examples), limit
        )
    return kept, len(examples) - len(kept)


def digest(examples: Iterable[Example]) -> str:
    """Return the SHA-256 of these examples in this order, in hex."""
    found = hashlib.sha256()
    for example in examples:
        found.update(json.dumps([example.prompt, example.completion]).encode())
    return found.hexdigest()


def shuffled_batches(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> list[int]:
    """Return row numbers in training order: `steps` batches of `batch_size` rows of similar length.

    The rows come in passes, up to the shuffling inside a window of at most one pass: no row occurs a third time before
    every row has occurred. The order depends on the arguments alone.

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
    found: list[int] = []
    window = batch_size * min(WINDOW_BATCHES, max(1, len(lengths) // batch_size))
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda row: lengths[row])
        batches = [part[k : k + batch_size] for k in range(0, len(part), batch_size)]
        rng.shuffle(batches)
        found += [row for batch in batches for row in batch]
    return found


@dataclass(frozen=True)
class Collator:
    """Collator of examples into tensors. Prompts are padded on the left and completions on the right.

    All completions therefore begin in one column, and the model computes logits for those columns only, if it can.
    """

    pad_id: int
    position_ids: bool
    """Whether the model accepts `position_ids`."""
    logits_to_keep: bool
    """Whether the model accepts `logits_to_keep`."""
    prefix: tuple[int, ...] = ()
    """Tokens with which all prompts begin, and which the batches leave out: the model has their keys and values."""

    @classmethod
    def for_model(cls, model: Any, pad_id: int) -> Collator:
        """Make a collator for the forward pass of `model`, with or without LoRA adapters."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        known = inspect.signature(base.forward).parameters
        return cls(pad_id, "position_ids" in known, "logits_to_keep" in known)

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return (B, T) `input_ids` and `position_ids`, `attention_mask`, and `labels`, which the loss shifts by one.

        `attention_mask` is (B, P + T) for a prefix of P tokens. `labels` are (B, C + 1) with `logits_to_keep`, else
        (B, T).
        """
        import torch

        start = len(self.prefix)
        left = max(len(e.prompt) for e in examples) - start
        right = max(len(e.completion) for e in examples)
        ids = np.full((len(examples), left + right), self.pad_id, np.int64)
        mask = np.zeros_like(ids)
        labels = np.full_like(ids, IGNORED)
        for k, e in enumerate(examples):
            begin, end = left + start - len(e.prompt), left + len(e.completion)
            ids[k, begin:end] = [*e.prompt[start:], *e.completion]
            mask[k, begin:end] = 1
            labels[k, left:end] = e.completion
        seen = np.pad(mask, ((0, 0), (start, 0)), constant_values=1)
        batch: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(seen)}
        if self.position_ids:
            batch["position_ids"] = torch.from_numpy((mask.cumsum(1) - 1).clip(0) + start)
        if self.logits_to_keep:
            # As indices, not as a number: a slice of the hidden states is not contiguous, and a CPU's matrix product
            # would copy the output head once per row.
            batch["logits_to_keep"] = torch.arange(left - 1, left + right)
            labels = labels[:, left - 1 :]
        batch["labels"] = torch.from_numpy(labels.copy())
        return batch
