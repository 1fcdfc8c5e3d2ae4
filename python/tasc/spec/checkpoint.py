"""Loads a causal language model and its tokenizer from a folder or the model hub, an adapter merged in."""

from pathlib import Path
from typing import Any

from tasc.errors import InputError, MissingExtraError
from tasc.models import checkpoint
from tasc.train.work import hush


def load_checkpoint(
    model: str, *, adapter: Path | None = None, dtype: str = "auto", device: str | None = None
) -> tuple[Any, Any]:
    """A model ready to generate and its Hugging Face tokenizer.

    Args:
        model: A folder, a name on the model hub, or `smollm2`.
        adapter: A PEFT adapter's folder, merged into the weights.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: float32 on a CPU, the checkpoint's own elsewhere.
        device: `cpu`, `cuda`, …; None for a GPU where there is one.

    Returns:
        `(model, tokenizer)`: a `PreTrainedModel` in evaluation mode and a `PreTrainedTokenizerBase`.

    Raises:
        MissingExtraError: If transformers or peft is not installed.
        InputError: If model or adapter cannot be loaded.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as e:
        raise MissingExtraError("running a model", "hf") from e
    hush()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = "float32" if dtype == "auto" and device == "cpu" else dtype
    if kind not in ("auto", "float32", "bfloat16", "float16"):
        raise InputError(f"dtype {dtype!r} is none of auto, float32, bfloat16, float16")
    try:
        source = checkpoint(model)
        tokenizer = AutoTokenizer.from_pretrained(source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=kind if kind == "auto" else getattr(torch, kind)
        )
    except (OSError, ValueError) as e:
        raise InputError(f"cannot load model {model!r}: {_first_line(e)}") from e
    if adapter is not None:
        loaded = _merge(loaded, adapter)
    return loaded.to(device).eval(), tokenizer


def load_draft(draft: str, target: Any, *, dtype: str = "auto", device: str | None = None) -> tuple[Any, Any]:
    """A draft model and its tokenizer, embeddings shared with the target where they are the same.

    Args:
        draft: A folder or a name on the model hub.
        target: The target model, loaded.
        dtype: As for `load_checkpoint`.
        device: As for `load_checkpoint`.
    """
    loaded, tokenizer = load_checkpoint(draft, dtype=dtype, device=device)
    share_embeddings(loaded, target)
    return loaded, tokenizer


def share_embeddings(draft: Any, target: Any) -> int:
    """Has a draft use the target's own embeddings and head where its are equal, as in one that was cut from it.

    Returns:
        Bytes that the draft no longer holds.
    """

    given_up: dict[int, int] = {}  # bytes by address: tied matrices are one
    for part in ("get_input_embeddings", "get_output_embeddings"):
        ours, theirs = getattr(draft, part)(), getattr(target, part)()
        if ours is not None and theirs is not None and _same(ours.weight, theirs.weight):
            given_up[ours.weight.data_ptr()] = ours.weight.numel() * ours.weight.element_size()
            ours.weight = theirs.weight
    return sum(given_up.values())


def _same(a: Any, b: Any) -> bool:
    """Whether two matrices are equal and not one yet."""
    import torch

    alike = a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
    return a is not b and alike and torch.equal(a, b)


def use_threads(count: int) -> None:
    """Lets torch compute on `count` CPU threads."""
    import torch

    torch.set_num_threads(count)


def _merge(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as e:
        raise MissingExtraError("merging an adapter", "ft") from e
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter} is not an adapter's folder: it has no adapter_config.json")
    try:
        return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as e:
        raise InputError(f"cannot merge adapter {adapter}: {_first_line(e)}") from e


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
