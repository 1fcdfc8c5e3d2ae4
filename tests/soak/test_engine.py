"""An engine's adapter lives through faults: its text is right, its memory level, and every fault is in the metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("TASC_SOAK_SECONDS", "600"))


def soak(folder: Path, seconds: float) -> dict[str, float]:
    folder.chmod(0o777)
    script = Path(__file__).with_name("engine.py")
    done = subprocess.run([sys.executable, script, folder, str(seconds)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    facts: dict[str, float] = json.loads(done.stdout)
    assert facts["failed_steps"] == 0
    assert facts["tau"] > 2
    for fault in ("failures", "turned_off", "plain_requests", "refused_files", "reloads", "unlearnt_rows"):
        assert facts[fault] > 0, fault
    return facts


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process as on Linux")
def test_a_few_seconds(tmp_path_factory: pytest.TempPathFactory) -> None:
    soak(tmp_path_factory.mktemp("soak"), 1.0)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process as on Linux")
def test_minutes(tmp_path_factory: pytest.TempPathFactory) -> None:
    facts = soak(tmp_path_factory.mktemp("soak"), SECONDS)
    memory: list[int] = facts.pop("memory")  # type: ignore[assignment]
    print(f"\n{json.dumps(facts)}\nmemory: {memory[0]} to {memory[-1]} bytes, at most {max(memory)}")
    assert max(memory[len(memory) // 2 :]) < memory[0] + (32 << 20)
