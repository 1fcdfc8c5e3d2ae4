"""Trained weights of a model and their rates: adapters and new rows, or every weight."""

from __future__ import annotations

from typing import Any

from tasc.training.finetune.options import TuneOptions
from tasc.training.schedule import share_of_rate


def with_adapters(model: Any, options: TuneOptions, new_ids: list[int]) -> Any:
    """`model` frozen, under LoRA adapters on the linear layers of its blocks and trainable rows `new_ids`.

    The rows are named in the input embeddings and, where it is untied, in the output head: peft's list form would leave
    the head's rows as they are. All that learns is float32.
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
    """Names of the modules that hold a row per token: the input embeddings, and the output head where it is untied."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    wanted = [inputs] if head is None or head.weight is inputs.weight else [inputs, head]
    return [name for module in wanted for name, found in model.named_modules() if found is module]


def optimizer_and_schedule(model: Any, options: TuneOptions, steps: int) -> tuple[Any, Any]:
    """AdamW over what learns, and its rates by step: new rows from the first step on, all else after `rows_first`."""
    import torch

    rate = options.learning_rate or (1e-3 if options.method == "lora" else 2e-5)
    rows: list[Any] = []
    matrices: list[Any] = []
    rest: list[Any] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (rows if "trainable_tokens" in name else matrices if weight.ndim > 1 else rest).append(weight)
    groups = [
        ({"params": rows, "lr": options.rows_rate or rate, "weight_decay": 0.0}, 0),
        ({"params": matrices, "lr": rate, "weight_decay": options.weight_decay}, options.rows_first),
        ({"params": rest, "lr": rate, "weight_decay": 0.0}, options.rows_first),
    ]
    kept = [(group, begin) for group, begin in groups if group["params"]]
    optimizer = torch.optim.AdamW([group for group, _ in kept], betas=(0.9, 0.98))
    shares = [share_of_rate(begin, steps, options.warmup) for _, begin in kept]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, shares)
