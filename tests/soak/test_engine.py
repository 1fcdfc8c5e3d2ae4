"""An engine's adapter lives through faults: its text is right, its memory level, and every fault is in the metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("TASC_SOAK_SECONDS", "600"))


def soak(seconds: float) -> dict[str, float]:
    script = Path(__file__).with_name("engine.py")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to the user that the script becomes
        Path(folder).chmod(0o777)
        command = [sys.executable, script, folder, str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    facts: dict[str, float] = json.loads(done.stdout)
    assert facts["failed_steps"] == 0
    assert facts["tau"] > 2
    for fault in ("failures", "turned_off", "plain_requests", "refused_files", "reloads", "unlearnt_rows"):
        assert facts[fault] > 0, fault
    return facts


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process as on Linux")
def test_a_few_seconds() -> None:
    soak(1.0)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process as on Linux")
def test_minutes() -> None:
    facts = soak(SECONDS)
    memory: list[int] = facts.pop("memory")  # type: ignore[assignment]
    print(f"\n{json.dumps(facts)}\nmemory: {memory[0]} to {memory[-1]} bytes, at most {max(memory)}")
    assert max(memory[len(memory) // 2 :]) < memory[0] + (32 << 20)
