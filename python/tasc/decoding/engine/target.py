"""The target model as the loop sees it: token rows in, logits out, keys and values kept in a `RowCache`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tasc.decoding.engine.cache import RowCache, StepWindow
from tasc.errors import InputError

Mask: TypeAlias = "Tensor | dict[str, Tensor] | None"
"""What a query may see, as the model takes it; None: what the model lets it see by itself."""

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


class Target:
    """A `transformers` causal language model with attention layers only.

    Args:
        model: Any `AutoModelForCausalLM` whose state is keys and values, with "sdpa" or "eager" attention.

    Raises:
        InputError: The model's state cannot be taken back to an earlier token, it is an encoder-decoder, or its
            attention implementation takes no mask per query.
    """

    def __init__(self, model: Any) -> None:
        self.model = _unwrapped(model)
        self.config = self.model.config.get_text_config()
        _check_supported(self.model, self.config)
        self.device: torch.device = self.model.device
        self.vocab_size: int = self.model.get_input_embeddings().weight.shape[0]
        self.max_length: int | None = getattr(self.config, "max_position_embeddings", None)
        known = inspect.signature(self.model.forward).parameters
        self._keeps_logits = "logits_to_keep" in known
        self._cache_argument = "cache" if "cache" in known else "past_key_values"  # its name before transformers 5.24
        self._only_adds = self.config._attn_implementation == "eager"
        self._windows = _attention_windows(self.config)

    def eos_ids(self, tokenizer: Any = None) -> frozenset[int]:
        """End-of-sequence ids named by the generation config, else the config, and by the tokenizer."""
        found: set[int] = set()
        generation_config = getattr(self.model, "generation_config", None)
        for source in (generation_config, self.config):
            ids = getattr(source, "eos_token_id", None)
            if ids is not None:
                found.update([ids] if isinstance(ids, int) else ids)
                break
        if getattr(tokenizer, "eos_token_id", None) is not None:
            found.add(tokenizer.eos_token_id)
        return frozenset(found)

    def step(
        self, cache: RowCache, first_row: int, tokens: Sequence[Sequence[int]], starts: Sequence[int], keep: int
    ) -> Tensor:
        """Run the next tokens of neighbouring rows through the model.

        Rows may bring different numbers of tokens; shorter ones are padded on the left, so that the last `keep`
        outputs of every row stand in line.

        Args:
            cache: Its rows `first_row`, `first_row + 1`, … hold `starts[b]` tokens each, and gain `tokens[b]`.
            first_row: Row of the first request.
            tokens: n rows of q_b ≥ 1 token ids.
            starts: (n,) position of each row's first token.
            keep: Number of last positions whose logits are wanted, ≥ 1.

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
        in_line = all(len(row) == query and start + query == end for start, row in zip(starts, tokens, strict=True))
        start = end - query if in_line else None
        cache.window = StepWindow(first_row, positions, start, end, self.device)
        positions = positions.clamp(min=0).to(self.device)
        # a single token per row, rows of equal length: every slot is visible; from position 0 on: the causal mask that
        # the model applies by itself; models add their own window in both cases
        needs_mask = start is None or (query > 1 and start > 0)
        mask = self.mask(positions, end) if needs_mask else None
        return self.forward(cache, ids.to(self.device), positions, mask, keep)

    def forward(self, cache: RowCache, ids: Tensor, positions: Tensor, mask: Mask, keep: int) -> Tensor:
        """Run the model once; the cache's window says where.

        Args:
            cache: Takes the keys and values.
            ids: (n, Q) token ids.
            positions: (n, Q) positions.
            mask: Of `mask`.
            keep: Number of last positions whose logits are wanted, ≥ 1.

        Returns:
            (n, min(keep, Q), V) logits.
        """
        options: dict[str, Any] = {self._cache_argument: cache}
        if self._keeps_logits:
            options["logits_to_keep"] = keep
        output = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **options)
        logits: Tensor = output.logits
        return logits[:, -keep:]

    def mask(self, positions: Tensor, end: int, *, additive: bool = False) -> Mask:
        """Which slots queries see.

        Args:
            positions: (n, Q) positions of the queries.
            end: Number of slots.
            additive: To be added to scores, which spares every layer the conversion; else as "sdpa" takes it, True for
                what is seen. "eager" attention only adds.

        Returns:
            (n, 1, Q, end), by kind of layer where the model has several.
        """
        distance = positions[:, None, :, None] - torch.arange(end, device=self.device)  # (n, 1, Q, end)
        masks = {}
        for kind, window in self._windows.items():
            seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            masks[kind] = self._as_scores(seen) if additive or self._only_adds else seen
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _as_scores(self, seen: Tensor) -> Tensor:
        dtype = self.model.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill(~seen, torch.finfo(dtype).min)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout off while generating."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def _unwrapped(model: Any) -> Any:
    """The model under a PEFT wrapper, adapters in place."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def _attention_windows(config: Any) -> dict[str, int | None]:
    """Window of each kind of attention layer; None sees everything before."""
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
            f"{name} keeps a state that cannot be taken back to an earlier token{what}; "
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
