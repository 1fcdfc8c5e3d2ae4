"""Rows that are whole prompts: the input is found in them alike when an index is built, replayed, served and learns."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import train_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cli import tasc
from test_prompt_input import CHATML, SYSTEM, chat, chat_tokenizer

from tasc import NgramDrafter, TaskIndex
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer
from tasc.drafting.prompt_input import PromptInputFinder, template_in_words
from tasc.drafting.protocol import served_log
from tasc.evaluation.check import check_rows
from tasc.evaluation.replay import encode_rows, replay
from tasc.serving import TaskDrafts

Row = dict[str, Any]

CITIES = ("boston", "denver", "new york", "san francisco")
INSTRUCTION = (
    "You find the intent and the cities in what a traveller says. Answer with JSON, and with nothing else.\n\n"
)
ROWS: list[Row] = [
    {
        "input": f"show me flights from {a} to {b} at {k}",
        "output": f'{{"intent": "flight", "from": "{a}", "to": "{b}"}}',
    }
    for k in range(3)
    for a in CITIES
    for b in CITIES
]


def example(row: Row) -> str:
    return f"Input: {row['input']}\nOutput: {row['output']}\n\n"


def whole(rows: Sequence[Row], examples: int, *, differ: bool = False) -> list[Row]:
    """The rows, each with a prompt that ends with its input."""
    shown = [ROWS[k : k + examples] if differ else ROWS[:examples] for k in range(len(rows))]
    return [
        {**row, "input": f"{INSTRUCTION}{''.join(map(example, these))}Input: {row['input']}\nOutput:"}
        for row, these in zip(rows, shown, strict=True)
    ]


@pytest.fixture(scope="module")
def task() -> TaskTokenizer:
    return load_tokenizer(chat_tokenizer(CHATML))


def build(path: Path, task: TaskTokenizer, rows: Sequence[Row], *, fit: bool = False) -> TaskIndex:
    store = TokenStore.build(rows, task, path.with_suffix(".store"))
    return TaskIndex.build(store, path, tokenizer=task, fit=fit)


def sections(index: TaskIndex) -> dict[str, bytes]:
    """The bytes of each section but `meta`, as docs/format.md says."""
    data = Path(index.path).read_bytes()
    table, count = struct.unpack_from("<QI", data, 56)
    entries = [struct.unpack_from("<16sQQ", data, table + 40 * k) for k in range(count)]
    return {name.rstrip(b"\0").decode(): data[at : at + size] for name, at, size in entries if b"meta" not in name}


@pytest.mark.parametrize("examples", [0, 4])
def test_the_index_is_that_of_the_inputs_alone(tmp_path: Path, task: TaskTokenizer, examples: int) -> None:
    bare = build(tmp_path / "bare", task, ROWS, fit=True)
    prompts = build(tmp_path / "prompts", task, whole(ROWS, examples), fit=True)
    assert sections(bare) == sections(prompts)
    assert bare.info()["fit"] == prompts.info()["fit"]
    assert bare.input_template is None and bare.find_input(ROWS[0]["input"]) is None
    template = prompts.input_template
    assert template is not None and template == prompts.info()["input_template"]
    assert template["before"].startswith(INSTRUCTION.strip()) and template["after"] == "\nOutput:"
    assert not template["repeated"]


def test_examples_that_differ(tmp_path: Path, task: TaskTokenizer) -> None:
    rows = ROWS[:40]
    bare = build(tmp_path / "bare", task, rows)
    prompts = build(tmp_path / "prompts", task, whole(rows, 5, differ=True))
    assert sections(bare) == sections(prompts)
    assert prompts.input_template == {"before": "Input:", "after": "\nOutput:", "repeated": True}


@pytest.mark.parametrize("differ", [False, True])
def test_replay_drafts_as_for_the_inputs_alone(tmp_path: Path, task: TaskTokenizer, differ: bool) -> None:
    """With the same ids before the output, drafts from whole prompts and from inputs are the same."""
    rows, asked = ROWS[:40], ROWS[40:]
    assert task.eos_id is not None
    counts = []
    for name, known, held_out in (
        ("bare", rows, asked),
        ("prompts", whole(rows, 4, differ=differ), whole(asked, 3 if differ else 4, differ=differ)),
    ):
        index = build(tmp_path / name, task, known)
        replayed = encode_rows(held_out, task, eos=task.eos_id)
        alike = [type(row)(context.prompt, row.output, row.input) for row, context in zip(
            replayed, encode_rows(asked, task, eos=task.eos_id), strict=True)]  # fmt: skip
        counts.append(replay(NgramDrafter(index, tokenizer=task), alike).as_dict())
    assert counts[0] == counts[1]


@pytest.mark.parametrize("differ", [False, True])
def test_serving_finds_the_input_in_the_first_prompt(tmp_path: Path, task: TaskTokenizer, differ: bool) -> None:
    rows = whole(ROWS[:40], 4, differ=differ)
    index = build(tmp_path / "task", task, rows)
    tokenizer = chat_tokenizer(CHATML)
    for prompt in (task.encode(rows[7]["input"]).tolist(), chat(tokenizer, rows[7]["input"], system=SYSTEM)):
        found = TaskDrafts(index, tokenizer).start(prompt).input_text
        assert found == ROWS[7]["input"] == index.find_input(rows[7]["input"])
    assert TaskDrafts(index, tokenizer).start(chat(tokenizer, "hello")).input_text == "hello"


def test_what_is_learnt_is_the_input_and_can_be_removed(tmp_path: Path, task: TaskTokenizer) -> None:
    index = build(tmp_path / "task", task, whole(ROWS[:40], 4))
    drafter = NgramDrafter(index, tokenizer=task, served=served_log(index))
    served = [(row["input"], [*task.encode(row["output"]).tolist(), task.eos_id]) for row in whole(ROWS[40:], 4)]
    drafter.serve(served)
    log = served_log(index).read_bytes()
    assert ROWS[40]["input"].encode() in log and INSTRUCTION.encode() not in log
    del drafter
    compacted, merged = index.compact(tmp_path / "task", served=served_log(index), tokenizer=task, fit=False)
    assert merged == 8 and compacted.input_template == index.input_template
    assert sections(compacted)["text_bytes"] == "".join(row["input"] for row in ROWS).encode()


def test_commands_say_where_the_input_is(tmp_path: Path) -> None:
    train_tokenizer(["<|im_end|>"], 300).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    rows, path = tmp_path / "rows.jsonl", tmp_path / "task.tasc"
    prompts = whole(ROWS, 2)
    split = [{**row, "split": "test" if k % 5 == 0 else "train"} for k, row in enumerate(prompts)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in split))
    line = "tokens that all prompts share and precedes"
    for command in (("index", "build", rows, "-o", path), ("replay", rows, "--drafters", "tasc"), ("check", rows)):
        result = tasc(*command, "--tokenizer", tmp_path)
        assert result.exit_code == 0 and line in " ".join(result.output.split()), result.output
    wanted = tmp_path / "wanted.jsonl"
    wanted.write_text(json.dumps({"input": prompts[0]["input"]}))
    result = tasc("index", "remove", path, "--where", wanted, "--tokenizer", tmp_path, "--no-fit")
    assert result.exit_code == 0 and "1 row removed from the index" in result.output, result.output


def test_what_is_copied_and_the_entropies_are_of_the_input_alone(task: TaskTokenizer) -> None:
    bare, prompts = (check_rows(rows, task).predictors for rows in (ROWS, whole(ROWS, 8)))
    assert bare.copied is not None and bare.copied < 0.8
    assert prompts.copied == pytest.approx(bare.copied, abs=0.02)  # other rows are held out
    assert prompts.input_entropy == pytest.approx(bare.input_entropy)


def test_examples_that_differ_in_words(tmp_path: Path, task: TaskTokenizer) -> None:
    index = build(tmp_path / "task", task, whole(ROWS[:40], 3, differ=True))
    said = template_in_words(index, task)
    assert said is not None and said.startswith("the input is what follows the last 'Input:' and precedes")


word = st.text("abcdeé北<:.", min_size=1, max_size=5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(word, min_size=17, max_size=60).map(" ".join),
    after=st.sampled_from(["", "\nOutput:", "\n</input>\nAnswer: "]),
    inputs=st.lists(st.lists(word, min_size=1, max_size=5).map(" ".join), min_size=8, max_size=12),
)
def test_building_and_serving_find_the_same_input(
    tmp_path: Path, task: TaskTokenizer, before: str, after: str, inputs: list[str]
) -> None:
    texts = [f"{k}x {text} x{k}" for k, text in enumerate(inputs)]
    prompts = [f"{before}\nInput: {text}{after}" for text in texts]
    index = build(tmp_path / "task", task, [{"input": prompt, "output": "a"} for prompt in prompts])
    assert sections(index)["text_bytes"].decode() == "".join(texts)
    found = [PromptInputFinder(task).find([task.encode(prompt).tolist()], index) for prompt in prompts]
    assert found == [[text] for text in texts]
