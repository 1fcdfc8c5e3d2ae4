"""Trainable parameters and their optimizer: LoRA adapters and new embedding rows, or every parameter."""

from __future__ import annotations

from typing import Any

from tasc.training.finetune.options import TuneOptions
from tasc.training.schedule import adamw


def with_adapters(model: Any, options: TuneOptions, new_ids: list[int]) -> Any:
    """Freeze `model`; add LoRA adapters to the linear layers of its blocks and trainable embedding rows `new_ids`.

    The rows are named in the input embeddings and in an untied output head, because the list form of peft would not
    train the rows of the output head. All trainable parameters are float32.
    """
    import peft
    import torch

    settings = peft.LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        trainable_token_indices=dict.fromkeys(embedding_names(model), new_ids) if new_ids else None,
    )
    adapted = peft.get_peft_model(model, settings)
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.float32)
    return adapted


def embedding_names(model: Any) -> list[str]:
    """Return the names of the modules with one row per token: input embeddings, and the output head if it is untied."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    wanted = [inputs] if head is None or head.weight is inputs.weight else [inputs, head]
    return [name for module in wanted for name, found in model.named_modules() if found is module]


def optimizer_and_schedule(model: Any, options: TuneOptions, steps: int) -> tuple[Any, Any]:
    """AdamW over the trainable parameters and its learning rates: new rows from step 0, others from `rows_first`."""
    rate = options.learning_rate or (1e-3 if options.method == "lora" else 2e-5)
    rows: list[Any] = []
    matrices: list[Any] = []
    rest: list[Any] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (rows if "trainable_tokens" in name else matrices if weight.ndim > 1 else rest).append(weight)
    groups = [
        (rows, options.rows_rate or rate, 0.0, 0),
        (matrices, rate, options.weight_decay, options.rows_first),
        (rest, rate, 0.0, options.rows_first),
    ]
    return adamw(groups, steps, options.warmup)
