import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import train_tokenizer
from tokenizers import Tokenizer

from tasc._core import StoreWriter
from tasc.data import TokenStore, load_tokenizer
from tasc.errors import CorpusError, FormatError, InputError, TokenizerMismatchError

ROWS = [
    {"input": "to boston", "output": "boston"},
    {"input": "to boston", "output": "boston"},
    {"input": "from boston", "output": "boston"},
    {"output": "boston"},
    {"output": ""},
    {"input": "é 🙂", "output": "san francisco é"},
]


@pytest.fixture
def store(tokenizer: Tokenizer, tmp_path: Path) -> TokenStore:
    return TokenStore.build(ROWS, tokenizer, tmp_path / "rows.store")


def test_equal_outputs_are_one_document_and_equal_rows_one_input(store: TokenStore, tokenizer: Tokenizer) -> None:
    task = load_tokenizer(tokenizer)
    assert [(task.decode(ids), weight) for ids, weight in store] == [("boston", 4), ("", 1), ("san francisco é", 1)]
    assert [store.input(k) for k in range(store.num_inputs)] == [
        ("to boston", 0, 2),
        ("from boston", 0, 1),
        ("é 🙂", 2, 1),
    ]
    assert all(ids.dtype == np.uint32 and ids[-1] == 1 and 1 not in ids[:-1] for ids, _ in store)
    assert store.document(0)[:-1].tolist() == task.encode("boston").tolist()
    assert store.num_tokens == sum(len(ids) for ids, _ in store)
    assert (store.eos_id, store.vocab_size, store.tokenizer) == (1, task.vocab_size, "tokenizer")
    assert store.fingerprint == task.fingerprint
    store.verify()
    assert "3 documents" in repr(store)


def test_the_end_token_and_the_inputs_are_the_callers_choice(
    tokenizer: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    assert TokenStore.build(ROWS, tokenizer, path, eos=None).document(1).size == 0
    assert TokenStore.build(ROWS, tokenizer, path, eos="<|endoftext|>").document(1).tolist() == [0]
    assert TokenStore.build(ROWS, tokenizer, path, input_field=None).num_inputs == 0
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert TokenStore.build(ROWS, train_tokenizer([]), path).eos_id is None
    assert "give eos=" in caplog.text


def test_files_fields_and_splits(tokenizer_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"a": r["output"], "split": "train" if k else "test"}) + "\n" for k, r in enumerate(ROWS))
    )
    told: list[tuple[int, int]] = []
    store = TokenStore.build(
        [path, path],
        tokenizer_file,
        tmp_path / "s",
        output_field="a",
        split="train",
        progress=lambda done, total: told.append((done, total)),
    )
    assert [weight for _, weight in store] == [6, 2, 2]
    assert told[-1] == (2 * path.stat().st_size,) * 2
    assert TokenStore.build(path, tokenizer_file, tmp_path / "s", output_field="a", progress=True).weight(0) == 4


