"""Forward pass of a Llama over one cache row, with few operations.

A CPU spends much of a small draft's pass over a token in Python, between operations. This pass needs fewer operations
than transformers' modules and computes the same function. Its last bits differ. A draft's tokens are verified, whatever
they are, so this changes neither greedy text nor the distribution of sampled text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRMSNorm

from tasc.decoding.engine.cache import DynamicStepView, RowCache
from tasc.decoding.engine.target import Target

_LENGTH_ROPES = ("dynamic", "longrope")  # their factors depend on the length of the sequence


class PlainLlama:
    """A `LlamaForCausalLM` on a CPU. Its own modules of linear layers run, so adapters and packed weights stay in use.

    Args:
        target: A model for which `fits` is true.
    """

    def __init__(self, target: Target) -> None:
        self._target, self._model = target, target.model
        self._angles: tuple[Tensor, Tensor] | None = None  # (C, D) cosines, and sines with the sign of the rotation

    @staticmethod
    def fits(target: Target) -> bool:
        """Whether a model is a Llama that this pass computes."""
        model, config = target.model, target.config
        return (
            type(model) is LlamaForCausalLM
            and target.is_batched
            and target.device.type == "cpu"
            and (config.rope_parameters or {}).get("rope_type", "default") not in _LENGTH_ROPES
            and all(type(module) is LlamaRMSNorm for module in _norms(model))
            and not any(hasattr(module, "_hf_hook") for module in model.modules())  # of weights kept elsewhere
        )

    def logits(self, cache: RowCache, row: int, tokens: Sequence[int], start: int) -> Tensor:
        """Run the next tokens of a cache row.

        Args:
            cache: Its row `row` holds `start` tokens; `tokens` are appended.
            row: The cache row.
            tokens: (Q,) ids, Q ≥ 1.
            start: Position of the first.

        Returns:
            (V,) logits after the last token.
        """
        model, count = self._model.model, len(tokens)
        end = start + count
        cache.reserve(end)
        positions = torch.arange(start, end)
        cache.view = DynamicStepView(row, positions[None], start, end, self._target.device)
        mask = None if count == 1 else positions[:, None] >= torch.arange(end)
        hidden = model.embed_tokens(torch.tensor([tokens]))  # (1, Q, W)
        cosines, sines = (table[start:end] for table in self._tables(end, hidden))
        for number, layer in enumerate(model.layers):
            hidden = hidden + self._attention(layer, hidden, cosines, sines, mask, cache, number)
            normed = _normed(layer.post_attention_layernorm, hidden)
            mlp = layer.mlp
            hidden = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
        logits: Tensor = self._model.lm_head(_normed(model.norm, hidden[:, -1:]))
        return logits[0, 0]

    def _attention(
        self,
        layer: Any,
        hidden: Tensor,
        cosines: Tensor,
        sines: Tensor,
        mask: Tensor | None,
        cache: RowCache,
        number: int,
    ) -> Tensor:
        part = layer.self_attn
        normed = _normed(layer.input_layernorm, hidden)
        shape = (1, hidden.shape[1], -1, part.head_dim)
        queries, keys, values = (
            project(normed).view(shape).transpose(1, 2) for project in (part.q_proj, part.k_proj, part.v_proj)
        )
        heads = queries.shape[1]
        both = torch.cat([queries, keys], 1)  # (1, heads of both, Q, D)
        both = both * cosines + both.roll(part.head_dim // 2, -1) * sines
        keys, values = cache.update(both[:, heads:], values, number)
        mixed = functional.scaled_dot_product_attention(
            both[:, :heads], keys, values, mask, scale=part.scaling, enable_gqa=heads != keys.shape[1]
        )
        result: Tensor = part.o_proj(mixed.transpose(1, 2).reshape(1, hidden.shape[1], -1))
        return result

    def _tables(self, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and signed sines of at least `end` positions, (C, D) each."""
        if self._angles is None or len(self._angles[0]) < end or self._angles[0].dtype != like.dtype:
            positions = torch.arange(max(256, 2 * end))[None]
            cosines, sines = self._model.model.rotary_emb(like, positions)
            signs = torch.ones_like(sines[0])
            signs[:, : signs.shape[1] // 2] = -1
            self._angles = cosines[0], sines[0] * signs
        return self._angles


def _normed(norm: Any, hidden: Tensor) -> Tensor:
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _norms(model: Any) -> list[Any]:
    layers = model.model.layers
    return [model.model.norm, *(norm for one in layers for norm in (one.input_layernorm, one.post_attention_layernorm))]
