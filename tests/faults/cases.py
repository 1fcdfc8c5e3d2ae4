"""Commands that write, the folder that each starts in, and what holds of it after a fault and after the next run."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from injector import Commands, Ended, listing
from library import OUTPUT
from tiny_models import byte_tokenizer, tiny_model

from tasc import MergePlan, NgramDrafter, TaskIndex, TokenStore
from tasc.data import load_tokenizer

ROWS = [
    {"input": f"from {a} to {b} at {k}", "output": f"f={a} t={b} n={k};", "split": "test" if k == 3 else "train"}
    for a in ("oslo", "boston", "denver")
    for b in ("san jose", "dallas")
    for k in range(4)
]
SERVED = 30
"""Rows in the log that is merged."""


@dataclass(frozen=True)
class Case:
    """One command."""

    name: str
    command: tuple[str, ...]
    outputs: tuple[str, ...]
    """Files or folders that it writes."""
    keeps: str = r"(?!)"
    """Pattern of names that it may leave after a fault, until the next run."""
    varies: str = r"(?!)"
    """Pattern of names of files whose contents differ from run to run."""
    check: Callable[[Path, bool], None] = lambda run, ended: None
    """Called with the folder after a fault (False), and after the next run (True)."""


def weight(run: Path, ended: bool) -> None:
    """A compacted index and its log count every row once."""
    index = TaskIndex.open(run / "task.tasc")
    drafter = NgramDrafter(index, served=run / "task.tasc.served")
    assert int(index.info()["weight"]) + drafter.num_served == len(ROWS) + SERVED
    assert not ended or drafter.num_served == 0


def removed(run: Path, ended: bool) -> None:
    """Of an index and its log, rows that stay count once, and rows that go are all gone in the end."""
    index = TaskIndex.open(run / "task.tasc")
    drafter = NgramDrafter(index, served=run / "task.tasc.served")
    gone = (len(ROWS) - int(index.info()["weight"]), SERVED - drafter.num_served)
    assert gone == (1, 2) or (not ended and gone in ((0, 0), (1, 0)))


def served_inputs(run: Path) -> list[str]:
    """Return the inputs of the rows in the log."""
    index, folder = TaskIndex.open(run / "task.tasc"), run.parent / "opened"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log = run / "task.tasc.served"
    if not log.exists():
        return []
    merged, count = index.compact(folder / "all.tasc", served=log, fit=False)
    store = merged.to_store(folder / "all.store")
    inputs = Counter[str]()
    for number in range(store.num_inputs):
        text, _, multiplicity = store.input(number)
        inputs[text] += multiplicity
    inputs -= Counter(row["input"] for row in ROWS)
    assert sum(inputs.values()) == count
    return sorted(inputs.elements())


def acknowledged(run: Path) -> dict[str, int]:
    """Return how many calls were acknowledged, by the name of the run."""
    return {path.name[-1]: path.stat().st_size for path in sorted(run.parent.glob("acknowledged-*"))}


def acknowledged_rows(run: Path, ended: bool) -> None:
    """Every row of an acknowledged call is in the log, once; of the call after them all, some or none."""
    inputs = served_inputs(run)
    assert len(set(inputs)) == len(inputs)
    for name, calls in acknowledged(run).items():
        possible = [f"{name} {call} {half}" for call in range(calls + 1) for half in "ab"]
        assert set(possible[:-2]) <= {text for text in inputs if text.startswith(name)} <= set(possible)


def latest_rows(run: Path, ended: bool) -> None:
    """The rows of the last acknowledged call are in a full log, and no row is twice."""
    inputs = served_inputs(run)
    assert len(set(inputs)) == len(inputs)
    last = [(name, calls) for name, calls in acknowledged(run).items() if calls]
    for name, calls in last[-1:]:
        assert {f"{name} {calls - 1} {half}" for half in "ab"} <= set(inputs)


def appended(run: Path, ended: bool) -> None:
    """A store has the old rows and the new one; twice, if the run after the fault appended it again."""
    store = TokenStore.open(run / "task.store")
    store.verify()
    count = sum(store.weight(number) for number in range(len(store))) - len(ROWS)
    assert count in ((1, 2) if ended else (0, 1))


def partial_lines(run: Path, ended: bool) -> None:
    """Each line of a partial file is a whole output, of a row that no other line is of; the next run removes it."""
    partial = run / "out.jsonl.partial"
    assert not (ended and partial.exists())
    if partial.exists():
        lines = partial.read_bytes().splitlines(keepends=True)[1:]
        outputs = [json.loads(line) for line in lines if line.endswith(b"\n")]
        assert all(record["input"] == ROWS[number]["input"] and "output" in record for number, record in outputs)
        assert len({number for number, _ in outputs}) == len(outputs) >= len(lines) - 1


GENERATE = ("tasc", "generate", "rows.jsonl", "--model", "model", "--max-tokens", "8", "--batch-size", "3")
FACTS = r"(tuning|distill)\.json"
"""Pattern of names of JSON files that hold the figures of a training, times among them."""
TIMES = {"seconds", "resumed_at"}
"""Their keys that differ from run to run."""


def without_times(value: Any) -> Any:
    """Return JSON without the values of `TIMES`."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def tuning(name: str, *options: str) -> Case:
    """Return the case of a fine-tuning of four steps, with a checkpoint after every second one."""
    return Case(
        name,
        ("tasc", "tune", "--model", "model", "--data", "rows.jsonl", "-o", "out", "--max-steps", "4",
         "--save-every", "2", "--batch-size", "2", *options),
        ("out",), r"out\.tuning.*",
    )  # fmt: skip


