"""Evaluation of models that say what they are told, and of tiny random ones beside transformers' own greedy output."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("rouge_score")
pytest.importorskip("sacrebleu")

from extended import NEW, Scripted, tokenizers  # noqa: E402
from tiny_models import ARCHITECTURES, EOS, VOCAB, peer_greedy, tiny_model  # noqa: E402

from tasc.errors import InputError  # noqa: E402
from tasc.evaluation.decoder import Decoder  # noqa: E402
from tasc.evaluation.latency import speedup  # noqa: E402
from tasc.evaluation.pairwise_eval import AGAINST, MODEL, results  # noqa: E402
from tasc.evaluation.task_eval import EvalOptions, Prediction, answers, assess, compare, evaluate  # noqa: E402
from tasc.evaluation.tokenization_stats import tokenization, tokenization_measures  # noqa: E402

PLAIN, BASE, THEIRS, EXTENDED = tokenizers()
ROWS = [
    {"input": "one", "output": '{"from": "abc"}'},
    {"input": "the second", "output": '{"to": "x"}'},
    {"input": "3", "output": '{"to": "bc"}'},
]
OPTIONS = EvalOptions(max_tokens=40, batch_size=2, resamples=50)


def scripted(tokenizer: Any, *said: list[int]) -> Scripted:
    prompts = [tuple(tokenizer(row["input"] + "\n")["input_ids"]) for row in ROWS]
    return Scripted(dict(zip(prompts, said, strict=True)))


def canonical(text: str) -> list[int]:
    return EXTENDED.plan.segment(EXTENDED.encode(text)).tolist()


def test_tokenization_counts_steps_and_tokens() -> None:
    assert canonical("xabc") == [*BASE.encode("x"), VOCAB + NEW.index("abc")]
    ids = [*BASE.encode("xa").tolist(), VOCAB + NEW.index("bc")]
    found = tokenization(ids, "xabc", finished=True, tokenizer=EXTENDED)
    assert asdict(found) == {
        "steps": 4, "base_tokens": 5, "tokens": 3, "new": 1, "canonical_new": 1, "canonical": False, "non_canonical": 2,
        "round_trip": True,
    }  # fmt: skip
    whole = tokenization(canonical("xabc"), "xabc", finished=False, tokenizer=EXTENDED)
    assert (whole.steps, whole.base_tokens, whole.canonical, whole.non_canonical) == (2, 4, True, 0)


def test_spelling_without_new_tokens() -> None:
    found = tokenization(BASE.encode("xabc").tolist(), "xabc", finished=True, tokenizer=BASE)
    assert (found.steps, found.base_tokens, found.new, found.canonical_new, found.canonical) == (5, 5, 0, 0, True)
    measures = tokenization_measures([found])
    assert measures["base_tokens_per_step"].value == 1.0
    assert measures["adoption"].value is None


def test_measures_of_two_spellings() -> None:
    good = tokenization(canonical("abcabc"), "abcabc", finished=True, tokenizer=EXTENDED)  # 2 new
    odd = tokenization(BASE.encode("abcab").tolist(), "abcab", finished=True, tokenizer=EXTENDED)  # 0 of 2
    found = {name: measure.value for name, measure in tokenization_measures([good, odd]).items()}
    assert found == {
        "base_tokens_per_step": pytest.approx((7 + 6) / (3 + 6)),
        "steps_per_output": pytest.approx((3 + 6) / 2),
        "adoption": pytest.approx(2 / 4),
        "non_canonical_outputs": 0.5,
        "non_canonical_tokens": pytest.approx(5 / 7),
    }


def test_ids_that_are_no_tokens_break_the_round_trip() -> None:
    padding = VOCAB + len(NEW)
    assert not tokenization([padding], EXTENDED.decode([padding]), finished=True, tokenizer=EXTENDED).round_trip


def test_evaluation_of_an_extended_model() -> None:
    odd = BASE.encode('{"to": "x"}').tolist()
    model = scripted(THEIRS, canonical('{"from": "ab"}'), [*odd, EOS], [*canonical(ROWS[2]["output"]), EOS])
    found = evaluate(model, THEIRS, ROWS, options=OPTIONS, task_tokenizer=EXTENDED)
    assert [p.text for p in found.predictions] == ['{"from": "ab"}', '{"to": "x"}', '{"to": "bc"}']
    assert [p.finished for p in found.predictions] == [False, True, True]
    assert found.counts == {"rows": 3, "unfinished": 1, "unparsable": 0, "round_trip": 3, "new_tokens": len(NEW)}
    values = {name: m.value for name, m in found.measures.items()}
    assert (values["exact_match"], values["slot_f1"]) == (pytest.approx(2 / 3), pytest.approx(4 / 6))
    assert values["adoption"] == pytest.approx((1 + 0 + 2) / (1 + 1 + 2))
    assert values["non_canonical_outputs"] == pytest.approx(1 / 3)
    base = [len(BASE.encode(p.text)) + p.finished for p in found.predictions]
    steps = [len(p.ids) + p.finished for p in found.predictions]
    assert values["base_tokens_per_step"] == pytest.approx(sum(base) / sum(steps))
    assert model.batches == [2, 1]
    said = json.loads(json.dumps(found.to_dict()))
    assert said["measures"]["exact_match"].keys() == {"value", "low", "high"}
    assert said["measures"]["exact_match"]["low"] <= 2 / 3 <= said["measures"]["exact_match"]["high"]


def test_text_without_json_has_no_slot_f1_and_broken_json_is_counted() -> None:
    words = [Prediction("q", "plain words", "plain", (1,), True)]
    assert "slot_f1" not in assess(words, BASE).measures
    broken = [Prediction("q", '{"a": 1}', '{"a": 1', (1,), True), Prediction("q", '{"a": 1}', '{"a": 1}', (1,), True)]
    found = assess(broken, BASE)
    assert found.counts["unparsable"] == 1
    assert found.measures["slot_f1"].value == pytest.approx(2 / 3)


def test_figures_come_back_from_kept_predictions() -> None:
    model = scripted(PLAIN, *([*BASE.encode(r["output"]).tolist(), EOS] for r in ROWS))
    found = evaluate(model, PLAIN, ROWS, options=OPTIONS)
    kept = json.loads(json.dumps([asdict(p) for p in found.predictions]))
    again = assess([Prediction(**{**k, "ids": tuple(k["ids"])}) for k in kept], BASE, options=OPTIONS)
    assert again.to_dict() == found.to_dict()
    assert found.measures["exact_match"].value == found.measures["base_tokens_per_step"].value == 1.0
    assert found.predictions[0].ids == tuple(BASE.encode(ROWS[0]["output"]).tolist())


def test_differences_are_paired() -> None:
    right = [*BASE.encode(ROWS[0]["output"]).tolist(), EOS]
    wrong = [*BASE.encode("no").tolist(), EOS]
    sides = [
        evaluate(scripted(PLAIN, *said), PLAIN, ROWS, options=OPTIONS)
        for said in ([right, right, wrong], [wrong, wrong, wrong])
    ]
    found = compare(*sides)
    assert found["exact_match"]["difference"] == pytest.approx(1 / 3)
    assert found["exact_match"]["low"] <= 1 / 3 <= found["exact_match"]["high"]
    assert found["adoption"] == {"difference": None, "low": None, "high": None}
    assert compare(sides[0], sides[0])["bleu"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    other = evaluate(scripted(PLAIN, right, right, right), PLAIN, ROWS[::-1], options=OPTIONS)
    with pytest.raises(InputError, match="different rows"):
        compare(sides[0], other)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batches_with_padding_say_what_single_prompts_say(name: str) -> None:
    model = tiny_model(name)
    model.generation_config.repetition_penalty = 1.7  # the model's own taste is left aside
    decoder = Decoder(model, PLAIN, BASE)
    found = answers(decoder, ROWS, EvalOptions(max_tokens=24, batch_size=3))
    model.generation_config.repetition_penalty = 1.0
    for row, prediction in zip(ROWS, found, strict=True):
        prompt = PLAIN(row["input"] + "\n")["input_ids"]
        theirs = peer_greedy(model, prompt, 24)
        assert [*prediction.ids, *([EOS] if prediction.finished else [])] == theirs
        assert prediction.finished == (theirs[-1] == EOS)


def test_the_models_settings_are_put_back() -> None:
    model = tiny_model("llama")
    own = model.generation_config
    Decoder(model, PLAIN, BASE).decode([[5, 6]], 2)
    assert model.generation_config is own


def test_a_system_prompt_goes_before_the_input() -> None:
    assert Decoder(scripted(PLAIN, [], [], []), PLAIN, BASE, "be brief").prompts(["x"], 1) == [
        PLAIN("be brief\nx\n")["input_ids"]
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there is no row"),
        ([{"output": "x"}], "row 1 has no input that is text, it holds 'output'"),
        ([ROWS[0], {"input": "x", "output": None}], "row 2 has no output"),
        ([{"input": "x" * 30, "output": ""}], "the prompt of row 1 has 31 tokens, so 40 more do not fit .* of 64"),
    ],
)
def test_rows_that_cannot_be_evaluated(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(Scripted({}, context=64), PLAIN, rows, options=OPTIONS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"batch_size": 0},
        {"batch_sizes": (1, 0)},
        {"latency_rows": -1},
        {"rounds": 0},
        {"confidence": 2},
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*must be"):
        EvalOptions(**wrong)


class Clock:
    """Time that passes by decoding alone."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed(Scripted):
    """Takes `step` seconds a step, and as much for the prompts."""

    def __init__(self, outputs: dict[tuple[int, ...], list[int]], clock: Clock, step: float) -> None:
        super().__init__(outputs)
        self.clock, self.step = clock, step

    def generate(self, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        made = super().generate(ids, **options)
        self.clock.now += self.step * (made.shape[1] - ids.shape[1])
        return made


def test_latency_counts_every_row_once_and_the_peer_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("tasc.evaluation.latency.time", clock)
    said = [[*canonical(r["output"]), EOS] for r in ROWS]
    spelled = [[*BASE.encode(r["output"]).tolist(), EOS] for r in ROWS]
    fast = Timed(scripted(THEIRS, *said).outputs, clock, 0.5)
    slow = Timed(scripted(PLAIN, *spelled).outputs, clock, 1.0)
    sides = {MODEL: Decoder(fast, THEIRS, EXTENDED), AGAINST: Decoder(slow, PLAIN, BASE)}
    options = EvalOptions(max_tokens=40, batch_sizes=(1, 2), latency_rows=3, rounds=2, resamples=40)
    found, evaluations = results(sides, ROWS, options=options)
    assert list(evaluations) == [MODEL, AGAINST]
    one, two = found["latency"]
    assert (one["batch_size"], one["batches"], two["batches"]) == (1, 3, 2)
    steps, theirs = [len(s) for s in said], [len(s) for s in spelled]
    facts = one["models"][MODEL]
    assert facts["seconds_per_row"] == pytest.approx(0.5 * sum(steps) / 3)
    assert facts["decode_seconds_per_row"] == pytest.approx(0.5 * (sum(steps) - 3) / 3)
    assert facts["base_tokens_per_second"] == pytest.approx(sum(theirs) / (0.5 * sum(steps)))
    assert facts["characters_per_second"] == pytest.approx(sum(len(r["output"]) for r in ROWS) / (0.5 * sum(steps)))
    assert one["speedup"]["value"] == pytest.approx(sum(theirs) / (0.5 * sum(steps)))
    assert one["decode_speedup"]["value"] == pytest.approx((sum(theirs) - 3) / (0.5 * (sum(steps) - 3)))
    assert one["speedup"]["low"] <= one["speedup"]["value"] <= one["speedup"]["high"]
    full = max(steps[:2]) + max(steps[2], steps[0])  # the third row and the first again
    assert two["models"][MODEL]["steps"] == full
    assert two["models"][MODEL]["seconds_per_row"] == pytest.approx(0.5 * full / 4)
    assert json.loads(json.dumps(found))["outputs"][1]["texts"] == {MODEL: '{"to": "x"}', AGAINST: '{"to": "x"}'}


def test_no_rows_timed_no_latency() -> None:
    model = scripted(PLAIN, *([EOS] for _ in ROWS))
    found, _ = results({MODEL: Decoder(model, PLAIN, BASE)}, ROWS, options=EvalOptions(latency_rows=0, max_tokens=3))
    assert found["latency"] == []
    assert "comparison" not in found
    assert found["models"][MODEL]["counts"]["unparsable"] == 3


def test_speedup_is_of_medians_and_its_interval_sees_noise() -> None:
    options = EvalOptions(resamples=400)
    steady = np.array([[1.0, 2.0, 3.0]] * 3)
    assert speedup(4 * steady, steady, options) == {"value": 4.0, "low": 4.0, "high": 4.0}
    disturbed = steady.copy()
    disturbed[1] *= 50
    found = speedup(4 * steady, disturbed, options)
    assert found["value"] == 4.0
    assert found["low"] is not None and found["low"] < 0.1
    assert found == speedup(4 * steady, disturbed, options)
    assert speedup(steady[:1, :1], steady[:1, :1], options) == {"value": 1.0, "low": None, "high": None}
    assert speedup(steady, 0 * steady, options) == {"value": None, "low": None, "high": None}
