"""Learning a task vocabulary beside Hugging Face's BpeTrainer on the same ids: seconds on one thread, memory.

    python benches/python/merge_speed.py CORPUS.ids [-k 500] [-o OUT.json]
    python benches/python/merge_speed.py --smoke

CORPUS.ids is a file of `workload.py`. Ours is all of `MergePlan.learn` (merging, pruning to K live tokens, writing the
plan); the trainer makes K merges of the ids as private-use characters, a document a word (no pre-tokenizer). Both see a
small corpus first, whose first merges must be the same. Each run is a process of its own, in turns; memory is what it
grew by at most, the mapped store included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ratios import Ratio, report
from tokenizers import Tokenizer, models, trainers
from workload import read_ids, small, write_store

from tasc._core import MergePlan, Store, merges

Ids = NDArray[np.uint32]

FIRST = 0xF0000
"""Private use begins here; it has 131,068 characters."""

TURNS = 3


class PrivateUse:
    """Ids as characters."""

    def __init__(self, documents: Sequence[Ids]) -> None:
        """Of the ids in these documents; others have none."""
        ids = np.unique(np.concatenate(documents)).tolist()
        self.characters = {i: chr(FIRST + k + 2 * (k >= 0xFFFE)) for k, i in enumerate(ids)}

    def text(self, ids: Ids, end: int | None) -> str:
        """Without the end token, and without ids that have no character."""
        return "".join(self.characters.get(i, "") for i in ids.tolist() if i != end)


def train_bpe(texts: Iterable[str], code: PrivateUse, number: int) -> Tokenizer:
    """Plain BPE with so many merges; a text is a word."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=len(code.characters) + number,
        initial_alphabet=list(code.characters.values()),
        limit_alphabet=len(code.characters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def texts_of(store: Store) -> tuple[PrivateUse, list[str]]:
    """Every document as often as it occurred."""
    documents = [store.document(k) for k in range(len(store))]
    code = PrivateUse(documents)
    texts = (code.text(ids, store.eos_id) for ids in documents)
    return code, [text for k, text in enumerate(texts) for _ in range(store.weight(k))]


def check(folder: Path, number: int) -> None:
    """The first merges of both must be the same: the same pairs in the same order, ties included."""
    store = write_store(list(small(20_000)), folder / "small.store")
    mine = [ids.tolist() for ids, _ in merges(store, number)]
    code, texts = texts_of(store)
    ids = {character: i for i, character in code.characters.items()}
    pairs = json.loads(train_bpe(texts, code, number).to_str())["model"]["merges"]
    assert mine == [[ids[c] for c in "".join(pair)] for pair in pairs], "the first merges differ"


def ours(path: Path, size: int) -> Callable[[], object]:
    store = Store(path)
    return lambda: MergePlan.learn(store, path.with_suffix(".plan"), size=size, held_out=0.0)


def theirs(path: Path, size: int) -> Callable[[], object]:
    code, texts = texts_of(Store(path))
    return lambda: train_bpe(texts, code, size)


@dataclass(frozen=True, slots=True)
class Run:
    """Measurements of one run: seconds of the processor and on the clock, bytes that the process grew by at most."""

    processor: float
    clock: float
    memory: int


Prepare = Callable[[Path, int], Callable[[], object]]


def measured(prepare: Prepare, path: Path, size: int) -> Run:
    """One run in a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (prepare, path, size))


def _measured(prepare: Prepare, path: Path, size: int) -> Run:
    learn = prepare(path, size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    clock, processor = time.perf_counter(), time.process_time()
    learn()
    return Run(time.process_time() - processor, time.perf_counter() - clock, _status("VmHWM") - before)


def _status(field: str) -> int:
    """Bytes of this process, as the system says."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def compare(mine: Sequence[Run], peers: Sequence[Run], tokens: int, *, goals: bool) -> list[Ratio]:
    def middle(of: Callable[[Run], float]) -> tuple[float, float | None]:
        return statistics.median(map(of, mine)), statistics.median(map(of, peers)) if peers else None

    peer = "BpeTrainer" if peers else ""
    seconds, clock, memory = (
        middle(lambda r: r.processor),
        middle(lambda r: r.clock),
        middle(lambda r: r.memory / tokens),
    )
    return [
        Ratio(
            "seconds of one thread", seconds[0], peer, seconds[1], True, 2.5 if goals else None, 4.0 if goals else None
        ),
        Ratio("seconds on the clock", clock[0], peer, clock[1], lower=True),
        Ratio("bytes per token, at most", memory[0], peer, memory[1], lower=True, limit=64.0 if goals else None),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("-k", type=int, default=500)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny corpus, no peer")
    options = parser.parse_args()
    if options.corpus is None and not options.smoke:
        parser.error("give CORPUS.ids, or --smoke")
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check(folder, 100)
        corpus = list(small(30_000)) if options.smoke else read_ids(options.corpus)
        tokens = sum(map(len, corpus))
        write_store(corpus, path := folder / "rows.store")
        del corpus
        mine, peers = [], []
        for _ in range(1 if options.smoke else TURNS):
            mine.append(measured(ours, path, options.k))
            if not options.smoke:
                peers.append(measured(theirs, path, options.k))
    ratios = compare(mine, peers, tokens, goals=not options.smoke)
    report(f"{options.k} new tokens from {tokens:,} tokens", ratios, options.output)


if __name__ == "__main__":
    main()
