"""llama.cpp's static lookup cache holds exactly what followed each pair of tokens."""

from __future__ import annotations

import json
import random
import struct
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from typer.testing import CliRunner

from tasc import TaskIndex
from tasc.adapters import llama_lookup
from tasc.adapters.llama_lookup import export_lookup
from tasc.cli.app import app
from tasc.data import TokenStore, load_tokenizer

Cache = dict[tuple[int, int], dict[int, int]]


def read(path: Path) -> Cache:
    """As llama.cpp reads it."""
    data, at, found = path.read_bytes(), 0, {}
    while at < len(data):
        *tokens, n = struct.unpack_from("<5i", data, at)
        assert tokens[2:] == [-1, -1] and n > 0 and tuple(tokens[:2]) not in found
        pairs = struct.unpack_from(f"<{2 * n}i", data, at + 20)
        found[tuple(tokens[:2])] = dict(zip(pairs[::2], pairs[1::2], strict=True))
        assert len(found[tuple(tokens[:2])]) == n
        at += 20 + 8 * n
    return found


def slow(store: TokenStore) -> Cache:
    """Its slow twin: every pair of every document."""
    counts: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for document, weight in store:
        ids = document.tolist()
        for a, b, c in zip(ids, ids[1:], ids[2:], strict=False):
            counts[a, b][c] += weight
    return {pair: dict(followers) for pair, followers in counts.items()}


@pytest.fixture(scope="module")
def made(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskIndex, TokenStore]:
    folder, rng = tmp_path_factory.mktemp("task"), random.Random(4)
    rows: list[dict[str, Any]] = []
    for _ in range(120):  # short outputs repeat, with and without an input
        text = "".join(rng.choice(["ab", "a", "boston", '{"to": ', "ü"]) for _ in range(rng.randrange(1, 7)))
        rows.append({"output": text} | ({"input": f"say {text}"} if rng.random() < 0.5 else {}))
    file, task = folder / "rows.jsonl", load_tokenizer(tokenizer)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = TokenStore.build([file], task, folder / "rows.store")
    assert max(weight for _, weight in store) > 1
    return TaskIndex.build(store, folder / "task.tasc", tokenizer=task), store


def test_it_holds_what_followed_each_pair(made: tuple[TaskIndex, TokenStore], tmp_path: Path) -> None:
    index, store = made
    expected = slow(store)
    assert export_lookup(index, tmp_path / "static.bin") == len(expected) > 20
    assert read(tmp_path / "static.bin") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["static.bin"]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_split_no_record(
    made: tuple[TaskIndex, TokenStore], tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasc.data import NgramTable

    whole = NgramTable.batches
    monkeypatch.setattr(NgramTable, "batches", lambda self, length: whole(self, length, size))
    export_lookup(made[0], tmp_path / "static.bin")
    assert read(tmp_path / "static.bin") == slow(made[1])


def test_large_counts_keep_their_shares(tmp_path: Path) -> None:
    path = tmp_path / "static.bin"
    ids = np.array([[1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 3, 3]], np.uint32)
    with path.open("wb") as file:
        assert llama_lookup._write(file, ids, np.array([10**12, 2 * 10**12, 1, 7], np.uint64)) == 2
    found = read(path)
    assert found[1, 3] == {3: 7}
    assert found[1, 2] == {3: 33_333, 4: 66_666, 5: 1}


def test_a_failed_export_leaves_nothing(
    made: tuple[TaskIndex, TokenStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise OSError("disk full")

    target = tmp_path / "static.bin"
    target.write_text("old")
    monkeypatch.setattr(llama_lookup, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        export_lookup(made[0], target)
    assert target.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["static.bin"]


def test_the_command_writes_the_same(made: tuple[TaskIndex, TokenStore], tmp_path: Path) -> None:
    index, store = made
    done = CliRunner().invoke(app, ["export", "llama-lookup", str(index.path), "-o", str(tmp_path / "s.bin")])
    assert done.exit_code == 0, done.output
    assert f"{len(slow(store)):,} pairs of tokens" in done.output
    assert read(tmp_path / "s.bin") == slow(store)
    missing = CliRunner().invoke(app, ["export", "llama-lookup", str(tmp_path / "no.tasc"), "-o", "x"])
    assert missing.exit_code == 2 and "no.tasc" in missing.output
