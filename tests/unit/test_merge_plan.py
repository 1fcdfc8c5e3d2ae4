"""Merge plans from Python: what they say, how they are cut down, what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasc._core import MergePlan, Store, StoreWriter
from tasc.errors import FormatError, InputError

EOS = 9


def write_store(path: Path, documents: list[list[int]]) -> Store:
    writer = StoreWriter.create(path, fingerprint="ab" * 32, tokenizer="toy", vocab_size=10, eos_id=EOS)
    rows = [[*ids, EOS] for ids in documents]
    ends = np.cumsum([len(ids) for ids in rows], dtype=np.uint64)
    writer.push(np.concatenate(rows).astype(np.uint32), ends, [None] * len(rows))
    writer.finish()
    return Store(path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write_store(tmp_path / "rows", [[1, 2, 3, a, 4, 5, b] for a in (0, 6, 7, 8) for b in (0, 6, 7, 8)])


def test_a_plan_says_what_it_holds(store: Store, tmp_path: Path) -> None:
    plan = MergePlan.learn(store, tmp_path / "plan", size=2, held_out=0.0)
    plan.verify()
    assert [plan.expansion(i).tolist() for i in range(len(plan))] == [[1, 2, 3], [4, 5]]
    assert plan.counts.tolist() == plan.documents.tolist() == [16, 16]
    assert (plan.base_vocab_size, plan.fingerprint, plan.tokenizer) == (10, "ab" * 32, "toy")
    assert plan.info()["stopped_by"] == "size"
    again = MergePlan.open(plan.path)
    assert again.segment([1, 2, 3, 7, 4, 5, EOS]).tolist() == [10, 7, 11, EOS]
    assert again.expand([10, 7, 11, EOS]).tolist() == [1, 2, 3, 7, 4, 5, EOS]


def test_any_subset_is_a_plan(store: Store, tmp_path: Path) -> None:
    plan = MergePlan.learn(store, tmp_path / "plan", size=2)
    kept = plan.keep([1], tmp_path / "kept")
    assert [kept.expansion(0).tolist()] == [plan.expansion(1).tolist()]
    assert kept.segment([1, 2, 3, 4, 5]).tolist() == [1, 2, 3, 10]
    assert len(plan.keep([], tmp_path / "none")) == 0
    with pytest.raises(IndexError):
        plan.keep([2], tmp_path / "x")
    with pytest.raises(InputError, match="two new tokens"):
        plan.keep([1, 1], tmp_path / "x")


def test_ids_that_are_not_there(store: Store, tmp_path: Path) -> None:
    plan = MergePlan.learn(store, tmp_path / "plan", size=2)
    with pytest.raises(InputError, match="token id 10 "):
        plan.segment([1, 10])
    with pytest.raises(InputError, match="token id 12 "):
        plan.expand([1, 12])
    with pytest.raises(IndexError):
        plan.expansion(2)
    with pytest.raises(FormatError, match="kind STOR, PLAN is wanted"):
        MergePlan.open(store.path)
