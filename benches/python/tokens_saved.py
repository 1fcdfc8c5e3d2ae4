"""Tokens saved on held-out outputs by a task vocabulary of K tokens: ours, the top K n-grams at once, plain BPE.

    python benches/python/tokens_saved.py DATA/NAME.jsonl.gz … --tokenizer MODEL [-o OUT.json]
    python benches/python/tokens_saved.py --smoke

Each file has rows `{output, split}`; vocabularies are learnt from the split `train` and measured on `test`. The peers:
the K n-grams with the largest frequency × (n − 1), n at most 8, 16 or 32, whichever is best on the test rows themselves;
the first K merges of Hugging Face's BpeTrainer over the ids as private-use characters, applied in their order. One-shot
n-grams are segmented as ours are, with the fewest tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from merge_speed import PrivateUse, train_bpe
from numpy.typing import NDArray
from ratios import Ratio, report
from smoke_task import EOS, write_rows, write_tokenizer

from tasc._core import MergePlan
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer

Documents = list[tuple[NDArray[np.uint32], int]]


def share_saved(documents: Documents, after: Sequence[int]) -> float:
    """Of documents with weights and their lengths after segmentation."""
    before = sum(w * len(ids) for ids, w in documents)
    return 1.0 - sum(w * n for (_, w), n in zip(documents, after, strict=True)) / before


def best_ngrams(documents: Documents, most: int, longest: int, end: int | None) -> set[tuple[int, ...]]:
    """The `most` n-grams of 2 … `longest` tokens with the largest weighted frequency × (n − 1), without the end token."""
    ids = np.concatenate([ids for ids, _ in documents]).astype(np.uint64)
    weight = np.concatenate([np.full(len(ids), w, np.float64) for ids, w in documents])
    stops = np.cumsum([len(ids) for ids, _ in documents])
    room = np.repeat(stops, np.diff(stops, prepend=0)) - np.arange(len(ids))  # tokens up to the document's end
    if end is not None:
        room -= np.concatenate([np.full(len(d), int(d[-1] == end)) for d, _ in documents])
    found: list[tuple[float, tuple[int, ...]]] = []
    hashes = ids.copy()
    for n in range(2, longest + 1):
        hashes[: len(ids) - n + 1] = hashes[: len(ids) - n + 1] * np.uint64(0x9E3779B97F4A7C15) + ids[n - 1 :]
        starts = np.flatnonzero(room >= n)
        _, first, which = np.unique(hashes[starts], return_index=True, return_inverse=True)
        gain = np.bincount(which, weight[starts]) * (n - 1)
        for k in np.argsort(-gain, kind="stable")[:most]:
            at = starts[first[k]]
            found.append((float(gain[k]), tuple(ids[at : at + n].tolist())))
    found.sort(key=lambda g: (-g[0], g[1]))
    return {gram for _, gram in found[:most]}


def fewest(ids: tuple[int, ...], grams: set[tuple[int, ...]], lengths: Sequence[int]) -> int:
    """Length of the shortest segmentation."""
    costs = [0] * (len(ids) + 1)
    for at in range(len(ids) - 1, -1, -1):
        ways = [costs[at + n] for n in lengths if ids[at : at + n] in grams and at + n <= len(ids)]
        costs[at] = 1 + min([costs[at + 1], *ways])
    return costs[0]


def one_shot(train: Documents, test: Documents, k: int, end: int | None) -> float:
    best = 0.0
    for longest in (8, 16, 32):
        grams = best_ngrams(train, k, longest, end)
        lengths = sorted({len(g) for g in grams})
        best = max(best, share_saved(test, [fewest(tuple(ids.tolist()), grams, lengths) for ids, _ in test]))
    return best


def plain_bpe(train: Documents, test: Documents, k: int, end: int | None) -> float:
    code = PrivateUse([ids for ids, _ in train])
    tokenizer = train_bpe((code.text(ids, end) for ids, w in train for _ in range(w)), code, k)
    after = []
    for ids, _ in test:
        known = code.text(ids, end)
        after.append(len(tokenizer.encode(known, add_special_tokens=False)) + len(ids) - len(known))
    return share_saved(test, after)


def measure(name: str, data: Path, tokenizer: TaskTokenizer, sizes: Sequence[int], folder: Path) -> list[Ratio]:
    stores = [TokenStore.build(data, tokenizer, folder / split, split=split) for split in ("train", "test")]
    train, test = (list(store) for store in stores)
    ratios = []
    for k in sizes:
        plan = MergePlan.learn(stores[0], folder / "plan", size=k, held_out=0.0)
        segmented = plan.segment_batch([ids for ids, _ in test])
        for (ids, _), tokens in zip(test, segmented, strict=True):
            assert np.array_equal(plan.expand(tokens), ids)
        ours = share_saved(test, [len(tokens) for tokens in segmented])
        for peer, share in (
            ("one-shot top K", one_shot(train, test, k, tokenizer.eos_id)),
            ("plain BPE", plain_bpe(train, test, k, tokenizer.eos_id)),
        ):
            what = f"{name}, K = {k} ({len(plan)} live): share of test tokens saved"
            ratios.append(Ratio(what, ours, peer, share, least=1.0))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--tokenizer")
    parser.add_argument("-k", type=int, nargs="*", default=[100, 500])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny generated task")
    options = parser.parse_args()
    if not options.smoke and not (options.data and options.tokenizer):
        parser.error("give DATA … and --tokenizer, or --smoke")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.smoke:
            data = write_rows(folder)
            tokenizer = load_tokenizer(str(write_tokenizer(folder, data)), eos=EOS)
            ratios = measure("generated", data, tokenizer, [20], folder)
        else:
            tokenizer = load_tokenizer(options.tokenizer)
            ratios = [
                ratio
                for data in options.data
                for ratio in measure(data.name.split(".")[0], data, tokenizer, options.k, folder)
            ]
    report("Task vocabulary: tokens saved", ratios, options.output)


if __name__ == "__main__":
    main()
