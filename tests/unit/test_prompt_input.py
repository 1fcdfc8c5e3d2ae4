"""Where the input stands in a prompt of ids: recorded, marked by a chat template, or learnt from the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from conftest import train_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from tasc.data import TaskTokenizer, as_ids, load_tokenizer
from tasc.decoding.prompts import user_text
from tasc.drafting.prompt_input import (
    MIN_SUPPORT,
    PromptInputFinder,
    Template,
    chat_delimiters,
)

transformers = pytest.importorskip("transformers")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (  # the system message stands inside the user message
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\n' %}{% set messages = messages[1:] %}"
    "{% else %}{% set s = '' %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}"
    "[INST]{% if loop.first %}{{ s }}{% endif %}{{ m.content }}[/INST]{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
SYSTEM = "Extract the slots. Example: flights from denver to boston -> denver, boston."
INPUTS = ["show me flights from boston", "show me fares to denver", "list airlines", "9 am?", "北京"]

ids = st.lists(st.integers(0, 300), max_size=12)
word = st.text("abcdeé北", min_size=1, max_size=4)
sentence = st.lists(word, min_size=1, max_size=6).map(" ".join)


def base() -> Tokenizer:
    made = train_tokenizer(["<|endoftext|>"])
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<|im_start|>", "<|im_end|>")])
    return made


TASK: TaskTokenizer = load_tokenizer(base())


def shared_start(texts: Sequence[Any]) -> Any:
    """What all begin with, one by one."""
    first = texts[0]
    size = next((k for k in range(len(first)) if any(t[k : k + 1] != first[k : k + 1] for t in texts)), len(first))
    return first[:size]


def said(locator: PromptInputFinder, prompts: Sequence[Sequence[int]]) -> list[str | None]:
    """What is found, without blanks around it."""
    return [text and text.strip() for text in locator.find(prompts)]


def chat_tokenizer(template: str | None) -> Any:
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=base(), eos_token="<|im_end|>")
    made.chat_template = template
    return made


def chat(tokenizer: Any, *contents: str, system: str | None = SYSTEM) -> list[int]:
    messages = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    messages += [{"role": roles[k % 2], "content": c} for k, c in enumerate(contents)]
    made = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(made)


@given(ids, ids, ids)
def test_a_recorded_template_gives_back_the_middle(prefix: list[int], middle: list[int], suffix: list[int]) -> None:
    template = Template(tuple(prefix), tuple(suffix))
    prompt = prefix + middle + suffix
    assert template.bounds(as_ids(prompt)) == (len(prefix), len(prefix) + len(middle))
    text = TASK.decode(middle)
    assert PromptInputFinder(TASK, template).find([prompt]) == [text if text.strip() else None]


@given(ids, ids, ids)
def test_a_prompt_that_does_not_fit_has_no_input(prefix: list[int], suffix: list[int], prompt: list[int]) -> None:
    fits = prompt[: len(prefix)] == prefix and prompt[len(prompt) - len(suffix) :] == suffix
    fits = fits and len(prompt) >= len(prefix) + len(suffix)
    assert (Template(tuple(prefix), tuple(suffix)).bounds(as_ids(prompt)) is not None) == fits


@given(ids, ids, ids, ids)
def test_the_last_occurrence_counts_where_a_template_is_not_anchored(
    before: list[int], middle: list[int], suffix: list[int], header: list[int]
) -> None:
    header = [1000, *header]
    template = Template(tuple(header), tuple(suffix), anchored=False)
    prompt = before + header + before + header + middle + suffix
    start = len(before) * 2 + len(header) * 2
    assert template.bounds(as_ids(prompt)) == (start, start + len(middle))


@given(st.lists(ids, min_size=1, max_size=6))
def test_common_ends_equal_the_slow_twin(prompts: list[list[int]]) -> None:
    finder = PromptInputFinder(TASK)
    finder.find([*prompts, prompts[0]])
    assert finder.template is not None
    assert list(finder.template.prefix) == list(shared_start(prompts))
    assert list(finder.template.suffix) == list(shared_start([p[::-1] for p in prompts]))[::-1]


@given(sentence, st.lists(sentence, min_size=2, max_size=7), st.sampled_from(["\n", "\nAnswer:", ".\n\n"]))
def test_a_learnt_template_keeps_what_changes(before: str, inputs: list[str], after: str) -> None:
    prompts = [TASK.encode(f"{before}:\n{text}{after}").tolist() for text in inputs]
    locator = PromptInputFinder(TASK)
    found = locator.find(prompts)
    for text, made in zip(inputs, found, strict=True):
        words, whole = (made or "").split(), text.split()
        assert any(whole[k : k + len(words)] == words for k in range(len(whole)))  # whole words, none of the template
    template = locator.template
    assert template is not None
    assert list(template.prefix) == list(shared_start(prompts))


def test_the_first_prompt_alone_says_nothing() -> None:
    locator = PromptInputFinder(TASK)
    prompts = [TASK.encode(f"Task: {text}\n").tolist() for text in INPUTS]
    assert locator.find(prompts[:1]) == [None]
    assert locator.template is None
    assert said(locator, prompts[1:2]) == ["fares to denver"]  # what both begin with looks like the template's
    assert said(locator, prompts[2:3]) == ["list airlines"]
    assert said(locator, prompts[:2]) == INPUTS[:2]


def test_words_are_not_cut() -> None:
    locator = PromptInputFinder(TASK)
    texts = ["bostonian tea", "bostock tea", "北京 seas", "上海 teas"]
    found = said(locator, [TASK.encode(f"x: {t}").tolist() for t in texts[:2]])
    assert found == ["bostonian", "bostock"]
    assert said(locator, [TASK.encode(f"x: {t}").tolist() for t in texts]) == texts


def test_equal_prompts_have_nothing_that_changes() -> None:
    prompt = TASK.encode("hello there").tolist()
    assert PromptInputFinder(TASK).find([prompt] * 3) == [None] * 3


@pytest.mark.parametrize("prompts", [[[]], [[], []], [[], [1]], [[1], [1]], [[1, 2], [2]], [[5]]])
def test_short_and_empty_prompts(prompts: list[list[int]]) -> None:
    assert len(PromptInputFinder(TASK).find(prompts)) == len(prompts)
    assert PromptInputFinder(TASK, Template((1,), (2, 3))).find(prompts) == [None] * len(prompts)


def test_a_stray_prompt_does_not_cost_the_template() -> None:
    system = "A long system prompt, which says what is to be done with the request that follows it: "
    locator = PromptInputFinder(TASK)
    locator.find([TASK.encode(f"{system}{t}\n").tolist() for t in INPUTS * 2])
    assert said(locator, [TASK.encode("hello\n").tolist()]) == [None]
    assert said(locator, [TASK.encode(f"{system}x flights\n").tolist()]) == ["x flights"]
    others = [TASK.encode(f"{k} is another task\n").tolist() for k in range(MIN_SUPPORT + 1)]
    locator.find(others)
    assert said(locator, others[:2]) == ["0", "1"]  # but so many in a row are the task now


def test_the_last_user_message_is_found_whatever_stands_before() -> None:
    tokenizer = chat_tokenizer(CHATML)
    delimiters = chat_delimiters(tokenizer)
    assert delimiters is not None
    assert TASK.tokenizer.decode(list(delimiters.prefix), skip_special_tokens=False) == "<|im_start|>user\n"
    for text in INPUTS:
        for prompt in (
            chat(tokenizer, text),
            chat(tokenizer, text, system=None),
            chat(tokenizer, "from denver", "denver", "to boston", "boston", text),
        ):
            assert PromptInputFinder(TASK, delimiters=delimiters).find([prompt]) == [text]
    assert PromptInputFinder(TASK, delimiters=delimiters).find([[1, 2, 3]]) == [None]


def test_a_users_message_is_narrowed_to_what_changes() -> None:
    tokenizer = chat_tokenizer(CHATML)
    locator = PromptInputFinder(TASK, delimiters=chat_delimiters(tokenizer))
    asked = [chat(tokenizer, f"from denver means denver. Now: {k} flights", system=None) for k in range(20)]
    found = locator.find(asked[: MIN_SUPPORT - 1])
    assert found[0] == "from denver means denver. Now: 0 flights"
    assert said(locator, asked) == [f"{k} flights" for k in range(20)]
    alike = PromptInputFinder(TASK, delimiters=chat_delimiters(tokenizer))
    begun = [chat(tokenizer, f"show {k} flights", system=None) for k in range(20)]
    assert alike.find(begun) == [f"show {k} flights" for k in range(20)]
    same = [chat(tokenizer, "hello", system=None)] * (2 * MIN_SUPPORT)
    assert PromptInputFinder(TASK, delimiters=chat_delimiters(tokenizer)).find(same) == ["hello"] * len(same)


@pytest.mark.parametrize("template", [None, INST, "{{ raise_exception('no') }}"])
def test_templates_without_marks_of_their_own(template: str | None) -> None:
    assert chat_delimiters(chat_tokenizer(template)) is None


def test_a_template_is_rendered_from_text() -> None:
    tokenizer = chat_tokenizer(None)
    template = Template.rendered(lambda text: tokenizer(f"Q: {text}\nA:")["input_ids"])
    locator = PromptInputFinder(TASK, template)
    for text in INPUTS:
        found = locator.find([tokenizer(f"Q: {text}\nA:")["input_ids"]])[0]
        assert found is not None
        assert found.strip() == text


def test_the_text_of_the_last_user_message() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert user_text([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]) == "x"
    assert user_text([{"role": "user", "content": parts}]) == "a\nb"
    assert user_text([{"role": "user", "content": ["a", "b"]}]) == "a\nb"
    assert user_text([{"role": "system", "content": "x"}]) is None
    assert user_text([{"role": "user"}]) is None
    assert user_text([]) is None


def test_ids_of_any_kind() -> None:
    template = Template((1,), (2,))
    for prompt in ([1, 66, 2], np.array([1, 66, 2]), np.array([1, 66, 2], np.int32)):
        assert PromptInputFinder(TASK, template).find([prompt]) == [TASK.decode([66])]
