"""Which tokens a draft model should learn from: DistillSpec, AdaSPEC, random tokens, the TVD and LK losses, side by side.

    python benches/python/distillation.py --work FOLDER                     (the demo's task and its adapter)
    python benches/python/distillation.py DATA --adapter DIR --system TEXT --work FOLDER [--steps 150] [--seeds 3]
    python benches/python/distillation.py DATA … --work FOLDER --regime recipe [--epochs 3] -o FILE
    python benches/python/distillation.py --figure FILE.svg RESULTS [RESULTS …]
    python benches/python/distillation.py --smoke

`--regime` names the arms that answer one question: `recipe` (what of AdaSPEC's recipe brings what), `selection` (share
of tokens, restart), `head` (the same for an EAGLE head). Every arm begins at the same draft (`--draft`: a cut of the
target, a new narrow draft, or an EAGLE head), and sees the same rows in the same order; seeds change the order, and a new draft's first weights. All are scored on what the
target says to held-out inputs, by one teacher-forced pass. Three comparisons: at equal optimizer steps; at equal steps
with 2.5 times the rows in each, as AdaSPEC was published (k = 0.4 of whose tokens are as many as DistillSpec sees); and
at equal compute, where the arms without a reference get the steps that AdaSPEC spends on its own. Everything is kept in
FOLDER: a second call goes on where the first was stopped, and more seeds can be added.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc import TaskIndex
from tasc.cli.console import err, print_table, progress_bars
from tasc.data import TokenStore, load_tokenizer, read_rows
from tasc.data.endings import required_eos_ids
from tasc.decoding.draft_model.eagle import is_head_folder, load_head
from tasc.evaluation.acceptance import Acceptance
from tasc.evaluation.bootstrap import Floats
from tasc.evaluation.machine import machine
from tasc.models import EMBEDDED, checkpoint, use_threads
from tasc.training.distill import CachedHiddenStates, DistillOptions, DraftSize, acceptance, distill, target_outputs
from tasc.training.distill.new_head import EAGLE
from tasc.training.examples import Example

DEMO = Path(__file__).parents[2] / "examples" / "demo"
REFERENCE = "DistillSpec"
LONGER = "DistillSpec, equal compute"
MORE_ROWS = "DistillSpec, 2.5 times the rows"
ARMS: dict[str, dict[str, Any]] = {
    REFERENCE: {"select": "all"},
    "AdaSPEC": {"select": "adaspec"},
    "AdaSPEC, k = 0.2": {"select": "adaspec", "k": 0.2},
    "AdaSPEC, k = 0.7": {"select": "adaspec", "k": 0.7},
    "random tokens": {"select": "random"},
    "TVD": {"select": "all", "loss": "tvd"},
    "NLA": {"select": "all", "loss": "nla"},
    "LK": {"select": "all", "loss": "lk"},
    "AdaSPEC, LK": {"select": "adaspec", "loss": "lk"},
    "moving reference": {"select": "moving"},
    "on-policy, half": {"select": "all", "on_policy": 0.5},
    MORE_ROWS: {"select": "all", "batch": 2.5},
    "AdaSPEC as published": {"select": "adaspec", "batch": 2.5},
    LONGER: {"select": "all", "longer": True},
    "AdaSPEC from its reference": {"select": "adaspec", "init_from": "reference"},
    "DistillSpec from its reference": {"select": "all", "init_from": "reference"},
    "random tokens, equal compute": {"select": "random", "longer": True},
    "DistillSpec, then TVD": {"select": "all", "loss": "tvd", "init_from": "reference"},
    "AdaSPEC from its reference, TVD": {"select": "adaspec", "loss": "tvd", "init_from": "reference"},
}
"""Options of `distill` by arm; `batch` multiplies the rows of a step, `longer` the steps (see `Comparison.longer`)."""
COMPARISONS = {
    "steps": (
        REFERENCE,
        (
            "AdaSPEC",
            "AdaSPEC, k = 0.2",
            "AdaSPEC, k = 0.7",
            "AdaSPEC as published",
            MORE_ROWS,
            "random tokens",
            "TVD",
            "NLA",
            "LK",
            "AdaSPEC, LK",
            "moving reference",
            "on-policy, half",
        ),
    ),
    "rows": (MORE_ROWS, ("AdaSPEC as published",)),
    "compute": (
        LONGER,
        (
            "AdaSPEC",
            "AdaSPEC from its reference",
            "DistillSpec from its reference",
            "AdaSPEC from its reference, TVD",
            "random tokens, equal compute",
            "DistillSpec, then TVD",
        ),
    ),
}
"""Equal arms: which DistillSpec is compared with, and which arms are."""
REGIMES = {
    "recipe": (
        "3.6M",
        (
            MORE_ROWS,
            "AdaSPEC",
            "AdaSPEC as published",
            "random tokens",
            "LK",
            "AdaSPEC, LK",
            "moving reference",
        ),
    ),
    "selection": ("3.6M", ("AdaSPEC", "AdaSPEC, k = 0.2", "AdaSPEC, k = 0.7", "AdaSPEC from its reference", LONGER)),
    "head": (EAGLE, ("AdaSPEC", "LK")),
}
"""Draft and arms by the name of `--regime`, beside DistillSpec."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """A target, its rows, and where everything lies."""

    target: str
    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    system: str | None
    work: Path
    source: int | list[int] | DraftSize | str
    vocabulary: int | None
    steps: int
    batch: int
    k: float
    rate: float
    precision: Any
    longest: int
    arms: list[str]

    @property
    def longer(self) -> int:
        """Steps that cost what AdaSPEC's stages do: its reference's, a forward pass over the rows it learns from (a
        third of a training step each), its own.
        """
        return 2 * self.steps + -(-min(len(self.train), self.steps * self.batch) // (3 * self.batch))

    def options(self, arm: str, seed: int) -> DistillOptions:
        chosen = dict(ARMS[arm])
        steps = self.longer if chosen.pop("longer", False) else self.steps
        batch = round(self.batch * chosen.pop("batch", 1.0))
        k = chosen.pop("k", self.k)
        return DistillOptions(
            **chosen, steps=steps, batch_size=batch, k=k, learning_rate=self.rate, precision=self.precision,
            vocabulary=self.vocabulary, seed=seed, save_every=50,
        )  # fmt: skip

    def compute(self, arm: str) -> float:
        """Rows that an arm trains on, its reference's among them; a forward pass alone is a third of one.

        That is what an arm costs by itself: in `--work`, arms share one reference.
        """
        options = self.options(arm, 0)
        rows = float(options.steps * options.batch_size)
        if options.needs_reference:
            rows += self.steps * self.batch
        if options.select == "adaspec":
            rows += min(len(self.train), options.steps * options.batch_size) / 3
        if options.select == "moving":
            rows += options.steps * options.batch_size / 3
        rows += options.on_policy * options.steps * options.batch_size / 3
        return rows

    def draft(self, arm: str, seed: int) -> Path:
        """A finished draft; it is distilled if it is not there yet."""
        folder = self.work / f"seed{seed}" / arm.replace(", ", "-").replace(" ", "-")
        if not folder.exists():
            options = self.options(arm, seed)
            reference = self.draft(REFERENCE, seed) if options.needs_reference else None
            with progress_bars() as bar:
                distill(
                    self.target, self.source, self.train, folder, options=options, baseline=False, reference=reference,
                    states=(self.work / "states").absolute(), system=self.system, progress=bar,
                )  # fmt: skip
        return folder

    def target_outputs(self) -> list[Example]:
        """The target's outputs to the held-out inputs."""
        file = self.work / "target-outputs.json"
        if not file.exists():
            model, tokenizer = self.loaded(self.target), AutoTokenizer.from_pretrained(self.target)
            task = load_tokenizer(self.target)
            store = TokenStore.build(self.train, task, self.work / "rows.store")
            index = TaskIndex.build(store, self.work / "rows.tasc", tokenizer=task)
            with progress_bars() as bar:
                made = target_outputs(
                    model, tokenizer, self.test, system=self.system, max_tokens=self.longest, index=index,
                    progress=bar("the target answers"),
                )  # fmt: skip
            file.write_text(json.dumps([[e.prompt, e.completion] for e in made]))
        return [Example(p, c, len(p) + len(c)) for p, c in json.loads(file.read_text())]

    def loaded(self, folder: str | Path) -> Any:
        """A model or an EAGLE head in float32, on the GPU if there is one."""
        import torch

        if is_head_folder(folder):
            head = load_head(folder, self.loaded(self.target)).eval()
            return head.cuda() if torch.cuda.is_available() else head
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return model.cuda() if torch.cuda.is_available() else model