def distillation(name: str, *options: str, config: str = "distill.toml") -> Case:
    """Return the case of a distillation: a reference, a draft and a baseline, of four steps or more."""
    return Case(
        name,
        ("tasc", "distill", "--target", "model", "--data", "rows.jsonl", "-o", "out", "--steps", "4",
         "--split", "train", "--config", config, *options),
        ("out", "out.baseline"), r"out\.(distilling|baseline).*",
    )  # fmt: skip


TRAININGS = [
    tuning("tune"),
    tuning("tune-full", "--method", "full"),
    distillation("distill", "--layers", "1"),
    distillation("distill-reference", "--layers", "1", config="reference.toml"),
    distillation("distill-early", "--layers", "1", "--validation-split", "test", config="early.toml"),
    distillation("distill-narrow", "--draft-size", "32K"),
    distillation("distill-random", "--draft-size", "32K", config="random.toml"),
    distillation("distill-moving", "--layers", "1", config="moving.toml"),
    distillation("distill-on-policy", "--layers", "1", config="on_policy.toml"),
    distillation("distill-eagle", "--draft", "eagle"),
]
CASES = [
    Case(
        "index",
        ("tasc", "index", "build", "rows.jsonl", "-o", "out.tasc", "--tokenizer", "model", "--store", "out.store",
         "--no-fit", "--force"),
        ("out.tasc", "out.store"),
    ),
    Case(
        "compact", ("tasc", "index", "compact", "task.tasc", "--tokenizer", "model", "--no-fit"), (),
        varies="task.tasc", check=weight,
    ),
    Case(
        "remove",
        ("tasc", "index", "remove", "task.tasc", "--where", "gone.jsonl", "--tokenizer", "model", "--no-fit"), (),
        varies="task.tasc", check=removed,
    ),
    Case("serve", ("serve", "12", "65536", "1"), (), "task.tasc.served", "task.tasc.served", acknowledged_rows),
    Case("full", ("serve", "24", "65536", "500"), (), "task.tasc.served", "task.tasc.served", latest_rows),
    Case("append", ("append",), (), varies="task.store", check=appended),
    Case(
        "learn",
        ("tasc", "vocab", "learn", "rows.jsonl", "--tokenizer", "model", "-o", "out.plan", "--size", "4",
         "--min-count", "2", "--min-documents", "2", "--held-out", "0", "--force"),
        ("out.plan",),
    ),
    Case("apply", ("tasc", "vocab", "apply", "--model", "model", "--plan", "task.plan", "-o", "out"), ("out",)),
    Case("export", ("tasc", "export", "llama-lookup", "task.tasc", "-o", "out.bin", "--force"), ("out.bin",)),
    Case(
        "count", ("tasc", "count", "rows.jsonl", "--tokenizer", "model", "-o", "out.ngrams", "--force"), ("out.ngrams",)
    ),
    Case(
        "generate", (*GENERATE, "-o", "out.jsonl", "--force"), ("out.jsonl",), r"out\.jsonl\.partial",
        check=partial_lines,
    ),
    *TRAININGS,
    Case(
        "replay",
        ("tasc", "replay", "rows.jsonl", "--tokenizer", "model", "--drafters", "tasc", "--html", "out.html", "--force"),
        ("out.html",), varies=r"out\.html",
    ),
    Case(
        "eval",
        ("tasc", "eval", "--model", "model", "--data", "rows.jsonl", "--limit", "2", "--max-tokens", "4",
         "--batch-sizes", "1", "--latency-rows", "1", "--rounds", "1", "-o", "out.json", "--html", "out.html",
         "--save-outputs", "out.jsonl", "--force"),
        ("out.json", "out.html", "out.jsonl"), varies=r"out\.(json|html)",
    ),
]  # fmt: skip


