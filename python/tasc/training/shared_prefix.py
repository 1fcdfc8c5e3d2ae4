"""Beginning that all prompts share, such as a system message: one pass per batch computes it, instead of one per row.

Its keys and values are repeated for the rows, which continue from them. Loss and gradients are those of whole rows, but
for rounding. A shrunken twin of the model proves it before training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from tasc.training.examples import Collator, Example

MIN_SAVED = 48
"""Fewest positions of a batch that sharing must save: the pass over the beginning costs about half as much more."""

_TOLERANCE = 1e-3  # relative, of the twin's gradients in fp32: rounding is below it, another sum is above it
_TWIN_PREFIXES = 10, 24  # tokens; the second is more than a twin's layers read where they do not read all
_TWIN_SWITCH = 14  # tokens, behind the first prefix: where a twin's rotary factors change if they depend on the length
_TWIN_ROWS = (3, 1), (2, 9), (7, 4)  # tokens of the rest of the prompt, and of the output


def with_prefix(collator: Collator, model: Any, examples: Sequence[Example], batch_size: int) -> Collator:
    """Return a collator of rows without the beginning that they share; `collator` itself where that does not pay.

    Args:
        collator: Collator of whole rows.
        model: The model to train, with or without LoRA adapters. Where there is a GPU, whole rows are kept.
        examples: All rows of the run.
        batch_size: Rows of a batch.
    """
    import torch

    prompts = [example.prompt[:-1] for example in examples]
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False))
    prefix = tuple(token for token, _ in alike)  # of the first and the last in order, so of all
    pays = (batch_size - 1) * len(prefix) >= MIN_SAVED and not torch.cuda.is_available()
    can_share = pays and collator.position_ids and _has_equal_gradients(_base(model), collator)
    return replace(collator, prefix=prefix) if can_share else collator


def prefix_cache(model: Any, collator: Collator, rows: int) -> dict[str, Any]:
    """Run the shared beginning; return the model's argument that holds its keys and values, once per row; {} if none.

    Args:
        model: The model to train, also in the wrappers of a launcher and of peft.
        collator: From `with_prefix`.
        rows: Number of rows of the batch.
    """
    import torch
    from transformers import DynamicCache

    from tasc.decoding.engine.model_cache import cache_argument

    if not collator.prefix:
        return {}
    base = _base(model)
    cache = {cache_argument(base): DynamicCache(config=base.config.get_text_config())}
    few = {"logits_to_keep": 1} if collator.logits_to_keep else {}
    ids = torch.tensor([collator.prefix], device=next(base.parameters()).device)
    model(input_ids=ids, use_cache=True, **cache, **few)
    for filled in cache.values():
        filled.batch_repeat_interleave(rows)
    return cache


def trainer_class() -> Any:
    """Return transformers' `Trainer`, with a pass over the shared beginning before each batch."""
    from transformers import Trainer

    class PrefixTrainer(Trainer):
        """Adds the keys and values of the shared beginning to each batch."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **named: Any) -> Any:
            """Compute the loss of a batch whose rows continue from the shared beginning."""
            collator: Any = self.data_collator
            whole = {**inputs, **prefix_cache(model, collator, len(inputs["labels"]))}
            return super().compute_loss(model, whole, *args, **named)

    return PrefixTrainer


def _base(model: Any) -> Any:
    """Return the model without the wrappers of a launcher and of peft."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _has_equal_gradients(model: Any, collator: Collator) -> bool:
    """Whether the gradients of a shrunken twin are the same with and without a shared beginning, as it is trained.

    Dropout makes them differ.
    """
    from tasc.decoding.engine.twin import make_twin

    twin = make_twin(model, _TWIN_SWITCH)
    if twin is None:
        return False
    twin.train().config.use_cache = False
    whole = replace(collator, pad_id=0)  # the twin has few ids
    for length in _TWIN_PREFIXES:
        prefix = tuple(range(10, 10 + length))
        rows = [Example([*prefix, *range(40, 40 + rest)], [*range(60, 60 + new)], 0) for rest, new in _TWIN_ROWS]
        try:
            expected, found = (_gradients(twin, one, rows) for one in (whole, replace(whole, prefix=prefix)))
        except Exception:  # whatever a model's code raises for a cache that it does not take
            return False
        if not (found - expected).norm() <= _TOLERANCE * expected.norm():
            return False
    return True


def _gradients(model: Any, collator: Collator, rows: Sequence[Example]) -> Any:
    """Return the gradients of all parameters, in one row."""
    import torch

    model.zero_grad()
    batch = collator(rows)
    model(**batch, **prefix_cache(model, collator, len(rows))).loss.backward()
    found = [torch.zeros_like(w) if w.grad is None else w.grad for w in model.parameters()]
    return torch.cat([gradient.flatten() for gradient in found])
