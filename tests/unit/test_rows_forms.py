"""Forms of rows: which fields are the input and the output."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasc.data import read_rows
from tasc.data.forms import notice
from tasc.errors import CorpusError

USER, ANSWER = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}
SYSTEM = {"role": "system", "content": "Be brief."}
IN_PARTS = {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "at?"}]}
CALLS = [{"type": "function", "function": {"name": "find", "arguments": '{"x": 1}'}}]
CHAT = {"input": "What?", "output": "That.", "messages": [SYSTEM, USER, ANSWER]}


@pytest.fixture(autouse=True)
def _says_it_again() -> Iterator[None]:
    notice.cache_clear()
    yield


FORMS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"input": "a", "output": "b", "note": "c"}, {"input": "a", "output": "b", "note": "c"}, ""),
    ({"output": "b"}, {"output": "b"}, ""),
    ({"prompt": "a", "completion": "b"}, {"input": "a", "output": "b"}, "`prompt` is the input, `completion` is the"),
    ({"prompt": "a", "response": "b"}, {"input": "a", "output": "b"}, "`prompt` is the input, `response` is the"),
    ({"prompt": "a", "output": "b"}, {"input": "a", "output": "b"}, "`prompt` is the input, `output` is the"),
    (
        {"id": "7", "context": "c", "question": "a", "answer": "b"},
        {"id": "7", "context": "c", "input": "a", "output": "b"},
        "`question` is the input, `answer` is the output; not used: context",
    ),
    ({"text": "b", "label": 1}, {"output": "b", "label": 1}, "`text` is the output"),
    (
        {"instruction": "i", "input": "a", "output": "b"},
        {"input": "i\na", "output": "b"},
        "`instruction` and `input` are the input, `output` is the output",
    ),
    ({"instruction": "i", "input": "", "output": "b"}, {"input": "i", "output": "b"}, "`instruction` and `input`"),
    ({"instruction": "i", "output": "b"}, {"input": "i", "output": "b"}, "`instruction` and `input`"),
    (
        {"instruction": "i", "context": "a", "response": "b"},
        {"input": "i\na", "output": "b"},
        "`instruction` and `context` are the input, `response` is the output",
    ),
    ({"messages": [SYSTEM, USER, ANSWER]}, CHAT, "chat messages; the last assistant turn is the output"),
    ({"messages": json.dumps([SYSTEM, USER, ANSWER])}, CHAT, "chat messages; the last"),
    (CHAT, CHAT, ""),
    ({"messages": [SYSTEM, USER, ANSWER, USER]}, CHAT, "chat messages; the last assistant turn is the output"),
    ({"messages": [SYSTEM, USER], "completion": "That."}, CHAT, "chat messages; `completion` is the output"),
    ({"prompt": [SYSTEM, USER], "completion": [ANSWER]}, CHAT, "a prompt of chat messages; `completion` is the output"),
    (
        {
            "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}],
            "system": "Be brief.",
        },
        CHAT,
        "ShareGPT conversations; the last assistant turn is the output",
    ),
    (
        {"messages": [IN_PARTS, ANSWER]},
        {"input": "Wh\nat?", "output": "That.", "messages": [IN_PARTS, ANSWER]},
        "chat messages",
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": CALLS}], "tools": [{"name": "find"}]},
        {
            "input": "What?",
            "output": json.dumps(CALLS[0]["function"]),
            "messages": [USER, {"role": "assistant", "content": None, "tool_calls": CALLS}],
            "tools": [{"name": "find"}],
        },
        "chat messages",
    ),
    (
        {"request": {"model": "m", "messages": [SYSTEM, USER]}, "response": {"choices": [{"message": ANSWER}]}},
        CHAT,
        "requests with their responses; chat messages; `completion` is the output",
    ),
    (
        {"id": "x", "messages": [SYSTEM, USER], "response": {"choices": [{"message": ANSWER}], "usage": {}}},
        CHAT | {"id": "x"},
        "requests with their responses; chat messages",
    ),
    (
        {
            "messages": [SYSTEM, USER], "response": {"choices": [{"message": ANSWER, "finish_reason": "stop"}]},
            "status": "success", "model_parameters": {"tools": [{"name": "find"}], "temperature": 0}, "error_str": None,
        },
        CHAT | {"tools": [{"name": "find"}], "status": "success", "error_str": None}
        | {"model_parameters": {"tools": [{"name": "find"}], "temperature": 0}},
        "requests with their responses; chat messages",
    ),
    (
        {"messages": "a", "response": {"choices": [{"text": "b"}]}, "call_type": "atext_completion"},
        {"input": "a", "output": "b", "call_type": "atext_completion"},
        "requests with their responses; `prompt` is the input, `completion` is the output; not used: call_type",
    ),
    (
        {"request": {"prompt": "a", "model": "m"}, "response": json.dumps({"choices": [{"text": "b"}]})},
        {"input": "a", "output": "b"},
        "requests with their responses; `prompt` is the input, `completion` is the output",
    ),
    (
        {
            "request": {"model": "m", "instructions": "Be brief.", "input": "What?"},
            "response": {
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "That."}]},
                ]
            },
        },
        CHAT,
        "requests with their responses; chat messages",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "read", "said"), FORMS)
def test_each_form_is_understood_and_said_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, row: dict[str, Any], read: dict[str, Any], said: str
) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(2 * (json.dumps(row) + "\n"))
    for _ in range(2):
        assert list(read_rows(file)) == [read, read]
    lines = [record.message for record in caplog.records]
    assert len(lines) == bool(said)
    assert all(line.startswith(f"{file}: {said}") for line in lines)
    assert list(read_rows([read])) == [read], "what has been read reads the same again"


def test_calls_of_the_responses_api() -> None:
    items = [{"type": "reasoning"}, {"type": "function_call", "call_id": "c", "name": "find", "arguments": '{"x": 1}'}]
    (row,) = read_rows([{"request": {"model": "m", "input": "What?"}, "response": {"output": items}}])
    assert row["messages"] == [USER, {"role": "assistant", "content": "", "tool_calls": CALLS}]
    assert row["output"] == json.dumps(CALLS[0]["function"])


def test_a_conversation_of_the_responses_api() -> None:
    """What the model emits in one go is one turn: reasoning, text and calls. Hosted tools say nothing in a chat."""
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}], "summary": []}
    call = {"type": "function_call", "call_id": "c", "name": "find", "arguments": '{"x": 1}'}
    result = {"type": "function_call_output", "call_id": "c", "output": "none"}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "That."}]}
    tool = {"type": "function", "name": "find", "parameters": {}}
    request = {"model": "m", "input": [USER, thought, said, call, result], "tools": [tool]}
    (row,) = read_rows([{"request": request, "response": {"output": [thought, {"type": "web_search_call"}, said]}}])
    reasoned = {"role": "assistant", "content": "That.", "reasoning_content": "Hm."}
    turns = [USER, {**reasoned, "tool_calls": CALLS}, {"role": "tool", "tool_call_id": "c", "content": "none"}]
    assert row["messages"] == [*turns, reasoned]
    assert row["tools"] == [{"type": "function", "function": {"name": "find", "parameters": {}}}]


def test_each_prompt_of_a_request_has_its_choices() -> None:
    choices = [{"index": k, "text": text} for k, text in [(2, "c"), (3, "d"), (0, "a"), (1, "b")]]
    rows = list(read_rows([{"request": {"prompt": ["p", "q"], "model": "m"}, "response": {"choices": choices}}]))
    assert [(row["input"], row["output"]) for row in rows] == [("q", "c"), ("q", "d"), ("p", "a"), ("p", "b")]
    with pytest.raises(CorpusError, match="row 0: has a prompt of token ids; only text can be read"):
        list(read_rows([{"request": {"prompt": [1, 2], "model": "m"}, "response": {"choices": choices}}]))


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "function_call": CALLS[0]["function"]},
        {"from": "function_call", "value": json.dumps(CALLS[0]["function"])},
        {"from": "tool_call", "value": json.dumps([CALLS[0]["function"]])},
    ],
)
def test_calls_in_the_forms_before_there_were_tools(turn: dict[str, Any]) -> None:
    result = {"role": "function", "name": "find", "content": "none"}
    rows = list(read_rows([{"messages": [USER, turn, result, ANSWER]}], every_turn=True))
    assert json.loads(rows[0]["output"])["name"] == "find"
    assert [call["function"]["name"] for call in rows[0]["messages"][-1]["tool_calls"]] == ["find"]
    assert rows[1]["messages"][2] == {"role": "tool", "name": "find", "content": "none"}
    functions = {"request": {"messages": [USER], "functions": [{"name": "find"}]}}
    (row,) = read_rows([functions | {"response": {"choices": [{"message": ANSWER}]}}])
    assert row["tools"] == [{"type": "function", "function": {"name": "find"}}]


@pytest.mark.parametrize(
    ("row", "output"),
    [
        ({"prompt": "a", "response": {"choices": ["x"]}}, '{"choices": ["x"]}'),
        ({"prompt": "a", "response": {"choices": []}}, '{"choices": []}'),
        ({"prompt": "a", "response": {"output": [{"city": "x"}]}}, '{"output": [{"city": "x"}]}'),
        ({"prompt": "a", "response": "b", "custom_id": "7"}, "b"),
        ({"input": "a", "output": "b", "request": {"prompt": "x"}}, "b"),
    ],
)
def test_json_that_looks_like_a_response_is_an_output(row: dict[str, Any], output: str) -> None:
    assert [(made["input"], made["output"]) for made in read_rows([row])] == [("a", output)]


def test_requests_that_failed_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    request = {"request": {"messages": [USER]}}
    rows = [request | {"response": {"choices": [{"message": ANSWER}] * 2}}, request | {"response": {"choices": []}}]
    assert [row["output"] for row in read_rows(rows)] == ["That.", "That."]
    assert caplog.messages[-1] == "rows: requests that failed are left out"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("response", "what"),
    [
        ({"error": {"message": "rate limit", "code": 429}}, "requests that failed"),
        ({"status": "failed", "error": {"code": "server_error"}, "output": []}, "requests that failed"),
        ({"status": "cancelled", "output": []}, "requests that failed"),
        (None, "requests without a response"),
    ],
)
def test_a_logged_request_without_an_answer_is_no_row(
    response: Any, what: str, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bare = {"request": {"messages": [USER]}, "response": response}
    rows = [bare, {"request": {"messages": [USER]}, "response": {"choices": [{"message": ANSWER}]}}]
    assert [row["output"] for row in read_rows(rows if first else rows[::-1])] == ["That."]
    caplog.clear()
    notice.cache_clear()
    assert list(read_rows([bare])) == []
    assert caplog.messages == [f"rows: {what} are left out"]


def test_a_logged_request_that_awaits_its_response_is_a_prompt() -> None:
    (row,) = read_rows([{"request": {"messages": [USER]}, "response": None}], needs_output=False)
    assert row["messages"] == [USER]


@pytest.mark.parametrize("response", [None, "", {}])
@pytest.mark.parametrize("about", [{"status": "failure"}, {"error_str": "Timeout"}])
def test_requests_that_litellm_logs_as_failed_are_left_out(response: object, about: dict[str, str]) -> None:
    failed = {"messages": [USER], "response": response, "error_str": None} | about
    rows = [failed, {"messages": [USER], "response": {"choices": [{"message": ANSWER}]}}, failed]
    assert [row["output"] for row in read_rows(rows)] == ["That."]


def test_answers_that_were_cut_off_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """They lack the end that a model emits, and an index or a tuned model would learn to end there."""
    request = {"request": {"model": "m", "messages": [USER]}}
    reasons = ["length", "stop", "content_filter", "tool_calls", None]
    choices = [{"index": k, "message": ANSWER, "finish_reason": why} for k, why in enumerate(reasons)]
    items = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Th"}]}]
    rows = [
        request | {"response": {"choices": choices}},
        request | {"response": {"output": items, "status": "incomplete"}},
    ]
    assert [row["output"] for row in read_rows(rows)] == ["That."] * 3
    assert caplog.messages.count("rows: answers that were cut off are left out") == 1


def test_an_output_beside_a_chat_that_is_not_used_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert list(read_rows([CHAT | {"output": "Another."}])) == [CHAT]
    assert caplog.messages == ["rows: chat messages; the last assistant turn is the output"]


def test_outputs_that_are_json_become_text_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"output": {"b": [1, None], "a": "ü"}}, {"output": []}, {"output": "x"}]
    assert [row["output"] for row in read_rows(rows)] == ['{"b": [1, null], "a": "ü"}', "[]", "x"]
    assert [record.message for record in caplog.records] == [
        "rows: outputs that are JSON become text as json.dumps writes it"
    ]
    with pytest.raises(CorpusError, match="row 0: field 'output' cannot be written as JSON: Out of range"):
        list(read_rows([{"output": {"a": float("nan")}}]))


def test_named_fields_win() -> None:
    alpaca = {"instruction": "i", "input": "a", "output": "b"}
    assert list(read_rows([alpaca], input_field="input")) == [{"input": "a", "output": "b"}]
    row = {"prompt": "a", "completion": "b", "label": "c"}
    assert list(read_rows([row], output_field="label")) == [{"input": "a", "output": "c", "completion": "b"}]
    chat = {"messages": [USER, ANSWER], "title": "t"}
    assert next(read_rows([chat], output_field="title"))["output"] == "t"
    with pytest.raises(CorpusError, match=r"row 0: has no field 'q'.*name one as input_field \(--input-field\)"):
        list(read_rows([row], input_field="q"))


def test_a_field_is_not_both_input_and_output() -> None:
    row = {"input": "a", "output": "b"}
    assert list(read_rows([row], output_field="input")) == [{"output": "a"}]
    assert list(read_rows([row | {"answer": "c"}], input_field="output")) == [{"input": "b", "output": "c"}]
    for named in ({"input_field": "output"}, {"input_field": "input", "output_field": "input"}):
        with pytest.raises(CorpusError, match=r"row 0: field '\w+' cannot be both input and output; name another"):
            list(read_rows([row], **named))
    assert next(read_rows([row], input_field="output", needs_output=False))["input"] == "b"


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({"messages": [USER, ANSWER]}, "row 1: has no field 'completion'; its fields are 'messages'"),
        (
            {"question": "a", "completion": "b"},
            "row 1: `question` is the input, .* but in the rows before it `prompt` is",
        ),
        ({"prompt": [USER], "completion": "b"}, "row 1: a prompt of chat messages; .* keep rows of one form in a file"),
    ],
)
def test_a_row_of_another_form_is_named(second: dict[str, Any], why: str) -> None:
    with pytest.raises(CorpusError, match=why):
        list(read_rows([{"prompt": "a", "completion": "b"}, second]))


def test_each_file_has_its_own_form(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "b.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    assert list(read_rows([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])) == [{"input": "a", "output": "b"}] * 2


def test_each_assistant_turn_is_a_row_if_asked() -> None:
    again = {"role": "user", "content": "And?"}, {"role": "assistant", "content": "This."}
    rows = list(read_rows([{"messages": [SYSTEM, USER, ANSWER, *again], "id": 3}], every_turn=True))
    assert rows[0] == CHAT | {"id": 3}
    assert rows[1] == {"id": 3, "input": "And?", "output": "This.", "messages": [SYSTEM, USER, ANSWER, *again]}


def test_a_chat_without_answer_is_a_prompt_where_outputs_are_not_needed() -> None:
    row = {"messages": [USER]}
    assert list(read_rows([row], needs_output=False)) == [{"input": "What?", "messages": [USER]}]
    with pytest.raises(CorpusError, match=r"row 0: no turn of 'messages' is the assistant's, so the row has no output"):
        list(read_rows([row]))


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        ({"role": "robot", "content": "x"}, r"row 0: messages\[1\]: the role is 'robot'; it must be one of human"),
        ({"content": "x"}, r"messages\[1\]: the role is None"),
        ({"role": "assistant", "content": 3}, "row 0: field 'assistant turn' is int, it must be text, parts of text"),
        ({"role": "assistant", "content": [{"type": "image_url"}]}, "assistant turn has a part 'image_url'; only text"),
    ],
)  # fmt: skip
def test_a_turn_that_cannot_be_read_is_named(turn: dict[str, Any], why: str) -> None:
    with pytest.raises(CorpusError, match=why):
        list(read_rows([{"messages": [USER, turn]}]))


@pytest.mark.parametrize("turns", [[], "hello", None, ["hello"]])
@pytest.mark.parametrize("field", ["messages", "conversations"])
def test_what_is_no_chat_is_said_so(field: str, turns: object) -> None:
    with pytest.raises(CorpusError, match=rf"row 0: field '{field}' holds no turns of a chat"):
        list(read_rows([{field: turns}]))
