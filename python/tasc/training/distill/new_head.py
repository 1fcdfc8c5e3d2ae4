"""Untrained EAGLE heads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from tasc.decoding.draft_model.eagle import LlamaForCausalLMEagle3, head_config
from tasc.decoding.draft_model.vocabulary import head_rows
from tasc.decoding.engine.probe import probed_target
from tasc.decoding.engine.target import last_hidden_states
from tasc.errors import InputError

_log = logging.getLogger(__name__)

EAGLE = "eagle"
"""The draft that `distill` takes as a new head."""

STEPS = 3
"""Drafted tokens in a row that a head is trained on, as in `LlamaForCausalLMEagle3.forward`."""


@torch.no_grad()
def new_head(target: Any, ids: Sequence[int] | None) -> LlamaForCausalLMEagle3:
    """Make an untrained EAGLE head of a target.

    The output head is a copy of the target's rows. The layer is random (torch's global seed). The last norm begins at
    the size of the target's states, which the output head expects.

    Args:
        target: A transformers causal model.
        ids: Draft vocabulary, ascending; None: all ids of the target.

    Returns:
        A float32 head on the target's device, in evaluation mode.

    Raises:
        InputError: The target has no attention, its last hidden states are not found or do not determine its logits, or
            its output head has another shape than its embeddings.
    """
    if getattr(target.config.get_text_config(), "num_attention_heads", None) is None:
        raise InputError(
            f"{type(target).__name__} has no attention heads, and a head is run with such targets only; cut a draft "
            "from it (--layers), or make a new, narrow one (--draft-size)"
        )
    embeddings = target.get_input_embeddings()
    some = torch.arange(16, device=target.device) % embeddings.weight.shape[0]
    with last_hidden_states(target) as seen:
        logits = target(input_ids=some[None]).logits
    output = target.get_output_embeddings()
    reason = None
    if output is None or not seen:
        reason = "does not show its last hidden states"
    elif output.weight.shape != embeddings.weight.shape:
        reason = f"has embeddings of shape {_shape(embeddings)} and an output head of shape {_shape(output)}"
    elif seen[-1].shape[-1] != output.weight.shape[1] or not torch.allclose(
        output(seen[-1]), logits, rtol=0.01, atol=0.01 * float(logits.abs().max())
    ):
        reason = "computes its logits from more than its last hidden states"
    if reason is not None:
        raise InputError(
            f"{type(target).__name__} {reason}; cut a draft from it (--layers), or make a new, narrow one "
            "(--draft-size)"
        )
    head = LlamaForCausalLMEagle3(head_config(target, ids)).read_target(target)
    kept = torch.arange(len(output.weight)) if ids is None else torch.tensor(ids)
    head.lm_head.weight.copy_(head_rows(output, kept).weight)
    head.norm.weight.fill_(float(seen[-1].float().square().mean().sqrt()))
    made: LlamaForCausalLMEagle3 = head.to(target.device, torch.float32).eval()
    return made


def warn_unless_run(target: Any) -> None:
    """Warn if tasc's loop does not run a target in batches: it then keeps no states of it, which a head reads.

    Raises:
        InputError: The loop cannot run the target.
    """
    if not probed_target(target, probe=False).is_batched:
        _log.warning(
            "%s is run one request at a time in tasc's loop, which keeps no states for a head then: the head is for "
            "other engines; for the loop, cut a draft (--layers), or make a new, narrow one (--draft-size)",
            type(target).__name__,
        )


def _shape(module: Any) -> str:
    return " × ".join(map(str, module.weight.shape))
