"""Tables of n-grams hold what `collections.Counter` counts."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tasc.data import NgramTable, TokenStore, load_tokenizer

Counts = dict[tuple[int, ...], tuple[int, int]]

TEXT = st.sampled_from(["", "boston", "aaaaaaaa", "é 🙂", '{"to": "x"}']) | st.text("ab \n", max_size=30)
OUTPUTS = st.lists(TEXT, min_size=1, max_size=30)


def counted(documents: list[tuple[list[int], int]], max_length: int) -> Counts:
    """(count, documents) of each n-gram, in the order of a table."""
    counts: Counter[tuple[int, ...]] = Counter()
    held: Counter[tuple[int, ...]] = Counter()
    for ids, weight in documents:
        ngrams = Counter(tuple(ids[at : at + n]) for n in range(1, max_length + 1) for at in range(len(ids) - n + 1))
        counts.update({ngram: weight * times for ngram, times in ngrams.items()})
        held.update(ngrams.keys())
    return {ngram: (counts[ngram], held[ngram]) for ngram in sorted(counts, key=lambda ids: (len(ids), ids))}


def read(table: NgramTable) -> Counts:
    return {ids: (count, documents) for ids, count, documents in table}


@settings(max_examples=40, deadline=None)
@given(
    outputs=OUTPUTS,
    max_length=st.integers(1, 6),
    num_threads=st.integers(1, 3),
    least=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.integers(1, 50),
)
def test_a_table_is_a_counter(
    outputs: list[str], max_length: int, num_threads: int, least: tuple[int, int], size: int, tokenizer: Tokenizer
) -> None:
    task = load_tokenizer(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        store = TokenStore.build([{"output": text} for text in outputs], task, Path(folder) / "s")
        table = NgramTable.count(
            store,
            Path(folder) / "t",
            max_length=max_length,
            num_threads=num_threads,
            min_count=least[0],
            min_documents=least[1],
        )
        table.verify()
        every = counted([(ids.tolist(), weight) for ids, weight in store], max_length)
        kept = {ngram: c for ngram, c in every.items() if c[0] >= least[0] and c[1] >= least[1]}
        assert list(read(table).items()) == list(kept.items())
        assert len(table) == len(kept)
        assert all(table.lookup(ngram) == kept.get(ngram, (0, 0)) for ngram in every)
        ranked = sorted(kept, key=lambda ids: (-kept[ids][0], -kept[ids][1], len(ids), ids))
        assert [(tuple(ids.tolist()), (c, d)) for ids, c, d in table.top(7)] == [(i, kept[i]) for i in ranked[:7]]
        rows = [row for ids, *_ in table.batches(1, size) for row in ids.tolist()]
        assert rows == [list(ids) for ids in kept if len(ids) == 1]


@settings(max_examples=20, deadline=None)
@given(outputs=st.sets(TEXT, min_size=2), data=st.data())
def test_shards_add_up(outputs: set[str], data: st.DataObject, tokenizer: Tokenizer) -> None:
    task = load_tokenizer(tokenizer)
    rows = [{"output": text} for text in sorted(outputs)]
    cut = data.draw(st.integers(1, len(rows) - 1))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, some in ("whole", rows), ("left", rows[:cut]), ("right", rows[cut:]):
            store = TokenStore.build(some, task, Path(folder) / f"{name}.store")
            files.append(NgramTable.count(store, Path(folder) / name, max_length=3).path)
        whole, *shards = files
        assert NgramTable.merge(shards, Path(folder) / "sum").path.read_bytes() == whole.read_bytes()
