"""Fits the general mixture weights on generated tasks and writes rust/tasc-core/src/draft/general.rs.

    python benches/python/fit_general_weights.py TOKENIZER [--write]

Maximum likelihood of the next token on rows that are left out of the index: one weight vector per state, held to a
common one by L2. Every generated task counts alike. Needs the features that the compiled half gives today; build with
the old table first when they change.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from generated_tasks import KINDS, Row, rows

from tasc.data import TaskTokenizer, TokenStore, load_tokenizer
from tasc.spec import NgramDrafter, TaskIndex

SIZES = (40, 250, 1500, 5000)
"""Rows indexed; one task of each kind for each size."""
HELD_OUT = 100
TOKENS_PER_ROW = 100
TARGET = Path(__file__).parents[2] / "rust/tasc-core/src/draft/general.rs"

Sample = tuple[np.ndarray, int, int]
"""Feature rows (K + 1, F), which of them is the truth, state."""


def samples(indexed: list[Row], held_out: list[Row], tokenizer: TaskTokenizer, folder: Path) -> list[Sample]:
    """What the mixer sees at every token of the held-out outputs."""
    store = TokenStore.build(indexed, tokenizer, folder / "store")
    drafter = NgramDrafter(TaskIndex.build(store, folder / "index"))
    found = []
    for row in held_out:
        request = drafter.start(tokenizer.encode(row["input"] + "\n"))
        for token in [*tokenizer.encode(row["output"]).tolist(), tokenizer.eos_id][:TOKENS_PER_ROW]:
            tokens, features, state = request.candidates()
            at = np.flatnonzero(tokens == token)
            found.append((features, int(at[0]) if len(at) else len(tokens), state))
            request.update([token])
    return found


def fit(tasks: list[list[Sample]], l2: float = 1e-4) -> np.ndarray:
    """(states, F) weights."""
    every = [(s, 1 / len(task) / len(tasks)) for task in tasks for s in task]
    widest, features = max(len(s[0]) for s, _ in every), every[0][0][0].shape[1]
    states = 1 + max(s[2] for s, _ in every)
    x = torch.zeros(len(every), widest, features)
    absent = torch.ones(len(every), widest, dtype=torch.bool)
    for k, ((rows_, _, _), _) in enumerate(every):
        x[k, : len(rows_)] = torch.from_numpy(rows_)
        absent[k, : len(rows_)] = False
    truth, state = (torch.tensor([s[i] for s, _ in every]) for i in (1, 2))
    weight = torch.tensor([w for _, w in every])
    common = torch.tensor([1.0, 0.3, 0, 0, 0], requires_grad=True)
    offsets = torch.zeros(states, features, requires_grad=True)
    optimiser = torch.optim.LBFGS([common, offsets], max_iter=300, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        scores = (x * (common + offsets)[state][:, None]).sum(-1).masked_fill(absent, -1e9)
        nll = (weight * torch.nn.functional.cross_entropy(scores, truth, reduction="none")).sum()
        value: torch.Tensor = nll + l2 * offsets.square().sum() + 1e-4 * common.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    print(f"{len(every)} tokens of {len(tasks)} tasks, {states} states: {loss().item():.4f} nats per token")
    return (common + offsets).detach().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="a folder with tokenizer.json")
    parser.add_argument("--write", action="store_true", help=f"replace the table in {TARGET.name}")
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.tokenizer)
    tasks = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            for seed, size in enumerate(SIZES):
                made = rows(kind, size + HELD_OUT, seed)
                tasks.append(samples(made[HELD_OUT:], made[:HELD_OUT], tokenizer, Path(folder)))
    table = "\n".join("    [" + ", ".join(f"{w:.3f}" for w in row) + "]," for row in fit(tasks))
    if not options.write:
        print(table)
        return
    head, rest = TARGET.read_text().split("STATES] = [\n")
    TARGET.write_text(head + "STATES] = [\n" + table + "\n];" + rest.split("\n];", 1)[1])


if __name__ == "__main__":
    main()