def value_and_interval(figure: Callable[[Floats, Floats], Floats], seeds: int, prompts: int) -> list[float]:
    """A figure and its 95 % interval, seeds and prompts both drawn anew: it takes (R, seeds) and (R, prompts) weights."""
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(n, [1 / n] * n, RESAMPLES).astype(float) for n in (seeds, prompts)]
    value = figure(np.ones((1, seeds)), np.ones((1, prompts)))
    return [float(value[0]), *map(float, np.quantile(figure(*drawn), [0.025, 0.975]))]


def rate(found: list[Acceptance], above: str, below: str) -> Callable[[Floats, Floats], Floats]:
    """A share of sums over seeds and prompts, by their weights."""
    over, under = (np.stack([getattr(one, name) for one in found]) for name in (above, below))

    def figure(seeds: Floats, prompts: Floats) -> Floats:
        return np.einsum("rs,sn,rn->r", seeds, over, prompts) / np.einsum("rs,sn,rn->r", seeds, under, prompts)

    return figure


def compare(found: dict[str, list[Acceptance]]) -> dict[str, Any]:
    """By arm: α, α_exp and τ with intervals, each seed's α, and the differences from DistillSpec at equal steps, rows and
    compute.
    """
    kinds = {"alpha": ("accepted", "tested"), "alpha_exp": ("expected", "tokens"), "tau": ("tokens", "steps")}
    facts: dict[str, Any] = {}
    for arm, runs in found.items():
        size = len(runs), len(runs[0].tested)
        facts[arm] = {"seeds": [one.alpha.value for one in runs]}
        for kind, sums in kinds.items():
            facts[arm][kind] = value_and_interval(rate(runs, *sums), *size)
        for equal, (against, arms) in COMPARISONS.items():
            for kind, sums in kinds.items() if arm in arms and against in found else ():
                ours, theirs = rate(runs, *sums), rate(found[against], *sums)
                less = lambda s, p, ours=ours, theirs=theirs: ours(s, p) - theirs(s, p)  # noqa: E731
                facts[arm][f"{kind}_less_at_equal_{equal}"] = value_and_interval(less, *size)
    return facts


