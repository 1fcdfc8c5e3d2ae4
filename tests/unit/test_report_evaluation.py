"""The page of an evaluation shows what is there, escapes what models say, and needs no other file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_report import Structure

from tasc.evaluation.report import render_evaluation
from tasc.evaluation.report.evaluation import shown, verdict

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def evaluated() -> dict[str, Any]:
    """What `tasc eval --against --json` writes."""

    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": value + 0.05}

    nothing = {"value": None, "low": None, "high": None}
    times = {"steps": 20, "base_tokens_per_second": 30.0, "characters_per_second": 99.0, "seconds_p50": 0.1}
    sides = {
        "model": {"exact_match": figure(0.72), "base_tokens_per_step": figure(9.5), "adoption": figure(0.97)},
        "against": {"exact_match": figure(0.7), "base_tokens_per_step": figure(1.0), "adoption": nothing},
    }
    seconds = {"model": {"seconds_per_row": 0.25, "decode_seconds_per_row": 0.2}}
    seconds["against"] = {"seconds_per_row": 1.3, "decode_seconds_per_row": 1.25}
    return {
        "settings": {"model": "a/b", "system": None},
        "machine": {"cpus": 2},
        "models": {
            side: {"counts": {"rows": 300, "unfinished": 1}, "measures": measures} for side, measures in sides.items()
        },
        "comparison": {
            "exact_match": {"difference": 0.02, "low": -0.01, "high": 0.05},
            "adoption": {"difference": None, "low": None, "high": None},
        },
        "latency": [
            {
                "batch_size": 1,
                "batches": 20,
                "rounds": 3,
                "models": {side: facts | times for side, facts in seconds.items()},
                "speedup": {"value": 5.2, "low": 5.0, "high": 5.4},
                "decode_speedup": {"value": 6.25, "low": None, "high": None},
            }
        ],
        "outputs": [
            {"input": f"row {k}", "reference": "said", "texts": {"model": "said ", "against": f"other {k}"}}
            for k in range(10)
        ],
    }


def page(results: dict[str, Any], folder: Path) -> str:
    return render_evaluation(results, folder / "page.html").read_text(encoding="utf-8")


def test_everything_known_is_shown(tmp_path: Path) -> None:
    text = page(evaluated(), tmp_path)
    for expected in (
        "72.00 % [67.00, 77.00]",
        "+2.00 [-1.00, +5.00]",
        "9.50 [9.45, 9.55]",
        "5.20× [5.00×, 5.40×]",
        "6.25×",
        "6.2 times as fast at batch 1",
        "exact match +2.0 points",
        "unfinished 1",
        "250.0",
        "row 7",
        "other 7",
        "model: the same",
        "first 8 of 10 rows",
    ):
        assert expected in text, expected
    assert "row 8" not in text
    structure = Structure(text)
    assert structure.tags.count("svg") == 2
    assert structure.loaded == []
    assert not {"script", "link", "img", "iframe"} & set(structure.tags)


@pytest.mark.parametrize("kept", [set(), {"comparison"}, {"latency", "machine"}, {"outputs"}])
def test_missing_parts_are_left_out(kept: set[str], tmp_path: Path) -> None:
    results = {name: value for name, value in evaluated().items() if name in kept | {"models"}}
    text = page(results, tmp_path)
    assert "72.00 %" in text
    assert ("difference" in text) == ("comparison" in kept)
    assert ("decode ms/row" in text) == ("latency" in kept)
    assert ("Samples" in text) == ("outputs" in kept)
    assert "None" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


def test_a_comparison_of_one_row_has_no_interval() -> None:
    results = evaluated()
    facts = results["comparison"].get("slot_f1") or results["comparison"]["exact_match"]
    facts.update(low=None, high=None)
    found = verdict(results)
    assert found is not None and "points" in found and "[" not in found


def test_one_model_alone(tmp_path: Path) -> None:
    results = evaluated()
    del results["models"]["against"], results["comparison"]
    timed = results["latency"][0]
    del timed["models"]["against"], timed["speedup"], timed["decode_speedup"]
    for sample in results["outputs"]:
        del sample["texts"]["against"]
    text, _, steps = page(results, tmp_path).partition('class="next"')
    assert "--against BASE" in steps
    assert not any(word in text for word in ("against", "speed-up", "difference", "Difference"))
    assert verdict(results) is None


def test_what_models_say_is_escaped(tmp_path: Path) -> None:
    attack = "<script>alert('$x$')</script>"
    results = evaluated()
    results["outputs"][0] = {"input": attack, "reference": attack, "texts": {"model": attack + "!", attack: "x"}}
    results["models"] = {attack: results["models"]["model"], "b": results["models"]["against"]}
    results["models"][attack]["measures"][attack] = {"value": 1.0, "low": None, "high": None}
    results["settings"] = {attack: attack}
    text = page(results, tmp_path)
    assert "script" not in Structure(text).tags
    assert text.count("&lt;script&gt;") >= 8


def test_same_results_same_bytes(tmp_path: Path) -> None:
    assert page(evaluated(), tmp_path / "a") == page(evaluated(), tmp_path / "b")


def test_figures_without_a_value_are_a_dash() -> None:
    assert shown({}) == shown({"value": None, "low": None, "high": None}, share=True) == "–"
    assert shown({"value": 0.5, "low": None, "high": None}, share=True) == "50.00 %"
