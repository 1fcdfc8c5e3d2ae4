"""Conversations become what the model emits: three real templates, every way in which an answer may look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chats import (
    CALL,
    SPECIAL,
    STOP,
    SYSTEM,
    TOOLS,
    USER,
    answer,
    byte_level,
    row,
    task_tokenizer,
    template,
    transformers_tokenizer,
)
from tiny_models import tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers

from tasc._core import TaskIndex
from tasc.data import TokenStore, load_tokenizer
from tasc.data.chat import ChatTemplate, Rendered, conversation, encode_outputs, encode_prompts, render_rows, row_prompt
from tasc.data.tokenizer import TaskTokenizer
from tasc.decoding.generator import Generator
from tasc.errors import CorpusError, InputError
from tasc.serving import TaskDrafts
from tasc.training.examples import make_examples

NAMES = tuple(SPECIAL)
TOOL = {"role": "tool", "content": "7 seats", "tool_call_id": "call_1"}

PLAIN = row(SYSTEM, USER, answer("Yes."))
REASONED = row(USER, answer("Yes.", reasoning_content="There is one."))
INLINE = row(USER, answer("<think>\nThere is one.\n</think>\n\nYes."))
CALLED = row(USER, answer(None, tool_calls=[CALL]), tools=TOOLS)
AFTER_CALL = row(USER, answer(None, tool_calls=[CALL]), TOOL, answer("7 are free."), tools=TOOLS)
SECOND = row(USER, answer("No.", reasoning_content="None left."), USER, answer("Yes."))
QUICK = row(USER, answer("Yes."), chat_template_kwargs={"enable_thinking": False})

EMITTED = {
    "qwen3": {
        "plain": (PLAIN, "<think>\n\n</think>\n\nYes.<|im_end|>"),
        "reasoned": (REASONED, "<think>\nThere is one.\n</think>\n\nYes.<|im_end|>"),
        "inline": (INLINE, "<think>\nThere is one.\n</think>\n\nYes.<|im_end|>"),
        "called": (
            CALLED,
            "<think>\n\n</think>\n\n"
            '<tool_call>\n{"name": "book", "arguments": {"to": "Zürich"}}\n</tool_call><|im_end|>',
        ),
        "after_call": (AFTER_CALL, "<think>\n\n</think>\n\n7 are free.<|im_end|>"),
        "second": (SECOND, "<think>\n\n</think>\n\nYes.<|im_end|>"),
        "quick": (QUICK, "Yes.<|im_end|>"),
    },
    "llama3": {
        "plain": (PLAIN, "Yes.<|eot_id|>"),
        "reasoned": (REASONED, "Yes.<|eot_id|>"),
        "called": (CALLED, '{"name": "book", "parameters": {"to": "Zürich"}}<|eot_id|>'),
        "after_call": (AFTER_CALL, "7 are free.<|eot_id|>"),
        "no_calls": (row(USER, answer("Yes.", tool_calls=[], reasoning_content=None)), "Yes.<|eot_id|>"),
        "second": (SECOND, "Yes.<|eot_id|>"),
    },
    "smollm2": {
        "plain": (PLAIN, "Yes.<|im_end|>"),
        "inline": (INLINE, "<think>\nThere is one.\n</think>\n\nYes.<|im_end|>"),
        "second": (SECOND, "Yes.<|im_end|>"),
    },
}


def emitted(task: TaskTokenizer, *rows: dict[str, Any], system: str | None = None) -> list[list[int]]:
    return encode_outputs(task, list(render_rows(task.chat_template, rows, system)))


def text(task: TaskTokenizer, ids: Any) -> str:
    decoded: str = task.tokenizer.decode(list(ids), skip_special_tokens=False)
    return decoded


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in EMITTED.items() for case in cases])
def test_the_output_is_what_the_model_emits_after_the_prompt(name: str, case: str) -> None:
    given, expected = EMITTED[name][case]
    task = task_tokenizer(name)
    [ids] = emitted(task, given)
    assert text(task, ids) == expected
    # the prompt is the one that transformers, and so an engine, makes of the turns before the answer
    theirs = transformers_tokenizer(name).apply_chat_template(
        row_prompt(given)["messages"], tools=given.get("tools"), add_generation_prompt=True, return_dict=False,
        **given.get("chat_template_kwargs", {}),
    )  # fmt: skip
    assert encode_prompts(task, list(render_rows(task.chat_template, [given]))) == [theirs]


def test_tools_and_settings_may_be_json_text_as_tables_hold_them() -> None:
    task = task_tokenizer("qwen3")
    plain = {**CALLED, "chat_template_kwargs": {"enable_thinking": True}}
    in_table = {**plain, **{name: json.dumps(plain[name]) for name in ("tools", "chat_template_kwargs")}}
    prompts = [one.prompt for one in render_rows(task.chat_template, [plain, in_table])]  # type: ignore[union-attr]
    assert prompts[0] == prompts[1] and "Book a flight." in prompts[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_system_prompt_goes_before_conversations_without_one(name: str) -> None:
    task = task_tokenizer(name)
    with_own, without = row(SYSTEM, USER, answer("Yes.")), row(USER, answer("Yes."))
    prompts = encode_prompts(task, list(render_rows(task.chat_template, [with_own, without], "Be quick.")))
    assert "Be brief." in text(task, prompts[0]) and "Be quick." not in text(task, prompts[0])
    assert "Be quick." in text(task, prompts[1])


def test_rows_without_messages_stay_as_they_are() -> None:
    task = task_tokenizer("qwen3")
    assert text(task, emitted(task, {"output": "Yes."})[0]) == "Yes.<|im_end|>"
    without = load_tokenizer(byte_level("qwen3"))
    assert without.chat_template is None
    assert text(without, emitted(without, PLAIN)[0]) == "Yes.<|im_end|>"


@pytest.mark.parametrize(
    ("source", "given", "said"),
    [
        ("qwen3", {**REASONED, "chat_template_kwargs": {"enable_thinking": False}}, "cannot follow its prompt"),
        ("smollm2", CALLED, "has tool calls, which the chat template leaves out"),
        ("smollm2", {**PLAIN, "messages": [USER]}, "do not end with a turn of the assistant"),
        ("smollm2", {**PLAIN, "messages": "Hi"}, "are no list of turns"),
        ("smollm2", row(USER, answer([{"type": "image_url"}])), "content is not text: .* type 'image_url'"),
        ("smollm2", row(USER, answer([{"type": "image", "text": "a cat"}])), "content is not text: .* type 'image'"),
        ("smollm2", {**PLAIN, "chat_template_kwargs": "x"}, "chat_template_kwargs that are str"),
        ("llama3", row(USER, answer(None, tool_calls=[CALL, CALL])), "single tool-calls at once"),
        ("{{ bos }}{% if add_generation_prompt %}<think>\n{% endif %}", PLAIN, "ends the prompt with '<think>"),
    ],
)  # fmt: skip
def test_an_answer_that_has_no_right_output_is_named(source: str, given: Any, said: str) -> None:
    found = ChatTemplate(template(source) if source in NAMES else source)
    with pytest.raises(CorpusError, match=f"^row 2.*{said}"):
        list(render_rows(found, [row(USER, answer("Yes.")) if source in NAMES else {"output": "Yes."}, given]))


def test_a_content_of_another_kind_is_named() -> None:
    with pytest.raises(InputError, match="content is not text but ndarray"):
        conversation([{**USER, "content": np.array(["a", "b"])}])


def test_an_empty_think_block_of_the_prompt_alone_is_no_part_of_the_output() -> None:
    found = ChatTemplate(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think></think>\n{% endif %}"
    )
    [one] = render_rows(found, [row(USER, answer("Yes."))])
    assert (one.prompt, one.output) == ("<user>To Zürich?<assistant><think></think>\n", "Yes.")  # type: ignore[union-attr]


def test_blanks_may_differ_around_the_last_turn() -> None:
    found = ChatTemplate(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if not loop.last %} {% endif %}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    [one] = render_rows(found, [row(USER, answer("Yes."))])
    assert (one.prompt, one.output) == ("<user>To Zürich?</s><assistant>", "Yes.</s>")  # type: ignore[union-attr]


def test_the_output_ends_where_the_model_stops(tmp_path: Path) -> None:
    """Phi writes <|end|> and then </s>; the model stops at the first. gpt-oss goes on after <|end|>."""
    tokenizer = byte_level("qwen3")
    tokenizer.add_special_tokens(["<|end|>", "</s>", "<|return|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    source = "{% for m in messages %}{{ m.content }}{% endfor %}"

    def end(stops: list[str], content: str) -> str:
        ids = [tokenizer.token_to_id(stop) for stop in stops]
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
        (tmp_path / "chat_template.jinja").write_text(source)
        task = load_tokenizer(tmp_path)
        return text(task, emitted(task, row(USER, answer(content)))[0])

    assert end(["</s>", "<|end|>"], "Yes.<|end|>\n</s>") == "Yes.<|end|>"
    assert end(["<|return|>"], "Hm.<|end|>Yes.<|return|>") == "Hm.<|end|>Yes.<|return|>"
    assert end(["<|return|>"], "Yes.<|end|>\n") == "Yes.<|end|>"  # an end that the settings do not name
    assert end(["<|return|>"], "Hm.<|end|>Yes.") == "Hm.<|end|>Yes.<|return|>"  # the template writes none


def test_the_output_is_tokenized_behind_its_prompt() -> None:
    """Some tokenizers mark the beginning of a text, where no output is; and no output begins within a token."""
    tokenizer = Tokenizer(models.WordLevel({"▁Hi": 0, "▁Yes": 1, "Yes": 2, "▁Hi,Yes": 3, "▁Hi,": 4}))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(["<a>"])
    task = load_tokenizer(tokenizer)
    assert encode_outputs(task, ["Yes", Rendered("Hi<a>", "Yes"), Rendered("Hi,", "Yes")]) == [[1], [2], [1]]


@pytest.mark.parametrize("way", ["file", "config", "named", "tools"])
def test_the_template_is_found_beside_the_tokenizer(tmp_path: Path, way: str) -> None:
    byte_level("llama3").save(str(tmp_path / "tokenizer.json"))
    config: dict[str, Any] = {"eos_token": "<|eot_id|>", "bos_token": {"content": "<|begin_of_text|>"}}
    source = template("llama3")
    if way == "config":
        config["chat_template"] = source
    elif way == "named":
        config["chat_template"] = [{"name": "default", "template": source}, {"name": "tool_use", "template": "#"}]
    else:
        (tmp_path / "chat_template.jinja").write_text(source)
    if way == "tools":
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("#")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found, theirs = load_tokenizer(tmp_path).chat_template, transformers_tokenizer("llama3")
    assert found is not None
    assert found.render([USER]) == theirs.apply_chat_template([USER], tokenize=False)
    if way in ("named", "tools"):
        assert found.render([USER], tools=TOOLS) == "#"
    assert found.digest == (ChatTemplate(source).digest if way in ("file", "config") else found.digest)


@pytest.mark.parametrize("name", NAMES)
def test_a_store_and_its_index_hold_the_rendered_outputs_and_what_the_prompts_share(name: str, tmp_path: Path) -> None:
    task = task_tokenizer(name)
    rows = [row(SYSTEM, USER, answer("Yes.")), row(SYSTEM, USER, answer("No.")), row(SYSTEM, USER, answer("Yes."))]
    store = TokenStore.build(rows, task, tmp_path / "rows.store")
    assert [store.document(0).tolist(), store.document(1).tolist()] == emitted(task, *rows[:2])
    assert (store.weight(0), store.input(0)) == (2, (USER["content"], 0, 2))
    notes = {"system": "Be brief.", "chat_template": template(name)}
    assert store.notes == notes
    longer = store.append([row(USER, answer("Maybe."))], task)
    assert (
        longer.notes == notes and longer.document(2).tolist() == emitted(task, row(SYSTEM, USER, answer("Maybe.")))[0]
    )
    index = TaskIndex.build(longer, tmp_path / "task.tasc", tokenizer=task)
    assert index.info()["notes"] == notes
    compacted, _ = index.compact(tmp_path / "other.tasc", tokenizer=task)
    assert compacted.info()["notes"] == notes


def test_notes_name_a_system_prompt_only_where_all_conversations_share_it(tmp_path: Path) -> None:
    task = task_tokenizer("qwen3")

    def system(*rows: dict[str, Any], **options: Any) -> Any:
        return TokenStore.build(rows, task, tmp_path / "rows.store", **options).notes.get("system")

    with_own, without = row(SYSTEM, USER, answer("Yes.")), row(USER, answer("Yes."))
    assert system(with_own, with_own) == "Be brief."
    assert system(with_own, without) is None
    assert system(with_own, without, system="Be brief.") == "Be brief."
    assert system({"output": "Yes."}, system="Be quick.") == "Be quick."
    assert system({"output": "Yes."}) is None


def test_a_bad_row_leaves_no_store(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"^row 2 \('To Zürich\?'\) has tool calls"):
        TokenStore.build([PLAIN, CALLED], task_tokenizer("smollm2"), tmp_path / "rows.store")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def answering() -> tuple[Any, Any, dict[str, Any]]:
    """A tiny model that has learnt one answer by heart, its tokenizer, and the row."""
    import torch

    known = row(SYSTEM, USER, answer(None, tool_calls=[CALL]), tools=TOOLS)
    tokenizer, task = transformers_tokenizer("qwen3"), task_tokenizer("qwen3")
    [example] = make_examples([known], tokenizer, task)
    model = tiny_model("llama", vocab=task.vocab_size, positions=2048, spread=0.1)
    ids = torch.tensor([example.prompt + example.completion])
    labels = ids.clone()
    labels[0, : len(example.prompt)] = -100
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(500):  # machines round differently: some need 60 steps, some more
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        if loss < 1e-3:
            break
    model.generation_config.eos_token_id = task.eos_id
    return model, tokenizer, known


def test_the_index_holds_the_tokens_that_the_model_emits(answering: Any, tmp_path: Path) -> None:
    model, tokenizer, known = answering
    task = load_tokenizer(tokenizer)
    store = TokenStore.build([known], task, tmp_path / "rows.store")
    index = TaskIndex.build(store, tmp_path / "task.tasc", tokenizer=task)
    with Generator(model, tokenizer, index=index, costs=0.02) as generator:
        [made] = generator.generate([known])
    assert made.finish_reason == "eos"
    assert made.ids == store.document(0).tolist()
    assert "<tool_call>" in made.text
    assert made.stats.steps < len(made.ids) / 4  # drafts fit, because the index holds what the model emits


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_the_prompt_and_what_the_model_emits(name: str) -> None:
    tokenizer, task = transformers_tokenizer(name), task_tokenizer(name)
    rows = [PLAIN, AFTER_CALL, {"input": "To Bern?", "output": "Yes."}]
    examples = make_examples(rows, tokenizer, task, system="Be quick.")
    for one, example in zip(rows[:2], examples, strict=False):
        [rendered] = render_rows(task.chat_template, [one], "Be quick.")
        assert [example.prompt] == encode_prompts(task, [rendered])
        assert [example.completion] == encode_outputs(task, [rendered])
        assert len(example) == len(example.prompt) + len(example.completion)
    assert text(task, examples[2].completion) == f"Yes.{STOP[name]}"
    assert "Be quick." in text(task, examples[2].prompt)


def test_the_system_prompt_of_the_index_is_used_by_default_and_another_is_said(
    answering: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.name == "tasc.data.prompt_notes"]

    model, tokenizer, known = answering
    task = load_tokenizer(tokenizer)
    store = TokenStore.build([known], task, tmp_path / "rows.store")
    index = TaskIndex.build(store, tmp_path / "task.tasc", tokenizer=task)
    asked = "To Bern?"
    with Generator(model, tokenizer, index=index, costs=0.02) as generator, Generator(model, tokenizer) as plain:
        assert generator.system == "Be brief." and plain.system is None

        def same(system: str | None, expected: str) -> bool:
            made = generator.generate([asked], system=system, max_tokens=4)[0].ids
            return made == plain.generate([asked], system=expected, max_tokens=4)[0].ids

        assert same(None, "Be brief.") and same("Be brief.", "Be brief.") and warnings() == []
        assert same("Be quick.", "Be quick.") and same("", "")
        generator.generate([asked], system="Be quick.", max_tokens=1)
        generator.generate([{**known, "messages": known["messages"][1:]}], max_tokens=1)
        generator.generate([row({**SYSTEM, "content": "Be rude."}, USER, answer("Yes."))], max_tokens=1)
    assert warnings() == [
        f"prompts have {one}, but the index {index.path} was made with the system message 'Be brief.'"
        for one in ("the system message 'Be quick.'", "no system message", "the system message 'Be rude.'")
    ]


def test_another_chat_template_than_the_index_s_is_said(
    answering: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer, known = answering
    store = TokenStore.build([known], load_tokenizer(tokenizer), tmp_path / "rows.store")
    index = TaskIndex.build(store, tmp_path / "task.tasc", tokenizer=load_tokenizer(tokenizer))
    other, without = transformers_tokenizer("qwen3"), transformers_tokenizer("qwen3")
    other.chat_template, without.chat_template = template("smollm2"), None
    with Generator(model, other, index=index, costs=0.02) as generator:
        generator.generate(["To Bern?"], max_tokens=1)
    assert "was made with another chat template than the tokenizer's" in caplog.text
    with Generator(model, without, index=index, costs=0.02) as generator:
        [made] = generator.generate([known])
    assert "the tokenizer has no chat template; prompts get the one that the index" in caplog.text
    assert made.ids == store.document(0).tolist() and without.chat_template is None


def test_an_engine_s_prompts_beside_those_of_the_index(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An engine makes its prompts itself: one line says that the system message or the template is another one."""
    task = task_tokenizer("qwen3")
    store = TokenStore.build([row(SYSTEM, USER, answer("Yes."))], task, tmp_path / "rows.store")
    TaskIndex.build(store, tmp_path / "task.tasc", tokenizer=task)
    with_system, without = (
        encode_prompts(task, list(render_rows(task.chat_template, [row(*turns, answer("Yes."))])))[0]
        for turns in ((SYSTEM, USER), (USER,))
    )
    assert with_system is not None and without is not None

    def said(prompts: list[list[int]], tokenizer: Any = task) -> list[str]:
        caplog.clear()
        drafts = TaskDrafts(tmp_path / "task.tasc", tokenizer)
        for prompt in prompts:
            drafts.start(np.array(prompt, np.uint32))
        return caplog.messages

    assert said([without] * 7 + [with_system] + [without] * 20) == []
    [line] = said([without] * 20)
    assert "none of the first 8 prompts has the system message that the index" in line and "'Be brief.'" in line
    other = transformers_tokenizer("qwen3")
    other.chat_template = template("smollm2")
    [line] = said([with_system], other)
    assert "was made with another chat template than the tokenizer's" in line
    other.chat_template = None
    assert said([with_system], other) == []
    drafts = TaskDrafts(tmp_path / "task.tasc", task)
    for _ in range(8):
        drafts.salted("a").start(np.array(without, np.uint32))
    assert len(caplog.messages) == 1, "salts count with their index"


def test_contents_in_parts_are_prompts_of_their_text(answering: Any) -> None:
    model, tokenizer, _ = answering
    parts = [{"type": "text", "text": "To Bern?"}]
    turns = [{"role": "system", "content": None}, {"role": "user", "content": parts, "tool_calls": None}]
    with Generator(model, tokenizer) as generator:
        made = generator.generate(prompts=[turns], max_tokens=4)[0].ids
        text = [{"role": "system", "content": ""}, {"role": "user", "content": "To Bern?"}]
        assert made == generator.generate(prompts=[text], max_tokens=4)[0].ids
        with pytest.raises(InputError, match="prompt 0 has a message whose content is not text"):
            generator.generate(prompts=[[{"role": "user", "content": [{"type": "image_url"}]}]], max_tokens=4)
