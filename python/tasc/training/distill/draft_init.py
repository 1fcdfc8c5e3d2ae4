"""Initialisation of draft models: cut from the target, or checked to have its vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasc.errors import InputError, TokenizerMismatchError
from tasc.files import new_folder, remove_partial


def cut_draft(target: Any, layers: int | Sequence[int]) -> Any:
    """Makes a draft from some of the target's layers, with its embeddings, final norm and output head.

    This works for any target whose blocks are one list of layers. The draft predicts little before it is distilled, but
    the copied layers shorten the distillation.

    Args:
        target: A transformers causal model.
        layers: Number of layers, spread evenly and including the first and the last; or their numbers, in order.

    Returns:
        A model of the same class with copied parameters, in evaluation mode.

    Raises:
        InputError: The layer numbers do not fit the target, or its blocks are not found.

    Source: drafts of early or skipped layers, arXiv 2309.08168 (Draft & Verify) and 2404.16710 (LayerSkip).
    """
    import torch

    blocks = _blocks(target)
    kept = chosen_layers(len(blocks), layers)
    config = copy.deepcopy(target.config)
    text = config.get_text_config()
    for name, value in list(text.to_dict().items()):
        if isinstance(value, list) and len(value) == len(blocks):
            setattr(text, name, [value[k] for k in kept])
    text.num_hidden_layers = len(kept)
    draft = type(target)(config).to(target.dtype)
    own = _blocks(draft)
    with torch.no_grad():
        for mine, number in zip(own, kept, strict=True):
            mine.load_state_dict(blocks[number].state_dict())
        inside = {id(weight) for block in [*blocks, *own] for weight in _tensors(block)}
        theirs = {name: weight for name, weight in _named_tensors(target) if id(weight) not in inside}
        for name, weight in _named_tensors(draft):
            if id(weight) not in inside:
                weight.copy_(theirs[name])
    draft.generation_config = copy.deepcopy(target.generation_config)
    return draft.to(target.device).eval()


def chosen_layers(count: int, layers: int | Sequence[int]) -> list[int]:
    """Return the numbers of the layers to copy out of `count`.

    >>> chosen_layers(30, 4)
    [0, 10, 19, 29]
    """
    if isinstance(layers, int):
        if not 1 <= layers < count:
            raise InputError(f"layers={layers}: a draft has at least 1 layer and fewer than the target's {count}")
        return sorted({round(k * (count - 1) / max(1, layers - 1)) for k in range(layers)})
    kept = list(layers)
    if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= count or len(kept) == count:
        raise InputError(f"layers={kept}: give some numbers from 0 to {count - 1}, in order, each once")
    return kept


def check_same_tokens(target: Any, draft: Any, target_tokenizer: Any = None, draft_tokenizer: Any = None) -> None:
    """Check that a draft has the target's tokens.

    Args:
        target: Target model.
        draft: Draft model, or the reference of a distillation.
        target_tokenizer: `tasc.data.TaskTokenizer` of the target; None: unknown.
        draft_tokenizer: `tasc.data.TaskTokenizer` of the draft; None: unknown.

    Raises:
        InputError: The logits have different widths.
        TokenizerMismatchError: The tokenizers differ.
    """
    widths = [model.get_output_embeddings().weight.shape[0] for model in (target, draft)]
    if widths[0] != widths[1]:
        raise InputError(
            f"the target has {widths[0]:,} tokens and the draft {widths[1]:,}: a draft needs the target's vocabulary; "
            "take a smaller model of the same family, or cut one from the target (tasc.training.distill.cut_draft)"
        )
    if target_tokenizer is not None and draft_tokenizer is not None:
        prints = [tokenizer.fingerprint for tokenizer in (target_tokenizer, draft_tokenizer)]
        if prints[0] != prints[1]:
            raise TokenizerMismatchError(
                f"the target's tokenizer is {prints[0][:16]}…, the draft's {prints[1][:16]}…; a draft needs the same"
            )


def save_draft(draft: Any, tokenizer: Any, out: Path) -> None:
    """Writes a checkpoint for `AutoModelForCausalLM` and `AutoTokenizer`; it appears complete or not at all.

    Raises:
        InputError: `out` exists and is not an empty folder.
    """
    remove_partial(out)
    with new_folder(out) as folder:
        draft.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _blocks(model: Any) -> Any:
    """Return the list of a model's layers: the outermost list whose length is the number of layers in the config."""
    from torch.nn import ModuleList

    count = model.config.get_text_config().num_hidden_layers
    found = [module for module in model.modules() if isinstance(module, ModuleList) and len(module) == count]
    if not found:
        raise InputError(f"{type(model).__name__} has no list of {count} layers; give a separate draft model instead")
    return found[0]


def _named_tensors(model: Any) -> list[tuple[str, Any]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _tensors(module: Any) -> list[Any]:
    return [*module.parameters(), *module.buffers()]
