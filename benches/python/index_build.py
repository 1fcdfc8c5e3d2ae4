"""The index file: bytes per token, time to open and to verify it, tokens indexed per second on one core;
SuffixDecoding's tree beside it.

    python benches/python/index_build.py CORPUS.ids [-o OUT.json]
    python benches/python/index_build.py --smoke

CORPUS.ids is a file of `workload.py`. Memory is what the process grew by.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from ratios import Ratio, report
from workload import read_ids, small, write_store

from tasc import TaskIndex
from tasc.evaluation.baselines import SuffixDecodingDrafter, suffix_decoding_installed


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny corpus, no peer")
    options = parser.parse_args()
    if options.corpus is None and not options.smoke:
        parser.error("give CORPUS.ids, or --smoke")
    corpus = list(small(30_000)) if options.smoke else read_ids(options.corpus)
    tokens = sum(map(len, corpus))
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(corpus, Path(folder) / "rows.store")
        file = Path(folder) / "task.tasc"
        begin = time.perf_counter()
        TaskIndex.build(store, file)
        rate = tokens / (time.perf_counter() - begin) / 1e6
        opening = []
        for _ in range(20):
            begin = time.perf_counter()
            TaskIndex.open(file)
            opening.append(1e3 * (time.perf_counter() - begin))
        index, verifying = TaskIndex.open(file), []
        for _ in range(5):
            begin = time.process_time()
            index.verify()
            verifying.append((time.process_time() - begin) / tokens * 10e6)
        size = file.stat().st_size / tokens
    peer, peer_rate, peer_size = "", None, None
    if suffix_decoding_installed() and not options.smoke and not options.no_peer:
        before, begin = resident(), time.perf_counter()
        tree = SuffixDecodingDrafter(corpus)
        peer, peer_rate = tree.name, tokens / (time.perf_counter() - begin) / 1e6
        peer_size = (resident() - before) / tokens
    goals: tuple[float | None, ...] = (None, None, None, None) if options.smoke else (16.0, 10.0, 2.0, 0.5)
    ratios = [
        Ratio("bytes per token: file; the peer's memory", size, peer, peer_size, lower=True, limit=goals[0]),
        Ratio("open, ms (median of 20)", statistics.median(opening), lower=True, limit=goals[1]),
        Ratio("verify, CPU s per 10 M tokens (median of 5)", statistics.median(verifying), lower=True, limit=goals[3]),
        Ratio("build, M tokens/s", rate, peer, peer_rate, limit=goals[2]),
    ]
    report(f"Index of {tokens:,} tokens", ratios, options.output)


if __name__ == "__main__":
    main()
