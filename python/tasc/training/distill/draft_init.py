"""Initialisation of draft models: cut from the target, or checked to have its vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tasc.errors import InputError, TokenizerMismatchError
from tasc.files import new_folder
from tasc.portable import make_portable


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
        InputError: The layer numbers do not fit the target, its blocks are not found, or it carries adapters.

    Source: drafts of early or skipped layers, arXiv 2309.08168 (Draft & Verify) and 2404.16710 (LayerSkip).
    """
    import torch

    if any("merged_adapters" in vars(module) for module in target.modules()):  # a layer that PEFT wraps
        raise InputError("the target carries adapters: merge them into it first (merge_and_unload)")
    blocks = _blocks(target)
    kept = chosen_layers(len(blocks), layers)
    draft = _built(target, kept)
    own = _blocks(draft)
    with torch.no_grad():
        for mine, number in zip(own, kept, strict=True):
            mine.load_state_dict(blocks[number].state_dict())
        inside = {id(weight) for block in [*blocks, *own] for weight in _tensors(block)}
        theirs = {name: weight for name, weight in _named_tensors(target) if id(weight) not in inside}
        for name, weight in _named_tensors(draft):
            if id(weight) not in inside:
                if name not in theirs or theirs[name].shape != weight.shape:
                    raise _uncuttable(target, kept, f"the size of {name} depends on the number of layers")
                weight.copy_(theirs[name])
    draft.generation_config = copy.deepcopy(target.generation_config)
    draft = draft.to(target.device).eval()
    try:
        with torch.inference_mode():
            draft(input_ids=torch.zeros(1, 2, dtype=torch.long, device=target.device))
    except Exception as error:
        raise _uncuttable(target, kept, f"the draft does not run ({_first_line(error)})") from error
    return draft


def _built(target: Any, kept: list[int]) -> Any:
    """Return a draft with new parameters whose blocks have the shapes of the kept blocks.

    Settings that count layers from the first, or name layers by number, are changed until the shapes agree: which
    settings do this differs between architectures, so each candidate is tried without memory (on the "meta" device).
    """
    import torch

    shapes = _block_shapes(_blocks(target), kept)
    reason = "its layers differ in a way that no setting of its config explains"
    for config in _cut_configs(target.config, len(_blocks(target)), kept):
        try:
            with torch.device("meta"):
                empty = type(target)(config)
            if _block_shapes(_blocks(empty), range(len(kept))) == shapes:
                return type(target)(copy.deepcopy(config)).to(target.dtype)
        except Exception as error:
            reason = _first_line(error)
    raise _uncuttable(target, kept, reason)


def _cut_configs(config: Any, count: int, kept: list[int]) -> Iterator[Any]:
    """Yield configs of `kept` layers: one with lists cut to them, then variants with one more setting changed."""
    cut = copy.deepcopy(config)
    text = cut.get_text_config()
    settings = text.to_dict()
    for name, value in settings.items():
        if isinstance(value, list) and len(value) == count:
            setattr(text, name, [value[k] for k in kept])
    text.num_hidden_layers = len(kept)
    yield cut
    for name, value in settings.items():
        changed: Any = None
        if isinstance(value, list) and value and all(type(k) is int and 0 <= k < count for k in value):
            changed = [new for new, old in enumerate(kept) if old in value]  # numbers of layers
        elif type(value) is int and 0 < value < count:
            changed = sum(k < value for k in kept)  # number of the first layers
        if changed is not None:
            variant = copy.deepcopy(cut)
            setattr(variant.get_text_config(), name, changed)
            yield variant


def _block_shapes(blocks: Any, numbers: Iterable[int]) -> list[dict[str, Any]]:
    return [{name: tensor.shape for name, tensor in blocks[k].state_dict().items()} for k in numbers]


def _uncuttable(target: Any, kept: list[int], reason: str) -> InputError:
    return InputError(
        f"{type(target).__name__} cannot be cut to layers {kept}: {reason}; give other layers, or a draft model"
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


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
    with new_folder(out) as folder:
        draft.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        make_portable(folder)


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
