"""Logits processors of a request: what the model's own `generate` would apply to the logits of each output position.

transformers makes them from the model's generation config. tasc calls each of them once per output position, in order,
with the ids before it (`Sampler.choose_lazily`), as `generate` does. So a processor may keep a state between its calls.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from transformers.generation.configuration_utils import GenerationMode

from tasc.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from tasc.decoding.sampling import Sampling

Processor: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""Maps (n, L) preceding ids and (n, V) scores to (n, V) scores."""

_MODES = {GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE, GenerationMode.ASSISTED_GENERATION}
_SWITCHES = ("constraints", "force_words_ids", "penalty_alpha", "dola_layers", "num_beams")  # fields for other modes
_TOP_K = 50  # value of `generate` where nothing else is said; it switches contrastive search on


def logits_processors(
    model: Any, sampling: Sampling, prompt: Sequence[int], max_tokens: int, eos: frozenset[int], device: torch.device
) -> list[Processor]:
    """Make the processors of one request, in transformers' order.

    Args:
        model: A transformers model. Its generation config counts, except for the fields that the other arguments give
            and `do_sample`.
        sampling: Options of the call; None in it is off.
        prompt: (L,) prompt ids.
        max_tokens: Most output tokens.
        eos: Ids that end the output.
        device: Device of the logits.

    Raises:
        InputError: transformers cannot make a processor from a field.
    """
    if getattr(model, "generation_config", None) is None:
        return list(sampling.processors())
    config = copy.deepcopy(model.generation_config)
    config.update(**config._get_default_generation_params(), defaults_only=True)  # as `generate` does
    config.do_sample = sampling.temperature > 0
    config.temperature = float(sampling.temperature)
    config.top_k, config.top_p, config.min_p = sampling.top_k, sampling.top_p, sampling.min_p
    config.repetition_penalty = float(sampling.repetition_penalty)
    config.eos_token_id = sorted(eos) or None
    if not eos:
        config.exponential_decay_length_penalty = None  # it acts on the EOS; transformers fails without one
    config.max_length = len(prompt) + max_tokens
    if config.min_new_tokens is not None:
        config.min_length = len(prompt) + config.min_new_tokens
    prompt_row = torch.tensor([prompt], dtype=torch.long, device=device)
    try:
        model._prepare_special_tokens(config, device=device)
        made = model._get_logits_processor(
            config, input_ids_seq_length=len(prompt), encoder_input_ids=prompt_row, device=device
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"the model's generation_config cannot be applied: {error}") from error
    return list(made)


def check_generation_config(model: Any) -> None:
    """Check that what a model's generation config asks for can be decoded token by token.

    Raises:
        InputError: It cannot; names the field and how to unset it.
    """
    config = copy.deepcopy(getattr(model, "generation_config", None))
    if config is None:
        return
    config.do_sample, config.top_k = False, _TOP_K if config.top_k is None else config.top_k
    refusal = mode_refusal(config)
    if config.token_healing:
        refusal = "token_healing is True, which changes prompts; set it to None"
    if config.cache_implementation == "quantized":
        refusal = "cache_implementation is 'quantized', but tasc keeps exact keys and values; set it to None"
    weight = getattr(config, "assistant_ensemble_weight", None)  # which older transformers lack
    if weight is not None:
        refusal = f"assistant_ensemble_weight is {weight}, which accepts drafts inexactly; set it to None"
    if refusal is not None:
        raise InputError(f"in the model's generation_config, {refusal}")


def mode_refusal(config: Any) -> str | None:
    """Return why a generation config is not decoded greedily or by sampling, and what to set; None if it is."""
    mode = config.get_generation_mode()
    if mode in _MODES:
        return None
    field = next((name for name in _SWITCHES if getattr(config, name, None)), "mode")
    off = 1 if field == "num_beams" else None
    value = getattr(config, field, mode.value)
    what = mode.value.replace("_", " ")
    return f"{field} is {value}, which asks for {what}, but tasc decodes greedily or samples; set {field} to {off}"