def test_the_same_bytes_for_any_number_of_threads(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasc.data.store.BATCH_ROWS", 7)
    rows = [{"input": f"in {k % 50}", "output": f"boston {k % 23}"} for k in range(400)]
    files = set()
    for threads in (None, 1, 2, 5):
        TokenStore.build(rows, tokenizer, tmp_path / "s", num_threads=threads)
        files.add((tmp_path / "s").read_bytes())
    assert len(files) == 1
    with pytest.raises(InputError, match="num_threads is 0"):
        TokenStore.build(rows, tokenizer, tmp_path / "t", num_threads=0)
    assert [f.name for f in tmp_path.iterdir()] == ["s"]


def test_appending(store: TokenStore, tokenizer: Tokenizer, tmp_path: Path) -> None:
    more = [{"input": "to boston", "output": "boston"}, {"input": "new", "output": "new"}]
    grown = store.append(more, tokenizer)
    TokenStore.build(ROWS + more, tokenizer, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "rows.store").read_bytes()
    assert (len(store), len(grown), grown.weight(0), grown.input(0)[2]) == (3, 4, 5, 3)
    assert len(TokenStore.open(str(tmp_path / "rows.store"))) == 4
    without = TokenStore.build(ROWS, tokenizer, tmp_path / "s", eos=None)
    assert without.append(more, tokenizer).eos_id is None, "the end token is the store's"


def test_another_tokenizer_is_refused_by_name(store: TokenStore) -> None:
    other = load_tokenizer(train_tokenizer(["<|im_end|>"]))
    before = store.path.read_bytes()
    with pytest.raises(TokenizerMismatchError) as error:
        store.append(ROWS, other)
    assert store.fingerprint[:12] in str(error.value)
    assert other.fingerprint[:12] in str(error.value)
    with pytest.raises(TokenizerMismatchError, match=other.fingerprint):
        StoreWriter.append(store.path, other.fingerprint)
    assert store.path.read_bytes() == before


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "holds no documents"),
        ([{"output": "x"}, {"text": "y"}], "row 1: has no field 'output'; its fields are 'text'"),
        ([{"output": "x"}] * 9000 + [{"output": None}], "row 9000: field 'output' is NoneType"),
        ([{"output": "x", "input": 1}], "row 0: field 'input' is int"),
        ([("in", "out")], "row 0: is a tuple"),
        ([{"output": "\ud800"}], "row 0: field 'output' is no valid text"),
    ],
)
def test_bad_rows_leave_nothing_behind(tokenizer: Tokenizer, tmp_path: Path, rows: Any, why: str) -> None:
    with pytest.raises(CorpusError, match=why):
        TokenStore.build(rows, tokenizer, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_append_changes_nothing(store: TokenStore, tokenizer: Tokenizer) -> None:
    before = store.path.read_bytes()
    with pytest.raises(CorpusError):
        store.append([{"output": "x"}, {}], tokenizer)
    assert store.path.read_bytes() == before
    assert list(store.path.parent.iterdir()) == [store.path]
    assert len(store.append([{"output": "x"}], tokenizer)) == 4, "the lock is free again"


def test_ids_that_the_vocabulary_lacks(tmp_path: Path) -> None:
    def push(ids: list[int], ends: list[int], inputs: list[str | None], vocab_size: int = 10) -> None:
        writer = StoreWriter.create(tmp_path / "s", fingerprint="0" * 64, vocab_size=vocab_size)
        writer.push(np.array(ids, np.uint32), np.array(ends, np.uint64), inputs)
        writer.finish()

    with pytest.raises(InputError, match="token id 10 is out of range: ids must be below 10"):
        push([9, 10], [2], [None])
    with pytest.raises(InputError, match=f"token id {2**32 - 1} is out of range"):
        push([2**32 - 1], [1], [None], vocab_size=0)
    with pytest.raises(ValueError, match="2 outputs but 1 inputs"):
        push([1, 2], [1, 2], [None])
    for ends in ([3], [2, 1], [2**63, 1]):
        with pytest.raises((ValueError, IndexError)):
            push([1, 2], ends, [None] * len(ends))
    assert list(tmp_path.iterdir()) == []
    push([2**32 - 2, 5], [1, 2], [None, "x"], vocab_size=0)
    assert TokenStore.open(tmp_path / "s").document(0).tolist() == [2**32 - 2]
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        StoreWriter.create(tmp_path / "s", fingerprint="g" * 64)


@pytest.mark.parametrize("index", [3, -1, 2**40])
def test_numbers_out_of_range(store: TokenStore, index: int) -> None:
    for ask in (store.document, store.weight, store.input):
        with pytest.raises(IndexError, match=f"{index} is out of range"):
            ask(index)


def test_damaged_and_foreign_files(store: TokenStore, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path, good = tmp_path / "bad", store.path.read_bytes()
    for content, why in [
        (b"", "it is empty"),
        (b"{}", "it has 2 bytes"),
        (b"x" * 200, "not a tasc file"),
        (good[:-1], "cut short"),
        (good[:8] + b"INDX" + good[12:], "kind INDX, STOR is wanted"),
        (good[:12] + b"\7" + good[13:], r"format version 7\.0, this tasc reads 1\.x"),
    ]:
        path.write_bytes(content)
        with pytest.raises(FormatError, match=why):
            TokenStore.open(path)
    at = good.index(b"to boston")
    path.write_bytes(good[:at] + b"X" + good[at + 1 :])
    damaged = TokenStore.open(path)
    with pytest.raises(FormatError, match="section `inputs`: its bytes do not match"):
        damaged.verify()
    with pytest.raises(FormatError, match="section `inputs`"):
        damaged.append(ROWS, tokenizer)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TokenStore.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no/folder"):
        TokenStore.build(ROWS, tokenizer, tmp_path / "no" / "folder")


def test_a_finished_writer_takes_nothing(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "s", fingerprint="0" * 64)
    writer.discard()
    writer.discard()
    with pytest.raises(ValueError, match="finished"):
        writer.finish()


def test_other_processes_get_the_path(store: TokenStore) -> None:
    copy = pickle.loads(pickle.dumps(store))
    assert isinstance(copy, TokenStore)
    assert copy.path == store.path
    assert copy.document(0).tolist() == store.document(0).tolist()
