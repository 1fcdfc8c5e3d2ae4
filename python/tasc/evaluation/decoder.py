"""Plain greedy decoding in batches with `generate` of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasc.data import TaskTokenizer
from tasc.data.endings import required_eos_ids
from tasc.data.prompt_notes import PromptDefaults
from tasc.decoding.prompts import Input, prompt_ids
from tasc.errors import InputError


@dataclass(frozen=True)
class Decoder:
    """Model with its tokenizers, for greedy decoding of inputs.

    Attributes:
        model: transformers model in evaluation mode.
        tokenizer: Hugging Face tokenizer, which forms the prompts.
        task_tokenizer: The tokenizer as `tasc.data.load_tokenizer` returns it. It knows the new tokens and decodes ids.
        system: System prompt of every request; "" for none. None: the one that the model was tuned with.
    """

    model: Any
    tokenizer: Any
    task_tokenizer: TaskTokenizer
    system: str | None = None

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end an output."""
        return required_eos_ids(self.model, self.tokenizer)

    @cached_property
    def _defaults(self) -> PromptDefaults:
        return PromptDefaults.of(str(getattr(self.model.config, "name_or_path", "")), self.tokenizer, None)

    @property
    def system_used(self) -> str | None:
        """System prompt of the requests: the given one, or the one that the model was tuned with."""
        return self._defaults.choose(self.system)

    def prompts(self, inputs: Sequence[Input], max_tokens: int) -> list[list[int]]:
        """Return the prompt ids of each input.

        Raises:
            InputError: If a prompt and `max_tokens` do not fit into the model's context together.
        """
        prompts = prompt_ids(self.tokenizer, inputs, None, self.system_used)
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for number, prompt in enumerate(prompts, start=1):
            if context is not None and len(prompt) + max_tokens > context:
                raise InputError(
                    f"the prompt of row {number} has {len(prompt)} tokens, so {max_tokens} more do not fit into the "
                    f"model's context of {context}: set max_tokens to at most {max(0, context - len(prompt))} "
                    "or remove the row"
                )
        return prompts

    def decode(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """Decode one batch greedily; each output includes the token that ends it.

        Shorter prompts are padded on the left. The generation settings of the model, such as a repetition penalty, are
        not used.
        """
        import torch

        longest = max(map(len, prompts))
        pad = min(self.eos_ids)
        ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=self.model.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.model.device)
        with torch.inference_mode(), self._greedy_config(pad):
            made = self.model.generate(ids, attention_mask=mask, max_new_tokens=max_tokens)
        return [self._ended(row) for row in made[:, longest:].tolist()]

    def read(self, decoded: Sequence[int]) -> tuple[str, tuple[int, ...], bool]:
        """Return text and ids of an output of `decode` without its end token, and whether it has one."""
        finished = bool(decoded) and decoded[-1] in self.eos_ids
        ids = tuple(decoded[:-1] if finished else decoded)
        return self.task_tokenizer.decode(ids), ids, finished

    @contextmanager
    def _greedy_config(self, pad: int) -> Iterator[None]:
        """Replace the model's generation settings, from which `generate` would fill in missing values."""
        from transformers import GenerationConfig

        own = self.model.generation_config
        settings: Any = GenerationConfig
        self.model.generation_config = settings(
            do_sample=False, num_beams=1, eos_token_id=sorted(self.eos_ids), pad_token_id=pad
        )
        try:
            yield
        finally:
            self.model.generation_config = own

    def _ended(self, ids: list[int]) -> list[int]:
        return ids[: next((k + 1 for k, token in enumerate(ids) if token in self.eos_ids), len(ids))]
