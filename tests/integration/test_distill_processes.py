"""Two processes distil as two devices would: the same loss curves as one process with batches twice as large."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from drafts import folder, tiny


@pytest.mark.slow
def test_two_processes_distil_as_one(tmp_path: Path) -> None:
    target = folder(tmp_path / "target", tiny())
    data = tmp_path / "rows.jsonl"
    rows = [{"input": f"row {n}", "output": f"at {n}:30", "split": "train"} for n in range(10, 26)]  # equally long
    rows += [{"input": f"row {n}", "split": "test"} for n in range(3)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for count in (1, 2):
        out = tmp_path / f"draft-{count}"
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", str(29510 + count)]
        config = tmp_path / f"{count}.toml"
        config.write_text(f'batch_size = {8 // count}\nprecision = "fp32"\nmax_output = 9\n')
        options = ["--steps", 3, "--layers", 2, "--config", config]
        command = [
            sys.executable, *launcher, "-m", "tasc.cli", "distill", "--target", target, "--data", data, "-o", out,
            "--split", "train", "--validation-split", "test", *options,
        ]  # fmt: skip
        subprocess.run(list(map(str, command)), check=True, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found.append(json.loads((out / "distill.json").read_text()))
    curves = [[entry["loss"] for entry in facts["stages"]["draft"]["curve"]] for facts in found]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert [facts["stages"]["draft"]["rows_per_step"] for facts in found] == [8, 8]
    assert all(facts["acceptance"]["draft"]["prompts"] == 3 for facts in found)
