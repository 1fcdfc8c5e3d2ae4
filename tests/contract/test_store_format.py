"""A second reader of store files, written from docs/format.md alone, finds what went in."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from tasc.data import TokenStore, load_tokenizer

DTYPES = {
    "tokens": "<u4",
    "offsets": "<u8",
    "weights": "<u8",
    "inputs": "u1",
    "input_offsets": "<u8",
    "input_documents": "<u4",
    "input_weights": "<u8",
    "meta": "u1",
}


def test_the_bytes_are_those_of_the_document(tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = load_tokenizer(tokenizer)
    rows = [
        {"input": "é", "output": "b"},
        {"output": "a a"},
        {"input": "é", "output": "b"},
        {"input": "", "output": "b"},
    ]
    TokenStore.build(rows, task, tmp_path / "s")
    data = (tmp_path / "s").read_bytes()

    magic, kind, major, minor, fingerprint, size, table, count, reserved, _ = struct.unpack_from(
        "<8s4sHH32sQQIIQ", data
    )
    assert magic == bytes.fromhex("74617363 0D0A1A0A")
    assert (kind, major, minor, reserved) == (b"STOR", 1, 0, 0)
    assert fingerprint.hex() == task.fingerprint
    assert (size, table % 64, table + 40 * count) == (len(data), 0, len(data))

    sections = {}
    end = 80
    for k in range(count):
        name, offset, length, _ = struct.unpack_from("<16sQQQ", data, table + 40 * k)
        name = name.rstrip(b"\0").decode("ascii")
        assert offset % 64 == 0
        assert offset - end < 64
        assert not any(data[end:offset])
        end = offset + length
        sections[name] = np.frombuffer(data[offset:end], DTYPES[name])
    assert sections.keys() == DTYPES.keys()

    documents = [[*task.encode("b").tolist(), 1], [*task.encode("a a").tolist(), 1]]
    assert sections["tokens"].tolist() == documents[0] + documents[1]
    assert sections["offsets"].tolist() == [0, len(documents[0]), len(documents[0] + documents[1])]
    assert sections["weights"].tolist() == [3, 1]
    assert sections["inputs"].tobytes() == "é".encode()
    assert sections["input_offsets"].tolist() == [0, 2, 2]
    assert sections["input_documents"].tolist() == [0, 0]
    assert sections["input_weights"].tolist() == [2, 1]
    meta = json.loads(sections["meta"].tobytes())
    assert meta.pop("writer")
    assert meta == {"tokenizer": "tokenizer", "vocab_size": task.vocab_size, "eos_id": 1}
