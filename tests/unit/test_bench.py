"""Figures of a benchmark from its answers, and a benchmark of every method on tiny models."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from tiny_models import EOS, byte_tokenizer, tiny_model  # noqa: E402

from tasc.data import load_tokenizer  # noqa: E402
from tasc.data.endings import required_eos_ids  # noqa: E402
from tasc.decoding.stats import Stats  # noqa: E402
from tasc.errors import InputError, PromptError  # noqa: E402
from tasc.evaluation.baselines import suffix_decoding_installed  # noqa: E402
from tasc.evaluation.bench import Answer, BenchOptions, Tally, bench, draft_facts, without_eos  # noqa: E402
from tasc.evaluation.replay_comparison import Task, open_task  # noqa: E402
from tasc.progress import no_bars  # noqa: E402


def test_summary_of_three_requests() -> None:
    facts = Tally([Answer([1, 2], "a", 1.0), Answer([3], "b", 3.0), Answer([4, 5, 6], "c", 2.0)], 2).summary()
    assert (facts["requests"], facts["tokens"], facts["seconds"], facts["identical"]) == (3, 6, 6.0, 2)
    assert facts["tokens_per_second"] == pytest.approx(1.0)
    assert (facts["latency_p50"], facts["latency_p90"]) == (pytest.approx(2.0), pytest.approx(2.8))
    assert "tau" not in facts


def test_draft_facts_are_summed() -> None:
    first, second = Stats(tokens=4), Stats(tokens=2)
    first.count_step([0, 0, 1], 2, False)
    second.count_step([0], 0, False)
    facts = draft_facts([first, second])
    assert (facts["steps"], facts["tau"], facts["drafted_per_step"]) == (2, 3.0, 2.0)
    assert facts["accepted"] == pytest.approx(2 / 4)
    assert facts["alpha"] == pytest.approx(2 / 4)
    assert facts["drafted_by_position"] == [2, 1, 1]
    assert facts["accepted_by_position"] == [1, 1, 0]
    assert facts["accepted_by_source"] == {"task": 2}
    assert draft_facts([]) == {}


@pytest.mark.parametrize(("ids", "kept"), [([5, 2, 7], [5]), ([5, 6], [5, 6]), ([2], []), ([], [])])
def test_ids_are_cut_at_the_first_eos(ids: list[int], kept: list[int]) -> None:
    assert without_eos(ids, frozenset([2, 3])) == kept


def named(model_eos: object, tokenizer_eos: object) -> tuple[SimpleNamespace, SimpleNamespace]:
    settings = SimpleNamespace(eos_token_id=model_eos)
    return SimpleNamespace(generation_config=settings), SimpleNamespace(eos_token_id=tokenizer_eos)


@pytest.mark.parametrize(("a", "b", "found"), [(2, None, {2}), ([2, 3], 4, {2, 3, 4}), (None, 0, {0}), (0, None, {0})])
def test_both_model_and_tokenizer_name_the_eos(a: object, b: object, found: set[int]) -> None:
    assert required_eos_ids(*named(a, b)) == found


def test_no_eos_is_an_error() -> None:
    with pytest.raises(InputError, match=r"names? a token that ends an output"):
        required_eos_ids(*named(None, None))


ROWS = [{"input": f"{n} teas", "output": f"tea: {n}", "split": "train" if n % 3 else "test"} for n in range(9)]


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Task]:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with open_task(data, load_tokenizer(byte_tokenizer(), eos=EOS), progress=no_bars) as opened:
        yield opened


def test_every_method_decodes_the_same_prompts(task: Task) -> None:
    model, draft, tokenizer = tiny_model("llama"), tiny_model("llama", seed=1), byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    found = bench(model, tokenizer, task, BenchOptions(max_tokens=6, draft_length=3), draft=draft)
    suffixes = ["suffix-1", "suffix-4", "suffix-16"] if suffix_decoding_installed() else []
    others = ["transformers", "transformers-prompt-lookup", *suffixes, "tasc", "model", "combined"]
    assert list(found["methods"]) == ["plain", *others]
    assert {facts["identical"] for facts in found["methods"].values()} == {3}
    assert found["methods"]["model"]["drafted_per_step"] > 1
    named = bench(model, tokenizer, task, BenchOptions(max_tokens=4, methods=("tasc", "transformers-static")))
    assert list(named["methods"]) == ["plain", "transformers-static", "tasc"]


def test_inputs_are_checked_before_any_is_decoded(task: Task) -> None:
    task.held_out[1]["input"] = "tea " * 20
    told: list[int] = []
    with pytest.raises(PromptError, match="prompt 1 has 81 tokens, but the model's context holds 64; shorten it"):
        bench(
            tiny_model("llama", positions=64), byte_tokenizer(), task, BenchOptions(methods=("tasc",)),
            progress=lambda done, total: told.append(done),
        )  # fmt: skip
    assert told == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BenchOptions(methods=("combined",)), "method 'combined' needs a draft model"),
        (BenchOptions(methods=("tasc", "magic")), "unknown method 'magic': choose from plain, transformers"),
        (BenchOptions(draft_length=80), "draft_length is 80; it must be at most max_draft, 64"),
    ],
)
def test_methods_that_cannot_run_are_refused(task: Task, options: BenchOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench(tiny_model("llama"), byte_tokenizer(), task, options)
