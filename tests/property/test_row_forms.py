"""Rows survive being written in any form and read again, and bytes of any kind give rows or a CorpusError."""

import csv
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasc.data import read_rows
from tasc.errors import CorpusError

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PAIRS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
WORDS = [
    "input", "output", "prompt", "completion", "instruction", "context", "messages", "conversations", "tools", "system",
    "request", "response", "body", "custom_id", "error", "choices", "message", "role", "content", "from", "value",
    "user", "assistant", "gpt", "text", "type", "tool_calls", "function", "status_code", "model", "split", "answer",
]  # fmt: skip
ROWS = st.recursive(
    st.none() | st.integers(0, 500) | st.sampled_from([*WORDS, "[]", "{}", '{"body": 7}', '[{"role": "user"}]']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=20,
)
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def table(rows: list[dict[str, str]], delimiter: str) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_row(form: str, given: str, output: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": given}, {"role": "assistant", "content": output}]
    return {
        "native": {"input": given, "output": output},
        "prompt": {"prompt": given, "completion": output},
        "question": {"question": given, "answer": output},
        "messages": {"messages": turns},
        "conversations": {"conversations": [{"from": "human", "value": given}, {"from": "gpt", "value": output}]},
        "messages of prompt": {"prompt": turns[:1], "completion": turns[1:]},
        "log": {"request": {"messages": turns[:1]}, "response": {"choices": [{"message": turns[1]}]}},
        "completions": {"request": {"prompt": given}, "response": {"choices": [{"text": output}]}},
    }[form]


FORMS = ["native", "prompt", "question", "messages", "conversations", "messages of prompt", "log", "completions"]


@quick
@given(pairs=PAIRS, form=st.sampled_from(FORMS), kind=st.sampled_from(["jsonl", "json", "sniffed"]))
def test_each_form_gives_its_inputs_and_outputs(tmp_path: Path, pairs: Any, form: str, kind: str) -> None:
    rows = [as_row(form, *pair) for pair in pairs]
    file = tmp_path / ("data" if kind == "sniffed" else f"r.{kind}")
    file.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    assert [(row["input"], row["output"]) for row in read_rows(file)] == pairs
    again = list(read_rows(file))
    assert list(read_rows(again)) == again


@quick
@given(pairs=PAIRS, delimiter=st.sampled_from([",", "\t", ";"]))
def test_a_table_gives_its_inputs_and_outputs(tmp_path: Path, pairs: Any, delimiter: str) -> None:
    file = tmp_path / ("r.tsv" if delimiter == "\t" else "r.csv")
    file.write_text(table([as_row("native", *pair) for pair in pairs], delimiter), newline="")
    assert [(row["input"], row["output"]) for row in read_rows(file)] == pairs


@quick
@given(given_input=TEXT, instruction=TEXT, output=TEXT)
def test_no_instruction_is_dropped(given_input: str, instruction: str, output: str) -> None:
    (row,) = read_rows([{"instruction": instruction, "input": given_input, "output": output}])
    parts = [part for part in (instruction, given_input) if part]
    assert row == {"output": output} | ({"input": "\n".join(parts)} if parts else {})


@quick
@given(value=JSON.filter(lambda value: isinstance(value, dict | list)))
def test_outputs_that_are_json_keep_their_value(value: Any) -> None:
    try:
        (row,) = read_rows([{"output": value}])
    except CorpusError as error:
        assert "NaN" in repr(value).replace("nan", "NaN") or "inf" in repr(value), error
    else:
        assert json.loads(row["output"]) == value


@settings(quick, max_examples=200)
@given(rows=st.lists(ROWS, max_size=4), needs_output=st.booleans(), every_turn=st.booleans())
def test_any_json_gives_rows_or_a_corpus_error(rows: Any, needs_output: bool, every_turn: bool) -> None:
    try:
        read = list(read_rows(iter(rows), needs_output=needs_output, every_turn=every_turn))
    except CorpusError:
        return
    assert all(isinstance(row["output"], str) for row in read if needs_output)
    assert all(isinstance(row.get("input", ""), str) for row in read)


NAMES = ["data", "r.json", "r.jsonl", "r.csv", "r.tsv", "r.txt", "r.gz", "r.jsonl.zst", "r.parquet", "r.arrow"]


@settings(quick, max_examples=120)
@given(name=st.sampled_from(NAMES), data=st.binary(max_size=300), head=st.sampled_from(
    [b"", b"[", b"{", b'[{"output":', b"PAR1", b"ARROW1", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"input,output\n"]
))  # fmt: skip
def test_any_bytes_give_rows_or_a_corpus_error(tmp_path: Path, name: str, data: bytes, head: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(head + data)
    try:
        assert all(isinstance(row["output"], str) for row in read_rows(tmp_path / name))
    except CorpusError as error:
        assert str(tmp_path / name) in str(error)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Return bytes of which some are others, or left out, or twice there."""
    some = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(some))
        some[at : at + rng.choice([0, 1, 1, 1, 20])] = rng.choice(
            [b"", rng.randbytes(1), b"\xff", bytes(some[at : at + 9])]
        )
    return bytes(some)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream", "gz"])
def test_damaged_files_give_rows_or_a_corpus_error(tmp_path: Path, kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import ipc, parquet

    rows = [
        {"input": f"in {k}", "output": f"out {k}", "messages": [{"role": "user", "content": "x"}]} for k in range(40)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    tabled = pyarrow.Table.from_pylist([{k: row[k] for k in ("input", "output")} for row in rows])
    file = tmp_path / {"gz": "r.jsonl.gz", "parquet": "r.parquet"}.get(kind, "r.arrow")
    if kind == "gz":
        file.write_bytes(gzip.compress(lines))
    elif kind == "parquet":
        parquet.write_table(tabled, file)
    else:
        with (ipc.new_file if kind == "arrow" else ipc.new_stream)(str(file), tabled.schema) as writer:
            writer.write_table(tabled)
    data, rng = file.read_bytes(), random.Random(kind)
    for _ in range(60):
        file.write_bytes(damaged(rng, data))
        try:
            assert all(isinstance(row["output"], str) for row in read_rows(file))
        except CorpusError as error:
            assert str(file) in str(error)
