"""The benchmark of predictions: what it counts as an error, and when the recommended method was the right one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
FOLDER = Path(__file__).parents[2] / "benches/python"
if not FOLDER.is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)


@pytest.fixture
def foresight(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import foresight

    yield foresight
    for name in ("foresight", "engine_steps", "on_model", "smoke_task", "generated_tasks"):
        sys.modules.pop(name, None)


def method(seconds: float, value: float, tokens: float = 10.0, low: float | None = None) -> dict[str, Any]:
    speedup = {"value": value, "low": low, "high": None if low is None else 2 * value - low}
    return {"seconds_per_output": seconds, "speedup": speedup, "base_tokens_per_output": tokens}


CASE = {
    "set": "teas", "engine": "tasc", "load": 1,
    "predicted": {"plain": method(8, 1), "drafts": method(2, 4), "both": method(1, 8)},
    "measured": {
        "rows": 3,
        "methods": {"plain": method(8, 1), "drafts": method(1.6, 5, low=4.5), "both": method(2, 4.4, tokens=11)},
    },
}  # fmt: skip


def test_errors_are_relative_to_what_was_measured(foresight: Any) -> None:
    drafts, both = foresight.compared([CASE])
    assert (drafts["error"], both["error"]) == pytest.approx((4 / 5 - 1, 8 / 4.4 - 1))
    assert (drafts["length"], both["length"]) == pytest.approx((1, 1.1))
    assert both["seconds"] == pytest.approx(1 * 1.1 / 2 - 1)  # for outputs as long as the measured ones


def test_the_recommended_method_may_lie_within_the_interval_of_the_fastest(foresight: Any) -> None:
    assert not foresight.is_right(CASE)
    CASE["measured"]["methods"]["drafts"]["speedup"]["low"] = 4.4  # type: ignore[index]
    assert foresight.is_right(CASE)


def test_speedups_count_base_tokens(foresight: Any) -> None:
    facts = foresight._facts([(4.0, 10), (4.0, 10)], [(1.0, 20), (1.0, 20)], 2)
    assert facts["speedup"]["value"] == pytest.approx(8)
    assert (facts["seconds_per_output"], facts["base_tokens_per_output"]) == (1, 20)
    assert foresight._facts([(4.0, 10)], [(1.0, 10)], 1)["speedup"] == {"value": 4.0, "low": None, "high": None}


def test_a_summary_leaves_out_what_is_not_measured(foresight: Any, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "teas.json"
    path.write_text(json.dumps({"set": "teas", "cases": [CASE, {**CASE, "load": 8, "measured": None}]}))
    with pytest.raises(SystemExit):
        foresight.arguments().parse_args(["--summary", str(path)])
    assert "of 1 cases" in capsys.readouterr().out
