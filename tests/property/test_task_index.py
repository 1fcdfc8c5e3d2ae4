"""The compiled index against its naive twin, through files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_index import NaiveIndex

from tasc import TaskIndex
from tasc._core import Store, StoreWriter

FINGERPRINT = "ab" * 32
token = st.one_of(st.integers(0, 3), st.sampled_from([60_000, 2**32 - 2]))
document = st.lists(token, max_size=7)


def build(documents: list[list[int]], folder: Path) -> TaskIndex:
    writer = StoreWriter.create(folder / "store", fingerprint=FINGERPRINT)
    ends = np.cumsum([len(d) for d in documents], dtype=np.uint64)
    writer.push(np.array([t for d in documents for t in d], np.uint32), ends, [None] * len(documents))
    writer.finish()
    return TaskIndex.build(Store(folder / "store"), folder / "index")


@settings(max_examples=150, deadline=None)
@given(st.lists(document, min_size=1, max_size=60), st.lists(document, max_size=4), st.booleans())
def test_successors_equal_the_naive_index(documents: list[list[int]], contexts: list[list[int]], start: bool) -> None:
    with TemporaryDirectory() as folder:
        index = build(documents, Path(folder))
        slow = NaiveIndex((d, 1) for d in documents)
        for context in [*contexts, [], documents[0], documents[-1][:-1]]:
            tokens, counts, order, total = index.successors(context, limit=100, from_start=start)
            truth, size, occurrences = slow.successors(context, from_start=start)
            assert (order, total) == (size, occurrences)
            assert dict(zip(tokens.tolist(), counts.tolist(), strict=True)) == dict(truth)
            assert sorted(counts.tolist(), reverse=True) == counts.tolist()


def test_frequent_contexts_keep_their_best(tmp_path: Path) -> None:
    documents = [[1, 2, 10 + k] for k in range(40) for _ in range(k + 1)]
    index = build(documents, tmp_path)
    tokens, counts, order, total = index.successors([1, 2], limit=100)
    assert (order, total) == (3, 820)
    assert tokens.tolist() == list(range(49, 37, -1))
    assert counts.tolist() == list(range(40, 28, -1))
    assert len(index.successors([1, 2], limit=3)[0]) == 3


def test_a_document_counts_its_weight(tmp_path: Path) -> None:
    index = build([[7, 8]] * 300 + [[7, 9]], tmp_path)
    assert index.info()["documents"] == 2
    assert index.info()["weight"] == 301
    tokens, counts, _, _ = index.successors([7])
    assert dict(zip(tokens.tolist(), counts.tolist(), strict=True)) == {8: 300, 9: 1}
