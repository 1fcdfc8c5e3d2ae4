"""Python benchmarks run in their tiny form, and the JSON that they write says something."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benches" / "python"


METHODS = {"plain", "drafts", "vocabulary", "both"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "count_ngrams",
        "draft_quality",
        "draft_latency",
        "draft_cost",
        "input_latency",
        "index_build",
        "end_to_end",
        "plain_loop",
        "merge_speed",
        "tokens_saved",
        "round_trip",
        "extended_drafts",
        "tuned_vocabulary",
        "transformers_generate",
        "served_rows",
        "predictors",
        "one_length",
        "throughput",
        "many_callers",
        "grammar",
        "int8_weights",
        "foresight",
        "paper",
    ],
)
def test_smoke(tmp_path: Path, name: str) -> None:
    with_model = (
        "end_to_end",
        "plain_loop",
        "transformers_generate",
        "throughput",
        "many_callers",
        "int8_weights",
        "draft_cost",
    )
    if name in (*with_model, "foresight"):
        pytest.importorskip("transformers")
    output = tmp_path / "out.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--smoke", "-o", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    if name == "tuned_vocabulary":  # tiny, it has nothing to say
        return
    found = json.loads(output.read_text())
    assert found
    if name == "foresight":
        assert [set(case["measured"]["methods"]) for case in found["cases"]] == [METHODS] * 2
    assert all(ratio["ours"] >= 0 for ratio in found.get("ratios", ()))
