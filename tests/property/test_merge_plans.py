"""Merge plans of any documents keep what they promise."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasc._core import MergePlan, Store, StoreWriter
from tasc.errors import InputError

BASE, EOS = 12, 11

# Few ids and repeated phrases, so that pairs run, touch and tie.
PART = st.sampled_from([[0, 1], [0, 1, 0], [2, 2, 2, 2], [3], [4, 5, 6, 7]]) | st.lists(st.integers(0, 3), max_size=4)
DOCUMENT = st.lists(PART, max_size=5).map(lambda parts: [i for part in parts for i in part])
DOCUMENTS = st.lists(st.tuples(DOCUMENT, st.sampled_from([1, 1, 1, 2, 40])), min_size=1, max_size=12)
ANY_IDS = st.lists(st.integers(0, BASE - 1), max_size=60) | DOCUMENT
OPTIONS = st.fixed_dictionaries(
    {
        "size": st.sampled_from([1, 3, 100]),
        "min_count": st.integers(0, 4),
        "min_documents": st.integers(0, 4),
        "max_length": st.sampled_from([2, 3, 64]),
        "barriers": st.lists(st.integers(0, 4), max_size=2),
        "forbidden": st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=3), max_size=2),
        "held_out": st.sampled_from([0.0, 0.2]),
    }
)


def write_store(path: Path, documents: list[tuple[list[int], int]]) -> Store:
    writer = StoreWriter.create(path, fingerprint="ab" * 32, vocab_size=BASE, eos_id=EOS)
    rows = [np.array([*ids, EOS], np.uint32) for ids, weight in documents for _ in range(weight)]
    writer.push(np.concatenate(rows), np.cumsum([len(ids) for ids in rows], dtype=np.uint64), [None] * len(rows))
    writer.finish()
    return Store(path)


def fewest(plan: MergePlan, ids: list[int]) -> int:
    """Length of the shortest segmentation."""
    grams = [plan.expansion(k).tolist() for k in range(len(plan))]
    costs = [0]  # from each place to the end, the last place first
    for at in reversed(range(len(ids))):
        ways = [costs[len(ids) - at - len(g)] for g in grams if ids[at : at + len(g)] == g]
        costs.append(1 + min([costs[-1], *ways]))
    return costs[-1]


@settings(max_examples=150, deadline=None)
@given(documents=DOCUMENTS, options=OPTIONS, others=st.lists(ANY_IDS, max_size=4), cuts=st.lists(st.integers(0, 9)))
def test_a_plan_keeps_its_promises(
    documents: list[tuple[list[int], int]], options: dict[str, Any], others: list[list[int]], cuts: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "rows", documents)
        try:
            plan = MergePlan.learn(store, Path(folder) / "plan", **options)
        except InputError as error:
            assert "stand side by side" in str(error)
            return
        written = plan.path.read_bytes()
        assert MergePlan.learn(store, Path(folder) / "again", **options).path.read_bytes() == written
        uses: Counter[int] = Counter()
        rows: Counter[int] = Counter()
        for k in range(len(store)):
            tokens = [int(t) - BASE for t in plan.segment(store.document(k)) if t >= BASE]
            uses.update({t: n * store.weight(k) for t, n in Counter(tokens).items()})
            rows.update(dict.fromkeys(tokens, store.weight(k)))
        every = range(len(plan))
        assert plan.counts.tolist() == [uses[k] for k in every]
        assert plan.documents.tolist() == [rows[k] for k in every]
        assert all(uses[k] >= max(options["min_count"], 1) and rows[k] >= options["min_documents"] for k in every)
        grams = [plan.expansion(k).tolist() for k in every]
        assert 1 <= len(grams) <= options["size"]
        assert all(2 <= len(g) <= options["max_length"] for g in grams)
        assert not {EOS, *options["barriers"]} & {i for g in grams for i in g}
        assert not [g for g in grams if g in options["forbidden"]]
        for ids in others + [ids for ids, _ in documents]:
            tokens = plan.segment(ids)
            assert plan.expand(tokens).tolist() == ids
            assert len(tokens) == fewest(plan, ids)
            stream, given, rest = plan.stream(), [], ids
            for cut in cuts:
                given += stream.push(rest[:cut]).tolist()
                rest = rest[cut:]
            assert [*given, *stream.push(rest), *stream.finish()] == tokens.tolist()
        kept = plan.keep(list(every)[::2], Path(folder) / "kept")
        assert [kept.expansion(k).tolist() for k in range(len(kept))] == grams[::2]
        batches = [plan.segment_batch(others, num_threads=n) for n in (1, 3)]
        assert [t.tolist() for t in batches[0]] == [t.tolist() for t in batches[1]]
