"""Task metrics beside figures worked by hand and those of the libraries; intervals that are what they say."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasc.errors import InputError
from tasc.evaluation.bootstrap import Interval, Measure, bootstrap_interval, estimate, ratio
from tasc.evaluation.task_metrics import RARE, bleu, exact_match, rouge_l, seen_slots, slot_f1, slot_f1_by_seen, slots

SAID = ["the cat sat on the mat", "SELECT a FROM b WHERE c = 1 ;", "", "quite another thing to say"]
WANTED = ["the cat is on the mat", "SELECT a FROM b WHERE c = 2 AND d = 1 ;", "something", "and what it should be"]


def atis(*pairs: tuple[str, str], intent: str = "fly") -> str:
    return json.dumps({"intent": intent, "slots": [{"name": n, "value": v} for n, v in pairs]})


def test_exact_match_is_the_share_of_equal_texts() -> None:
    found = exact_match(["a", " b\n", "c", "C"], ["a", "b", "d", "c"])
    assert found.value == 0.5
    assert found.rows[:, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (atis(("to", "boston"), ("to", "boston")), {(("to",), '"boston"'): 2}),
        ('{"intent": "fly"}', {(("intent",), '"fly"'): 1}),
        ('{"a": {"b": [1, "1", 1.0, true, null]}}', {(("a", "b"), v): 1 for v in ("1", '"1"', "1.0", "true", "null")}),
        ('{"slots": {"to": {"city": "x"}}, "intent": "y"}', {(("to", "city"), '"x"'): 1}),
        ('[{"name": "n", "value": {"deep": 1}}]', {(("n", "deep"), "1"): 1}),
        ('[{"name": "n", "value": 1, "more": 2}]', {(("name",), '"n"'): 1, (("value",), "1"): 1, (("more",), "2"): 1}),
        ('[{"name": 3, "value": 1}]', {(("name",), "3"): 1, (("value",), "1"): 1}),
        ("{}", {}),
        ('{"slots": []}', {}),
    ],
)
def test_slots_are_the_leaves_by_name(text: str, found: dict[Any, int]) -> None:
    assert slots(text) == Counter(found)


@pytest.mark.parametrize("text", ["", "{", "plain", '"text"', "17", "null", '{"a": 1} more', "[" * 100_000, "9" * 5000])
def test_what_is_no_json_object_or_list_has_no_slots(text: str) -> None:
    assert slots(text) is None


def test_slot_f1_is_micro_averaged() -> None:
    said = [atis(("to", "boston"), ("from", "dallas")), atis(("to", "x"), ("to", "x")), '{"slots": [', atis()]
    wanted = [atis(("from", "dallas"), ("to", "denver")), atis(("to", "x")), atis(("to", "y")), atis(intent="fare")]
    # in common 1 + 1; said 2 + 2 + 0 + 0; wanted 2 + 1 + 1 + 0
    assert slot_f1(said, wanted).value == pytest.approx(2 * 2 / (4 + 4))


def test_slots_count_in_the_group_of_how_often_training_had_them() -> None:
    """A frequent value in place of one never seen is an error of both groups; a name of its own is another slot."""
    seen = seen_slots([atis(("to", "rome"))] * (RARE + 1) + [atis(("to", "oslo"), ("to", "oslo"))] * RARE + ["broken"])
    assert seen[("to",), '"rome"'] == RARE + 1
    assert seen[("to",), '"oslo"'] == RARE
    said = [atis(("to", "rome")), atis(("to", "oslo"), ("from", "rome")), "broken"]
    wanted = [atis(("to", "bonn")), atis(("to", "oslo"), ("from", "rome")), atis(("to", "oslo"))]
    found = slot_f1_by_seen(said, wanted, seen)
    assert found["slot_f1_frequent"].rows.tolist() == [[0, 1], [0, 0], [0, 0]]
    assert found["slot_f1_rare"].value == pytest.approx(2 / 3)
    assert found["slot_f1_unseen"].value == pytest.approx(2 / 3)  # bonn is missed, from rome is found
    whole = slot_f1(said, wanted)
    assert np.array_equal(sum(one.rows for one in found.values()), whole.rows)
    assert slot_f1_by_seen([atis()], [atis()], seen)["slot_f1_rare"].value is None


def test_slot_f1_without_any_slot_is_one() -> None:
    found = slot_f1([atis()] * 2, [atis(intent="fare")] * 2)
    assert found.value == 1.0
    assert bootstrap_interval(found) == Interval(1.0, 1.0)


def test_order_of_slots_does_not_matter() -> None:
    assert slot_f1([atis(("a", "1"), ("b", "2"))], [atis(("b", "2"), ("a", "1"))]).value == 1.0


def test_bleu_is_that_of_sacrebleu_for_any_rows() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    found = bleu(SAID, WANTED)
    assert found.value == pytest.approx(sacrebleu.corpus_bleu(SAID, [WANTED]).score / 100, abs=1e-12)
    twice = [0, 0, 1, 3]
    theirs = sacrebleu.corpus_bleu([SAID[k] for k in twice], [[WANTED[k] for k in twice]]).score / 100
    assert float(found.score(found.rows[twice].sum(axis=0))) == pytest.approx(theirs, abs=1e-12)


def test_bleu_of_short_and_empty_texts() -> None:
    pytest.importorskip("sacrebleu")
    assert bleu([""], ["a b c d"]).value == 0.0
    assert bleu(["a b c d"], ["a b c d"]).value == pytest.approx(1.0)


def test_rouge_l_by_hand_and_by_the_library() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    # "the cat sat on the mat" beside "the cat is on the mat": 5 of 6 words in order, on both sides
    assert rouge_l(SAID[:1], WANTED[:1]).value == pytest.approx(5 / 6)
    theirs = [scorer.score(w, s)["rougeL"].fmeasure for s, w in zip(SAID, WANTED, strict=True)]
    assert rouge_l(SAID, WANTED).value == pytest.approx(np.mean(theirs))


@pytest.mark.parametrize("metric", [exact_match, slot_f1, rouge_l, bleu])
def test_rows_must_be_there_and_in_pairs(metric: Any) -> None:
    with pytest.raises(InputError, match="0 predictions for 0 references"):
        metric([], [])
    with pytest.raises(InputError, match="1 predictions for 2 references"):
        metric(["a"], ["a", "b"])


def test_a_share_of_nothing_is_none() -> None:
    nothing = ratio([0, 0], [0, 0])
    assert nothing.value is None
    assert bootstrap_interval(nothing) is None


def test_one_row_has_no_interval() -> None:
    one, other = ratio([3.0]), ratio([2.0])
    assert estimate(one) == {"value": 3.0, "low": None, "high": None}
    assert estimate(one, against=other) == {"value": 1.0, "low": None, "high": None}
    assert estimate(ratio([3.0, 3.0]))["low"] == 3.0


numbers = st.lists(st.floats(-5, 5), min_size=2, max_size=30)


@given(numbers, st.integers(0, 2**32), st.floats(0.05, 0.99))
@settings(max_examples=60, deadline=None)
def test_an_interval_lies_among_the_rows_and_repeats_itself(values: list[float], seed: int, confidence: float) -> None:
    found = bootstrap_interval(ratio(values), resamples=80, seed=seed, confidence=confidence)
    assert found is not None
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found == bootstrap_interval(ratio(values), resamples=80, seed=seed, confidence=confidence)
    wider = bootstrap_interval(ratio(values), resamples=80, seed=seed, confidence=(1 + confidence) / 2)
    assert wider is not None
    assert wider.low <= found.low + 1e-9 and found.high - 1e-9 <= wider.high


@given(numbers, st.integers(0, 1000), st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_a_paired_interval_sees_that_rows_differ_alike(values: list[float], seed: int, shift: float) -> None:
    shifted = ratio(np.array(values) + shift)
    found = bootstrap_interval(shifted, against=ratio(values), resamples=50, seed=seed)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(shift, abs=1e-9), pytest.approx(shift, abs=1e-9))


def test_an_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for turn in range(200):
        found = bootstrap_interval(ratio(rng.random(150) < 0.7), resamples=200, seed=turn)
        assert found is not None
        inside += found.low <= 0.7 <= found.high
    assert 0.9 <= inside / 200 <= 0.99


def test_draws_are_those_of_a_slow_bootstrap() -> None:
    values = np.arange(12.0)
    found = bootstrap_interval(ratio(values), resamples=1, seed=3)
    counts = np.random.default_rng(3).multinomial(12, [1 / 12] * 12)
    mean = np.repeat(values, counts).mean()
    assert found == Interval(pytest.approx(mean), pytest.approx(mean))


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"confidence": 1.0}, {"confidence": 0.0}])
def test_an_interval_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least one of each"):
        bootstrap_interval(ratio([1.0]), **wrong)
    with pytest.raises(InputError, match="0 rows"):
        bootstrap_interval(Measure(np.zeros((0, 2)), lambda sums: sums[..., 0]))
    with pytest.raises(InputError, match="3 rows against 2"):
        bootstrap_interval(ratio([1, 2, 3]), against=ratio([1, 2]))
