"""`make demo` end to end, on few requests."""

import json
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo"


@pytest.mark.model
def test_the_demo_does_its_task_faster_with_the_same_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(DEMO))
    monkeypatch.setattr(sys, "argv", ["run.py", "--prompts", "6", "--out", str(tmp_path)])
    import run

    run.main()
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    ours = results["methods"]["tasc"]
    assert ours["identical"] == ours["requests"] == 6
    assert ours["exact"] >= 3  # of the six; chance alone would leave none
    assert ours["tau"] > 2
    assert (tmp_path / "report.html").stat().st_size > 20_000
