"""Draft models and EAGLE heads from folders, and their drafters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasc.decoding.draft_model.drafter import ModelDrafter
from tasc.decoding.draft_model.eagle import is_head, is_head_folder, load_head
from tasc.decoding.draft_model.eagle_drafter import EagleDrafter
from tasc.models import load_checkpoint, load_errors, share_embeddings


def load_draft(draft: str, target: Any, *, dtype: str = "auto", device: str | None = None) -> tuple[Any, Any]:
    """Load a draft model or an EAGLE head, and its tokenizer; equal embeddings are shared with the target.

    Args:
        draft: A folder or a name on the model hub.
        target: The target model, loaded.
        dtype: As for `load_checkpoint`; a head takes the target's.
        device: As for `load_checkpoint`; a head takes the target's.

    Raises:
        InputError: It cannot be loaded, or is a head for another target.
    """
    if is_head_folder(Path(draft)):
        from transformers import AutoTokenizer

        loaded: Any = load_head(draft, target, target.dtype)
        with load_errors(draft):
            tokenizer: Any = AutoTokenizer.from_pretrained(draft)
    else:
        loaded, tokenizer = load_checkpoint(draft, dtype=dtype, device=device)
    share_embeddings(loaded, target)
    return loaded, tokenizer


def draft_model_drafter(draft: Any, tokenizer: Any = None, **options: Any) -> ModelDrafter:
    """Return the drafter of what `load_draft` loads.

    Args:
        draft: A draft model or an EAGLE head.
        tokenizer: Its tokenizer.
        **options: Of both `ModelDrafter` and `EagleDrafter`.
    """
    return EagleDrafter(draft, **options) if is_head(draft) else ModelDrafter(draft, tokenizer=tokenizer, **options)
