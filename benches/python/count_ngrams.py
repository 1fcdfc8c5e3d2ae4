"""Counting n-grams with one thread: tasc beside numpy (hash and sort) and, where it is installed, DuckDB.

    python benches/python/count_ngrams.py CORPUS.ids [--rounds 5] [-o OUT.json]
    python benches/python/count_ngrams.py --smoke

CORPUS.ids is a file of `workload.py`. The peers count 4-grams; tasc counts those of 1 to 4 tokens with the documents that
hold them, into a file. All see the corpus's distinct documents, take turns, and are compared before they are timed. Times
are of the processor, since other work slows the wall clock of one more than that of another. Memory is what the process
grew by, mapped files left out, sampled every millisecond.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ratios import Ratio, report
from workload import Ids, read_ids, small, write_store

from tasc.data import NgramTable, TokenStore

LENGTH = 4
FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64)
Counts = tuple[NDArray[np.uint64], NDArray[np.int64]]
"""Hashes of the n-grams, ascending, and how often each occurs."""


def hashed(columns: list[NDArray[np.uint32]]) -> NDArray[np.uint64]:
    """A 64-bit hash of each n-gram; collisions are the reader's risk."""
    hashes = columns[0] * FACTORS[0]
    for column, factor in zip(columns[1:], FACTORS[1:], strict=True):
        hashes ^= column * factor
    return hashes


def windows(ids: NDArray[Any]) -> list[NDArray[Any]]:
    """The four columns of all windows."""
    return [ids[k : len(ids) - LENGTH + 1 + k] for k in range(LENGTH)]


def inside(ids: Ids, end: int) -> NDArray[np.bool_]:
    """Which windows lie inside a document: the end token is at most their last."""
    ends = ids == end
    first, second, third, _ = windows(ends)
    outside: NDArray[np.bool_] = first | second | third
    return ~outside


def numpy_counts(ids: Ids, end: int | None) -> Counts:
    """By hash and sort; with `end=None` windows cross documents, the least that can be done."""
    hashes = hashed(windows(ids.astype(np.uint64)))
    if end is not None:
        hashes = hashes[inside(ids, end)]
    hashes.sort()
    starts = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
    return hashes[starts], np.diff(np.append(starts, len(hashes)))


def duckdb_counts(ids: Ids, end: int) -> Counts | None:
    """By `GROUP BY` on one thread; None where DuckDB is not installed."""
    try:
        import duckdb
    except ImportError:
        return None
    columns = dict(zip("abcd", windows(ids), strict=True))
    with duckdb.connect(config={"threads": 1}) as database:
        database.register("windows", columns)
        found = database.execute(
            f"SELECT a, b, c, d, count(*) AS n FROM windows WHERE a != {end} AND b != {end} AND c != {end} GROUP BY ALL"
        ).fetchnumpy()
    hashes = hashed([found[name].astype(np.uint64) for name in "abcd"])
    order = np.argsort(hashes)
    return hashes[order], found["n"][order]


def our_counts(table: NgramTable) -> Counts:
    batches = list(table.batches(LENGTH))
    hashes = hashed(list(np.concatenate([ids for ids, _, _ in batches]).astype(np.uint64).T))
    order = np.argsort(hashes)
    return hashes[order], np.concatenate([counts for _, counts, _ in batches])[order].astype(np.int64)


def anonymous() -> int:
    """Bytes of this process in memory that are no file's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def grown(work: Callable[[], Any]) -> float:
    """Most MB that the process grew by during some work."""
    before, most, done = anonymous(), 0, threading.Event()

    def sample() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, anonymous() - before)

    sampler = threading.Thread(target=sample)
    sampler.start()
    work()
    done.set()
    sampler.join()
    return most / 1e6


def in_turn(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of processor time of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            begin = time.process_time()
            work()
            seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(each) for name, each in seconds.items()}


def compare(store: TokenStore, ids: Ids, end: int, folder: Path, rounds: int, smoke: bool) -> tuple[list[Ratio], int]:
    file = folder / "task.ngrams"

    def count(**options: Any) -> NgramTable:
        return NgramTable.count(store, file, max_length=LENGTH, num_threads=1, **options)

    table = count()
    whole, size = file.read_bytes(), file.stat().st_size
    tenth = max(size // 10, 1 << 20)
    count(memory_limit=tenth)
    assert file.read_bytes() == whole
    contestants: dict[str, Callable[[], Any]] = {
        "tasc": count,
        "tasc, a tenth": lambda: count(memory_limit=tenth),
        "numpy": lambda: numpy_counts(ids, end),
        "numpy, across documents": lambda: numpy_counts(ids, None),
    }
    ours = our_counts(table)
    peers = {"numpy": numpy_counts(ids, end), "DuckDB": None if smoke else duckdb_counts(ids, end)}
    for name, theirs in peers.items():
        if theirs is not None:
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)), name
    if peers.pop("DuckDB") is not None:
        contestants["DuckDB"] = lambda: duckdb_counts(ids, end)
    del ours, peers
    seconds = in_turn(contestants, rounds)
    memory = {name: grown(work) for name, work in contestants.items()}
    least = None if smoke else 1.0
    ratios = []
    for name in list(contestants)[2:]:
        ratios.append(Ratio("seconds", seconds["tasc"], name, seconds[name], lower=True, least=least))
        ratios.append(Ratio("MB", memory["tasc"], name, memory[name], lower=True))
    limit = None if smoke else tenth / 1e6 + 1
    ratios.append(Ratio("seconds, memory of a tenth of the table", seconds["tasc, a tenth"], lower=True))
    ratios.append(Ratio(f"MB, limit {tenth / 1e6:.1f}", memory["tasc, a tenth"], lower=True, limit=limit))
    return ratios, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny corpus, numpy alone")
    options = parser.parse_args()
    if options.corpus is None and not options.smoke:
        parser.error("give CORPUS.ids, or --smoke")
    documents = list(small(30_000)) if options.smoke else read_ids(options.corpus)
    distinct = list({ids.tobytes(): ids for ids in documents}.values())
    ids, end = np.concatenate(distinct), int(distinct[0][-1])
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(distinct, Path(folder) / "rows.store")
        rounds = 1 if options.smoke else options.rounds
        ratios, size = compare(store, ids, end, Path(folder), rounds, options.smoke)
    title = f"{LENGTH}-grams of {len(ids):,} tokens, processor time; tasc: 1 to {LENGTH}, into {size / 1e6:.1f} MB"
    report(title, ratios, options.output)


if __name__ == "__main__":
    main()
