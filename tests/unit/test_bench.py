"""What a benchmark makes of answers, without a model."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from tasc.data.endings import required_eos_ids  # noqa: E402
from tasc.decoding.stats import Stats  # noqa: E402
from tasc.errors import InputError  # noqa: E402
from tasc.evaluation.bench import Answer, Tally, draft_facts, without_eos  # noqa: E402


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
