"""A second reader of tables of n-grams, written from docs/format.md alone, finds what was counted."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from tasc.data import NgramTable, TokenStore

PAGE = 1024


def sections(data: bytes) -> dict[str, bytes]:
    table, count = struct.unpack_from("<QI", data, 56)
    found = {}
    for k in range(count):
        name, offset, length, _ = struct.unpack_from("<16sQQQ", data, table + 40 * k)
        found[name.rstrip(b"\0").decode("ascii")] = data[offset : offset + length]
    return found


def numbers(data: bytes) -> Iterator[int]:
    """LEB128; the caller takes a plain byte with `send(True)`."""
    at, plain = 0, False
    while at < len(data):
        value = data[at] if plain else 0
        if not plain:
            shift = 0
            while data[at] & 128:
                value |= (data[at] & 127) << shift
                at, shift = at + 1, shift + 7
            value |= data[at] << shift
        at += 1
        plain = bool((yield value))


def entries(page: bytes, n: int) -> Iterator[tuple[tuple[int, ...], int, int]]:
    (count,) = struct.unpack_from("<H", page)
    stream = numbers(b"\0" + page[2:])
    next(stream)
    ids: list[int] = []
    for k in range(count):
        head = stream.send(True)
        common = head & 31
        first = next(stream) + (ids[common] + 1 if k else 0)
        ids = [*ids[:common], first, *(next(stream) for _ in range(n - common - 1))]
        occurs = 1 if head & 32 else next(stream)
        yield tuple(ids), occurs, occurs if head & 64 else next(stream)


def test_the_bytes_are_those_of_the_document(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = [{"output": f"boston {k % 90} aaaa {k * k}"} for k in range(400)] + [{"output": "boston"}] * 300
    store = TokenStore.build(rows, tokenizer, tmp_path / "s")
    data = NgramTable.count(store, tmp_path / "t", max_length=3).path.read_bytes()
    assert data[8:16] == b"NGRM" + struct.pack("<HH", 1, 0)
    found = sections(data)
    meta = json.loads(found["meta"])
    assert list(found) == ["ngrams1", "ngrams2", "ngrams3", "meta"]
    assert meta["documents"] == len(store)
    assert meta["weight"] == 700

    counts: Counter[tuple[int, ...]] = Counter()
    held: Counter[tuple[int, ...]] = Counter()
    for ids, weight in store:
        ngrams = Counter(tuple(ids[at : at + n].tolist()) for n in (1, 2, 3) for at in range(len(ids) - n + 1))
        counts.update({ngram: weight * times for ngram, times in ngrams.items()})
        held.update(ngrams.keys())
    for n in (1, 2, 3):
        section = found[f"ngrams{n}"]
        assert len(section) % PAGE == 0
        pages = [section[at : at + PAGE] for at in range(0, len(section), PAGE)]
        read = [entry for page in pages for entry in entries(page, n)]
        assert read == [(ids, counts[ids], held[ids]) for ids in sorted(counts) if len(ids) == n]
        assert meta["ngrams"][n - 1] == len(read)
    assert len(found["ngrams3"]) > PAGE
