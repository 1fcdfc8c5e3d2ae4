"""vLLM's adapter under faults, in a process of its own: `engine.py FOLDER SECONDS` prints facts as one line of JSON.

32 requests run at once and vanish at random. Every few moments another fault begins: no thread can be started, writes
fail, the index is replaced by a rename, written over in place or by half of a file, or the drafter fails.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("unit", "support")]

import numpy as np
from engines import Asked, Engine
from tiny_models import byte_tokenizer

from tasc import TaskIndex
from tasc.adapters import vllm
from tasc.data import TokenStore, load_tokenizer
from tasc.drafting.protocol import Costs, Draft, DrafterWrapper, SafeDrafter
from tasc.serving import TaskDrafts, backoff, reload

PLACES = ("boston", "denver", "oslo", "new york", "北京")
MOST = 32
PERIOD = 0.4
"""Seconds of each fault, and between two faults."""


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Rows whose outputs follow from their inputs."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        a, b, n = chance.choice(PLACES), chance.choice(PLACES), chance.randrange(40)
        made.append({"input": f"from {a} to {b} at {n}", "output": f"from={a} to={b} n={n};"})
    return made


class Failing(DrafterWrapper):
    """Fails whenever it drafts."""

    def propose_batch(self, requests: Sequence[Any], max_tokens: int, costs: Costs | None = None) -> Sequence[Draft]:
        raise RuntimeError("a fault")


class Faults:
    """The faults of a run, in turn.

    Args:
        folder: Holds `task.tasc`, which is served, and the files `0.tasc` and `1.tasc` to replace it with.
        drafts: The task of the index.
    """

    def __init__(self, folder: Path, drafts: TaskDrafts) -> None:
        self._folder, self._drafts = folder, drafts
        self._served = folder / "task.tasc"
        self.begun = 0

    def begin(self) -> None:
        """Begin the next fault."""
        kinds = (self._no_threads, self._no_disk, self._rename, self._write_over, self._write_half, self._failing)
        kinds[self.begun % len(kinds)]()
        self.begun += 1

    def end(self) -> None:
        """End the fault."""
        for limit in (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):
            resource.setrlimit(limit, (resource.getrlimit(limit)[1],) * 2)
        if isinstance(self._drafts.drafter.drafter, Failing):
            self._drafts.drafter = SafeDrafter(self._drafts.drafter.drafter.drafter)

    def _no_threads(self) -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, resource.getrlimit(resource.RLIMIT_NPROC)[1]))

    def _no_disk(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def _next(self) -> Path:
        return self._folder / f"{self.begun // 6 % 2}.tasc"

    def _rename(self) -> None:
        shutil.copy(self._next(), self._folder / "new")
        os.replace(self._folder / "new", self._served)

    def _write_over(self) -> None:
        shutil.copyfile(self._next(), self._served)

    def _write_half(self) -> None:
        whole = self._next().read_bytes()
        self._served.write_bytes(whole[: len(whole) // 2])

    def _failing(self) -> None:
        self._drafts.drafter = SafeDrafter(Failing(self._drafts.drafter.drafter))


class Crowd:
    """Requests that come, and of which some vanish before their end. Their outputs are checked by the engine's law."""

    def __init__(self, propose: Any, tokenizer: Any) -> None:
        self._propose, self._tokenizer = propose, tokenizer
        self._chance = random.Random(0)
        self.done = self.vanished = self.tokens = self.steps = 0

    def run(self) -> None:
        """Run some requests at once to their end, or until they vanish."""
        asked = []
        for row in rows(MOST, self._chance.randrange(1 << 30)):
            prompt = self._tokenizer.encode(row["input"] + "\n").tolist()
            says = [*self._tokenizer.encode(row["output"]).tolist(), self._tokenizer.eos_id]
            if self._chance.random() < 0.3:  # it vanishes: its row is another request's at the next step
                says = says[: self._chance.randrange(1, len(says))]
                self.vanished += 1
            asked.append(Asked(prompt, says, self._chance.randrange(4)))
        self.steps += Engine(self._propose, MOST, [self._chance.randrange(3)]).run(asked)
        for one in asked:
            assert one.output == one.says, (one.output, one.says)
            self.tokens += len(one.says)
        self.done += len(asked)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def proposer(folder: Path, model_tokenizer: Any, tokenizer: Any) -> vllm.TascProposer:
    """Return vLLM's proposer over `task.tasc`, which learns."""
    settings = {"learn": True, "served_bytes": 1 << 20, "log_bytes": 1 << 20, "metrics": "metrics.prom", "cost": 1e-4}
    (folder / "task.tasc.json").write_text(json.dumps(settings))
    os.environ["TASC_INDEX"] = str(folder / "task.tasc")
    vllm.engine_tokenizer = lambda model: model_tokenizer
    vllm.engine_eos_ids = lambda model, tokenizer_: frozenset([tokenizer.eos_id])
    model = SimpleNamespace(
        max_model_len=512, get_vocab_size=lambda: tokenizer.vocab_size, served_model_name="m", tokenizer="t"
    )
    return vllm.TascProposer(
        SimpleNamespace(model_config=model, speculative_config=SimpleNamespace(num_speculative_tokens=16))
    )


def main(folder: Path, seconds: float) -> None:
    """Run for some seconds and print facts."""
    reload.CHECK_SECONDS, backoff.FIRST, backoff.LONGEST = 0.05, 0.05, 0.1
    made = byte_tokenizer()
    tokenizer = load_tokenizer(made, eos="<eos>")
    for number in range(2):
        store = TokenStore.build(rows(300, number), tokenizer, folder / f"{number}.store")
        TaskIndex.build(store, folder / f"{number}.tasc", tokenizer=tokenizer, fit=False)
    shutil.copy(folder / "0.tasc", folder / "task.tasc")
    if os.geteuid() == 0:  # who may do everything is under no limit of processes
        for file in [folder, *folder.iterdir()]:
            os.chown(file, 65534, 65534)
        os.setgid(65534)
        os.setuid(65534)
    serving = proposer(folder, made, tokenizer)
    drafts = serving._tasks.choose(np.array([1]))
    faults, crowd = Faults(folder, drafts), Crowd(serving.propose, tokenizer)
    start, memory = time.monotonic(), []
    while time.monotonic() - start < seconds or faults.begun < 6:
        for change in (faults.begin, faults.end):
            change()
            until = time.monotonic() + PERIOD
            while time.monotonic() < until:
                crowd.run()
        memory.append(resident())
    found = serving.metrics.as_dict()
    facts = {
        "seconds": time.monotonic() - start, "requests": crowd.done, "vanished": crowd.vanished, "tokens": crowd.tokens,
        "steps": crowd.steps, "faults": faults.begun, "memory": memory[len(memory) // 3 :],
        "failed_steps": found["failed_steps"], **found["indexes"]["task.tasc"],
    }  # fmt: skip
    print(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
