"""Figures of a check beside slow twins, and its verdict both ways."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import train_tokenizer
from numpy.typing import NDArray

from tasc import MergePlan, NullDrafter, TokenStore, load_tokenizer
from tasc.data import TaskTokenizer
from tasc.evaluation.check import CheckResult, check_rows
from tasc.evaluation.check.drafts import DraftFigures, draft_figures
from tasc.evaluation.check.predictors import (
    NGRAM,
    bigram_entropy,
    copied_share,
    renyi_entropy,
    repeated_share,
)
from tasc.evaluation.check.run import _step
from tasc.evaluation.check.summary import summarize
from tasc.evaluation.check.verdict import verdict
from tasc.evaluation.check.vocabulary import SizeFigures, VocabularyFigures, adopted_rows
from tasc.evaluation.replay import encode_rows
from tasc.progress import no_bars

CITIES = ["boston", "denver", "dallas", "oakland", "atlanta", "seattle", "memphis", "newark"]
ROWS = [
    {"input": f"from {a} to {b} on day {day}", "output": f'{{"intent": "flight", "from": "{a}", "to": "{b}"}}'}
    for day in range(3)
    for a in CITIES
    for b in CITIES
    if a != b
]


@pytest.fixture(scope="module")
def task() -> TaskTokenizer:
    return load_tokenizer(train_tokenizer(["<|endoftext|>"]))


@pytest.fixture(scope="module")
def checked(task: TaskTokenizer) -> CheckResult:
    return check_rows(ROWS, task, files=["rows.jsonl"], source="model")


def random_outputs(seed: int, number: int, ids: int = 3) -> list[NDArray[np.uint32]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, ids, rng.integers(1, 30)).astype(np.uint32) for _ in range(number)]


def test_renyi_entropy_is_that_of_the_formula() -> None:
    outputs = random_outputs(0, 20)
    counts = Counter(token for ids in outputs for token in ids.tolist())
    p = [count / counts.total() for count in counts.values()]
    assert renyi_entropy(outputs) == pytest.approx(-math.log2(sum(q * q for q in p)))
    assert renyi_entropy([np.zeros(5, np.uint32)]) == 0


def test_bigram_entropy_is_that_of_the_formula() -> None:
    texts = ["A b a b.", "b, a c", "lonely", ""]
    pairs = Counter(pair for words in (["a", "b", "a", "b"], ["b", "a", "c"]) for pair in pairwise(words))
    slow = -sum(n / pairs.total() * math.log2(n / pairs.total()) for n in pairs.values())
    assert bigram_entropy(texts) == pytest.approx(slow)
    assert bigram_entropy(["word", "other"]) is None


def slow_share(train: list[NDArray[np.uint32]], held_out: list[NDArray[np.uint32]]) -> float:
    known = {tuple(ids[k : k + NGRAM]) for ids in train for k in range(max(1, len(ids) - NGRAM + 1))}
    covered = 0
    for ids in held_out:
        starts = [k for k in range(max(1, len(ids) - NGRAM + 1)) if tuple(ids[k : k + NGRAM]) in known]
        covered += len({at for k in starts for at in range(k, min(k + NGRAM, len(ids)))})
    return covered / sum(map(len, held_out))


@pytest.mark.parametrize("seed", range(5))
def test_repeated_share_is_that_of_the_slow_twin(seed: int) -> None:
    train, held_out = random_outputs(seed, 30, 2), random_outputs(seed + 100, 20, 2)
    found = repeated_share(train, held_out)
    assert 0 < found < 1
    assert found == pytest.approx(slow_share(train, held_out))


def test_copied_share_counts_words_of_the_own_input() -> None:
    rows = [
        {"input": "To Boston, please", "output": "city boston"},
        {"input": "to denver", "output": "please wait"},
        {"output": "boston"},
    ]
    assert copied_share(rows) == 1 / 4
    assert copied_share([{"output": "boston"}]) is None


def test_without_drafts_every_token_takes_a_step(task: TaskTokenizer) -> None:
    rows = encode_rows(ROWS[:9], task, eos=0)
    [figures] = draft_figures(NullDrafter, rows, costs=[0.02], progress=no_bars)
    assert figures.tau == figures.speedup == {"value": 1, "low": 1, "high": 1}
    base = [2 * len(row.output) for row in rows]
    [twice] = draft_figures(NullDrafter, rows, costs=[0.02], tokens=base, progress=no_bars)
    assert twice.speedup["value"] == 2


def test_intervals_narrow_with_rows(task: TaskTokenizer, checked: CheckResult) -> None:
    few = check_rows(ROWS[:60], task)
    for one, other in zip(few.drafts, checked.drafts, strict=True):
        assert width(one) > width(other) > 0


def width(figures: DraftFigures) -> float:
    return (figures.speedup["high"] or 0) - (figures.speedup["low"] or 0)


@pytest.mark.parametrize("adoption", [0.0, 0.5, 1.0])
def test_adopted_rows_expand_to_the_same_base_tokens(task: TaskTokenizer, tmp_path: Path, adoption: float) -> None:
    store = TokenStore.build(ROWS, task, tmp_path / "rows.store")
    plan = MergePlan.learn(store, tmp_path / "task.plan", size=16, held_out=0)
    rows = encode_rows(ROWS, task, eos=0)
    adopted = adopted_rows(rows, plan, adoption)
    new = [sum(row.output >= plan.base_vocab_size) for row in adopted]
    most = [sum(plan.segment(row.output) >= plan.base_vocab_size) for row in rows]
    assert sum(new) / sum(most) == pytest.approx(adoption, abs=0.1)
    for one, row in zip(adopted, rows, strict=True):
        assert plan.expand(one.output).tolist() == row.output.tolist()


@pytest.mark.parametrize(
    ("lengths", "step"), [([10] * 300, 1), ([100] * 500, 2), ([1000] * 300, 6), ([1000] * 60, 1), ([5], 1)]
)
def test_of_long_outputs_fewer_rows_are_replayed(lengths: list[int], step: int) -> None:
    assert _step(lengths) == step


def test_a_vocabulary_saves_and_its_drafts_are_counted_in_base_tokens(checked: CheckResult) -> None:
    vocabulary = checked.vocabulary
    assert vocabulary is not None
    saved = [one.saved["value"] or 0 for one in vocabulary.sizes]
    assert saved == sorted(saved)
    assert 0.5 < saved[0] < vocabulary.adoption
    for one in vocabulary.sizes:
        assert one.speedup["value"] == pytest.approx(1 / (1 - (one.saved["value"] or 0)))
    alone = vocabulary.sizes[-1].speedup["value"] or 0
    assert (vocabulary.drafts[0].speedup["value"] or 0) > alone
    assert checked.predictors.renyi_extended is not None


def test_a_tokenizer_that_cannot_be_extended_is_said(task: TaskTokenizer) -> None:
    result = check_rows([{"output": f"{k * 7919 % 1000} {k}"} for k in range(40)], task)
    assert result.vocabulary is None
    assert result.no_vocabulary
    assert result.predictors.renyi_extended is None


def test_of_an_output_that_is_very_long_the_beginning_is_replayed(
    task: TaskTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasc.evaluation.check.run.LONGEST", 10)
    result = check_rows([{"output": f"{k} " * (500 if k % 2 else 1)} for k in range(40)], task)
    assert 0 < result.rows["cut"] < result.rows["held_out"]
    assert f"of {result.rows['cut']} outputs the first" in summarize(result).facts
    assert (result.drafts[0].tau["value"] or 0) <= 10


def test_the_reason_for_no_vocabulary_names_no_option_that_a_check_lacks(task: TaskTokenizer) -> None:
    result = check_rows([{"output": f"{k * 7919 % 1000}"} for k in range(9)], task)
    [note] = [one for one in summarize(result).notes if one.startswith("No task vocabulary")]
    assert note.endswith("give more rows") and "min_" not in note


def figures(speedup: float, cost: float = 0.02, spread: float = 0.1) -> DraftFigures:
    found = {"value": speedup, "low": speedup - spread, "high": speedup + spread}
    return DraftFigures(cost, found, found, 5.0, 0.8, [])


def vocabulary_of(speedup: float, tokens: int = 60) -> VocabularyFigures:
    found = {"value": speedup, "low": speedup, "high": speedup}
    return VocabularyFigures(0.95, [SizeFigures(64, tokens, found, found)], 64, [figures(2 * speedup)])


@pytest.mark.parametrize(
    ("speedup", "spread", "level"),
    [
        (6.5, 0.5, "worth it"),
        (1.55, 0.1, "a little"),
        (1.3, 0.05, "a little"),
        (1.3, 0.4, "do not bother"),
        (1.1, 0.01, "do not bother"),
        (1.0, 0.0, "do not bother"),
    ],
)
def test_the_verdict_follows_the_interval(speedup: float, spread: float, level: str) -> None:
    found = verdict([figures(speedup, spread=spread)], None, rows=1000, data="rows", tokenizer="model")
    assert found.level == level
    assert bool(found.next_commands) == (level != "do not bother")


def test_the_verdict_names_interval_and_commands() -> None:
    drafts = [figures(6.5, spread=0.5), figures(3.0, 0.2, 0.0)]
    found = verdict(drafts, vocabulary_of(4.0), rows=1000, data="a.jsonl", tokenizer="model")
    text = " ".join(found.sentences)
    assert "Worth it: drafts bring 6.0 to 7.0 times at cost 0.02, and 3.0 times where a drafted token costs 0.2" in text
    assert "60 new tokens alone bring 4.0 times" in text
    assert "95 % of the new tokens" in text
    one = verdict(drafts, vocabulary_of(4.0, tokens=1), rows=1000, data="a.jsonl", tokenizer="model")
    assert "1 new token alone brings 4.0 times" in " ".join(one.sentences)
    assert found.next_commands == [
        "tasc index build a.jsonl --tokenizer model -o task.tasc",
        "tasc vocab learn a.jsonl --tokenizer model --size 64 -o task.plan",
    ]


def test_the_verdict_against_names_what_may_still_help() -> None:
    found = verdict([figures(1.02)], vocabulary_of(1.05), rows=50, data="a.jsonl", tokenizer="model")
    text = " ".join(found.sentences)
    for part in ("Do not bother", "vocabulary would not help", "tasc distill", "Only 50 rows are indexed"):
        assert part in text
    assert found.next_commands == []


def test_one_held_out_row_gives_no_interval(task: TaskTokenizer) -> None:
    result = check_rows([{"input": f"q{k}", "output": "the same long answer to all of it"} for k in range(2)], task)
    for found in (result.drafts[0].tau, result.drafts[0].speedup):
        assert found["value"] > 1.5 and found["low"] is found["high"] is None
    assert result.verdict.level == "a little"
    text = " ".join([*result.verdict.sentences, *(cell for row in summarize(result).tables[0].rows for cell in row)])
    for part in ("It may help: drafts bring", "One row is held out: no interval", "Only 1 row is indexed:"):
        assert part in text
    assert "(" not in "".join(summarize(result).tables[0].rows[0])


def test_rows_that_share_nothing_are_not_worth_it(task: TaskTokenizer) -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(chr(97 + k) for k in rng.integers(0, 26, 40)) for _ in range(150)]
    result = check_rows([{"output": text} for text in texts], task)
    assert result.verdict.level == "do not bother", result.verdict


def test_the_result_is_json_and_deterministic(task: TaskTokenizer, checked: CheckResult) -> None:
    again = check_rows(ROWS, task, files=["rows.jsonl"], source="model")
    assert json.loads(json.dumps(again.as_dict())) == json.loads(json.dumps(checked.as_dict()))
    assert replace(checked, tokenizer="") != checked
