"""What cannot be done is said: value, limit, fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_models import VOCAB, PromptLookup, Scripted, byte_tokenizer, peer_greedy, random_prompts, tiny_model
from toy_task import build_toy_task

from tasc import Generator, ModelDrafter, NullDrafter, generate
from tasc.decoding.prompts import user_text
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
        ({"prompts": [[-3]]}, "prompt 0 is .* no list of ids: token id -3 is out of range"),
        ({"prompts": [[0.5]]}, "prompt 0 is .* no list of ids: token ids must be integers, these are float64"),
        ({"prompts": [[1], [[1, 2]]]}, "prompt 1 is .* must be one-dimensional"),
        ({"prompts": [[1, [2]]]}, "prompt 0 is .* one sequence of integers"),
        ({"prompts": [1, 2]}, "prompt 0 is .* must be one-dimensional"),
        ({"prompts": [None]}, "prompt 0 is no string, no list of messages and no list of ids"),
        ({"prompts": [{"role": "user", "content": "a"}]}, "prompts= is one list of messages; .*: prompts=.messages."),
        ({"inputs": [{"role": "user", "content": "a"}]}, "inputs= is one list of messages; .*: prompts=.messages."),
        ({"prompts": [["a", "b"]]}, "prompt 0 is no string, no list of messages"),
        ({"prompts": [b"a"]}, "prompt 0 is no string"),
        ({"prompts": ["a", "b\ud800"]}, r"prompt 1 is no valid text: character 1 is half of a surrogate pair"),
        ({"prompts": "text"}, "prompts= is one string"),
        ({"prompts": 5}, "prompts= is int; give a list"),
        ({"prompts": {"a": "b"}}, "prompts= is dict; give a list"),
        ({"inputs": "text"}, "inputs= is one string"),
        ({"inputs": b"text"}, "inputs= is bytes; give a list"),
        ({"inputs": iter(["a"])}, "inputs= is list_iterator; give a list"),
        ({"inputs": [[1]]}, "prompt 0 is list, but inputs= takes strings"),
        ({"inputs": ["a", None]}, "prompt 1 is NoneType, but inputs= takes strings"),
        ({"inputs": ["a"], "system": 5}, "system= is int; give a string"),
        ({}, "give either inputs="),
        ({"inputs": ["a"], "prompts": ["a"]}, "give either inputs="),
        ({"prompts": ["a"], "system": "s"}, "system= goes with inputs="),
        ({"prompts": [[{"role": "user", "content": "a"}]]}, "no chat template"),
        ({"prompts": ["a"], "max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"prompts": ["a"], "stop": ["x", ""]}, "empty string"),
        ({"prompts": ["a"], "index": [None, None]}, "lists 2 indexes for 1 prompts"),
        ({"prompts": ["a"], "temperature": -1}, "temperature is -1"),
        ({"prompts": ["a"], "temperature": "1"}, "temperature is '1'; it must be a number"),
        ({"prompts": ["a"], "temperature": None}, "temperature is None; it must be a number"),
        ({"prompts": ["a"], "top_p": [0.5]}, r"top_p is \[0.5\]; it must be a number"),
        ({"prompts": ["a"], "top_k": 1.5}, "top_k is 1.5; it must be a whole number"),
        ({"prompts": ["a"], "max_tokens": "5"}, "max_tokens is '5'; it must be a whole number of at least 1"),
        ({"prompts": ["a"], "max_tokens": 1.5}, "max_tokens is 1.5; it must be a whole number of at least 1"),
        ({"prompts": ["a"], "max_tokens": float("nan")}, "max_tokens is nan; it must be a whole number"),
        ({"prompts": ["a"], "seed": "x" * 99}, r"seed is 'x+\.\.\.x+'; it must be a whole number$"),
        ({"prompts": ["a"], "positions": [-1]}, "positions is -1; it must be at least 0"),
        ({"prompts": ["a"], "positions": [0.5]}, "positions is 0.5; it must be a whole number of at least 0"),
        ({"prompts": ["a"], "eos": "5"}, "eos is '5'; it must be a whole number of at least 0"),
        ({"prompts": ["a"], "eos": [1, "x"]}, "eos is 'x'; it must be a whole number"),
        ({"prompts": ["a"], "eos": 1.5}, "eos is 1.5; it must be a whole number"),
        ({"prompts": ["a"], "stop": 5}, "stop is 5; it must be a string or a list of strings"),
        ({"prompts": ["a"], "stop": ["x", 5]}, r"stop is \['x', 5\]; it must be a string or a list of strings"),
        ({"prompts": ["a"], "stream": 5}, "stream is 5; it must be a function"),
        ({"prompts": ["a"], "finished": "x"}, "finished is 'x'; it must be a function"),
        ({"prompts": ["a"], "index": 5}, "index is 5; it must be a TaskIndex or the path of one"),
        ({"prompts": ["a"], "drafter": [5]}, "list is not hashable"),
        ({"prompts": ["a"], "drafter": 5}, "int is no drafter"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else None
    ),  # another object's text is not the same in all processes
)
def test_bad_calls(generator: Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generator.generate(**options)


def test_a_table_is_no_list_of_prompts(generator: Generator) -> None:
    class DataFrame(list[str]):  # as in pandas: its items are the names of its columns
        columns = ("input",)

    with pytest.raises(InputError, match=r"inputs= is a DataFrame; give a list: inputs=table\[column\].tolist"):
        generator.generate(DataFrame(["input"]))


def test_bad_generators() -> None:
    model = tiny_model("llama")
    with pytest.raises(InputError, match="batch_size is 0"):
        Generator(model, batch_size=0)
    for options, message in (
        ({"batch_size": 1.5}, "batch_size is 1.5; it must be a whole number of at least 1"),
        ({"max_draft": "4"}, "max_draft is '4'; it must be a whole number of at least 0"),
        ({"tokenizer": "name"}, "tokenizer is 'name'; it must be a transformers tokenizer"),
        ({"costs": "cheap"}, "costs='cheap': give a slope"),
        ({"input_template": "a"}, r"input_template is 'a'; it must be a pair"),
        ({"input_template": (1, 2)}, r"input_template is \(1, 2\); it must be a pair"),
        ({"pack_weights": 1}, "pack_weights=1; it is True, False, None or 'int8'"),
        ({"probe": "no"}, "probe is 'no'; it must be of type bool"),
        ({"served": 5}, "served is 5; it must be True, False or a path"),
        ({"draft": model}, "the draft model is .*; it must be a ModelDrafter"),
        ({"index": {}}, r"index is \{\}; it must be a TaskIndex"),
    ):
        with pytest.raises(InputError, match=message):
            Generator(model, **options)
    for other in ("HuggingFaceTB/SmolLM2-135M", None, 5, torch.nn.Linear(2, 2)):
        for take in (Generator, ModelDrafter):
            with pytest.raises(InputError, match=r"^model is .*; it must be a causal language model, as AutoModel"):
                take(other)
    for name, value in (("length", "5"), ("length", 1.5), ("step_cost", "x")):
        with pytest.raises(InputError, match=rf"^{name} is .*; it must be a (whole )?number"):
            ModelDrafter(model, **{name: value})
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


def test_wrong_tokenizer(tmp_path: Path) -> None:
    index = build_toy_task(tmp_path)["index"]
    with pytest.raises(TokenizerMismatchError, match=index.fingerprint[:12]):
        Generator(tiny_model("llama"), TOKENIZER, index=index)


def test_forms_of_eos(generator: Generator) -> None:
    expected = generator.generate(prompts=["hello"], max_tokens=8, eos=())[0].ids
    end = expected[2]
    for eos in (end, np.int64(end), torch.tensor(end), [end], {end, 999}, torch.tensor([end])):
        made = generator.generate(prompts=["hello"], max_tokens=8, eos=eos)[0]
        assert made.ids == expected[: expected.index(end) + 1]


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


REFUSING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role\n not supported') }}{% endif %}"
    "{% for m in messages %}<{{ m.role + '' }}>{{ m.content }}{% endfor %}<bot>"
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"inputs": ["hi"], "system": "be brief"},
            r"^prompt 0 is refused by the tokenizer's chat template \(System role not supported\); "
            "leave the system message out or put its text into the input$",
        ),
        (
            {"prompts": ["a", [{"role": "system", "content": "b"}, {"role": "user", "content": "c"}]]},
            "^prompt 1 is refused .*; leave the system message out",
        ),
        ({"prompts": [[{"content": "a"}]]}, "^prompt 0 is refused .* no attribute 'role'.*; change the messages$"),
        ({"prompts": [[{"role": "user", "content": 5}]]}, "^prompt 0 has a message whose content is not text"),
        ({"prompts": [[{"role": "user", "content": "\udfff"}]]}, "^prompt 0 is no valid text"),
        ({"prompts": [[{"role": "user", "content": "a"}, "b"]]}, "^prompt 0 has messages that are no list"),
    ],
)
def test_what_a_chat_template_refuses(options: dict[str, Any], message: str) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = REFUSING
    generator = Generator(tiny_model("llama"), tokenizer, drafter=PromptLookup(), costs=0.02)
    with pytest.raises(InputError, match=message):
        generator.generate(**options)
    assert len(generator.generate(["hi"], max_tokens=4)) == 1


def test_a_template_that_does_not_parse() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}"
    with pytest.raises(InputError, match=r"^prompt 0 is refused by the tokenizer's chat template \(Unexpected end"):
        Generator(tiny_model("llama"), tokenizer, drafter=NullDrafter()).generate(["hi"])


def test_content_that_is_no_text_is_no_input_for_drafts() -> None:
    assert user_text([{"role": "user", "content": 5}]) is None
    assert user_text([{"role": "user", "content": [{"type": "text", "text": "a"}, 5]}]) == "a"


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


def test_positions_may_be_large() -> None:
    assert Generator(tiny_model("llama")).generate(prompts=[[1]], max_tokens=3, seed=1, positions=[2**70])
