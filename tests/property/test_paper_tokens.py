"""The benchmark of the paper's Algorithm 1 chooses what a naive recount of everything chooses, on any outputs."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tasc.data import TaskTokenizer, load_tokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "benches" / "python"))

from paper_tokens import (
    Added,
    AddedOutputs,
    Gram,
    MergedOutputs,
    OutputOnly,
    Outputs,
    Patched,
    PrefixCollisions,
    adaptivocab,
    algorithm_1,
)

WORDS = st.sampled_from(["in the", " in the", " therapy", " the", "in", " xx", "aa", "a", ' "name": ', '"', "é", " 1"])
TEXT = st.lists(WORDS, max_size=7).map("".join)
OUTPUTS = st.dictionaries(TEXT, st.sampled_from([1, 1, 2, 7]), min_size=1, max_size=6)
FILTER = st.none() | st.builds(
    PrefixCollisions, st.sampled_from(["tokens", "places"]), st.sampled_from([0.01, 0.3, 0.8])
)
KINDS = {AddedOutputs: Added, MergedOutputs: OutputOnly}


def make_tokenizer() -> TaskTokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=265, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["in the therapy of the thing in the name"] * 9, trainer)
    return load_tokenizer(made, eos="<end>")


TASK = make_tokenizer()


def fresh(kind: type[Outputs], outputs: dict[str, int], grams: list[Gram]) -> Outputs:
    """Outputs with these tokens, all of them tokenised anew."""
    made = kind(TASK, outputs)
    for gram in grams:
        made.add(gram)
    if kind is AddedOutputs:
        made.ids = Added(TASK, made.expansions).labels(made.texts)
    return made


def naive(
    kind: type[Outputs], outputs: dict[str, int], size: int, longest: int, refuse: PrefixCollisions | None, floors: int
) -> list[Gram]:
    taken: list[Gram] = []
    seen: set[Gram] = set()
    while len(taken) < size:
        now = fresh(kind, outputs, taken)
        counts: Counter[Gram] = Counter()
        held: Counter[Gram] = Counter()
        for ids, rows in zip(now.ids, now.rows, strict=True):
            grams = [tuple(ids[k : k + n]) for n in range(2, longest + 1) for k in range(len(ids) - n + 1)]
            for gram in grams:
                counts[gram] += rows
            for gram in set(grams):
                held[gram] += rows
        left = [g for g, n in counts.items() if g not in seen and n >= floors]
        if not left:
            break
        best = min(left, key=lambda g: (-counts[g] * (len(g) - 1), g))
        seen.add(best)
        if now.admits(best) and held[best] >= floors and not (refuse and score(refuse, now, best) >= refuse.most):
            taken.append(best)
    return taken


def score(refuse: PrefixCollisions, outputs: Outputs, gram: Gram) -> float:
    text, hit = outputs.string(gram), 0
    for ids, rows in zip(outputs.ids, outputs.rows, strict=True):
        tokens = [outputs.strings[i] for i in ids]
        spans, at = [], 0
        for token in tokens:
            spans.append((at, at + len(token)))
            at += len(token)
        whole = "".join(tokens)
        if refuse.reading == "tokens":
            found = any(
                token != token[:k] and text.endswith(token[:k]) for token in tokens for k in range(1, len(token))
            )
        else:
            ends = [(k, k + len(text)) for k in range(len(whole)) if whole[k:].startswith(text)]
            found = any(b <= begin < e < end for b, e in ends for begin, end in spans)
        hit += rows * found
    return hit / sum(outputs.rows)


@settings(max_examples=150, deadline=None)
@given(
    outputs=OUTPUTS,
    kind=st.sampled_from(sorted(KINDS, key=str)),
    longest=st.integers(2, 4),
    refuse=FILTER,
    floors=st.sampled_from([1, 3]),
)
def test_algorithm_1_chooses_what_a_recount_chooses(
    outputs: dict[str, int], kind: type[Outputs], longest: int, refuse: PrefixCollisions | None, floors: int
) -> None:
    found = algorithm_1(kind(TASK, outputs), 8, longest, refuse=refuse, min_count=floors, min_rows=floors)
    assert found.pieces == naive(kind, outputs, 8, longest, refuse, floors)
    assert found.ids == fresh(kind, outputs, found.pieces).ids
    texts = [*outputs, "the therapy in the", "é"]
    vocabulary = KINDS[kind](TASK, found.expansions)  # type: ignore[abstract]
    labels = vocabulary.labels(texts)
    if kind is MergedOutputs:
        assert vocabulary.encode(texts) == TASK.encode_batch(texts)
        assert [vocabulary.expand(ids) for ids in labels] == TASK.encode_batch(texts)
        assert [vocabulary.decode(ids) for ids in labels] == texts


STRINGS = ("a", "b", "ab", "ba", "aab", "abab")


class Segmented(MergedOutputs):
    """Outputs in any tokens, without a tokenizer: a new token can end inside any of them."""

    def __init__(self, ids: list[list[int]], rows: list[int]) -> None:
        self.strings = dict(enumerate(STRINGS))
        self.ids, self.rows, self._borders = ids, rows, {}
        self.documents = [self.string(tuple(one)) for one in ids]


TOKENS = st.integers(0, len(STRINGS) - 1)
IDS = st.lists(st.tuples(st.lists(TOKENS, max_size=5), st.sampled_from([1, 2, 7])), min_size=1, max_size=3)


@settings(max_examples=500, deadline=None)
@given(
    held=IDS, gram=st.lists(TOKENS, min_size=1, max_size=3).map(tuple), reading=st.sampled_from(["tokens", "places"])
)
def test_the_score_is_that_of_its_definition(held: list[tuple[list[int], int]], gram: Gram, reading: str) -> None:
    outputs = Segmented([ids for ids, _ in held], [rows for _, rows in held])
    refuse = PrefixCollisions(reading, 0.5)  # type: ignore[arg-type]
    assert refuse.score(outputs, gram) == pytest.approx(score(refuse, outputs, gram))


@settings(max_examples=100, deadline=None)
@given(outputs=OUTPUTS, longest=st.integers(2, 4))
def test_adaptivocab_subtracts_what_overlaps(outputs: dict[str, int], longest: int) -> None:
    ids: Counter[Gram] = Counter()
    for text, rows in outputs.items():
        ids[tuple(TASK.encode(text).tolist())] += rows
    places = [
        (gram, row, k, k + n)
        for row in ids
        for n in range(2, longest + 1)
        for k in range(len(row) - n + 1)
        for gram in [row[k : k + n]]
    ]
    counts: Counter[Gram] = Counter()
    for gram, row, _, _ in places:
        counts[gram] += ids[row]
    taken: list[Gram] = []
    while len(taken) < 5:
        left = [g for g, n in counts.items() if n >= 1 and g not in taken]
        if not left:
            break
        taken.append(min(left, key=lambda g: (-counts[g] * (len(g) - 1), g)))
        for gram, row, begin, end in places:
            for other, its, b, e in places:
                if gram == taken[-1] and its == row and other != gram and b < end and begin < e:
                    counts[other] -= ids[row]
    assert adaptivocab(ids, 5, longest, admits=lambda gram: True) == taken
    patched = Patched(TASK, taken)
    assert [patched.expand(row) for row in patched.labels(list(outputs))] == TASK.encode_batch(list(outputs))


def test_a_prefix_collision_is_what_the_paper_says() -> None:
    """` in the` would keep ` therapy` from being formed, if ` therapy` is one token."""
    outputs = AddedOutputs(TASK, {" in therapy": 3, " in name": 1})
    gram = tuple(TASK.encode(" in the").tolist())
    therapy = [tuple(TASK.encode(" therapy").tolist())]
    outputs.add(therapy[0])
    for reading in ("tokens", "places"):
        assert PrefixCollisions(reading, 0.5).score(outputs, gram) == pytest.approx(0.75)
    before = Added(TASK, therapy).labels([" in therapy"])[0]
    after = Added(TASK, [*therapy, gram]).labels([" in therapy"])[0]
    assert TASK.vocab_size in before
    assert TASK.vocab_size not in after
