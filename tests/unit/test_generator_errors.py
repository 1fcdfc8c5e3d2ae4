"""What cannot be done is said: value, limit, fix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from tiny_models import VOCAB, PromptLookup, Scripted, byte_tokenizer, peer_greedy, random_prompts, tiny_model

from tasc import Generator, NullDrafter, generate
from tasc.errors import InputError, TokenizerMismatchError

TOKENIZER = byte_tokenizer()
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_model("llama", positions=64), TOKENIZER, drafter=NullDrafter())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": [[]]}, "prompt 0 has no token"),
        ({"prompts": ["ok", ""]}, "prompt 1 has no token"),
        ({"prompts": [[1] * 64]}, "prompt 0 has 64 tokens, but the model's context holds 64"),
        ({"prompts": [[1], [VOCAB]]}, f"prompt 1 holds id {VOCAB}"),
        ({"prompts": [[-3]]}, "prompt 0 holds id -3"),
        ({"prompts": [[0.5]]}, "got 1-dimensional float64"),
        ({"prompts": "text"}, "prompts= is one string"),
        ({"inputs": "text"}, "inputs= is one string"),
        ({"inputs": [[1]]}, "inputs= takes strings"),
        ({}, "give either inputs="),
        ({"inputs": ["a"], "prompts": ["a"]}, "give either inputs="),
        ({"prompts": ["a"], "system": "s"}, "system= goes with inputs="),
        ({"prompts": [[{"role": "user", "content": "a"}]]}, "no chat template"),
        ({"prompts": ["a"], "max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"prompts": ["a"], "stop": ["x", ""]}, "empty string"),
        ({"prompts": ["a"], "index": [None, None]}, "lists 2 indexes for 1 prompts"),
        ({"prompts": ["a"], "temperature": -1}, "temperature is -1"),
    ],
    ids=str,
)
def test_bad_calls(generator: Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generator.generate(**options)


def test_bad_generators() -> None:
    model = tiny_model("llama")
    with pytest.raises(InputError, match="batch_size is 0"):
        Generator(model, batch_size=0)
    with pytest.raises(InputError, match="not both"):
        Generator(model, index=object(), drafter=NullDrafter())
    with pytest.raises(InputError, match="need text"):
        Generator(model, drafter=NullDrafter()).generate(prompts=[[1]], stop="x")
    with pytest.raises(InputError, match="no tokenizer"):
        Generator(model, drafter=NullDrafter()).generate(prompts=["a"])


def test_encoder_decoders() -> None:
    t5 = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=32)
    with pytest.raises(InputError, match="encoder-decoder"):
        Generator(transformers.T5ForConditionalGeneration(t5))


def test_wrong_tokenizer() -> None:
    class Foreign:
        fingerprint = "0" * 64

    with pytest.raises(TokenizerMismatchError, match="0000000000000000"):
        Generator(tiny_model("llama"), TOKENIZER, index=Foreign())


def test_prompt_forms(generator: Generator) -> None:
    expected = generator.generate(prompts=["hello\n"], max_tokens=8)[0].ids
    forms: list[Any] = [TOKENIZER("hello\n")["input_ids"], torch.tensor(TOKENIZER("hello\n")["input_ids"]).numpy()]
    assert [item.ids for item in generator.generate(prompts=forms, max_tokens=8)] == [expected] * 2
    assert generator.generate(["hello"], max_tokens=8)[0].ids == expected
    assert list(generator.generate(prompts=[], max_tokens=8)) == []


def test_chat_template() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    generator = Generator(tiny_model("llama"), tokenizer, drafter=PromptLookup(), costs=0.02)
    expected = generator.generate(prompts=["<system>be brief<user>hi<bot>"], max_tokens=8)[0].ids
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert generator.generate(["hi"], system="be brief", max_tokens=8)[0].ids == expected
    assert generator.generate(prompts=[messages], max_tokens=8)[0].ids == expected


def test_one_call_form() -> None:
    model = tiny_model("llama")
    made = generate(model, TOKENIZER, ["hi"], drafter=PromptLookup(), costs=0.02, max_tokens=6)
    assert made[0].ids == peer_greedy(model, TOKENIZER("hi\n")["input_ids"], 6)


def test_drafter_per_call_and_training_mode_kept() -> None:
    model = tiny_model("llama").train()
    prompts = random_prompts(2)
    generator = Generator(model, drafter=NullDrafter(), costs=0.0)
    plain = generator.generate(prompts=prompts, max_tokens=6)
    known = {tuple(prompt): item.ids for prompt, item in zip(prompts, plain, strict=True)}
    drafted = generator.generate(prompts=prompts, max_tokens=6, drafter=Scripted(known))
    assert [item.ids for item in drafted] == [item.ids for item in plain]
    assert drafted.stats.accepted > 0
    assert model.training


def test_an_interrupted_call_leaves_the_generator_usable() -> None:
    model = tiny_model("llama")
    prompts = random_prompts(3)
    generator = Generator(model, TOKENIZER, drafter=PromptLookup(), batch_size=2, costs=0.0)
    expected = [peer_greedy(model, prompt, 10) for prompt in prompts]

    def interrupt(index: int, ids: list[int], text: str) -> None:
        if index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator.generate(prompts=prompts, max_tokens=10, stream=interrupt)
    assert [item.ids for item in generator.generate(prompts=prompts, max_tokens=10)] == expected