def run(task: Comparison, seeds: int, length: int, output: Path | None) -> None:
    """All arms and seeds; the table is printed after every seed."""
    task.work.mkdir(parents=True, exist_ok=True)
    outputs = task.target_outputs()
    target = task.loaded(task.target)
    ends = required_eos_ids(target, AutoTokenizer.from_pretrained(task.target))
    teacher = CachedHiddenStates.compute(
        target, outputs, task.work / "target-states", whole=task.source == EAGLE, pad_id=min(ends)
    )
    found: dict[str, list[Acceptance]] = {arm: [] for arm in task.arms}
    spent: dict[str, list[float]] = {arm: [] for arm in task.arms}
    for seed in range(seeds):
        for arm in task.arms:
            folder = task.draft(arm, seed)
            made = acceptance(task.loaded(folder), outputs, ends, teacher=teacher, length=length)
            found[arm].append(made)
            stage = json.loads((folder / "distill.json").read_text())["stages"]["draft"]
            spent[arm].append(stage["seconds"])
            err.print(f"seed {seed}, {arm}: α {made.alpha.value:.4f}, {stage['steps']} steps, {stage['seconds']:.0f} s")
        facts = compare(found)
        show(task, facts, seed + 1, len(outputs), length)
        said = {
            "arms": facts, "compute": {arm: task.compute(arm) for arm in task.arms}, "train_seconds": spent,
            "seeds": seed + 1, "length": length, "steps": task.steps, "longer": task.longer, "batch": task.batch, "k": task.k, "rows": len(task.train),
            "draft": str(task.source), "vocabulary": task.vocabulary, "prompts": len(outputs), "machine": machine(),
        }  # fmt: skip
        if output is not None:
            output.write_text(json.dumps(said, indent=2) + "\n")


def show(task: Comparison, facts: dict[str, Any], seeds: int, prompts: int, length: int) -> None:
    def figure_text(figure: list[float] | None, sign: str = "") -> str:
        return "-" if figure is None else f"{figure[0]:{sign}.3f} [{figure[1]:{sign}.3f}, {figure[2]:{sign}.3f}]"

    titles = {
        "steps": f"{task.steps} steps each",
        "rows": f"{task.steps} steps of {round(2.5 * task.batch)} rows each",
        "compute": f"the compute of {task.longer} steps on all tokens each",
    }
    for equal, (against, arms) in COMPARISONS.items():
        if against not in facts:
            continue
        print_table(
            f"Equal {equal}, {titles[equal]} ({seeds} seeds, {prompts} prompts, {length} drafted)",
            ("arm", "α", "less DistillSpec's", "α_exp", "τ"),
            [
                (
                    arm,
                    figure_text(f["alpha"]),
                    figure_text(f.get(f"alpha_less_at_equal_{equal}"), "+"),
                    figure_text(f["alpha_exp"]),
                    figure_text(f["tau"]),
                )
                for arm in (against, *arms)
                if (f := facts.get(arm)) is not None
            ],
        )


