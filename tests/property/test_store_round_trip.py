"""What goes into a store comes out of it, however it got there."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tasc.data import TokenStore, load_tokenizer

# Little text, so that much repeats; and any text at all.
SOME = st.sampled_from(["", "boston", "boston boston", "é 🙂", "a\nb\0c", '{"to": "x"}'])
TEXT = SOME | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ROW = st.fixed_dictionaries({"output": TEXT}, optional={"input": st.none() | TEXT})
ROWS = st.lists(ROW, min_size=1, max_size=30)


def contents(store: TokenStore) -> tuple[list[tuple[list[int], int]], list[tuple[str, int, int]]]:
    return [(ids.tolist(), w) for ids, w in store], [store.input(k) for k in range(store.num_inputs)]


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_round_trip_with_weights(rows: list[dict[str, str | None]], tokenizer: Tokenizer) -> None:
    task = load_tokenizer(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        store = TokenStore.build(rows, task, Path(folder) / "s", num_threads=1)
        documents, inputs = contents(store)
        store.verify()
    outputs = Counter(row["output"] for row in rows)
    pairs = Counter((row["input"], row["output"]) for row in rows if row.get("input") is not None)
    assert documents == [([*task.encode(text or ""), 1], weight) for text, weight in outputs.items()]
    order = list(outputs)
    assert inputs == [(text, order.index(output), weight) for (text, output), weight in pairs.items()]


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, more=ROWS, again=ROWS)
def test_appending_equals_building_at_once(
    rows: list[dict[str, str | None]],
    more: list[dict[str, str | None]],
    again: list[dict[str, str | None]],
    tokenizer: Tokenizer,
) -> None:
    task = load_tokenizer(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        grown, whole = Path(folder) / "grown", Path(folder) / "whole"
        TokenStore.build(rows, task, grown, num_threads=1).append(more, task).append(again, task, num_threads=2)
        TokenStore.build(rows + more + again, task, whole)
        assert grown.read_bytes() == whole.read_bytes()
