"""Every request's input reaches its drafter, in whatever form the prompt comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import byte_tokenizer, tiny_model

from tasc import Generator, NgramDrafter, NullDrafter, TaskIndex, generate
from tasc.data import TokenStore, load_tokenizer
from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter, TokenDraft

CITIES = ("boston", "denver", "dallas", "austin", "newark")
ROWS = [
    {"input": f"flights from {a} to {b}", "output": f'{{"from": "{a}", "to": "{b}"}}'}
    for a in CITIES
    for b in CITIES
    if a != b
]
INPUTS = ["flights from newark to oakland", "fares to austin", "list airlines"]
CHAT = (
    "{% for m in messages %}<|im|>{{ m.role }}\n{{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im|>bot\n{% endif %}"
)


def tokenizer(chat: bool = False) -> Any:
    made = byte_tokenizer()
    if chat:
        made.add_special_tokens({"additional_special_tokens": ["<|im|>"]})
        made.chat_template = CHAT
    return made


def build(folder: Path, tokens: Any, **options: Any) -> TaskIndex:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = load_tokenizer(tokens)
    store = TokenStore.build([rows], task, folder / "rows.store")
    return TaskIndex.build(store, folder / "task.tasc", tokenizer=task, **options)


class Listening(Drafter, protocol.Request):
    """Keeps what it was told; drafts nothing. Has the index of the drafter that it stands for."""

    name = "listening"

    def __init__(self, index: TaskIndex | None = None) -> None:
        self.index = index
        self.inputs: list[str | None] = []

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Listening:
        self.inputs.append(input_text)
        return self

    def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
        return TokenDraft()

    def update(self, ids: Any) -> None:
        pass


def heard(drafter: Listening) -> list[str | None]:
    inputs, drafter.inputs = drafter.inputs, []
    return [text and text.strip() for text in inputs]


def test_inputs_and_messages_are_told_as_they_are() -> None:
    drafter = Listening()
    chat = tokenizer(chat=True)
    generator = Generator(tiny_model("llama", vocab=len(chat)), chat, drafter=drafter, costs=0.0)
    generator.generate(INPUTS, system="be brief", max_tokens=2)
    assert heard(drafter) == INPUTS
    before = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    generator.generate(prompts=[[*before, {"role": "user", "content": t}] for t in INPUTS], max_tokens=2)
    assert heard(drafter) == INPUTS
    generator.generate(prompts=["one", chat("two")["input_ids"]], max_tokens=2)
    assert heard(drafter) == [None, None], "nothing is looked for where no index has inputs"


def test_the_input_is_found_in_strings_and_ids(tmp_path: Path) -> None:
    tokens = tokenizer()
    drafter = Listening(build(tmp_path, tokens, fit=False))
    generator = Generator(tiny_model("llama"), tokens, drafter=drafter, costs=0.0)
    prompts = [f"Do it well.\nInput: {t}\nOutput:" for t in INPUTS]
    generator.generate(prompts=prompts[:1], max_tokens=2)
    assert heard(drafter) == [None]
    generator.generate(prompts=prompts, max_tokens=2)
    assert heard(drafter) == INPUTS
    generator.generate(prompts=[tokens(p)["input_ids"] for p in prompts], max_tokens=2)
    assert heard(drafter) == INPUTS


@pytest.mark.parametrize("as_ids", [False, True])
def test_a_given_template_says_where_the_input_is(tmp_path: Path, as_ids: bool) -> None:
    tokens = tokenizer()
    drafter = Listening(build(tmp_path, tokens, fit=False))
    around: Any = ("Input: ", "\nOutput:")
    prompts = [f"{around[0]}{t}{around[1]}" for t in INPUTS]
    if as_ids:
        around = tuple(tokens(text)["input_ids"] for text in around)
    model = tiny_model("llama")
    generate(model, tokens, prompts=prompts[:1], max_tokens=2, drafter=drafter, costs=0.0, input_template=around)
    assert heard(drafter) == INPUTS[:1]
    generate(model, tokens, prompts=["other"], max_tokens=2, drafter=drafter, costs=0.0, input_template=around)
    assert heard(drafter) == [None]


def test_a_chat_in_ids_is_understood_at_once(tmp_path: Path) -> None:
    chat = tokenizer(chat=True)
    drafter = Listening(build(tmp_path, chat, fit=False))
    generator = Generator(tiny_model("llama", vocab=len(chat)), chat, drafter=drafter, costs=0.0)
    messages = [{"role": "system", "content": "From boston to denver: an example."}, {"role": "user", "content": "hi"}]
    ids = chat.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    generator.generate(prompts=[ids], max_tokens=2)
    assert heard(drafter) == ["hi"]
    text = chat.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    generator.generate(prompts=[text], max_tokens=2)
    assert heard(drafter) == ["hi"]


def test_an_index_without_inputs_is_not_told(tmp_path: Path) -> None:
    tokens = tokenizer()
    drafter = Listening(build(tmp_path, tokens, inputs=False))
    generator = Generator(tiny_model("llama"), tokens, drafter=drafter, costs=0.0)
    generator.generate(prompts=[f"Q {t}" for t in INPUTS], max_tokens=2)
    assert heard(drafter) == [None] * 3


def test_the_generators_drafter_copies_from_the_input(tmp_path: Path) -> None:
    """The copy source speaks where there is an input, and only there."""
    tokens = tokenizer()
    index = build(tmp_path, tokens)
    generator = Generator(tiny_model("llama"), tokens, index=index, costs=0.0)
    drafter = generator._default.drafter
    assert isinstance(drafter, NgramDrafter)
    output = tokens('{"from": "newark", "to": "oakland"}')["input_ids"]
    for text, copied in ((INPUTS[0], True), (None, False)):
        request = drafter.start(tokens("x")["input_ids"], text)
        spoken = []
        for token in output:
            spoken += [step["sources"]["copy"] > 0 for step in request.explain(32)]
            request.update([token])
        assert any(spoken) == copied
    plain = Generator(tiny_model("llama"), tokens, drafter=NullDrafter()).generate(INPUTS, max_tokens=24)
    assert [item.ids for item in generator.generate(INPUTS, max_tokens=24)] == [item.ids for item in plain]


def test_what_was_served_is_kept(tmp_path: Path) -> None:
    tokens = tokenizer()
    index = build(tmp_path, tokens)
    model = tiny_model("llama")
    with Generator(model, tokens, index=index, costs=0.02, served=True) as once:
        said = once.generate(INPUTS, max_tokens=24, eos=())
        assert once._default.num_served == 0, "an output that was cut off is no row"  # type: ignore[attr-defined]
        ends = [item.ids[12] for item in said]
        ended = once.generate(INPUTS, max_tokens=24, eos=ends)
        assert {item.finish_reason for item in ended} == {"eos"}
        assert once._default.num_served == len(INPUTS)  # type: ignore[attr-defined]
    with Generator(model, tokens, index=index, costs=0.02, served=tmp_path / "task.tasc.served") as again:
        assert again._default.num_served == len(INPUTS)  # type: ignore[attr-defined]
        assert [i.ids for i in again.generate(INPUTS, max_tokens=24, eos=ends)] == [i.ids for i in ended]
