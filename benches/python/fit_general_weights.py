"""Fits the general mixture weights on generated tasks and writes general_weights.json of the Rust core.

    python benches/python/fit_general_weights.py TOKENIZER [--write] [--judge]

Maximum likelihood of the next token on rows that are left out of the index: a weight vector that is the sum of what is
common to all and of an offset for the state of each group, all held to zero by L2. Every generated task counts alike.
Two tables: with the inputs known, and without. `--judge` fits on all kinds of tasks but some, and says how well that
serves those. Needs the features that the compiled half gives today; build with the old tables first when they change.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from generated_tasks import KINDS, Row, rows
from numpy.typing import NDArray

from tasc import NgramDrafter, TaskIndex
from tasc._core import MIXTURE_SHAPE
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer

SIZES = (15, 60, 250, 1000, 5000)
"""Rows indexed; one task of each kind for each size."""
HELD_OUT = 50
TOKENS_PER_ROW = 150
PLACES = 700
"""Kept of each task, drawn at random; 300 where penalties are compared."""
FOLDS = 4
COMMON_PENALTY, OFFSET_PENALTY = 1e-4, 3e-4
TARGET = Path(__file__).parents[2] / "rust/tasc-core/src/mixture/general_weights.json"

FEATURES, GROUPS = MIXTURE_SHAPE


@dataclass(slots=True)
class Samples:
    """Features of the mixer at S places, all feature rows one after the other."""

    rows: NDArray[np.float32]  # (N, F)
    counts: NDArray[np.int64]  # (S,) rows of each place, the last of them "something else"
    truth: NDArray[np.int64]  # (S,)
    states: NDArray[np.uint8]  # (S, G)

    @classmethod
    def of(cls, seen: Sequence[tuple[NDArray[np.float32], int, NDArray[np.uint8]]]) -> Samples:
        """From (feature rows, which of them is the truth, states) of each place."""
        rows_, truth, states = zip(*seen, strict=True)
        counts = np.array([len(r) for r in rows_])
        return cls(np.concatenate(rows_), counts, np.array(truth), np.stack(states))

    def thinned(self, places: int) -> Samples:
        """So many places at random."""
        random = np.random.default_rng(0)
        kept = np.sort(random.choice(len(self.counts), min(places, len(self.counts)), replace=False))
        ends = np.cumsum(self.counts)
        at = np.concatenate([np.arange(ends[k] - self.counts[k], ends[k]) for k in kept])
        return Samples(self.rows[at], self.counts[kept], self.truth[kept], self.states[kept])


def gather(held_out: list[Row], tokenizer: TaskTokenizer, drafter: NgramDrafter, *, inputs: bool) -> Samples:
    """Features of the mixer at every token of the held-out outputs."""
    seen = []
    for row in held_out:
        prompt = tokenizer.encode(row["input"] + "\n")
        request = drafter.start(prompt, row["input"] if inputs else None)
        for token in [*tokenizer.encode(row["output"]).tolist(), tokenizer.eos_id][:TOKENS_PER_ROW]:
            tokens, features, states = request.candidates()
            at = np.flatnonzero(tokens == token)
            seen.append((features, int(at[0]) if len(at) else len(tokens), states))
            request.update([token])
    return Samples.of(seen)


def task(kind: str, size: int, tokenizer: TaskTokenizer) -> tuple[Samples, Samples]:
    """Samples of one generated task: with the inputs known, and without."""
    made = rows(kind, size + HELD_OUT, size)
    with tempfile.TemporaryDirectory() as folder:
        store = TokenStore.build(made[HELD_OUT:], tokenizer, Path(folder) / "store")
        index = TaskIndex.build(store, Path(folder) / "index", tokenizer=tokenizer, fit=False)
        drafter = NgramDrafter(index, tokenizer=tokenizer, learn=False)
        full, plain = (
            gather(made[:HELD_OUT], tokenizer, drafter, inputs=inputs).thinned(PLACES) for inputs in (True, False)
        )
    return full, plain


@dataclass(slots=True)
class Bucket:
    """Places with about as many candidates."""

    rows: torch.Tensor  # (S, K, F)
    absent: torch.Tensor  # (S, K)
    truth: torch.Tensor  # (S,)
    picks: torch.Tensor  # (S, 1 + all states), 1 for the rows of the table that add up
    weight: torch.Tensor  # (S,)


def _picks(states: NDArray[np.int64]) -> NDArray[np.float32]:
    picks = np.zeros((len(states), 1 + sum(GROUPS)), np.float32)
    picks[:, 0] = 1
    np.put_along_axis(picks, states, 1, axis=1)
    return picks


def buckets(tasks: Iterable[Samples]) -> list[Bucket]:
    """Every place of every task, each task weighing the same; weights sum to 1."""
    tasks = list(tasks)
    counts = np.concatenate([t.counts for t in tasks])
    ends = np.cumsum(counts)
    all_rows = np.concatenate([t.rows for t in tasks])
    truth = np.concatenate([t.truth for t in tasks])
    first = 1 + np.cumsum([0, *GROUPS[:-1]])
    states = np.concatenate([t.states for t in tasks]) + first
    weight = np.concatenate([np.full(len(t.counts), 1 / len(t.counts) / len(tasks)) for t in tasks])
    found = []
    widest = 0
    for width in (2, 3, 5, 8, 12, 18, 27, 40, 10_000):
        picked = np.flatnonzero((counts > widest) & (counts <= width))
        widest = width
        if not len(picked):
            continue
        k = np.arange(counts[picked].max())
        absent = k >= counts[picked, None]
        at = np.where(absent, 0, (ends - counts)[picked, None] + k)
        found.append(
            Bucket(
                torch.from_numpy(all_rows[at] * ~absent[..., None]),
                torch.from_numpy(absent),
                torch.from_numpy(truth[picked]),
                torch.from_numpy(_picks(states[picked])),
                torch.from_numpy(weight[picked]).float(),
            )
        )
    return found


def nats(table: torch.Tensor, found: list[Bucket]) -> torch.Tensor:
    """Mean −ln p(truth)."""
    total = torch.zeros(())
    for b in found:
        vectors = b.picks @ table  # (S, F)
        scores = torch.bmm(b.rows, vectors[..., None])[..., 0].masked_fill(b.absent, -1e9)
        total = total + (b.weight * torch.nn.functional.cross_entropy(scores, b.truth, reduction="none")).sum()
    return total


def fit(found: list[Bucket], penalty: float, *, steps: int = 200) -> torch.Tensor:
    """(1 + all states, F) weights: what is common to all, then an offset for each state of each group."""
    sums = sum((b.weight[:, None, None] * b.rows.square()).sum((0, 1)) for b in found)
    scale = 1 / torch.as_tensor(sums).sqrt().clamp(min=0.05)  # features differ by orders of magnitude
    scaled = torch.zeros(1 + sum(GROUPS), FEATURES, requires_grad=True)
    penalties = torch.full((1 + sum(GROUPS), 1), penalty)
    penalties[0] = COMMON_PENALTY
    optimiser = torch.optim.LBFGS(
        [scaled], max_iter=steps, history_size=20, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        table = scaled * scale
        value: torch.Tensor = nats(table, found) + (penalties * table.square()).sum()
        value.backward()
        return value

    optimiser.step(loss)
    return (scaled * scale).detach()


def judge(tasks: dict[str, list[Samples]], penalties: Sequence[float]) -> None:
    """Fits on all kinds but some and prints nats per token on those."""
    kinds = list(tasks)
    tasks = {k: [t.thinned(300) for t in of_kind] for k, of_kind in tasks.items()}
    for penalty in penalties:
        unseen: dict[str, float] = {}
        for fold in range(FOLDS):
            left_out = kinds[fold::FOLDS]
            table = fit(buckets(t for k in kinds if k not in left_out for t in tasks[k]), penalty, steps=120)
            unseen |= {k: nats(table, buckets(tasks[k])).item() for k in left_out}
        mean = sum(unseen.values()) / len(unseen)
        print(f"offsets {penalty:.0e}: {mean:.4f} ", *(f"{k} {v:.3f}" for k, v in sorted(unseen.items())), flush=True)


def written(full: torch.Tensor, plain: torch.Tensor) -> str:
    """general_weights.json, one row of a table a line."""

    def table(of: torch.Tensor) -> str:
        rows = (", ".join(f"{w:.3f}".replace("-0.000", "0.000") for w in row) for row in of.tolist())
        return "[\n" + ",\n".join(f"    [{row}]" for row in rows) + "\n  ]"

    tables = f'"all_sources": {table(full)},\n  "without_input": {table(plain)}'
    return f'{{\n  "groups": {list(GROUPS)},\n  {tables}\n}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="a folder with tokenizer.json")
    parser.add_argument("--write", action="store_true", help=f"replace {TARGET.name}")
    parser.add_argument("--judge", action="store_true", help="compare penalties on kinds of tasks left out")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors are small: threads would wait for one another
    tokenizer = load_tokenizer(options.tokenizer)
    made = {kind: [task(kind, size, tokenizer) for size in SIZES] for kind in KINDS}
    tables = []
    for which, name in enumerate(("with inputs", "without")):
        tasks = {kind: [t[which] for t in pairs] for kind, pairs in made.items()}
        if options.judge:
            print(name)
            judge(tasks, (1e-4, 3e-4, 1e-3, 3e-3))
        found = buckets(t for of_kind in tasks.values() for t in of_kind)
        tables.append(fit(found, OFFSET_PENALTY))
        places = sum(len(b.truth) for b in found)
        print(f"{name}: {places} places, {nats(tables[-1], found).item():.4f} nats per token")
    if options.write:
        TARGET.write_text(written(*tables))


if __name__ == "__main__":
    main()
