"""EAGLE head: a draft model of one layer that reads the target's last hidden states.

The layer is that of EAGLE-3 (arXiv 2503.01840). For every token it reads two vectors of the target's width d: the
target's last hidden state *before* the token, and the target's embedding of the token. Both are normalised and joined
to 2·d values, from which the attention's queries, keys and values are computed. The normalised result estimates the
target's next last hidden state. The output head computes logits from it, and it stands in for the target's state when
the head drafts on.

The target's output head reads its last hidden states, so these say most of what the target is about to say. EAGLE-3
reads states of three inner layers too, which are not kept here.

The checkpoint is one that vLLM loads as `eagle3`: `eagle_config.use_aux_hidden_state` is false, so the layer reads the
last states and no projection of several; `norm_output` is true, since the normalised result is fed back; `d2t` and
`t2d` hold the draft vocabulary. The embeddings are the target's and are not stored.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRotaryEmbedding, apply_rotary_pos_emb

from tasc.decoding.draft_model.vocabulary import CONFIG_KEY
from tasc.decoding.engine.target import unwrapped
from tasc.errors import InputError
from tasc.files import read_json
from tasc.models import load_weights

Remember: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes the (B, H, Q, D) keys and values of a pass; returns (B, H, E, D), all that its queries may read."""


class LlamaForCausalLMEagle3(PreTrainedModel):  # type: ignore[misc, no-untyped-call, unused-ignore]
    """EAGLE head. Its class and weights have the names that vLLM knows.

    Args:
        config: As `head_config` returns it.
    """

    config_class = LlamaConfig
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        width, ids = config.hidden_size, getattr(config, CONFIG_KEY, None)
        self.midlayer = _Layer(config)
        self.norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(width, config.draft_vocab_size, bias=False)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        if ids is not None:
            used = torch.tensor(ids)
            self.register_buffer("d2t", used - torch.arange(len(ids)))
            self.register_buffer("t2d", torch.zeros(config.vocab_size, dtype=torch.bool).index_fill(0, used, True))
        self._embeddings: list[Any] = []  # a list, so that the target's module does not become a part of this one
        self._target: weakref.ref[Any] | None = None
        self.post_init()  # type: ignore[no-untyped-call, unused-ignore]

    def get_input_embeddings(self) -> Any:
        """Return the target's embeddings."""
        return self._embeddings[0]

    def get_output_embeddings(self) -> Any:
        """Return the output head, over the draft vocabulary if there is one."""
        return self.lm_head

    @property
    def read_from(self) -> Any:
        """The target whose states the head reads; None before `read_target`, or when the target is gone."""
        return None if self._target is None else self._target()

    def read_target(self, target: Any) -> LlamaForCausalLMEagle3:
        """Take the embeddings of the target. Returns the head.

        Raises:
            InputError: The target has another width, or another number of ids.
        """
        embeddings = target.get_input_embeddings()
        own, theirs = (self.config.vocab_size, self.config.hidden_size), tuple(embeddings.weight.shape)
        if own != theirs:
            raise InputError(
                f"the EAGLE head is for a target with {own[0]:,} ids and a width of {own[1]:,}, the target has "
                f"{theirs[0]:,} and {theirs[1]:,}; give the head's own target, or distil a new head"
            )
        self._embeddings, self._target = [embeddings], weakref.ref(unwrapped(target))
        return self

    def run(self, ids: Tensor, states: Tensor, positions: Tensor, mask: Tensor | None, remember: Remember) -> Tensor:
        """Run the layer once.

        Args:
            ids: (B, Q) int64 tokens.
            states: (B, Q, d) state before each token, of the target or estimated.
            positions: (B, Q) int64 positions: that of a row's first token but one is 0.
            mask: (B, 1, Q, E) bool, what each query reads; None: all.
            remember: Stores keys and values.

        Returns:
            (B, Q, d) estimated states at the tokens, which the output head reads.
        """
        layer, states = self.midlayer, states.to(self.norm.weight.dtype)
        embeds = self.get_input_embeddings()(ids).detach().to(states.dtype)
        joined = torch.cat([layer.input_layernorm(embeds), layer.hidden_norm(states)], -1)
        hidden = states + layer.self_attn(joined, self.rotary_emb(states, positions), mask, remember)
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        found: Tensor = self.norm(hidden)
        return found

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        states: Tensor,
        logits_to_keep: Tensor | None = None,
        num_steps: int = 1,
    ) -> CausalLMOutput:
        """Compute what the head drafts behind every token of whole rows, for training and evaluation.

        Step 0 reads the target's state before each token. Step s reads the estimate of step s − 1, as the head does
        when it drafts its (s + 1)-th token in a row: of the tokens before, the last s have the keys and values of
        steps 0 to s − 1, and all earlier ones those of the target's states. Training on several steps is the
        "training-time test" of EAGLE-3.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), 0 for padding.
            states: (B, T, d) target's state at each token; that of the last token is not read.
            logits_to_keep: (K,) columns whose logits are computed; None: all.
            num_steps: S ≥ 1.

        Returns:
            `logits` (S, B, K, V) of the token after each column.
        """
        real = attention_mask.bool()
        known = torch.cat([torch.zeros_like(real[:, :1]), real[:, 1:] & real[:, :-1]], 1)  # a state is before the token
        positions = (known.cumsum(1) - 1).clamp(min=0)
        order = torch.arange(input_ids.shape[1], device=input_ids.device)
        behind = order[:, None] - order  # how far a query's column lies behind another one
        own = (behind == 0).expand(len(real), 1, -1, -1)
        stored: list[tuple[Tensor, Tensor]] = []

        def remember(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            stored.append((keys, values))
            every = [torch.cat(each, 2) for each in zip(*stored, strict=True)]
            return every[0], every[1]

        logits = []
        for step in range(num_steps):
            before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
            parts = [(behind >= step) & known[:, None, None]]
            parts += [(behind == step - earlier).expand_as(own) for earlier in range(1, step + 1)]
            parts[0] = parts[0] | own if step == 0 else parts[0]  # the first token of a row reads at least itself
            states = self.run(input_ids, before, positions, torch.cat(parts, -1), remember)
            kept = states if logits_to_keep is None else states[:, logits_to_keep]
            logits.append(self.lm_head(kept))
        return CausalLMOutput(logits=torch.stack(logits))


class _Layer(nn.Module):
    """Decoder layer of EAGLE-3."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.hidden_norm, self.input_layernorm, self.post_attention_layernorm = (
            nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps) for _ in range(3)
        )
        self.self_attn = _Attention(config)
        self.mlp: Any = LlamaMLP(config)  # type: ignore[no-untyped-call, unused-ignore]


class _Attention(nn.Module):
    """Attention of a Llama whose inputs are twice as wide."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, self.head_dim = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(2 * width, queries, bias=False)
        self.k_proj = nn.Linear(2 * width, keys, bias=False)
        self.v_proj = nn.Linear(2 * width, keys, bias=False)
        self.o_proj = nn.Linear(queries, width, bias=False)

    def forward(
        self, joined: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, remember: Remember
    ) -> Tensor:
        """Return (B, Q, d) from (B, Q, 2·d)."""
        shape = (*joined.shape[:2], -1, self.head_dim)
        queries, keys, values = (
            project(joined).view(shape).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = apply_rotary_pos_emb(queries, keys, *rotation)
        keys, values = remember(keys, values)
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, mask, enable_gqa=queries.shape[1] != keys.shape[1]
        )
        found: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return found


def head_config(target: Any, ids: Sequence[int] | None) -> LlamaConfig:
    """Return the configuration of a head for a target: its width, heads and inner width.

    Args:
        target: A transformers causal model.
        ids: Draft vocabulary, ascending; None: all ids.
    """
    text, (num_ids, width) = target.config.get_text_config(), target.get_input_embeddings().weight.shape
    heads = text.num_attention_heads if width % (2 * text.num_attention_heads) == 0 else 1  # rotations take pairs
    kept = getattr(text, "num_key_value_heads", None) or heads
    inner = getattr(text, "intermediate_size", None) or 4 * width
    own: dict[str, Any] = {
        CONFIG_KEY: None if ids is None else list(ids),
        "draft_vocab_size": num_ids if ids is None else len(ids),
        "eagle_config": {"use_aux_hidden_state": False},
        "norm_output": True,
    }
    return LlamaConfig(
        vocab_size=num_ids,
        hidden_size=width,
        intermediate_size=inner if isinstance(inner, int) else max(inner),  # Gemma 3n has one for each layer
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=kept if heads % kept == 0 else heads,
        head_dim=width // heads,
        max_position_embeddings=getattr(text, "max_position_embeddings", None) or 2048,
        rms_norm_eps=getattr(text, "rms_norm_eps", None) or 1e-5,
        tie_word_embeddings=False,
        **own,
    )


def is_head(model: Any) -> bool:
    """Whether a model is an EAGLE head of tasc, wrapped for several processes or not."""
    return isinstance(getattr(model, "module", model), LlamaForCausalLMEagle3)


def is_head_folder(folder: str | Path) -> bool:
    """Whether a folder holds an EAGLE head."""
    file = Path(folder, "config.json")
    return file.is_file() and LlamaForCausalLMEagle3.__name__ in (read_json(file).get("architectures") or ())


def load_head(folder: str | Path, target: Any, dtype: Any = torch.float32) -> LlamaForCausalLMEagle3:
    """Load an EAGLE head for a target.

    Args:
        folder: Folder of the checkpoint.
        target: The target model.
        dtype: Type of the weights.

    Raises:
        InputError: The head cannot be loaded, reads other states than the last ones, or is for a target of another
            width or vocabulary.
    """
    head = load_weights(LlamaForCausalLMEagle3, folder, dtype=dtype)
    if (getattr(head.config, "eagle_config", None) or {}).get("use_aux_hidden_state") is not False:
        raise InputError(
            f"the EAGLE head {folder} reads states of the target's inner layers, which tasc does not keep; distil one "
            f"of the last states with tasc distill --draft eagle"
        )
    found: LlamaForCausalLMEagle3 = head.read_target(target).to(target.device).eval()
    return found
