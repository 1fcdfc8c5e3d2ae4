"""Commands that are killed, or whose system calls fail, at every place: nothing is lost, half or left behind."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for package in ("torch", "transformers", "accelerate", "peft", "jinja2"):
    pytest.importorskip(package)
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from cases import CASES, TRAININGS, Trial, prepare  # noqa: E402
from injector import CALLS, FAILING, Commands  # noqa: E402

import tasc  # noqa: E402

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="strace, /proc")
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None or subprocess.run(["strace", "-o", os.devnull, "true"], check=False).returncode != 0,
    reason="strace is not installed, or may not trace",
)
CHEAP = ("index", "compact", "remove", "serve", "full", "append", "learn", "export", "count")
COUNTS = Path(__file__).parents[2] / "out" / "faults.json"
"""How many faults came, over all runs; remove it to begin anew."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("faults")
    prepare(made / "start")
    return made


@pytest.fixture(scope="module")
def commands(folder: Path) -> Iterator[Commands]:
    commands = Commands(folder)
    yield commands
    commands.close()


@pytest.fixture
def trial(request: pytest.FixtureRequest, commands: Commands, folder: Path) -> Trial:
    case = next(case for case in CASES if case.name == request.param)
    return Trial.of(case, commands, folder / "start")


@pytest.mark.parametrize("trial", CHEAP, indirect=True)
def test_killed_at_a_random_time(trial: Trial) -> None:
    begin = time.perf_counter()
    trial.commands.reset(trial.start)
    trial.commands(list(trial.case.command))
    seconds = time.perf_counter() - begin
    draw = random.Random(1)
    for _ in range(2):
        trial.fault(kill_after=draw.random() * seconds)


@pytest.mark.kill
@pytest.mark.parametrize("trial", [case.name for case in TRAININGS], indirect=True)
def test_a_training_killed_again_and_again_ends_as_if_it_had_not_been(trial: Trial) -> None:
    begin = time.perf_counter()
    trial.chain(())
    seconds = time.perf_counter() - begin
    draw = random.Random(1)
    trial.chain(draw.random() * seconds for _ in range(4))


@needs_strace
@pytest.mark.parametrize("trial", ("index", "compact", "full"), indirect=True)
def test_killed_between_two_names(trial: Trial) -> None:
    calls = ("rename", "linkat", "unlink")
    trial.commands.reset(trial.start)
    for call, count in trial.commands.counts(list(trial.case.command), calls).items():
        for number in (1, count) if count else ():
            assert trial.fault("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")


@needs_strace
@pytest.mark.parametrize("trial", ("index", "compact", "serve"), indirect=True)
def test_the_disk_is_full(trial: Trial) -> None:
    calls = ("write", "copy_file_range", "fsync", "fdatasync")
    trial.commands.reset(trial.start)
    counts = trial.commands.counts(list(trial.case.command), calls)
    assert any([
        trial.fault("-e", f"trace={call}", "-e", f"inject={call}:error={FAILING[call]}:when={number}")
        for call in calls
        for number in {1, counts[call] // 2 + 1} if counts[call]
    ])  # fmt: skip


class Tally:
    """Counts of faults in `COUNTS`, and the systematic ones that are done with the present code."""

    def __init__(self) -> None:
        sources = [*sorted(Path(tasc.__file__).parent.rglob("*.py")), Path(tasc._core.__file__)]
        code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
        self.state: dict[str, Any] = {"code": code, "done": [], "random": 0, "came": {}, "failed": []}
        if COUNTS.exists():
            old = json.loads(COUNTS.read_text())
            self.state |= old if old["code"] == code else {"came": old["came"], "random": old["random"]}

    def add(self, kind: str, case: str, place: str, trial: Trial, *options: str, **more: Any) -> None:
        """Make a fault, count it and store the counts."""
        if f"{case} {place}" in self.state["done"]:
            return
        try:
            if trial.fault(*options, **more):
                came = self.state["came"].setdefault(kind, {})
                came[case] = came.get(case, 0) + 1
        except AssertionError as error:
            self.state["failed"].append(f"{kind} {case} {place}: {error}"[-2000:])
        if place:
            self.state["done"].append(f"{case} {place}")
        COUNTS.parent.mkdir(exist_ok=True)
        COUNTS.with_suffix(".new").write_text(json.dumps(self.state))
        COUNTS.with_suffix(".new").replace(COUNTS)


def places(trial: Trial) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, options of strace) of every fault at a system call of a command."""
    trial.commands.reset(trial.start)
    for call, count in trial.commands.counts(list(trial.case.command), CALLS).items():
        for number in range(1, count + 1):
            yield f"kill {call} {number}", ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
            if call in FAILING:
                error = f"inject={call}:error={FAILING[call]}:when={number}"
                yield f"error {call} {number}", ["-e", f"trace={call}", "-e", error]
    for mapped in ("task.tasc", "task.store", "out.tasc", "task.plan", "out.plan", "out.ngrams"):
        path = str(trial.commands.run / mapped)
        yield f"error mmap {mapped}", ["-e", "trace=mmap", "-e", "inject=mmap:error=ENOMEM:when=1+", "-P", path]


@needs_strace
@pytest.mark.kill
def test_faults_everywhere(commands: Commands, folder: Path) -> None:
    """`TASC_FAULT_MINUTES` (10) long: every place once, in any order, then random times. Stopped runs go on.

    `TASC_FAULT_CASES`: names of cases, separated by commas; by default all.
    """
    tally, end = Tally(), time.monotonic() + 60 * float(os.environ.get("TASC_FAULT_MINUTES", "10"))
    names = os.environ.get("TASC_FAULT_CASES", ",".join(case.name for case in CASES)).split(",")
    trials, seconds = {}, {}
    for case in (case for case in CASES if case.name in names):
        begin = time.perf_counter()
        trials[case.name] = Trial.of(case, commands, folder / "start")
        seconds[case.name] = time.perf_counter() - begin
    faults = [(name, *place) for name, trial in trials.items() for place in places(trial)]
    random.Random(0).shuffle(faults)
    for name, place, options in faults:
        if time.monotonic() > end:
            break
        tally.add(f"{place.split()[0]}s", name, place, trials[name], *options)
    while time.monotonic() < end:
        draw = random.Random(tally.state["random"])
        tally.state["random"] += 1
        name = draw.choice(sorted(trials))
        tally.add("kills at random", name, "", trials[name], kill_after=draw.random() * seconds[name])
    report(tally)


def report(tally: Tally) -> None:
    """Print the counts; fail if anything failed with the present code."""
    totals = Counter({kind: sum(cases.values()) for kind, cases in tally.state["came"].items()})
    print(f"\n{dict(totals)}: {tally.state['came']}")
    assert not tally.state["failed"], "\n".join(tally.state["failed"])
