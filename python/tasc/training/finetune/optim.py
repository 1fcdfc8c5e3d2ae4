"""Trainable parameters and their optimizer: LoRA adapters and new embedding rows, or every parameter."""

from __future__ import annotations

import logging
from typing import Any

from tasc.errors import InputError
from tasc.training.finetune.options import ROWS_FACTOR, TuneOptions
from tasc.training.schedule import adamw

_log = logging.getLogger(__name__)
_WORTH_SAYING = 0.01  # share of the weights without an adapter


def with_adapters(model: Any, options: TuneOptions, new_ids: list[int]) -> Any:
    """Freeze `model`; add LoRA adapters to the linear layers of its blocks and trainable embedding rows `new_ids`.

    The rows are named in the input embeddings and in an untied output head, because the list form of peft would not
    train the rows of the output head. All trainable parameters are float32.
    """
    import peft
    import torch

    experts = [name for name, weight in model.named_parameters() if weight.ndim == 3 and _is_fused(model, name)]
    settings = peft.LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank,
        target_modules="all-linear",
        target_parameters=experts or None,
        task_type="CAUSAL_LM",
        trainable_token_indices=dict.fromkeys(embedding_names(model), new_ids) if new_ids else None,
    )
    total = sum(map(_elements, model.parameters()))
    try:
        adapted = peft.get_peft_model(model, settings)
    except ValueError as error:
        raise InputError(
            f"peft cannot adapt {type(model).__name__}: {' '.join(str(error).split())}; take method='full'"
        ) from error
    _warn_of_unadapted(adapted, total)
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.float32)
    return adapted


def _is_fused(model: Any, name: str) -> bool:
    """Return whether a parameter is a stack of matrices, such as those of routed experts, and not a convolution."""
    from torch.nn.modules.conv import _ConvNd

    return not isinstance(model.get_submodule(name.rpartition(".")[0]), _ConvNd)


def _warn_of_unadapted(adapted: Any, total: int) -> None:
    """Log the share of the weights in matrices that get no adapter, beside embeddings and the output head."""
    base = adapted.get_base_model()
    tables = {weight.data_ptr() for table in (base.get_input_embeddings(), base.get_output_embeddings())
              if table is not None for weight in table.parameters()}  # fmt: skip
    named = [name for name, _ in adapted.named_parameters()]
    adapters = {name.split(".lora_")[0].rpartition(".base_layer")[0] or name.split(".lora_")[0]
                for name in named if ".lora_" in name}  # fmt: skip
    left = sum(
        _elements(weight) for name, weight in adapted.named_parameters()
        if weight.ndim > 1 and ".lora_" not in name and weight.data_ptr() not in tables
        and not any(name.startswith(f"{module}.") for module in adapters)
    )  # fmt: skip
    share = left / max(1, total)
    if share >= _WORTH_SAYING:
        _log.warning("%.0f %% of the weights of %s get no adapter", 100 * share, type(base).__name__)


def _elements(weight: Any) -> int:
    """Return the number of elements of a parameter; bitsandbytes stores two in a byte."""
    state = getattr(weight, "quant_state", None)
    return int(weight.numel() if state is None else state.shape.numel())


def embedding_names(model: Any) -> list[str]:
    """Return the names of the modules with one row per token: input embeddings, and the output head if it is untied."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    wanted = [inputs] if head is None or head.weight is inputs.weight else [inputs, head]
    return [name for module in wanted for name, found in model.named_modules() if found is module]


def optimizer_and_schedule(model: Any, options: TuneOptions, steps: int) -> tuple[Any, Any]:
    """AdamW over the trainable parameters and its learning rates: new rows from step 0, others from `rows_first`."""
    rate = options.learning_rate or (2e-5 if options.method == "full" else 1e-3)
    rows: list[Any] = []
    matrices: list[Any] = []
    rest: list[Any] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (rows if "trainable_tokens" in name else matrices if weight.ndim > 1 else rest).append(weight)
    groups = [
        (rows, options.rows_rate or ROWS_FACTOR * rate, 0.0, 0),
        (matrices, rate, options.weight_decay, options.rows_first),
        (rest, rate, 0.0, options.rows_first),
    ]
    return adamw(groups, steps, options.warmup)
