"""Latency of one draft from Python, beside SuffixDecoding over the same corpus and at the same contexts.

    python benches/python/draft_latency.py CORPUS.ids HELD_OUT.ids [--factors 1,4,16] [-o OUT.json]
    python benches/python/draft_latency.py --smoke

The files are those of `workload.py`. 64 held-out documents are under way at any time, and move on by what tasc's draft
is right about. In every other round one `propose_batch` drafts for all of them; in the rounds between, each is drafted
for alone, by tasc and then by SuffixDecoding, so that no draft finds its way through the index warmed by another's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ratios import Ratio, percentiles, report
from workload import Ids, read_ids, small, write_store

from tasc import NgramDrafter, TaskIndex
from tasc.data.ids import common_prefix_length
from tasc.evaluation.baselines import SuffixDecodingDrafter, suffix_decoding_installed

BATCH, MAX_TOKENS = 64, 16


@dataclass
class Running:
    """A held-out document under way."""

    document: Ids
    ours: Any
    theirs: dict[float, Any] = field(default_factory=dict)
    at: int = 0


@dataclass
class Times:
    """Nanoseconds: per request of a batch, of one draft alone, of one of SuffixDecoding's by factor."""

    batch: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)
    theirs: dict[float, list[float]] = field(default_factory=dict)


def measure(drafter: Any, peers: Sequence[SuffixDecodingDrafter], held_out: Sequence[Ids]) -> Times:
    """Replays the held-out documents, 64 at a time, and times every draft."""
    times = Times(theirs={p.factor: [] for p in peers})
    waiting = list(held_out)
    running: list[Running] = []
    costs = 1.0 + 0.02 * np.arange(MAX_TOKENS + 1)
    while len(waiting) + len(running) >= BATCH:
        while len(running) < BATCH:
            document = waiting.pop()
            prompt = document[len(document) // 2 :]
            running.append(Running(document, drafter.start(prompt), {p.factor: p.start(prompt) for p in peers}))
        requests = [r.ours for r in running]
        if len(times.batch) * BATCH <= len(times.single):
            begin = time.perf_counter_ns()
            drafts = drafter.propose_batch(requests, MAX_TOKENS, costs)
            times.batch.append((time.perf_counter_ns() - begin) / BATCH)
        else:
            drafts = [one_by_one(r, costs, times) for r in running]
            again = drafter.propose_batch(requests, MAX_TOKENS, costs)
            assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(drafts, again, strict=True)), "batch differs"
        for r, draft in zip(running, drafts, strict=True):
            right = common_prefix_length(draft.tokens, r.document[r.at :])
            new = r.document[r.at : r.at + right + 1]
            r.at += len(new)
            for request in (r.ours, *r.theirs.values()):
                request.update(new)
        running = [r for r in running if r.at < len(r.document)]
    return times


def one_by_one(r: Running, costs: Any, times: Times) -> Any:
    """One document's draft, and the peers' at the same context."""
    begin = time.perf_counter_ns()
    draft = r.ours.draft(MAX_TOKENS, costs)
    times.single.append(time.perf_counter_ns() - begin)
    for factor, request in r.theirs.items():
        begin = time.perf_counter_ns()
        request.speculate(MAX_TOKENS)
        times.theirs[factor].append(time.perf_counter_ns() - begin)
    return draft


def figures(times: Times) -> list[Ratio]:
    """p50 and p99 in µs; SuffixDecoding's best over its factors."""
    peer = {f: percentiles(t) for f, t in times.theirs.items()}
    made = []
    for what, ours, limits in (
        (f"propose_batch of {BATCH}, per request", percentiles(times.batch), (8.0, None)),
        ("one draft", percentiles(times.single), (None, None)),
    ):
        for q, name in enumerate(("p50", "p99")):
            factor, best = min(((f, p[q]) for f, p in peer.items()), key=lambda x: x[1], default=(0.0, None))
            label = f"suffix-{factor:g}" if best is not None else ""
            made.append(Ratio(f"{what}, {name} µs", ours[q], label, best, lower=True, limit=limits[q]))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("held_out", type=Path, nargs="?")
    parser.add_argument("--factors", default="1", help="of SuffixDecoding; each needs a tree of its own in memory")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny corpus, no peer")
    options = parser.parse_args()
    if options.smoke:
        documents = list(small(30_000))
        corpus, held_out = documents[:-100], documents[-100:]
    elif options.corpus is None or options.held_out is None:
        parser.error("give CORPUS.ids and HELD_OUT.ids, or --smoke")
    else:
        corpus, held_out = read_ids(options.corpus), read_ids(options.held_out)
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(corpus, Path(folder) / "rows.store")
        index = TaskIndex.build(store, Path(folder) / "task.tasc")
        factors = (
            [] if options.smoke or options.no_peer or not suffix_decoding_installed() else options.factors.split(",")
        )
        peers = [SuffixDecodingDrafter(corpus, factor=float(f)) for f in factors]
        times = measure(NgramDrafter(index), peers, held_out)
    tokens = sum(map(len, corpus))
    title = f"Draft latency from Python, {tokens:,} tokens, {len(times.single):,} drafts"
    report(title, figures(times), options.output)


if __name__ == "__main__":
    main()
