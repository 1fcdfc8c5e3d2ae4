"""Random tiny target models, a byte-level tokenizer, and drafters that hit, miss or mix."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter, TokenDraft

EOS = 0
VOCAB = 257  # <eos> and the 256 bytes
ARCHITECTURES = ("llama", "gpt2", "qwen2", "mistral-window", "gemma3-window")


def tiny_model(name: str, vocab: int = VOCAB, seed: int = 0, positions: int = 256, spread: float = 0.4) -> Any:
    """A random fp32 model whose greedy text does not settle on one token."""
    torch.manual_seed(seed)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = {
        "vocab_size": vocab, "max_position_embeddings": positions, "initializer_range": spread,
        "eos_token_id": EOS, "bos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    if name == "gpt2":
        config: Any = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=positions,
            **{key: value for key, value in base.items() if key != "max_position_embeddings"},
        )  # fmt: skip
    elif name == "llama":
        config = transformers.LlamaConfig(**size, num_key_value_heads=2, **base)
    elif name == "qwen2":
        config = transformers.Qwen2Config(**size, num_key_value_heads=2, **base)
    elif name == "mistral-window":
        config = transformers.MistralConfig(**size, num_key_value_heads=2, sliding_window=6, **base)
    else:
        config = transformers.Gemma3TextConfig(
            **size, num_key_value_heads=1, head_dim=8, sliding_window=5,
            layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8,
            tie_word_embeddings=False, **base,
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.generation_config.pad_token_id = EOS
    return model


def byte_tokenizer() -> Any:
    """Every byte is a token; id 0 is the EOS."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<eos>": EOS} | {letter: number for number, letter in enumerate(alphabet, 1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def random_prompts(count: int, seed: int = 0, vocab: int = VOCAB) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(1, vocab) for _ in range(rng.randrange(1, 20))] for _ in range(count)]


def peer_greedy(model: Any, prompt: Sequence[int], max_tokens: int, **options: Any) -> list[int]:
    """Greedy output of transformers' own generate."""
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False, **options
    )
    return out[0, len(prompt) :].tolist()


class Scripted(Drafter):
    """Drafts from known outputs; `corrupt` says, per output position, whether to draft a wrong token there.

    Args:
        outputs: Output ids by prompt (as tuples).
        miss: Probability of a wrong token at each position.
        length: Longest draft.
    """

    name = "scripted"

    def __init__(self, outputs: dict[tuple[int, ...], list[int]], miss: float = 0.0, length: int = 7) -> None:
        self.outputs, self.miss, self.length = outputs, miss, length
        self.requests: list[Scripted.Request] = []

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Scripted.Request:
        self.requests.append(Scripted.Request(self, self.outputs[tuple(prompt_ids)]))
        return self.requests[-1]

    class Request(protocol.Request):
        def __init__(self, drafter: Scripted, output: list[int]) -> None:
            self.drafter, self.output, self.seen = drafter, output, 0
            self.rng = random.Random(len(output))
            self.updates: list[list[int]] = []

        def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
            length = min(max_tokens, self.drafter.length)
            ahead = self.output[self.seen : self.seen + length]
            ahead += [1] * (length - len(ahead))
            return TokenDraft.of([(t % 5) + 1 if self.rng.random() < self.drafter.miss else t for t in ahead], "task")

        def update(self, ids: Any) -> None:
            self.updates.append(list(ids))
            self.seen += len(ids)


class PromptLookup(Drafter):
    """Continues like the last place where the last token stood before."""

    name = "lookup"

    def start(self, prompt_ids: Any, input_text: str | None = None) -> PromptLookup.Request:
        return PromptLookup.Request(list(prompt_ids))

    class Request(protocol.Request):
        def __init__(self, ids: list[int]) -> None:
            self.ids = ids

        def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
            for at in range(len(self.ids) - 2, -1, -1):
                if self.ids[at] == self.ids[-1]:
                    return TokenDraft.of(self.ids[at + 1 : at + 1 + max_tokens], "context")
            return TokenDraft()

        def update(self, ids: Any) -> None:
            self.ids.extend(ids)


class Misbehaving(Drafter, protocol.Request):
    """Drafts ids that no vocabulary has, or raises, at will."""

    name = "misbehaving"

    def __init__(self, how: str) -> None:
        self.how = how

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Misbehaving:
        if self.how == "start":
            raise RuntimeError("no start")
        return self

    def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
        if self.how == "draft":
            raise RuntimeError("no draft")
        junk = {"huge": [5, 2**32 - 1, 7], "long": [3] * 500, "vocab": [VOCAB]}
        return TokenDraft.of(junk.get(self.how, []))

    def update(self, ids: Any) -> None:
        if self.how == "update":
            raise RuntimeError("no update")
