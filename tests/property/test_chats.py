"""Random conversations: prompt and output are the whole conversation, token by token; engines make the same prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chats import SPECIAL, TOOLS, answer, row, task_tokenizer, transformers_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from tasc.data import TaskTokenizer
from tasc.data.chat import Rendered, encode_outputs, encode_prompts, render_rows, row_prompt

TOKENIZERS = {name: (task_tokenizer(name), transformers_tokenizer(name)) for name in SPECIAL}

words = st.text(st.sampled_from(' \n"{}thon-éü北🙂'), max_size=12)
arguments = st.dictionaries(st.sampled_from(["to", "n"]), st.one_of(words, st.integers(0, 9)), max_size=2)


@st.composite
def calls(draw: Any) -> dict[str, Any]:
    given = draw(arguments)
    function = {"name": "book", "arguments": draw(st.sampled_from([given, json.dumps(given)]))}
    return {"type": "function", "function": function}


@st.composite
def conversations(draw: Any, tools: bool, reasoning: bool) -> dict[str, Any]:
    turns: list[dict[str, Any]] = [{"role": "system", "content": draw(words)}] if draw(st.booleans()) else []
    for last in [False] * draw(st.integers(0, 2)) + [True]:
        turns.append({"role": "user", "content": draw(words)})
        while tools and draw(st.booleans()):
            turns.append(answer(None, tool_calls=[draw(calls())]))
            if last and draw(st.booleans()):
                return row(*turns, tools=TOOLS)
            turns.append({"role": "tool", "content": draw(words)})
        more = {"reasoning_content": draw(words)} if reasoning and draw(st.booleans()) else {}
        turns.append(answer(draw(words), **more))
    return row(*turns, **({"tools": TOOLS} if tools else {}))


def whole(task: TaskTokenizer, row: dict[str, Any]) -> str:
    """The conversation as the template writes it, without blanks after it."""
    assert task.chat_template is not None
    turns = row_prompt({**row, "messages": [*row["messages"], answer("")]})["messages"]
    return task.chat_template.render(turns, tools=row.get("tools")).rstrip()


@pytest.mark.parametrize("name", SPECIAL)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_prompt_and_output_are_the_whole_conversation(name: str, data: st.DataObject) -> None:
    task, theirs = TOKENIZERS[name]
    one = data.draw(conversations(tools=name != "smollm2", reasoning=name == "qwen3"))
    [rendered] = render_rows(task.chat_template, [one])
    assert isinstance(rendered, Rendered)
    [prompt], [output] = encode_prompts(task, [rendered]), encode_outputs(task, [rendered])
    assert prompt is not None and output[-1] == task.eos_id and task.eos_id not in output[:-1]
    decoded = task.tokenizer.decode(prompt + output, skip_special_tokens=False)
    assert decoded == whole(task, one)
    ids = task.encode(decoded).tolist()
    if ids[: len(prompt)] == prompt:  # otherwise a token spans the border
        assert prompt + output == ids
    conversation = row_prompt(one)
    assert prompt == theirs.apply_chat_template(
        conversation["messages"], tools=conversation.get("tools"), add_generation_prompt=True, return_dict=False
    )
