"""What `NgramTable` takes, gives and refuses."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import train_tokenizer
from tokenizers import Tokenizer

from tasc.data import NgramTable, TokenStore, load_tokenizer
from tasc.data.ngrams import as_bytes
from tasc.errors import FormatError, InputError, TokenizerMismatchError


@pytest.fixture
def store(tokenizer: Tokenizer, tmp_path: Path) -> TokenStore:
    rows = [{"output": "aab"}, {"output": "aab"}, {"output": "b"}]
    return TokenStore.build(rows, tokenizer, tmp_path / "rows.store")


@pytest.fixture
def table(store: TokenStore, tmp_path: Path) -> NgramTable:
    return NgramTable.count(store, tmp_path / "t", max_length=3)


def test_counts_are_weighted_and_documents_are_not(table: NgramTable, tokenizer: Tokenizer) -> None:
    a, b, end = *load_tokenizer(tokenizer).encode("ab").tolist(), 1
    assert table.lookup([a]) == (4, 1)
    assert table.lookup(np.array([b], np.int64)) == (3, 2)
    assert table.lookup([b, end]) == (3, 2)
    assert table.lookup([end, a]) == (0, 0)
    assert table.lookup([a, a, b, end]) == (0, 0)
    assert [(ids.tolist(), *rest) for ids, *rest in table.top(2, 1)] == [([a], 4, 1), ([end], 3, 2)]
    assert table.top(3, [2, 3])[0][0].dtype == np.uint32
    assert table.sizes == [3, 3, 2]
    assert len(table) == 8


def test_batches_are_arrays(table: NgramTable) -> None:
    batches = list(table.batches(2, size=2))
    assert [ids.shape for ids, _, _ in batches] == [(2, 2), (1, 2)]
    assert {a.dtype for batch in batches for a in batch[1:]} == {np.dtype(np.uint64)}
    assert all(type(count) is int for _, count, _ in table)


def test_info_and_repr(table: NgramTable, store: TokenStore) -> None:
    info = table.info()
    assert {k: info[k] for k in ("documents", "weight", "tokens", "min_count", "ngrams", "eos_id")} == {
        "documents": 2,
        "weight": 3,
        "tokens": 6,
        "min_count": 1,
        "ngrams": [3, 3, 2],
        "eos_id": 1,
    }
    assert info["fingerprint"] == store.fingerprint
    assert "8 n-grams of 1 to 3 tokens" in repr(table)
    assert list(pickle.loads(pickle.dumps(table))) == list(table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_length": 0}, "max_length is 0; it must be at least 1"),
        ({"max_length": 33}, "lengths go from 1 to 32"),
        ({"memory_limit": "64 apples"}, "is not a number of bytes"),
        ({"memory_limit": "1000KB"}, "1000000 bytes is too small: counting takes 1048576"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"min_count": 0}, "min_count is 0"),
        ({"min_documents": 1.5}, "min_documents is 1.5"),
    ],
)
def test_options_are_checked(store: TokenStore, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        NgramTable.count(store, tmp_path / "t", **options)
    assert not (tmp_path / "t").exists()


def test_lengths_are_checked(table: NgramTable) -> None:
    for length in (0, 4):
        with pytest.raises(InputError, match=f"1 to 3 tokens, none of {length}"):
            table.batches(length)
        with pytest.raises(InputError, match=f"1 to 3 tokens, none of {length}"):
            table.top(5, [1, length])


def test_a_long_document_names_the_limit_it_takes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "ab" * 100_000
    store = TokenStore.build([{"output": text}], tokenizer, tmp_path / "s")
    with pytest.raises(InputError, match=r"document 0, which has \d+ tokens, takes \d+; raise the limit"):
        NgramTable.count(store, tmp_path / "t", memory_limit="1MiB")


def test_merges_are_checked(table: NgramTable, store: TokenStore, tmp_path: Path) -> None:
    cut = NgramTable.count(store, tmp_path / "cut", max_length=3, min_documents=2)
    short = NgramTable.count(store, tmp_path / "short", max_length=2)
    stranger = train_tokenizer(["<|im_end|>"], 300)
    other = TokenStore.build([{"output": "ab"}], stranger, tmp_path / "o.store")
    other_table = NgramTable.count(other, tmp_path / "other", max_length=3)
    for tables, kind, said in (
        ([], InputError, "nothing to merge"),
        ([table, cut], InputError, "fewer than 2 documents"),
        ([table, short.path], InputError, "up to 2 tokens, the others of up to 3"),
        ([table, other_table], TokenizerMismatchError, other.fingerprint),
    ):
        with pytest.raises(kind, match=said):
            NgramTable.merge(tables, tmp_path / "sum")
    with pytest.raises(FormatError, match="kind STOR, NGRM is wanted"):
        NgramTable.merge([table, store.path], tmp_path / "sum")
    assert not (tmp_path / "sum").exists()
    twice = NgramTable.merge([table, table.path], tmp_path / "sum", min_count=8)
    assert [count for _, count, _ in twice] == [8]
    assert twice.info()["min_count"] == 8


def test_damage_is_noticed(table: NgramTable) -> None:
    data = bytearray(table.path.read_bytes())
    data[130] ^= 255
    table.path.write_bytes(data)
    with pytest.raises(FormatError, match="ngrams1"):
        NgramTable.open(table.path).verify()
    with pytest.raises(FormatError, match="ngrams1"):
        NgramTable.merge([table.path], table.path.with_name("sum"))


def test_progress_goes_from_nothing_to_all_and_may_stop(store: TokenStore, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    NgramTable.count(store, tmp_path / "t", progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert all(0 <= done <= total for done, total in seen)

    def stop(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        NgramTable.count(store, tmp_path / "u", progress=stop)
    assert not (tmp_path / "u").exists()


@pytest.mark.parametrize(
    ("said", "bytes_"),
    [
        (7, 7),
        ("7", 7),
        ("64MB", 64 * 10**6),
        ("64 MiB", 2**26),
        ("1.5g", 1_500_000_000),
        (" 2TiB ", 2**41),
        ("3kB", 3000),
    ],
)
def test_numbers_of_bytes(said: int | str, bytes_: int) -> None:
    assert as_bytes(said) == bytes_


@pytest.mark.parametrize("said", ["", "MB", "-1", "1e9", "64 m b", 0, -5, 1.5, 2**63])
def test_no_numbers_of_bytes(said: Any) -> None:
    with pytest.raises(InputError):
        as_bytes(said)
