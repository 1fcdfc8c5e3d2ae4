"""Narrow drafts: new, small models with a target's vocabulary."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasc.errors import InputError

LAYERS = 3
"""Layers of a narrow draft: a pass costs a fixed time per layer on a CPU, so a wider draft of few layers is faster."""

_STEP = 32  # widths are multiples of it
_HEAD = 64  # size of an attention head, or `_STEP` where the width is no multiple of it
_SPREAD = 0.1  # standard deviation of embeddings and head at the start; 0.02 learned more slowly
_SMALL = 10**6  # weights that no machine lacks the memory for, whatever the target has
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


@dataclass(frozen=True)
class DraftSize:
    """Size of a narrow draft.

    Attributes:
        weights: Most weights that a pass over one token multiplies: those of the layers, and of the head over the draft
            vocabulary. The input embeddings, of which a token reads one row, are not counted.

    Raises:
        InputError: The number is not above 0.
    """

    weights: int

    def __post_init__(self) -> None:
        """Check the number."""
        if self.weights < 1:
            raise InputError(f"draft size {self.weights}: give the number of weights, such as 3.6M")

    @classmethod
    def parse(cls, text: str) -> DraftSize:
        """Read a size such as 3.6M or 800K.

        Raises:
            InputError: It is none.

        >>> DraftSize.parse("3.6M")
        DraftSize(weights=3600000)
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", text.strip().upper())
        if found is None:
            raise InputError(f"draft size {text!r}: give the number of weights, such as 3.6M or 800K")
        return cls(round(float(found[1]) * _UNITS[found[2]]))

    def width(self, num_ids: int) -> int:
        """Return the greatest width of a draft of this size with logits of `num_ids` ids.

        Raises:
            InputError: Even the smallest draft is larger.

        >>> DraftSize.parse("2.2M").width(4096)
        192
        """
        width = 0
        while _weights(width + _STEP, num_ids) <= self.weights:
            width += _STEP
        if width == 0:
            raise InputError(
                f"draft size {self.weights:,}: the smallest draft over {num_ids:,} ids has "
                f"{_weights(_STEP, num_ids):,} weights; give a larger size, or fewer ids (vocabulary)"
            )
        return width


def narrow_draft(target: Any, size: DraftSize, ids: Sequence[int] | None) -> Any:
    """Makes an untrained draft of a given size, a Llama with the target's vocabulary, which every engine loads.

    Its weights are random (torch's global seed). Embeddings that began as the principal dimensions of the target's,
    whitened or not, learned more slowly.

    Args:
        target: A transformers causal model.
        size: Size of the draft.
        ids: Draft vocabulary; None: all ids of the target.

    Returns:
        A float32 `LlamaForCausalLM` on the target's device, in evaluation mode.

    Raises:
        InputError: The size is too small, or above both the target's and a million.
    """
    import torch
    import transformers

    most = target.num_parameters()
    if size.weights > max(most, _SMALL):
        raise InputError(f"draft size {size.weights:,}: the target itself has {most:,} weights; give a smaller size")
    text, num_ids = target.config.get_text_config(), target.get_input_embeddings().weight.shape[0]
    width = size.width(num_ids if ids is None else len(ids))
    special: dict[str, Any] = {
        name: getattr(text, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    heads = width // (_HEAD if width % _HEAD == 0 else _STEP)
    draft: Any = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=num_ids,
            hidden_size=width,
            intermediate_size=_inner(width),
            num_hidden_layers=LAYERS,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=getattr(text, "max_position_embeddings", None) or 2048,
            tie_word_embeddings=False,
            **special,
        )
    )
    for table in (draft.get_input_embeddings(), draft.get_output_embeddings()):
        torch.nn.init.normal_(table.weight, std=_SPREAD)
    draft.generation_config = copy.deepcopy(target.generation_config)
    return draft.to(target.device, torch.float32).eval()


def _inner(width: int) -> int:
    """Return the width inside a feed-forward layer, 8/3 of the model's as in Llama."""
    return 8 * width // 3 // _STEP * _STEP


def _weights(width: int, num_ids: int) -> int:
    return LAYERS * (4 * width * width + 3 * width * _inner(width) + 2 * width) + width + num_ids * width
