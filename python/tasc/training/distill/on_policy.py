"""On-policy data: outputs that the draft samples while it is trained (DistillSpec, arXiv 2310.08461; GKD, 2306.13649).

The rows' outputs show the draft the contexts that a good model writes. In use, a draft also continues its own tokens.
So it samples the outputs of some batches itself, with its present weights, and learns the target's distributions there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tasc.decoding.engine.model_cache import cache_argument
from tasc.errors import InputError
from tasc.training.examples import Collator, Example


@torch.no_grad()
def sampled_outputs(
    draft: Any,
    prompts: Sequence[list[int]],
    collator: Collator,
    *,
    ids: Tensor | None,
    eos: Collection[int],
    limit: int,
    temperature: float = 1.0,
) -> list[Example]:
    """Samples an output to each prompt.

    Args:
        draft: A transformers causal model.
        prompts: (B,) prompts, as token ids.
        collator: Collator for the draft.
        ids: (n,) the id of each of the draft's logits; None: a logit per id.
        eos: Ids that end an output.
        limit: Most tokens of an output, at least 1.
        temperature: Temperature of the sampling, above 0.

    Returns:
        (B,) examples. An output ends with its first token of `eos`, or has `limit` tokens.

    Raises:
        InputError: The draft has no cache.
    """
    argument = cache_argument(draft)
    if not argument:
        raise InputError(f"{type(draft).__name__} has no cache to sample outputs with; distil it with on_policy=0")
    cache = DynamicCache(config=draft.config.get_text_config(decoder=True))
    was_training = draft.training
    draft.eval()
    begun = collator([Example(prompt, [], len(prompt)) for prompt in prompts])
    batch = {name: value.to(draft.device) for name, value in begun.items() if name != "labels"}
    ends = torch.tensor(sorted(eos), device=draft.device)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=draft.device)
    said: list[Tensor] = []
    while len(said) < limit and not bool(ended.all()):
        logits = draft(**batch, **{argument: cache}, use_cache=True).logits
        chosen = torch.multinomial((logits[:, -1].float() / temperature).softmax(-1), 1)
        tokens = chosen if ids is None else ids[chosen]
        said.append(tokens)
        ended |= torch.isin(tokens[:, 0], ends)
        mask = torch.cat([batch["attention_mask"], torch.ones_like(tokens)], 1)
        batch = {"input_ids": tokens, "attention_mask": mask}
        if collator.position_ids:
            batch["position_ids"] = mask.sum(1, keepdim=True) - 1
    draft.train(was_training)
    found = []
    for prompt, row in zip(prompts, torch.cat(said, 1).tolist(), strict=True):
        end = next((k + 1 for k, token in enumerate(row) if token in eos), len(row))
        found.append(Example(prompt, row[:end], len(prompt) + end))
    return found
