"""The model that a step runs: token ids in, logits out, keys and values in a `RowCache`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tasc.data.endings import eos_ids_of
from tasc.decoding.engine.cache import DynamicStepView, RowCache
from tasc.errors import InputError

TokenLists: TypeAlias = Sequence[Sequence[int]]
"""Lists of token ids, one per cache row."""

Mask: TypeAlias = "Tensor | dict[str, Tensor] | None"
"""Attention mask in the form that the model takes; None: the causal mask that the model applies by itself."""

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


class Target:
    """A `transformers` causal language model with attention layers only.

    Args:
        model: Any `AutoModelForCausalLM` with "sdpa" or "eager" attention and no state but keys and values.

    Attributes:
        model: The model without its PEFT wrapper; adapters stay in place.
        config: Its text config.
        device: The device of its inputs.
        vocab_size: Rows of its input embedding.
        max_length: Longest context in tokens; None: not limited.

    Raises:
        InputError: The model is an encoder-decoder, has a state that cannot be rolled back, or an attention
            implementation that takes no mask per query.
    """

    def __init__(self, model: Any) -> None:
        self.model = _unwrapped(model)
        self.config = self.model.config.get_text_config()
        _check_supported(self.model, self.config)
        self.device = _device(self.model)
        self.vocab_size: int = self.model.get_input_embeddings().weight.shape[0]
        self.max_length: int | None = getattr(self.config, "max_position_embeddings", None)
        known = inspect.signature(self.model.forward).parameters
        self._takes_logits_to_keep = "logits_to_keep" in known
        self._cache_argument = "cache" if "cache" in known else "past_key_values"  # its name before transformers 5.24
        self._needs_additive_mask = self.config._attn_implementation == "eager"
        self._sliding_windows = _sliding_windows(self.config)

    def eos_ids(self, tokenizer: Any = None) -> frozenset[int]:
        """Return the end-of-sequence ids of the generation config (else of the config) and of the tokenizer."""
        return eos_ids_of((getattr(self.model, "generation_config", None), self.config), tokenizer)

    def step(self, cache: RowCache, first_row: int, tokens: TokenLists, starts: Sequence[int], keep: int) -> Tensor:
        """Run the next tokens of neighbouring cache rows through the model.

        Rows may have different numbers of tokens. Shorter ones are padded on the left, which aligns the last `keep`
        positions of all rows.

        Args:
            cache: Its row `first_row + b` holds `starts[b]` tokens; `tokens[b]` are appended to it.
            first_row: Cache row of the first request.
            tokens: n lists of q_b ≥ 1 token ids.
            starts: (n,) position of the first token of each list.
            keep: Number of trailing positions per row whose logits are computed, ≥ 1.

        Returns:
            (n, min(keep, Q), V) logits, Q = max q_b; entry [b, -1] follows the last token of row b.
        """
        query = max(map(len, tokens))
        end = max(start + len(row) for start, row in zip(starts, tokens, strict=True))
        cache.reserve(end)
        ids = torch.tensor([[0] * (query - len(row)) + list(row) for row in tokens])  # (n, Q)
        positions = torch.tensor(
            [
                [-1] * (query - len(row)) + list(range(start, start + len(row)))
                for start, row in zip(starts, tokens, strict=True)
            ]
        )
        is_uniform = all(len(row) == query and start + query == end for start, row in zip(starts, tokens, strict=True))
        start = end - query if is_uniform else None
        cache.view = DynamicStepView(first_row, positions, start, end, self.device)
        positions = positions.clamp(min=0).to(self.device)
        # No mask is needed for rows of equal length in two cases: with one token each, every position is readable; from
        # position 0 on, the model applies the causal mask by itself. Models add a sliding window in both cases.
        needs_mask = start is None or (query > 1 and start > 0)
        mask = self.mask(positions, end) if needs_mask else None
        return self.forward(cache, ids.to(self.device), positions, mask, keep)

    def forward(self, cache: RowCache, ids: Tensor, positions: Tensor, mask: Mask, keep: int) -> Tensor:
        """Run the model once on the rows and positions of the cache's step view.

        Args:
            cache: Stores the keys and values.
            ids: (n, Q) int64 token ids.
            positions: (n, Q) int64 positions.
            mask: Return value of `mask`.
            keep: Number of trailing positions per row whose logits are computed, ≥ 1.

        Returns:
            (n, min(keep, Q), V) logits.
        """
        options: dict[str, Any] = {self._cache_argument: cache}
        if self._takes_logits_to_keep:
            options["logits_to_keep"] = keep
        output = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **options)
        logits: Tensor = output.logits
        return logits[:, -keep:]

    def mask(self, positions: Tensor, end: int, *, additive: bool = False) -> Mask:
        """Build the attention mask: a query reads the positions up to its own, within its layer's window.

        Args:
            positions: (n, Q) int64 positions of the queries.
            end: Number of positions.
            additive: Return scores to add (0 or the dtype's minimum) instead of booleans (True: readable). Additive
                masks spare each layer the conversion; "eager" attention always gets them.

        Returns:
            (n, 1, Q, end) tensor, or one per kind of attention layer if the model has several kinds.
        """
        distance = positions[:, None, :, None] - torch.arange(end, device=self.device)  # (n, 1, Q, end)
        masks = {}
        for kind, window in self._sliding_windows.items():
            visible = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            masks[kind] = self._as_scores(visible) if additive or self._needs_additive_mask else visible
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _as_scores(self, visible: Tensor) -> Tensor:
        dtype = self.model.dtype
        return torch.zeros(visible.shape, dtype=dtype, device=self.device).masked_fill(~visible, torch.finfo(dtype).min)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model in evaluation mode, without dropout, inside the `with` block."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def _unwrapped(model: Any) -> Any:
    """Return the model inside a PEFT wrapper; its adapters stay in place."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def _device(model: Any) -> torch.device:
    """Return the device that a model runs on. Offloaded weights, which accelerate loads layer by layer, differ."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    execution_device = getattr(hook, "execution_device", None)
    return torch.device(model.device if execution_device is None else execution_device)


def _sliding_windows(config: Any) -> dict[str, int | None]:
    """Return the sliding window, in tokens, of each kind of attention layer; None: full attention."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds:
        return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}
    return {"full_attention": None} if window is None else {"sliding_attention": window}


def _check_supported(model: Any, config: Any) -> None:
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise InputError(
            f"{name} is an encoder-decoder; the verify loop takes decoder-only models (AutoModelForCausalLM)"
        )
    unknown = set(getattr(config, "layer_types", None) or ()) - _KNOWN_LAYERS
    if getattr(model, "_is_stateful", False) or unknown:
        what = f" (layers: {', '.join(sorted(unknown))})" if unknown else ""
        raise InputError(
            f"{name} has a state that cannot be rolled back to an earlier token{what}; "
            "the verify loop takes models with full or sliding-window attention in every layer"
        )
    if getattr(config, "attention_chunk_size", None) is not None:
        raise InputError(f"{name} attends in chunks; the verify loop takes full or sliding-window attention")
    attention = config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise InputError(
            f"{name} runs with attn_implementation={attention!r}, which takes no mask per query; "
            "call model.set_attn_implementation('sdpa') or load it with attn_implementation='sdpa'"
        )
