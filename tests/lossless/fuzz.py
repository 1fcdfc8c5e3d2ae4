"""Random cases of decoding with drafts: model, drafter, batch, sampling, stop strings, calls on one generator.

A case is made from its number alone. Its outputs must equal those of plain decoding, each alone. Models are in fp64, so
that the last bits, which depend on the shape of a pass, decide nothing.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import transformers
from tiny_models import EOS, VOCAB, PromptLookup, Scripted, byte_tokenizer, tiny_model

from tasc import Generator, HybridDrafter, ModelDrafter, NgramDrafter, NullDrafter
from tasc.decoding.draft_model.vocabulary import set_draft_vocabulary
from tasc.drafting.protocol import Drafter, Request, TokenDraft

KINDS = ("llama", "gpt2", "qwen2", "mistral-window", "gemma3-window", "lfm2", "mamba2", "qwen3_5")
_TOKENIZER = byte_tokenizer()
_POSITIONS = 128
_SPREAD = 0.25


@cache
def model(kind: str, seed: int) -> Any:
    """A random fp64 model."""
    if kind in ("llama", "gpt2", "qwen2", "mistral-window", "gemma3-window"):
        return tiny_model(kind, seed=seed, positions=_POSITIONS, spread=_SPREAD).double()
    torch.manual_seed(seed)
    base = {
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": _SPREAD,
        "eos_token_id": EOS, "bos_token_id": None, "pad_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    heads = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
             "max_position_embeddings": _POSITIONS}  # fmt: skip
    if kind == "lfm2":
        config: Any = transformers.Lfm2Config(**base, **heads, layer_types=["conv", "full_attention"])
    elif kind == "mamba2":
        config = transformers.Mamba2Config(**base, num_heads=4, head_dim=16, state_size=8, n_groups=1, chunk_size=8)
    else:
        config = transformers.Qwen3_5TextConfig(
            **base, **heads, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
            linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8, head_dim=8,
        )  # fmt: skip
    made = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
    made.generation_config.pad_token_id = EOS
    return made


class Junk(Drafter, Request):
    """Random drafts of random lengths, some with an EOS."""

    name = "junk"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Junk:
        return self

    def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
        length = self._rng.randrange(0, max_tokens + 1)
        return TokenDraft.of([self._rng.choice((EOS, 1, 2, self._rng.randrange(VOCAB))) for _ in range(length)])

    def update(self, ids: Any) -> None:
        pass


def prompts(rng: random.Random) -> list[list[int]]:
    """1 to 6 prompts, some of which begin alike or are equal."""
    head = [rng.randrange(1, VOCAB) for _ in range(rng.choice((0, 3, 20)))]
    made = []
    for _ in range(rng.randrange(1, 7)):
        tail = [rng.randrange(1, VOCAB) for _ in range(rng.randrange(1, 30))]
        made.append(rng.choice(made) if made and rng.random() < 0.15 else rng.choice(([], head)) + tail)
    return made


def options(rng: random.Random) -> dict[str, Any]:
    """Options of a call: greedy in half of the cases."""
    made: dict[str, Any] = {"max_tokens": rng.choice((1, 2, 7, 25, 60)), "seed": rng.randrange(2**32)}
    if rng.random() < 0.5:
        made |= {
            "temperature": rng.choice((0.2, 0.7, 1.0, 1.5)), "top_k": rng.choice((None, 1, 5, 50)),
            "top_p": rng.choice((None, 0.5, 0.95)), "min_p": rng.choice((None, 0.02, 0.3)),
        }  # fmt: skip
    if rng.random() < 0.3:
        made["repetition_penalty"] = rng.choice((0.7, 1.1, 1.8))
    if rng.random() < 0.4:
        made["stop"] = [chr(rng.randrange(97, 123)) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.3:
        made["eos"] = [EOS, rng.randrange(VOCAB)]
    return made


def drafter(rng: random.Random, known: dict[tuple[int, ...], list[int]], is_greedy: bool) -> Drafter:
    """A drafter that is right, wrong, both, or learns; drawn drafts of a model change the text of a seed."""
    kinds: list[Callable[[], Drafter]] = [
        lambda: Scripted(known, miss=rng.choice((0.0, 0.1, 0.5, 1.0)), length=rng.choice((1, 4, 17, 64))),
        PromptLookup, lambda: NgramDrafter(None), lambda: Junk(random.Random(rng.random())),
    ]  # fmt: skip
    if is_greedy:
        kinds += [lambda: small(rng, rng.choice((None, 1, 4))), lambda: HybridDrafter(PromptLookup(), small(rng, None))]
    return rng.choice(kinds)()


def small(rng: random.Random, length: int | None) -> ModelDrafter:
    """A draft model, over all ids or a draft vocabulary."""
    made = copy.deepcopy(model(rng.choice(("llama", "gpt2")), rng.randrange(4)))
    set_draft_vocabulary(made, rng.choice((None, list(range(0, VOCAB, 2)))))
    return ModelDrafter(made, length=length, step_cost=0.05)


def check(number: int, generators: int = 3) -> int:
    """Run one case: some calls, plain and then by generators that keep their state between the calls.

    Args:
        number: Number of the case.
        generators: Number of generators, each with a drafter, a batch size and costs of its own.

    Returns:
        Number of outputs that were compared with plain ones.

    Raises:
        AssertionError: An output is another one; names the case.
    """
    rng = random.Random(number)
    target = model(rng.choice(KINDS), rng.randrange(4))
    plain = Generator(target, _TOKENIZER, drafter=NullDrafter(), pack_weights=False)
    calls = [(prompts(rng), options(rng)) for _ in range(rng.randrange(1, 4))]
    wanted = [list(_plain(plain, *call)) for call in calls]
    is_greedy = all("temperature" not in how for _, how in calls)
    known = {tuple(prompt): ids for (asked, _), outs in zip(calls, wanted, strict=True)
             for prompt, (ids, *_) in zip(asked, outs, strict=True)}  # fmt: skip
    for _ in range(generators):
        drafted = Generator(
            target, _TOKENIZER, drafter=drafter(rng, known, is_greedy), batch_size=rng.randrange(1, 6),
            costs=rng.choice((0.0, 0.02)), max_draft=rng.choice((1, 5, 16, 64)), pack_weights=False,
        )  # fmt: skip
        for at, ((asked, how), outs) in enumerate(zip(calls, wanted, strict=True)):
            made = [(one.ids, one.text, one.finish_reason) for one in drafted.generate(prompts=asked, **how)]
            assert made == outs, f"case {number}, call {at}: {target.config.model_type}, {how}"
    return generators * sum(len(outs) for outs in wanted)


def _plain(generator: Generator, asked: list[list[int]], how: dict[str, Any]) -> Iterator[tuple[list[int], str, str]]:
    for position, prompt in enumerate(asked):
        one = generator.generate(prompts=[prompt], positions=[position], **how)[0]
        yield one.ids, one.text, one.finish_reason
