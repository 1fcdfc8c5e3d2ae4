"""A row explained is the row replayed, and what is said of a fit follows its figures."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import train_tokenizer

from tasc import NgramDrafter, TaskIndex
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer
from tasc.drafting.protocol import INDEX_SOURCES
from tasc.errors import InputError
from tasc.evaluation.ablation import Ablated, ablated, ablations, fit_in_words
from tasc.evaluation.explain import TokenFacts, explain, spans, token_text, visible
from tasc.evaluation.replay import ReplayResult, encode_rows, replay
from tasc.evaluation.replay_comparison import Task

CITIES = ("boston", "denver", "san francisco", "oslo", "zürich")
ROWS = [
    {"input": f"flights from {a} to {b}", "output": f'{{"from": "{a}", "to": "{b}"}}'}
    for a in CITIES
    for b in CITIES
    if a != b
]
HELD_OUT = [{"input": "fares from oslo to bern", "output": '{"from": "oslo", "to": "bern"}'}, ROWS[3]]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("explain")
    tokenizer = load_tokenizer(train_tokenizer(["<|endoftext|>", "<|im_end|>"]))
    store = TokenStore.build(ROWS, tokenizer, folder / "rows.store")
    index = TaskIndex.build(store, folder / "task.tasc", tokenizer=tokenizer)
    assert tokenizer.eos_id is not None
    return Task(store, index, tokenizer, HELD_OUT, tokenizer.eos_id)


@pytest.mark.parametrize("number", [1, 2])
def test_an_explained_row_is_a_replayed_row(task: Task, number: int) -> None:
    rows = encode_rows(task.held_out, task.tokenizer, eos=task.eos)
    drafter = NgramDrafter(task.index, tokenizer=task.tokenizer)
    found = explain(drafter, rows, number, task.tokenizer, max_tokens=8)
    result = replay(NgramDrafter(task.index, tokenizer=task.tokenizer), rows[number - 1 : number], max_tokens=8)
    tokens = [token for step in found["steps"] for token in step]
    assert found["tokens"] == result.tokens
    assert len(found["steps"]) == result.steps
    assert sum(t["verdict"] != "own" for t in tokens) == result.drafted
    assert sum(t["verdict"] == "accepted" for t in tokens) == result.hits
    emitted = [t["token"] for t in tokens if t["verdict"] in ("accepted", "own")]
    assert emitted == rows[number - 1].output.tolist()
    text = "".join(t["text"] for t in tokens if t["verdict"] in ("accepted", "own"))
    assert text == HELD_OUT[number - 1]["output"] + "<|im_end|>"
    for step in found["steps"]:
        verdicts = "".join(t["verdict"][0] + t["verdict"][1] for t in step)
        assert verdicts.rstrip("af").endswith(("ac", "re", "ow", "")), verdicts
        for t in step:
            assert (t["prob"] is None) == (t["verdict"] == "own")
            assert all(0 < p <= 1.0001 for p in t["sources"].values())


def test_a_row_that_is_not_there(task: Task) -> None:
    rows = encode_rows(task.held_out, task.tokenizer, eos=task.eos)
    for number in (0, 3):
        with pytest.raises(InputError, match=f"no row {number}: 2 rows"):
            explain(NgramDrafter(task.index), rows, number, task.tokenizer)


def test_the_text_of_tokens(task: Task) -> None:
    tokenizer: TaskTokenizer = task.tokenizer
    ids = tokenizer.encode("to boston\n").tolist()
    assert "".join(token_text(tokenizer, ids[:k], i) for k, i in enumerate(ids)) == "to boston\n"
    assert token_text(tokenizer, ids, 1) == "<|im_end|>"
    parts = tokenizer.encode("北").tolist()
    assert [token_text(tokenizer, ids + parts[:k], part) for k, part in enumerate(parts)] == ["", "", "北"]
    assert token_text(tokenizer, [], 10**6) == "<1000000>"
    assert (visible("a\n\tb\r"), visible("")) == ("a⏎⇥b␍", "…")


def fact(verdict: str, prob: float | None, text: str = "x", **sources: float) -> TokenFacts:
    return {"token": 1, "text": text, "verdict": verdict, "prob": prob, "sources": sources, "candidates": []}


def test_tokens_that_need_no_line_are_joined() -> None:
    step = [
        fact("accepted", 0.99, "a", task=1.0), fact("accepted", 1.0, "b", copy=0.5), fact("accepted", 0.5, "c"),
        fact("rejected", 0.9, "d"), fact("after", 0.2, "e"), fact("after", 0.9, "f"), fact("own", None, "g"),
    ]  # fmt: skip
    joined = spans(step)
    assert [t["text"] for t in joined] == ["ab", "c", "d", "ef", "g"]
    assert [t["prob"] for t in joined] == [0.99, 0.5, 0.9, 0.2, None]
    assert joined[0]["sources"] == {"task": 0.5, "copy": 0.25}
    assert spans([]) == []


def test_each_source_is_left_out_by_name(task: Task) -> None:
    rows = encode_rows(task.held_out, task.tokenizer, eos=task.eos)
    names = [drafter.name for drafter in ablated(task)]
    assert names == [f"tasc-without-{s}" for s in ("inputs", *INDEX_SOURCES)]
    blind = Ablated(task, "inputs").start(rows[0].prompt, rows[0].input).explain(16)
    assert all(t["sources"][s] == 0 for t in blind for s in ("retrieved", "coverage", "copy"))
    without = Ablated(task, "task").start(rows[0].prompt, rows[0].input).explain(16)
    assert without
    assert all(t["sources"]["task"] == 0 for t in without)


def result(name: str, tokens: int) -> ReplayResult:
    return ReplayResult(name, 0.0, rows=1, tokens=tokens, steps=10)


def test_losses_are_shares_of_the_whole() -> None:
    found = ablations([result("tasc", 50), result("tasc-without-copy", 40), result("tasc-without-task", 30)])
    assert found == {"task": {"speedup": 3.0, "lost": 0.4}, "copy": {"speedup": 4.0, "lost": pytest.approx(0.2)}}
    assert ablations([result("suffix-1", 5)]) == {}


def figures(**changes: Any) -> dict[str, Any]:
    fit = {
        "rows": 300, "tokens": 20000, "nats": (0.2, 0.05), "tau": 13.0, "speedup": 10.0,
        "without": [("copy", 9.0), ("context", 10.2), ("inputs", 7.0), ("task", 10.01)],
        "reliability": [], "calibration_error": 0.004,
    }  # fmt: skip
    return {"inputs": 4000, "fit": fit | changes}


def test_a_fit_in_words() -> None:
    said = fit_in_words(figures())
    assert "0.050 nats per token, with general weights 0.200" in said[0]
    assert "13.0 tokens per step, s(0.02) 10.0" in said[1]
    assert said[2:] == [
        "the input (all three that need it): without it, s(0.02) falls from 10.0 to 7.0 (\N{MINUS SIGN}30 %)",
        "words copied from the input: without it, s(0.02) falls from 10.0 to 9.0 (\N{MINUS SIGN}10 %)",
        "the task's n-grams: s(0.02) without it is unchanged, 10.0",
        "the running context: without it, s(0.02) rises from 10.0 to 10.2 (+2 %)",
        "calibration error on held-out rows: 0.4 points",
    ]
    assert len(fit_in_words(figures(speedup=0.0))) == 7


@pytest.mark.parametrize(("inputs", "why"), [(0, "--no-inputs"), (19, "19 distinct rows"), (20, "--no-fit")])
def test_why_nothing_was_fitted(inputs: int, why: str) -> None:
    (said,) = fit_in_words({"inputs": inputs, "fit": None})
    assert why in said