def prepare(folder: Path) -> None:
    """Make the folders that the commands start in, by the names of their cases; outputs that are files exist there."""
    base = folder / "base"
    base.mkdir(parents=True)
    tokenizer = byte_tokenizer()
    tiny_model("llama").save_pretrained(base / "model")
    tokenizer.save_pretrained(base / "model")
    (base / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = 'batch_size = 4\nprecision = "fp32"\nmax_output = 8\nk = 0.5\n'
    more = {
        "distill": 'select = "adaspec"\nsave_every = 2\n',
        # So high a rate that the best checkpoint is not the last.
        "early": 'select = "adaspec"\nsave_every = 1\npatience = 1\nlearning_rate = 1.0\n',
        "reference": 'select = "adaspec"\nsave_every = 2\ninit_from = "reference"\n',
        "random": 'select = "random"\nsave_every = 1\nvocabulary = 40\n',
        "moving": 'select = "moving"\nsave_every = 1\n',
        "on_policy": 'select = "all"\nsave_every = 1\non_policy = 0.5\n',
    }
    for name, text in more.items():
        (base / f"{name}.toml").write_text(settings + text)
    task = load_tokenizer(tokenizer, eos="<eos>")
    store = TokenStore.build(ROWS, task, base / "task.store")
    index = TaskIndex.build(store, base / "task.tasc", tokenizer=task, fit=False)
    MergePlan.learn(store, base / "task.plan", size=4, min_count=2, min_documents=2, held_out=0)
    for case in CASES:
        own = folder / case.name
        shutil.copytree(base, own)
        for name in case.outputs:
            if "." in name and name != "out.baseline" and not (own / name).exists():
                (own / name).write_text("old")
    for name in ("compact", "remove"):
        drafter = NgramDrafter(index, served=folder / name / "task.tasc.served")
        drafter.serve([(f"new {k}", OUTPUT) for k in range(SERVED)])
    gone = [ROWS[0]["input"], "new 0", "new 1"]
    (folder / "remove" / "gone.jsonl").write_text("".join(json.dumps({"input": text}) + "\n" for text in gone))


@dataclass
class Trial:
    """A case, and how it ends without a fault."""

    case: Case
    commands: Commands
    start: Path
    before: dict[str, bytes]
    after: dict[str, bytes]

    @classmethod
    def of(cls, case: Case, commands: Commands, folder: Path) -> Trial:
        """Run the case without a fault."""
        start = folder / case.name
        commands.reset(start)
        for noted in commands.place.glob("acknowledged-*"):
            noted.unlink()
        ended = commands(list(case.command))
        assert ended.code == 0, ended.stderr
        after = listing(commands.run)
        assert not [name for name in after if ".tasc-" in name]
        return cls(case, commands, start, listing(start), after)

    def fault(self, *options: str, kill_after: float | None = None) -> bool:
        """Run the case with a fault and check its folder, then run it again and check that. Return whether it came."""
        self.commands.reset(self.start)
        for noted in self.commands.place.glob("acknowledged-*"):
            noted.unlink()
        ended = self.commands(list(self.case.command), *options, kill_after=kill_after)
        if not ended.injected:
            return False
        found = listing(self.commands.run)
        if ended.code == 0:
            self._check_done(found)
            self.case.check(self.commands.run, True)
            return True
        if ended.code > 0:  # an error, and not a kill
            said = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
            assert ended.code == 2 and len(said) == 1 and "Traceback" not in ended.stderr, ended.stderr
            left = [name for name in found.keys() - self.after.keys() if not re.fullmatch(self.case.keeps, name)]
            assert not left, (left, ended.stderr)
        else:
            assert ended.code == -9, (ended.code, ended.stderr)
        for name in self._files(self.case.outputs):
            assert self._is_same(name, found, self.before) or self._is_same(name, found, self.after), name
        self.case.check(self.commands.run, False)
        self._next_run()
        return True

    def chain(self, moments: Iterable[float]) -> None:
        """Kill the case after each of `moments` (seconds), each run in the folder that the one before it has left.

        A run that ends before its moment ends as a run without a fault, or finds the output of the one before it.

        The outputs of a last run, which is not killed, are those of a run that never was.
        """
        self.commands.reset(self.start)
        for moment in moments:
            ended = self.commands(list(self.case.command), kill_after=moment)
            assert ended.code in (0, -9) or self._is_there(ended), ended.stderr
            self.case.check(self.commands.run, False)
        self._next_run()

    def _next_run(self) -> None:
        ended = self.commands(list(self.case.command))
        assert ended.code == 0 or self._is_there(ended), ended.stderr
        self._check_done(listing(self.commands.run))
        self.case.check(self.commands.run, True)

    def _is_there(self, ended: Ended) -> bool:
        """Whether a run was refused because its output folder exists."""
        return ended.code == 2 and "is there already" in ended.stderr and "out" in self.case.outputs

    def _check_done(self, found: dict[str, bytes]) -> None:
        """Check that what is there is what a run without a fault leaves."""
        assert found.keys() == self.after.keys(), found.keys() ^ self.after.keys()
        for name in found:
            assert self._is_same(name, found, self.after), name

    def _is_same(self, name: str, one: dict[str, bytes], other: dict[str, bytes]) -> bool:
        if re.fullmatch(self.case.varies, name.rpartition("/")[2]):
            return (name in one) == (name in other)
        if name in one and name in other and re.fullmatch(FACTS, name.rpartition("/")[2]):
            return bool(without_times(json.loads(one[name])) == without_times(json.loads(other[name])))
        return one.get(name) == other.get(name)

    def _files(self, outputs: tuple[str, ...]) -> list[str]:
        """Return the names of files in the outputs."""
        return [name for name in self.after if name.split("/")[0] in outputs]
