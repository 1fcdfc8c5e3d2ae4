"""Quality over the size of a task vocabulary, and who pays for it; ways to make one small model fast, in one table.

    python benches/python/paper.py quality DATA/slurp.jsonl.gz --work FOLDER --system TEXT -o FILE [--figure SVG]
    python benches/python/paper.py quality DATA/slu_atis.jsonl.gz --work FOLDER --system TEXT --sizes 0 192 --seeds 0 --ways
    python benches/python/paper.py quality --smoke

DATA holds rows {input, output, split}, outputs JSON with `intent` and `slots`. An *arm* is a size K of the vocabulary and
a seed: K new tokens are learned from the `train` rows (K = 0: none), the model is extended and tuned, equally for all
arms, and answers `test` rows. Drafts make the answers: they are those of plain decoding, so the tokens of an answer are
plain decoding's steps. Everything is kept in the work folder: `k500.plan`, `k500-extended`, `k500-s0` (the tuned model),
`k500-s0.json` (its answers). A second call does what is missing; a tuned model that is put there, or a link to one, is
taken as it is. The folder is of one data file, model and recipe: with others, the command is refused. With --no-tune,
only arms whose model is there are answered and reported. The tables say which are not.

With --ways, the model without new tokens is compared with the one with the most, both of the first seed. `WORK/half` is a
smaller model distilled from the former, and `WORK/draft` a draft model for it, both by `tasc distill`. They are left out of
the table where they are not there.

Slots are counted by how often a (name, value) stands in the training rows: a slot that is predicted or expected belongs
to its own group. Intervals are 95 % bootstrap over rows, differences are paired. Arms of several seeds count together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from paper_results import KeptResults
from ratios import Ratio, report
from smoke_task import tiny_checkpoint

from tasc import Generator, MergePlan, NullDrafter, TaskIndex, TuneOptions, extend_checkpoint, learn_vocabulary, tune
from tasc.cli.console import err, out, print_table, progress_bars
from tasc.data import TokenStore, load_tokenizer, read_rows
from tasc.errors import InputError
from tasc.evaluation.bootstrap import Measure, estimate, ratio
from tasc.evaluation.provenance import folder_key
from tasc.evaluation.task_metrics import exact_match, seen_slots, slot_f1, slot_f1_by_seen, slots
from tasc.files import write_json
from tasc.models import checkpoint, load_checkpoint, use_threads

PAPER = {0: 63.0, 250: 64.6, 500: 64.3, 1000: 63.4}
"""Joint accuracy on MASSIVE by number of new tokens (arXiv 2602.24174, Qwen2.5-0.5B, QLoRA, 3 epochs)."""

PERCENT = ("exact_match", "intent", "slot_f1", "joint", "slot_f1_unseen", "slot_f1_rare", "slot_f1_frequent")
LABELS = {
    "exact_match": "exact match, %",
    "intent": "intent accuracy, %",
    "slot_f1": "slot F1, %",
    "joint": "joint accuracy, %",
    "steps": "decoding steps per output",
    "slot_f1_unseen": "slot F1, slot not in training, %",
    "slot_f1_rare": "slot F1, slot 1 to 5 times, %",
    "slot_f1_frequent": "slot F1, slot more than 5 times, %",
}
RESAMPLES = 2000


@dataclass(frozen=True)
class Arm:
    """One tuned model."""

    size: int
    seed: int

    @property
    def name(self) -> str:
        return f"k{self.size}-s{self.seed}"


@dataclass(frozen=True)
class Task:
    """Rows, the model to tune, and where everything lies."""

    data: Path
    work: Path
    base: str
    system: str | None
    tuning: dict[str, Any]
    floors: dict[str, Any]
    limit: int
    max_tokens: int

    def rows(self, split: str) -> list[dict[str, Any]]:
        return list(read_rows(self.data, split))

    @cached_property
    def test(self) -> list[dict[str, Any]]:
        """Rows that are answered."""
        return self.rows("test")[: self.limit]

    @cached_property
    def seen(self) -> Counter[Any]:
        """Slots of the training rows."""
        return seen_slots([row["output"] for row in self.rows("train")])

    def index(self) -> Path:
        """The index of the training rows in base tokens, made when it is asked for first."""
        file = self.work / "base.tasc"
        if not file.exists():
            store = TokenStore.build(self.data, self.base, self.work / "base.store", split="train")
            TaskIndex.build(store, file, tokenizer=load_tokenizer(self.base))
        return file

    def extended(self, size: int) -> str:
        """The model with `size` new tokens, before tuning."""
        if size == 0:
            return self.base
        plan, folder = self.work / f"k{size}.plan", self.work / f"k{size}-extended"
        if not plan.exists():
            learn_vocabulary(self.data, self.base, plan, size=size, split="train", **self.floors)
        if not folder.exists():
            extend_checkpoint(self.base, MergePlan.open(plan), folder)
        return str(folder)

    def tuned(self, name: str) -> Path:
        """The model of an arm, or of another way to make one fast."""
        return self.work / name

    def tune(self, arm: Arm) -> None:
        """Tune an arm, if its model is not there."""
        if not self.tuned(arm.name).exists():
            options = TuneOptions(seed=arm.seed, **self.tuning)
            with progress_bars() as bar:
                move = bar(f"tuning {arm.name}")
                tune(self.extended(arm.size), self.rows("train"), self.tuned(arm.name), options=options,
                     system=self.system, progress=move)  # fmt: skip

    def answers(self, model: str, pack: Any = None) -> list[dict[str, Any]] | None:
        """Text, tokens and end of each answer of a model; None if it is neither answered nor there."""
        name = model if pack is None else f"{model}-{pack}"
        file, key = self.work / f"{name}.json", folder_key(self.tuned(model))
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"model": key, "answers": []}
        if key not in (None, known.get("model")):
            raise InputError(f"{file} holds answers of another model than {self.tuned(model)}: remove it")
        kept = known["answers"]
        if len(kept) >= len(self.test):
            return kept[: len(self.test)]
        if key is None:
            return None
        notes = self.tuned(model) / "tuning.json"
        seconds = json.loads(notes.read_text(encoding="utf-8")).get("seconds") if notes.exists() else None
        facts = {"arm": name, "model": key, "tuned_seconds": seconds}
        loaded, tokenizer = load_checkpoint(str(self.tuned(model)), dtype="float32")
        with progress_bars() as bar, Generator(loaded, tokenizer, index=self.index(), pack_weights=pack) as generator:
            move = bar(f"answering {name}")
            while len(kept) < len(self.test):  # what is answered stays when the command is stopped
                part = [row["input"] for row in self.test[len(kept) : len(kept) + 10]]
                for answer in generator.generate(part, system=self.system, max_tokens=self.max_tokens):
                    finished = answer.finish_reason == "eos"
                    kept.append({"text": answer.text, "steps": len(answer.ids), "finished": finished})
                write_json(file, {**facts, "answers": kept}, indent=1)
                move(len(kept), len(self.test))
        return kept


def parsed(text: str) -> tuple[Any, Counter[Any]]:
    """Intent and slots of an output; None and no slots if it is not JSON."""
    found = slots(text)
    if found is None:
        return None, Counter()
    value = json.loads(text)
    return value.get("intent") if isinstance(value, dict) else None, found


def measures(task: Task, answers: Sequence[dict[str, Any]]) -> dict[str, Measure]:
    """The figures of one arm, each a function of sums over rows."""
    texts, references = [a["text"] for a in answers], [row["output"] for row in task.test]
    pairs = [(parsed(text), parsed(reference)) for text, reference in zip(texts, references, strict=True)]
    return {
        "exact_match": exact_match(texts, references),
        "intent": ratio([ours[0] is not None and ours[0] == expected[0] for ours, expected in pairs]),
        "slot_f1": slot_f1(texts, references),
        "joint": ratio([ours[0] is not None and ours == expected for ours, expected in pairs]),
        "steps": ratio([a["steps"] for a in answers]),
        **slot_f1_by_seen(texts, references, task.seen),
    }


def together(found: Sequence[dict[str, Measure]]) -> dict[str, Measure]:
    """Figures of several seeds: the sums of a row are added up over the seeds, so rows are resampled once."""
    return {name: Measure(np.sum([one[name].rows for one in found], axis=0), found[0][name].score) for name in found[0]}


def compare(known: dict[Arm, dict[str, Measure]]) -> dict[str, Any]:
    """Figures of each size over its seeds, and their differences from the least size over the seeds that both have."""
    found: dict[str, Any] = {}
    least = min((arm.size for arm in known), default=0)
    for size in sorted({arm.size for arm in known}):
        seeds = sorted(arm.seed for arm in known if arm.size == size)
        ours = together([known[Arm(size, seed)] for seed in seeds])
        facts: dict[str, Any] = {
            "seeds": seeds,
            "figures": {name: estimate(one, resamples=RESAMPLES) for name, one in ours.items()},
            "by_seed": {seed: {n: m.value for n, m in known[Arm(size, seed)].items()} for seed in seeds},
        }
        common = [seed for seed in seeds if Arm(least, seed) in known]
        if size > least and common:
            ours, theirs = (together([known[Arm(k, seed)] for seed in common]) for k in (size, least))
            facts["differences"] = {
                name: estimate(ours[name], against=theirs[name], resamples=RESAMPLES) for name in ours
            }
            facts["common_seeds"] = common
        found[str(size)] = facts
    return found


def milliseconds(task: Task, arms: Sequence[Arm], count: int, rounds: int) -> dict[str, float]:
    """Milliseconds of CPU time per output, prompt included: plain decoding at batch 1, arms in turns row by row."""
    generators = {}
    for arm in arms:
        model, tokenizer = load_checkpoint(str(task.tuned(arm.name)), dtype="float32")
        generators[arm] = Generator(model, tokenizer, drafter=NullDrafter())
    rows = task.test[:count]
    seconds = {arm: [0.0] * len(rows) for arm in arms}
    for turn in range(rounds + 1):  # the first warms up, with one row
        for number, row in enumerate(rows if turn else rows[:1]):
            order = list(generators.items())[:: 1 if (turn + number) % 2 else -1]
            for arm, generator in order:
                began = time.process_time()
                generator.generate([row["input"]], system=task.system, max_tokens=task.max_tokens)
                taken = time.process_time() - began
                if turn:
                    before = seconds[arm][number]
                    seconds[arm][number] = taken if turn == 1 else min(before, taken)
    return {arm.name: 1e3 * float(np.mean(seconds[arm])) for arm in arms}


def timed(task: Task, arms: Sequence[Arm], count: int, rounds: int) -> dict[str, float]:
    """Milliseconds per output of the arms whose model is there; measured again together if one is new."""
    file = task.work / "milliseconds.json"
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    here = {arm: folder_key(task.tuned(arm.name)) for arm in arms if task.tuned(arm.name).exists()}
    wanted = {"models": {arm.name: key for arm, key in here.items()}, "rows": count, "rounds": rounds}
    if count and here and any(known.get(name) != value for name, value in wanted.items()):
        known = {**wanted, "milliseconds": milliseconds(task, list(here), count, rounds)}
        write_json(file, known, indent=1)
    found: dict[str, float] = known.get("milliseconds", {})
    return found


def print_quality(name: str, found: dict[str, Any], speed: dict[str, float], missing: Sequence[Arm]) -> None:
    """Two tables: figures with intervals, and differences from the least K."""
    columns = ["measure", *(f"K = {size} ({len(facts['seeds'])})" for size, facts in found.items())]
    table = [[label, *(shown(facts["figures"][key], key) for facts in found.values())] for key, label in LABELS.items()]
    times = [[speed[f"k{size}-s{seed}"] for seed in facts["seeds"] if f"k{size}-s{seed}" in speed]
             for size, facts in found.items()]  # fmt: skip
    table.append(["ms per output, plain", *(f"{min(one):.0f}" if one else "" for one in times)])
    print_table(f"{name}: K new tokens (seeds)", columns, table)
    against = {size: facts for size, facts in found.items() if "differences" in facts}
    if against:
        columns = ["measure", *(f"K = {size} ({len(facts['common_seeds'])})" for size, facts in against.items())]
        table = [[label, *(shown(facts["differences"][key], key, sign=True) for facts in against.values())]
                 for key, label in LABELS.items()]  # fmt: skip
        print_table(f"{name}: difference from K = {min(map(int, found))} at the same seeds", columns, table)
    if missing:
        out.print(f"not run: {', '.join(arm.name for arm in missing)}", highlight=False)


def fewer_steps(found: dict[str, Any]) -> list[Ratio]:
    """Decoding steps of each size beside those without new tokens."""
    steps = {int(size): facts["figures"]["steps"]["value"] for size, facts in found.items()}
    return [
        Ratio(f"K = {size}: decoding steps per output", ours, "K = 0", steps[0], lower=True,
              least=3.0 if size == 500 else None)
        for size, ours in steps.items() if size and 0 in steps
    ]  # fmt: skip


def shown(facts: dict[str, float | None], key: str, *, sign: bool = False) -> str:
    """A figure with its interval."""
    if facts["value"] is None:
        return "–"
    times, form = (100, "+.1f" if sign else ".1f") if key in PERCENT else (1, "+.2f" if sign else ".2f")
    value, low, high = (format(times * (facts[end] or 0.0), form).replace("-", "−") for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw joint accuracy and steps over K, and slot F1 by how often a value was seen; `path` is an SVG file."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "tasc", "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.0, 3.2), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        sizes = [int(size) for size in found]
        places = range(len(sizes))
        for key, label, color in (("joint", "joint accuracy", "#0f766e"), ("slot_f1", "slot F1", "#b45309")):
            figures = [facts["figures"][key] for facts in found.values()]
            values = [100 * one["value"] for one in figures]
            spans = [[100 * abs(one["value"] - one[end]) for one in figures] for end in ("low", "high")]
            left.errorbar(places, values, spans, fmt="o-", capsize=3, color=color, label=label)
        left.plot([places[sizes.index(k)] for k in PAPER if k in sizes], [v for k, v in PAPER.items() if k in sizes],
                  "x", color="#64748b", label="paper, MASSIVE: joint")  # fmt: skip
        left.set(xticks=places, xticklabels=sizes, xlabel="new tokens", ylabel="%")
        left.legend(frameon=False, fontsize=8)
        middle.bar(places, [facts["figures"]["steps"]["value"] for facts in found.values()], color="#0f766e")
        middle.set(xticks=places, xticklabels=sizes, xlabel="new tokens", ylabel="decoding steps per output")
        groups = ("slot_f1_unseen", "slot_f1_rare", "slot_f1_frequent")
        for number, (size, facts) in enumerate(found.items()):
            figures = [facts["figures"][key] for key in groups]
            at = [k + 0.8 * ((number + 0.5) / len(found) - 0.5) for k in range(len(groups))]
            spans = [[100 * abs((one["value"] or 0) - (one[end] or 0)) for one in figures] for end in ("low", "high")]
            right.errorbar(at, [100 * (one["value"] or 0) for one in figures], spans, fmt="o", capsize=3,
                           label=f"K = {size}")  # fmt: skip
        right.set(
            xticks=range(3),
            xticklabels=["never", "1 to 5", "more"],
            xlabel="training outputs with the slot",
            ylabel="slot F1, %",
        )
        right.legend(frameon=False, fontsize=8)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def ends(arms: Sequence[Arm]) -> tuple[Arm, Arm]:
    """The arms with the fewest and with the most new tokens, of the first seed."""
    of_seed = sorted((arm for arm in arms if arm.seed == arms[0].seed), key=lambda arm: arm.size)
    return of_seed[0], of_seed[-1]


def run(task: Task, arms: Sequence[Arm], options: argparse.Namespace) -> None:
    """Tune and answer what is missing; the tables, the figure, the JSON."""
    task.work.mkdir(parents=True, exist_ok=True)
    made_of = {"data": task.data.name, "rows": len(task.rows("train")), "base": task.base, "system": task.system}
    limits = {"tuning": task.tuning, "floors": task.floors, "max_tokens": task.max_tokens}
    KeptResults(task.work / "settings.json").require("settings", {**made_of, **limits})
    known: dict[Arm, dict[str, Measure]] = {}
    for arm in arms:
        if not options.no_tune:
            task.tune(arm)
        answers = task.answers(arm.name)
        if answers is not None:
            known[arm] = measures(task, answers)
            err.print(f"{arm.name}: joint accuracy {known[arm]['joint'].value:.3f}", highlight=False)
    first = [arm for arm in arms if arm in known and arm.seed == arms[0].seed]
    speed = timed(task, first, options.latency_rows, options.rounds)
    found, missing = compare(known), [arm for arm in arms if arm not in known]
    name = task.data.name.partition(".")[0]
    print_quality(name, found, speed, missing)
    facts: dict[str, Any] = {
        "quality": found, "milliseconds": speed, "not_run": [arm.name for arm in missing], "rows": len(task.test)
    }  # fmt: skip
    if options.ways:
        from paper_ways import compare_ways

        plain, extended = ends(arms)
        facts["ways"] = compare_ways(task, plain, extended, options.loop_rows, options.rounds, memory=not options.smoke)
    if options.figure is not None and found:
        draw(found, options.figure)
    report(f"{name}: quality over the vocabulary's size", fewer_steps(found), options.output, **facts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="paper.py quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, help="folder of plans, models and answers")
    parser.add_argument("--model", default="smollm2", help="folder, hub name or smollm2")
    parser.add_argument("--system", help="system message of every request")
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 128, 256, 500, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rows-rate", type=float, help="peak rate of the new tokens' rows; default: as tasc tune")
    parser.add_argument("--min-count", type=int, default=3)
    parser.add_argument("--min-documents", type=int, default=3)
    parser.add_argument("--limit", type=int, default=300, help="rows answered")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--latency-rows", type=int, default=12, help="rows timed in plain decoding; 0 times none")
    parser.add_argument("--loop-rows", type=int, default=8, help="rows timed in each of the --ways")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-tune", action="store_true", help="take only the models that are there")
    parser.add_argument("--ways", action="store_true", help="the table of ways to make the model fast, too")
    parser.add_argument("--figure", type=Path, help="SVG file to draw")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny random model on a generated task")
    options = parser.parse_args(arguments)
    if min(options.sizes) < 0:
        parser.error("--sizes are numbers of new tokens: each is 0 or more")
    if options.ways and 0 not in options.sizes:
        parser.error("--ways compares with the model without new tokens: give 0 among the --sizes")
    if min(options.limit, options.loop_rows, options.rounds) < 1:
        parser.error("--limit, --loop-rows and --rounds are at least 1")
    use_threads(options.threads)
    floors = {"min_count": options.min_count, "min_documents": options.min_documents, "held_out": 0.0}
    if options.smoke:
        smoke(options, floors)
        return
    if options.data is None or options.work is None:
        parser.error("give DATA and --work, or --smoke")
    tuning = {
        "max_steps": options.steps, "batch_size": options.batch, "save_every": 25, "rows_rate": options.rows_rate
    }  # fmt: skip
    task = Task(options.data, options.work, checkpoint(options.model), options.system, tuning, floors, options.limit,
                options.max_tokens)  # fmt: skip
    arms = dict.fromkeys(Arm(size, seed) for seed, size in product(options.seeds, options.sizes))
    run(task, list(arms), options)


def smoke(options: argparse.Namespace, floors: dict[str, Any]) -> None:
    """All of it on a tiny random model; an arm that is left out is named."""
    options.latency_rows, options.loop_rows, options.rounds, options.ways = 2, 2, 1, True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, model = tiny_checkpoint(folder)
        tuning = {"max_steps": 2, "batch_size": 4, "precision": "fp32", "rank": 2}
        task = Task(data, folder / "work", model, None, tuning, floors, 4, 16)
        options.figure = folder / "figure.svg"
        run(task, [Arm(0, 0), Arm(16, 0)], options)
        assert options.figure.read_text(encoding="utf-8").startswith("<?xml")


if __name__ == "__main__":
    main()