def figure(file: Path, results: list[Path]) -> None:
    """α over compute: a point for each arm and file of results, with its interval; a line joins the points of an arm."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    points: dict[str, list[tuple[float, list[float]]]] = {}
    for path in results:
        one = json.loads(path.read_text())
        if "compute" not in one:
            raise SystemExit(f"{path} holds no compute: run the benchmark again with the same --work")
        for arm, facts in one["arms"].items():
            points.setdefault(arm, []).append((one["compute"][arm], facts["alpha"]))
    plt.rcParams["svg.hashsalt"] = "tasc"
    drawn, axes = plt.subplots(figsize=(8, 3.5))
    for number, (arm, found) in enumerate(points.items()):
        at, alphas = zip(*sorted(found), strict=True)
        values, lows, highs = (np.array(column) for column in zip(*alphas, strict=True))
        marker = "osD^v<>PX*"[number % 10]
        axes.errorbar(at, values, [values - lows, highs - values], marker=marker, capsize=2, label=arm, lw=1)
    axes.set_xlabel("rows that the draft and its reference train on")
    axes.set_ylabel("α, with its 95 % interval")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axes.grid(alpha=0.3)
    drawn.tight_layout()
    drawn.savefig(file, metadata={"Date": None})


def drafted(text: str) -> int | list[int] | DraftSize | str:
    """What `distill` takes as the draft."""
    if text == EAGLE:
        return text
    if text[-1:] in "MK":
        return DraftSize.parse(text)
    layers = [int(part) for part in text.split(",")]
    return layers if len(layers) > 1 else layers[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data",
        type=Path,
        nargs="*",
        help="rows {input, output, split}; by default the demo's task. Results of --figure",
    )
    parser.add_argument("--work", type=Path, help="where drafts and states lie")
    parser.add_argument("--model", default=EMBEDDED, help="folder, hub name or smollm2")
    parser.add_argument("--adapter", type=Path, help="PEFT adapter of the target")
    parser.add_argument("--system")
    parser.add_argument(
        "--draft", type=drafted, help="layers of the target (4, or 0,10,19,29), a size (3.6M), or eagle; default: 4"
    )
    parser.add_argument("--vocabulary", type=int, help="most ids of the draft vocabulary; as in tasc distill")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--epochs", type=float, help="passes over the rows at --batch rows a step, in place of --steps")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--k", type=float, default=0.4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rows", type=int, default=1200, help="training rows, the first ones")
    parser.add_argument("--limit", type=int, default=100, help="held-out inputs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--arms", nargs="*", choices=[arm for arm in ARMS if arm != REFERENCE], metavar="ARM",
        help="which arms run beside DistillSpec (default: all)",
    )  # fmt: skip
    parser.add_argument("--regime", choices=list(REGIMES), help="arms and draft that answer one question")
    parser.add_argument("--length", type=int, default=5, help="tokens per draft")
    parser.add_argument("--longest", type=int, default=256, help="most output tokens")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--figure", type=Path, help="draw α over compute from files of results, and end")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model on a generated task")
    args = parser.parse_args()
    if args.figure is not None:
        if not args.data:
            parser.error("--figure needs files that -o has written")
        figure(args.figure, args.data)
        return
    if args.work is None and not args.smoke:
        parser.error("give --work, --figure or --smoke")
    if len(args.data) > 1:
        parser.error("give one file of rows")
    if args.regime is not None and args.arms is not None:
        parser.error("give --regime or --arms")
    if args.threads is not None:
        use_threads(args.threads)
    if args.smoke:
        smoke()
        return
    if not args.data:
        sys.path.insert(0, str(DEMO))
        import assistant

        rows, system, adapter = assistant.rows(4000, seed=0), assistant.SYSTEM, DEMO / "adapter"
    else:
        rows, system, adapter = [dict(row) for row in read_rows(args.data[0])], args.system, args.adapter
    train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
    source, chosen = (None, args.arms) if args.regime is None else REGIMES[args.regime]
    arms = [arm for arm in ARMS if chosen is None or arm in (REFERENCE, *chosen)]
    train = train[: args.rows]
    steps = args.steps if args.epochs is None else math.ceil(round(args.epochs * len(train) / args.batch, 9))
    task = Comparison(
        checkpoint(args.model, adapter), train, test[: args.limit], system, args.work,
        args.draft or drafted(source or "4"), args.vocabulary, steps, args.batch, args.k, args.rate, args.precision,
        args.longest, arms,
    )  # fmt: skip
    run(task, args.seeds, args.length, args.output)


def smoke() -> None:
    """The whole of it on a tiny random model."""
    from smoke_task import tiny_checkpoint

    use_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, model = tiny_checkpoint(folder)
        rows = [dict(row) for row in read_rows(data)]
        task = Comparison(
            model, rows[:20], rows[-4:], None, folder / "work", 1, None, 2, 4, 0.4, 1e-3, "fp32", 16,
            list(ARMS),
        )  # fmt: skip
        run(task, 2, 3, folder / "results.json")
        figure(folder / "figure.svg", [folder / "results.json"])
        run(replace(task, source=EAGLE, work=folder / "heads", arms=[REFERENCE, "LK"]), 1, 3, None)


if __name__ == "__main__":
    main()
