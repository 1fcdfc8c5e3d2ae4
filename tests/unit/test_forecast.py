"""Forecasts: the simulated clock against a count by hand, profiles on disk, what the model says, and measuring."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_models import EOS, Scripted, byte_tokenizer, tiny_model  # noqa: E402

from tasc.data import load_tokenizer  # noqa: E402
from tasc.decoding.generator import Generator  # noqa: E402
from tasc.drafting.protocol import NullDrafter  # noqa: E402
from tasc.errors import InputError  # noqa: E402
from tasc.evaluation.cost_profile import (  # noqa: E402
    ENGINES,
    CostProfile,
    ProfileCosts,
    TimedNoise,
    load_profile,
    measure_profile,
    shipped_profiles,
)
from tasc.evaluation.forecast import (  # noqa: E402
    DRAFT_MODEL,
    DRAFTS,
    DRAFTS_AND_MODEL,
    PLAIN,
    Answers,
    Plan,
    acceptance,
    agreement,
    compare,
    forecast,
    own_outputs,
    recommended,
    usual_request,
)
from tasc.evaluation.simulate import KnownRequest, simulate  # noqa: E402

STEPS = [(rows, tokens, 100.0 * rows + 10.0 * tokens) for rows in (1, 2, 4) for tokens in (1, 65)]
"""Seconds that no drafting time can disturb: 100 a row and 10 a token of each row."""


def profile(engine: str = "tasc", **values: Any) -> CostProfile:
    about = {"device": "a device", "model": "a model", "dtype": "float32", "steps": STEPS}
    return CostProfile(engine=engine, **{**about, **values})  # type: ignore[arg-type]


def request(prompt: Sequence[int], output: Sequence[int]) -> KnownRequest:
    return KnownRequest(prompt, output)


FIRST, SECOND = request([11, 12, 13], [1, 2, 3, 4, 5, EOS]), request([21, 22], [6, 7, EOS])


class Known(Scripted):
    """Drafts 3 right tokens, or wrong ones."""

    def __init__(self, requests: Sequence[KnownRequest], miss: float = 0.0) -> None:
        super().__init__({tuple(one.prompt): list(one.output) for one in requests}, miss, 3)
        self.fixed_length = True


@pytest.mark.parametrize("engine", ENGINES)
def test_plain_decoding_takes_the_seconds_of_its_steps(engine: str) -> None:
    run = simulate(profile(engine), [FIRST, SECOND], eos=frozenset({EOS}))
    # a prompt of 3 tokens gives the first token, 5 steps of one token the others; then 2 tokens, and 2 steps
    assert run.seconds.round(1).tolist() == [130 + 5 * 110, 120 + 2 * 110]
    assert (run.stats.steps, run.stats.tokens, run.stats.drafted) == (9, 9, 0)


def test_the_loop_drafts_behind_the_prompt() -> None:
    run = simulate(profile(), [FIRST], Known([FIRST]), eos=frozenset({EOS}), max_draft=3)
    # 3 + 3 tokens emit 4 of 6, then 1 + 1 emit the last two: behind the EOS nothing is drafted
    assert run.seconds.round(1).tolist() == [160 + 120]
    assert (run.stats.steps, run.stats.drafted, run.stats.accepted) == (2, 4, 4)


def test_other_engines_draft_after_the_first_token() -> None:
    for engine in ("vllm", "llama.cpp"):
        run = simulate(profile(engine), [FIRST], Known([FIRST]), eos=frozenset({EOS}), max_draft=3)
        # the prompt emits one of 6; 1 + 3 tokens emit 4; 1 + 3 drafted for the last
        assert run.seconds.round(1).tolist() == [130 + 140 + 140], engine
        assert (run.stats.steps, run.stats.tokens) == (3, 6)


@pytest.mark.parametrize("engine", ENGINES)
def test_wrong_drafts_cost_their_tokens(engine: str) -> None:
    plain = simulate(profile(engine), [FIRST], eos=frozenset({EOS})).seconds[0]
    run = simulate(profile(engine), [FIRST], Known([FIRST], miss=1.0), eos=frozenset({EOS}), max_draft=3)
    assert run.stats.accepted == 0
    assert run.seconds[0] == pytest.approx(plain + 10 * run.stats.drafted, abs=1)


def test_requests_at_once_share_their_steps() -> None:
    alone = simulate(profile(), [FIRST, SECOND], eos=frozenset({EOS}))
    both = simulate(profile(), [FIRST, SECOND], eos=frozenset({EOS}), load=2)
    # both prompts in one step of 3 tokens (230), 2 steps of two rows (210), 3 steps of one (110)
    assert both.seconds.sum() == pytest.approx(230 + 2 * 210 + 3 * 110, abs=1)
    assert both.stats.steps == alone.stats.steps
    in_vllm = simulate(profile("vllm"), [FIRST, SECOND], eos=frozenset({EOS}), load=2)
    assert in_vllm.seconds.sum() == pytest.approx(225 + 2 * 210 + 3 * 110, abs=1)  # 5 tokens of two rows


def test_a_shared_prompt_is_computed_once() -> None:
    again = request(list(FIRST.prompt), [1, EOS])
    assert simulate(profile(), [FIRST, again], eos=frozenset({EOS})).seconds[1] == pytest.approx(2 * 110, abs=1)
    assert simulate(profile("llama.cpp"), [FIRST, again]).seconds[1] == pytest.approx(2 * 110, abs=1)
    long = request(list(range(100, 140)), [1])
    assert simulate(profile("vllm"), [long, long]).seconds.round().tolist() == [500, 100 + 10 * (40 - 32)]
    on_cpu = profile("vllm", cache_block=128, prompt_share=0.5)
    assert simulate(on_cpu, [long, long]).seconds.round().tolist() == [300, 300]
    one_token = request([7], [1])
    assert simulate(on_cpu, [one_token]).seconds.round().tolist() == [110]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_drafter_knows_the_input(engine: str) -> None:
    told = []

    class Told(Known):
        def start(self, prompt_ids: Any, input_text: str | None = None) -> Any:
            told.append(input_text)
            return super().start(prompt_ids, input_text)

    simulate(profile(engine), [KnownRequest(FIRST.prompt, FIRST.output, "three teas")], Told([FIRST]), max_draft=3)
    assert told == ["three teas"]


def test_requests_and_accepted_tokens_have_seconds_of_their_own() -> None:
    extra = profile(request_seconds=1000.0, token_seconds=10000.0)
    run = simulate(extra, [FIRST], Known([FIRST]), eos=frozenset({EOS}), max_draft=3)
    assert run.seconds[0] == pytest.approx(160 + 120 + 1000 + 4 * 10000, abs=1)


def test_costs_of_a_profile() -> None:
    curve = ProfileCosts(profile())
    assert curve.costs(2).tolist() == pytest.approx([1, 120 / 110, 130 / 110])
    assert curve.costs(1, num_rows=2, in_use=4).tolist() == pytest.approx([1, 1 + 10 / (410 / 2)])
    assert curve.step_costs(2, 2).tolist() == pytest.approx([1, 215 / 210, 220 / 210])
    curve.observe(1, 1e9)
    assert curve.costs(1).tolist() == pytest.approx([1, 120 / 110])
    assert profile().slope(10) == pytest.approx(10 / 110)


def test_a_profile_comes_back_from_its_file(tmp_path: Path) -> None:
    made = profile(
        "vllm",
        note="by hand",
        request_seconds=0.5,
        cache_block=32,
        prompt_share=0.7,
        is_gpu=True,
        parameters=7,
        measured="2026-11-28",
    )
    found = load_profile(made.save(tmp_path / "mine.json"))
    assert found == made
    assert found.seconds(3, [1, 2.5]).tolist() == made.seconds(3, [1, 2.5]).tolist() == [310, 325]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "else"}, "is no cost profile; write one with tasc check --save-profile"),
        ({"version": 9}, "has version 9; this tasc reads 1"),
        ({"engine": "ollama"}, "engine 'ollama' is none of tasc, vllm, llama.cpp"),
        ({"device": 3}, "device is 3; it must be text"),
        ({"steps": []}, "steps is \\[\\]; it must list"),
        ({"steps": [[1, 1, 0.0]]}, "steps holds \\[1, 1, 0.0\\]; give"),
        ({"steps": [[1, 1]]}, "steps holds \\[1, 1\\]; give"),
        ({"request_seconds": -1}, "request_seconds is -1; it must be a number of seconds, at least 0"),
        ({"is_gpu": "no"}, "is_gpu is 'no'"),
        ({"request_seconds": 10**400}, "request_seconds is 10+; it must be a number of seconds, at least 0"),
        ({"parameters": -1}, "parameters is -1; it must be a whole number, at least 0"),
        ({"cache_block": 0}, "cache_block is 0; it must be a whole number of tokens, at least 1"),
        ({"prompt_share": 0}, "prompt_share is 0; it must be above 0 and at most 1"),
        ({"colour": "red"}, "is no whole cost profile: .*colour"),
        ({"model": None}, "model is None; it must be text"),
    ],
)
def test_a_bad_profile_is_one_clear_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({**profile().as_dict(), **change}))
    with pytest.raises(InputError, match=message) as raised:
        load_profile(file)
    assert "bad.json" in str(raised.value) and "\n" not in str(raised.value)


def test_an_unknown_profile_names_those_that_are_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no cost profile 'h2000': give a file, or one of "):
        load_profile("h2000")
    for name in shipped_profiles():
        assert load_profile(name).seconds(1, 65) > load_profile(name).seconds(1, 1), name


def test_what_the_model_says_is_compared_with_the_rows() -> None:
    def said(*outputs: list[int]) -> dict[str, Any]:
        expected = [[1, 2, 3, EOS], [4, 5, EOS]]
        return agreement(Answers([request([1], ids) for ids in outputs], expected, [True, True]))

    same, other, part = said([1, 2, 3, EOS], [4, 5, EOS]), said([9], [8]), said([1, 2, 3, EOS], [9, EOS])
    assert (same["equal"], same["shared"], same["agrees"]) == (2, 1.0, True)
    assert same["sentence"] == "the model says what the rows say (2 of 2 outputs equal)"
    assert not other["agrees"]
    assert other["sentence"] == (
        "the model does not say what the rows say (0 of 2 outputs equal): drafts from these rows do not fit it; "
        "tune it first: tasc tune"
    )
    assert (part["equal"], part["shared"], part["agrees"]) == (1, 4 / 7, True)
    assert "1 of 2 outputs equal, 57% of the tokens up to there" in part["sentence"]


def test_an_output_that_the_limit_cut_off_is_compared_as_far_as_it_goes() -> None:
    row = [*range(1, 101), EOS]
    cut = agreement(Answers([request([1], row[:40])], [row], [False]))
    assert (cut["equal"], cut["shared"], cut["agrees"], cut["finished"]) == (1, 1.0, True, 0)
    assert not agreement(Answers([request([1], [9] * 40)], [row], [False]))["agrees"]
    ended, endless = row[:40], [*row[:-1], 7]  # the row goes on; the output goes on
    assert agreement(Answers([request([1], ended)], [row], [True]))["equal"] == 0
    assert agreement(Answers([request([1], endless)], [row], [False]))["equal"] == 0


def test_the_model_answers_within_its_time() -> None:
    model, tokenizer = tiny_model("llama"), byte_tokenizer()
    generator = Generator(model, tokenizer, drafter=NullDrafter(), batch_size=8)
    rows = [{"input": f"{n} teas", "output": f"tea: {n}"} for n in range(20)]
    task = load_tokenizer(tokenizer, eos=EOS)
    answers = own_outputs(generator, tokenizer, task, rows, eos=EOS, max_tokens=5, budget=0.0)
    assert len(answers.requests) == len(answers.expected) == len(answers.finished) == 8
    assert answers.requests[3].output == generator.generate(["3 teas"], max_tokens=5)[0].ids
    assert task.decode(answers.expected[3][:-1]) == "tea: 3" and answers.expected[3][-1] == EOS
    assert len(own_outputs(generator, tokenizer, task, rows, eos=EOS, max_tokens=2, budget=99.0).requests) == 20


def test_a_forecast_names_the_faster_method() -> None:
    requests = [FIRST, SECOND]
    right = Plan(requests, lambda load: Known(requests))
    found = forecast(profile(), {PLAIN: Plan(requests), DRAFTS: right}, eos=frozenset({EOS}), loads=(1, 2), max_draft=3)
    facts = found["loads"]["1"]
    assert facts[PLAIN]["seconds_per_output"] == pytest.approx((680 + 340) / 2, abs=1)
    assert facts[DRAFTS]["seconds_per_output"] == pytest.approx((280 + 140) / 2, abs=1)
    assert facts[DRAFTS]["speedup"]["value"] == pytest.approx(1020 / 420, rel=0.01)
    assert facts[DRAFTS]["speedup"]["low"] <= facts[DRAFTS]["speedup"]["value"] <= facts[DRAFTS]["speedup"]["high"]
    assert recommended(found) == {
        "method": DRAFTS, "load": 1, "is_worth_it": True, "with_tuning": None, "settings": {},
    }  # fmt: skip
    wrong = Plan(requests, lambda load: Known(requests, miss=1.0))
    found = forecast(profile(), {PLAIN: Plan(requests), DRAFTS: wrong}, eos=frozenset({EOS}), loads=(1,), max_draft=3)
    assert recommended(found)["method"] == PLAIN and not recommended(found)["is_worth_it"]


def test_a_draft_model_is_recommended_where_it_is_clearly_faster() -> None:
    def chosen(**seconds: float) -> dict[str, Any]:
        speedup = {"value": 2.0, "low": 1.9, "high": 2.1}
        methods = {name: {"seconds_per_output": one, "speedup": speedup} for name, one in seconds.items()}
        return recommended({"loads": {"1": methods}, "engine": "tasc", "max_draft": 64, "slope": 0.02})

    methods = {"plain": 3.0, "drafts": 1.0, "vocabulary": 2.0, "both": 0.8}
    assert chosen(**methods, **{DRAFT_MODEL: 0.96})["method"] == DRAFTS
    assert chosen(**methods, **{DRAFT_MODEL: 2.0, DRAFTS_AND_MODEL: 0.94})["method"] == DRAFTS_AND_MODEL
    assert chosen(**methods, **{DRAFT_MODEL: 0.9})["with_tuning"] == "both"
    assert chosen(**methods, **{DRAFT_MODEL: 0.7})["with_tuning"] is None


def test_acceptance_is_given_as_simulators_take_it() -> None:
    run = simulate(profile(), [FIRST], Known([FIRST]), eos=frozenset({EOS}), max_draft=3)
    facts = acceptance(run.stats)  # drafts of 3 and 1 tokens, all accepted, in 2 steps
    assert facts["synthetic_acceptance_length"] == 1 + 4 / 2
    assert facts["synthetic_acceptance_rates"] == [1.0, 0.5, 0.5]
    assert facts["conditional"] == [1.0, 1.0, 1.0]


def test_measured_profile_of_a_tiny_model() -> None:
    model, tokenizer = tiny_model("llama", positions=1024), byte_tokenizer()
    made = measure_profile(model, tokenizer, [5, 6, 7], name="tiny", batches=(1, 3), budget=0.0)
    assert {rows for rows, _, _ in made.steps} == {1, 3}
    assert [tokens for rows, tokens, _ in made.steps if rows == 1] == [1, 2, 3, 5, 9, 17, 33, 65]
    assert (made.engine, made.model, made.dtype, made.is_gpu) == ("tasc", "tiny", "float32", False)
    assert all(seconds > 0 for _, _, seconds in made.steps)


def test_plain_steps_are_measured_between_the_others() -> None:
    ticks = iter(range(10_000))
    noise = TimedNoise([5, 6], 1, (1, 3, 9), 1e9, lambda: float(next(ticks)), rounds=2)
    lengths = []
    for _ in range(noise.num_steps - 1):
        [draft] = noise.propose_batch([None], 9)
        lengths.append(1 + len(draft.tokens))
    assert lengths == [1, *[1, 3, 1, 9] * 2]  # the first step of all is not counted
    with pytest.raises(SystemExit):
        noise.propose_batch([None], 9)
    assert sorted(noise.medians()) == [1, 3, 9]


def test_the_usual_request_is_of_median_length() -> None:
    requests = [KnownRequest([1], [2]), KnownRequest([3, 4], [5, 6, 7, 8]), KnownRequest([9] * 5, [1] * 90)]
    assert usual_request(requests) is requests[1]


def test_more_rows_are_measured_behind_more_of_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    generate = Generator.generate

    def seen(self: Generator, *args: Any, prompts: Any, **options: Any) -> Any:
        lengths.append([len(prompt) for prompt in prompts])
        return generate(self, *args, prompts=prompts, **options)

    monkeypatch.setattr(Generator, "generate", seen)
    model, tokenizer = tiny_model("llama", positions=1024), byte_tokenizer()
    measure_profile(model, tokenizer, [5, 6], [7] * 12, name="tiny", batches=(1, 3), budget=0.0)
    assert lengths == [[2 + 6], [2 + 9, 2 + 10, 2 + 11]]  # a half, three quarters; rows of different lengths


def test_the_rows_of_a_measured_step_have_different_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasc.decoding.engine.steps import StepRunner

    steps, argmax = [], StepRunner.argmax

    def seen(self: Any, first_row: int, tokens: Any, starts: Sequence[int], keep: int) -> Any:
        steps.append(list(starts))
        return argmax(self, first_row, tokens, starts, keep)

    monkeypatch.setattr(StepRunner, "argmax", seen)
    model, tokenizer = tiny_model("llama", positions=1024), byte_tokenizer()
    measure_profile(model, tokenizer, [5, 6], name="tiny", batches=(3,), budget=0.0)
    measured = [starts for starts in steps if len(starts) == 3 and min(starts) > 0]  # behind the prompts
    assert measured and all(len(set(starts)) == 3 for starts in measured)


def test_measuring_takes_turns_and_counts_differences() -> None:
    model, tokenizer = tiny_model("llama"), byte_tokenizer()
    rows = [{"input": f"{n} teas", "output": "tea"} for n in range(10)]
    generator = Generator(model, tokenizer, batch_size=2, costs=0.02)
    found = compare(generator, rows, NullDrafter(), load=2, max_tokens=4, budget=99.0)
    assert (found["rows"], found["different"], found["load"]) == (10, 0, 2)
    assert set(found["seconds_per_output"]) == {PLAIN, DRAFTS}
    assert found["speedup"]["low"] <= found["speedup"]["value"] <= found["speedup"]["high"]
    one = compare(generator, rows, NullDrafter(), max_tokens=4, budget=0.0)
    assert (one["rows"], one["speedup"]["low"]) == (2, None), "one batch has no interval"


def test_measuring_does_not_find_the_prompts_of_one_side_cached_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    reused, generate = [], Generator.generate

    def seen(self: Generator, *args: Any, **options: Any) -> Any:
        made = generate(self, *args, **options)
        reused.append([one.stats.reused_tokens / one.stats.prompt_tokens for one in made])
        return made

    monkeypatch.setattr(Generator, "generate", seen)
    model, tokenizer = tiny_model("llama"), byte_tokenizer()
    rows = [{"input": f"{n} {'teas' * 5}", "output": "tea"} for n in range(8)]
    compare(Generator(model, tokenizer, batch_size=1, costs=0.02), rows, NullDrafter(), max_tokens=4, budget=99.0)
    assert max(share for call in reused[2:] for share in call) < 0.5


def test_seconds_are_those_measured_and_costs_do_not_fall() -> None:
    jagged = profile(steps=[(1, 1, 0.1), (1, 3, 0.3), (1, 4, 0.2), (1, 5, 0.4)])
    assert jagged.seconds(1, [1, 3, 4, 5]).round(3).tolist() == [0.1, 0.3, 0.2, 0.4]
    assert np.all(np.diff(ProfileCosts(jagged).costs(8)) >= 0)
