"""Plain greedy decoding in batches by transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasc.data import TaskTokenizer
from tasc.data.endings import required_eos_ids
from tasc.decoding.prompts import prompt_ids
from tasc.errors import InputError


@dataclass(frozen=True)
class Decoder:
    """A model that answers inputs, and how its ids are read.

    Attributes:
        model: transformers model in evaluation mode.
        tokenizer: Its Hugging Face tokenizer, which forms the prompts.
        task_tokenizer: The same as `tasc.data.load_tokenizer` gives it: what is new in it, and the text of ids.
        system: System prompt of every request.
    """

    model: Any
    tokenizer: Any
    task_tokenizer: TaskTokenizer
    system: str | None = None

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end an output."""
        return required_eos_ids(self.model, self.tokenizer)

    def prompts(self, inputs: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Ids of the prompt of each input.

        Raises:
            InputError: If a prompt and `max_tokens` do not fit into the model's context together.
        """
        prompts = prompt_ids(self.tokenizer, inputs, None, self.system)
        holds = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for number, prompt in enumerate(prompts, start=1):
            if holds is not None and len(prompt) + max_tokens > holds:
                raise InputError(
                    f"the prompt of row {number} has {len(prompt)} tokens, so {max_tokens} more do not fit into the "
                    f"model's context of {holds}: ask for at most {max(0, holds - len(prompt))} or leave the row out"
                )
        return prompts

    def decode(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """Greedy outputs of one batch, each up to and including the token that ends it.

        Shorter prompts are padded on the left. The model's own generation settings, such as a repetition penalty, are
        left aside.
        """
        import torch

        longest = max(map(len, prompts))
        pad = min(self.eos_ids)
        ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=self.model.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.model.device)
        with torch.inference_mode(), self._plainly(pad):
            made = self.model.generate(ids, attention_mask=mask, max_new_tokens=max_tokens)
        return [self._ended(row) for row in made[:, longest:].tolist()]

    def read(self, decoded: Sequence[int]) -> tuple[str, tuple[int, ...], bool]:
        """Text and ids of what `decode` gave for a prompt, the end token aside, and whether there was one."""
        finished = bool(decoded) and decoded[-1] in self.eos_ids
        ids = tuple(decoded[:-1] if finished else decoded)
        return self.task_tokenizer.decode(ids), ids, finished

    @contextmanager
    def _plainly(self, pad: int) -> Iterator[None]:
        """The model with settings that say nothing but when to end; `generate` would fill up others from its own."""
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
