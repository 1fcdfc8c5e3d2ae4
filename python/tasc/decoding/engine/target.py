"""The model that a step runs: token ids in, logits out, keys and values in a cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from tasc.checks import wrong
from tasc.data.endings import eos_ids_of
from tasc.decoding.engine.cache import DynamicStepView, RowCache
from tasc.decoding.engine.model_cache import ModelCaches, cache_argument
from tasc.errors import InputError

TokenLists: TypeAlias = Sequence[Sequence[int]]
"""Lists of token ids, one per cache row."""

Mask: TypeAlias = "Tensor | dict[str, Tensor] | None"
"""Attention mask in the form that the model takes; None: the causal mask that the model applies by itself."""

AnyCache: TypeAlias = "RowCache | ModelCaches"

CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len", "max_target_positions", "n_positions", "seq_length")
"""Names of the longest context in transformers' configurations."""

Mode = Literal["batched", "single", "undrafted"]
"""How a model is run. batched: the requests of a batch in one pass, over a `RowCache`. single: one request per pass,
over the model's own cache. undrafted: as single, one token at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """The way to run a model that gives its own text; `probe.py` finds it.

    Attributes:
        mode: How the model is run.
        crops: Whether a rejected draft is cropped off the model's own cache, if the cache says that it can be.
        reason: Why it is not run in a batch, or not beyond a length; "" if nothing is restricted.
        rope_switch: Number of tokens above which the rotary embedding takes other factors; None: no such number.
        recomputes: Whether `generate` computes a sequence anew when it grows beyond `rope_switch`.
        max_length: Longest context for which the text is known to be the model's own; None: no limit but the model's.
    """

    mode: Mode = "batched"
    crops: bool = True
    reason: str = ""
    rope_switch: int | None = None
    recomputes: bool = False
    max_length: int | None = None


class Target:
    """A `transformers` causal language model and the way to run it.

    Args:
        model: Any `AutoModelForCausalLM`.
        drive: The way to run it.

    Attributes:
        model: The model without its PEFT wrapper; adapters stay in place.
        drive: The way to run it.
        config: Its text config.
        device: The device of its inputs.
        vocab_size: Rows of its input embedding.
        max_length: Longest context in tokens; None: not limited.
    """

    def __init__(self, model: Any, drive: Drive = Drive()) -> None:  # frozen
        self.model = unwrapped(model)
        self.drive = drive
        self.config = self.model.config.get_text_config()
        self.device = _device(self.model)
        self.vocab_size: int = self.model.get_input_embeddings().weight.shape[0]
        limits = [limit for limit in (_context_length(self.model), drive.max_length) if limit is not None]
        self.max_length: int | None = min(limits, default=None)
        known = inspect.signature(self.model.forward).parameters
        self._takes_logits_to_keep = "logits_to_keep" in known
        self._cache_argument = cache_argument(self.model)
        self._windows = _attention_windows(self.config)

    @property
    def is_batched(self) -> bool:
        """Whether one pass may run several requests."""
        return self.drive.mode == "batched"

    def new_cache(self, num_rows: int) -> AnyCache:
        """Return an empty cache for `num_rows` requests."""
        if self.is_batched:
            return RowCache(num_rows)
        continues = self.drive.mode == "single"
        return ModelCaches(self.model, num_rows, self.device, continues=continues, crops=self.drive.crops)

    def regime(self, length: int) -> bool:
        """Whether a pass over a sequence of `length` tokens takes the rotary factors for long sequences."""
        return self.drive.rope_switch is not None and length > self.drive.rope_switch

    def eos_ids(self, tokenizer: Any = None) -> frozenset[int]:
        """Return the end-of-sequence ids of the generation config (else of the config) and of the tokenizer."""
        return eos_ids_of((getattr(self.model, "generation_config", None), self.config), tokenizer)

    def step(self, cache: AnyCache, first_row: int, tokens: TokenLists, starts: Sequence[int], keep: int) -> Tensor:
        """Run the next tokens of neighbouring cache rows through the model.

        Rows may have different numbers of tokens. Shorter ones are padded on the left, which aligns the last `keep`
        positions of all rows. A model that is not run in a batch takes one row.

        Args:
            cache: From `new_cache`. Its row `first_row + b` holds `starts[b]` tokens; `tokens[b]` are appended to it.
            first_row: Cache row of the first request.
            tokens: n lists of q_b ≥ 1 token ids.
            starts: (n,) position of the first token of each list.
            keep: Number of trailing positions per row whose logits are computed, ≥ 1.

        Returns:
            (n, min(keep, Q), V) logits, Q = max q_b; entry [b, -1] follows the last token of row b.
        """
        if isinstance(cache, ModelCaches):
            ((row_tokens, row_start),) = zip(tokens, starts, strict=True)
            return cache.step(first_row, row_tokens, row_start, keep)
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
        with last_hidden_states(self.model, cache.keeps_states) as states:
            output = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **options)
        for found in states:
            cache.write_states(found)
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
        needs_scores = additive or self.config._attn_implementation == "eager"
        keys = torch.arange(end, device=self.device)
        queries = positions[:, None, :, None]  # (n, 1, Q, 1)
        masks = {}
        for kind, (window, is_chunk) in self._windows.items():
            visible = queries >= keys  # (n, 1, Q, end)
            if window is not None:
                visible &= (queries // window == keys // window) if is_chunk else (queries - keys < window)
            masks[kind] = self._as_scores(visible) if needs_scores else visible
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _as_scores(self, visible: Tensor) -> Tensor:
        dtype = self.model.dtype
        return torch.zeros(visible.shape, dtype=dtype, device=self.device).masked_fill(~visible, torch.finfo(dtype).min)


@contextmanager
def last_hidden_states(model: Any, wanted: bool = True) -> Iterator[list[Tensor]]:
    """Record the (B, Q, d) last hidden states of each forward pass inside the `with` block, if they are wanted."""
    states: list[Tensor] = []
    if not wanted:
        yield states
        return
    hook = model.base_model.register_forward_hook(lambda module, inputs, output: states.append(output[0]))
    try:
        yield states
    finally:
        hook.remove()


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


def unwrapped(model: Any) -> Any:
    """Return the model inside a PEFT wrapper or a compiled module; its adapters stay in place.

    Raises:
        InputError: It is no model, or its adapter acts in the wrapper.
    """
    if not hasattr(model, "config") or not hasattr(model, "forward"):
        raise wrong("model", model, "a causal language model, as AutoModelForCausalLM.from_pretrained loads it")
    model = getattr(model, "_orig_mod", model)
    if not (hasattr(model, "peft_config") and hasattr(model, "get_base_model")):
        return model
    for name, config in model.peft_config.items():
        if getattr(config, "is_prompt_learning", False) or getattr(config, "alora_invocation_tokens", None):
            raise InputError(
                f"the adapter {name!r} ({config.peft_type.value}) changes the prompt, which tasc does not run; "
                "call the model's own generate, or take an adapter of weights such as LoRA"
            )
    return model.get_base_model()


def _device(model: Any) -> torch.device:
    """Return the device that a model runs on; accelerate keeps offloaded weights elsewhere."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    execution_device = getattr(hook, "execution_device", None)
    return torch.device(model.device if execution_device is None else execution_device)


def _attention_windows(config: Any) -> dict[str, tuple[int | None, bool]]:
    """Return what each kind of attention layer reads: (tokens, whether they form chunks); (None, False): all tokens."""
    window, chunk = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    if not kinds:
        kinds = ["full_attention" if window is None else "sliding_attention"]
    reads = {"sliding_attention": (window, False), "chunked_attention": (chunk, True)}
    return {kind: reads.get(kind, (None, False)) for kind in kinds}


def context_length(config: Any) -> int | None:
    """Return the longest context that a model's configuration names, in tokens; None: none."""
    text = config.get_text_config()
    limits = (getattr(text, name, None) for name in CONTEXT_NAMES)
    return next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)


def _context_length(model: Any) -> int | None:
    """Return the longest context of a model in tokens; None: not limited.

    Without a limit in its configuration, the table of learned positions is looked for.
    """
    if (limit := context_length(model.config)) is not None:
        return limit
    tables = [
        module.num_embeddings
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and "position" in name.rsplit(".", 1)[-1]
    ]
    return min(tables, default=None)
