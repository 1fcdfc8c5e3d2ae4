"""The synthetic corpus of the latency benchmarks: templates with slots over a Zipf vocabulary, as token ids.

The one to quote is written by the Rust benchmarks, so that both languages measure the same documents:

    cargo run --release -p tasc-benches --bin workload 10000000 40000 corpus.ids held_out.ids
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasc._core import StoreWriter
from tasc.data import TokenStore

Ids = NDArray[np.uint32]
BATCH = 50_000


def read_ids(path: Path) -> list[Ids]:
    """Documents of a file of little-endian u32 ids; the largest id ends each."""
    ids = np.fromfile(path, "<u4").astype(np.uint32)
    return np.split(ids, np.flatnonzero(ids == ids.max()) + 1)[:-1]


def small(tokens: int, seed: int = 7, vocabulary: int = 2000) -> Iterator[Ids]:
    """Documents of about 30 tokens each, for trying a benchmark: 40 templates of fixed text and one-token slots."""
    random = np.random.default_rng(seed)
    templates = [random.integers(0, vocabulary, 30) for _ in range(40)]
    made = 0
    while made < tokens:
        document = templates[min(int(random.zipf(1.5)) - 1, 39)].copy()
        slots = random.integers(0, 29, 5)
        document[slots] = np.minimum(random.zipf(1.3, 5), vocabulary) - 1
        document[-1] = vocabulary
        made += len(document)
        yield document.astype(np.uint32)


def write_store(documents: Sequence[Ids], path: Path) -> TokenStore:
    """A token store of ids that no tokenizer made."""
    end = int(documents[0][-1])
    fingerprint = hashlib.sha256(b"synthetic").hexdigest()
    writer = StoreWriter.create(path, fingerprint=fingerprint, tokenizer="synthetic", vocab_size=end + 1, eos_id=end)
    for at in range(0, len(documents), BATCH):
        batch = documents[at : at + BATCH]
        ends = np.cumsum([len(d) for d in batch], dtype=np.uint64)
        writer.push(np.concatenate(batch), ends, [None] * len(batch))
    writer.finish()
    return TokenStore(path)
