"""Draft models: cut from the target, or checked to speak its vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasc.errors import InputError, TokenizerMismatchError
from tasc.files import new_folder, remove_partial


def cut_draft(target: Any, layers: int | Sequence[int]) -> Any:
    """A draft of some of the target's layers, its embeddings, final norm and head with them.

    Such a draft exists for any target whose blocks are one list of layers. It says little of use before it is
    distilled; what its layers know of the language makes that short.

    Args:
        target: A transformers causal model.
        layers: How many to keep, spread evenly with the first and the last among them; or their numbers, in order.

    Returns:
        A model of the same class, weights copied, in evaluation mode.

    Raises:
        InputError: The numbers do not fit the target, or its blocks are not found.

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
    """The numbers of the layers to keep out of `count`.

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
    """Nothing, where a draft speaks the target's tokens.

    Args:
        target: The target model.
        draft: The draft model, or the reference of a distillation.
        target_tokenizer: `tasc.data.TaskTokenizer`; None: not known.
        draft_tokenizer: The draft's own, where it has one.

    Raises:
        InputError: Logits of another width.
        TokenizerMismatchError: Another tokenizer.
    """
    widths = [model.get_output_embeddings().weight.shape[0] for model in (target, draft)]
    if widths[0] != widths[1]:
        raise InputError(
            f"the target says {widths[0]:,} tokens and the draft {widths[1]:,}: a draft needs the target's vocabulary; "
            "take a smaller model of the same family, or cut one from the target (tasc.training.distill.cut_draft)"
        )
    if target_tokenizer is not None and draft_tokenizer is not None:
        prints = [tokenizer.fingerprint for tokenizer in (target_tokenizer, draft_tokenizer)]
        if prints[0] != prints[1]:
            raise TokenizerMismatchError(
                f"the target's tokenizer is {prints[0][:16]}…, the draft's {prints[1][:16]}…; a draft needs the same"
            )


def save_draft(draft: Any, tokenizer: Any, out: Path) -> None:
    """A checkpoint that `AutoModelForCausalLM` and `AutoTokenizer` load; it appears whole or not at all.

    Raises:
        InputError: `out` exists and is not an empty folder.
    """
    remove_partial(out)
    with new_folder(out) as folder:
        draft.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _blocks(model: Any) -> Any:
    """The list of a model's layers: the only one as long as the config says, outside of any other."""
    from torch.nn import ModuleList

    count = model.config.get_text_config().num_hidden_layers
    found = [module for module in model.modules() if isinstance(module, ModuleList) and len(module) == count]
    if not found:
        raise InputError(f"{type(model).__name__} has no list of {count} layers; give a draft model of its own instead")
    return found[0]


def _named_tensors(model: Any) -> list[tuple[str, Any]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _tensors(module: Any) -> list[Any]:
    return [*module.parameters(), *module.buffers()]
