"""Two processes, as two devices would be: the same loss curve as one process with batches twice as large."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
UNIT = Path(__file__).parents[1] / "unit"
sys.path.insert(0, str(UNIT))
from test_tune import TASK, model_folder  # noqa: E402


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    folder = model_folder("llama-tied", tmp_path)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in TASK))
    curves = []
    for count in (1, 2):
        out = tmp_path / f"tuned-{count}"
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", str(29500 + count)]
        options = ["--max-steps", "3", "--batch-size", str(8 // count), "--precision", "fp32", "--rank", "2",
                   "--system", "Say what the row holds, in the words of the others."]  # fmt: skip
        command = [sys.executable, *launcher, "-m", "tasc.cli", "tune", "--model", folder, "--data", data, "-o", out]
        subprocess.run(
            [*map(str, command), *options], check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        facts = json.loads((out / "tuning.json").read_text())
        assert facts["rows_per_step"] == 8
        curves.append([entry["loss"] for entry in facts["curve"]])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
