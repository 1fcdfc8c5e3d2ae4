"""TASC-ft, whole: one fine-tuning with a task vocabulary and the same one without, then quality, speed, and TASC-spec.

    python benches/python/tuned_vocabulary.py DATA --work FOLDER [--size 192] [--steps 332] [--batch 16] [--system TEXT]
    python benches/python/tuned_vocabulary.py --smoke

DATA holds rows {input, output, split}: `train` is learnt from, `test` is answered. Everything is kept in FOLDER: a second
call goes on where the first was stopped, and measures again without tuning anew. On a GPU the same command uses it.

The table gives task figures with intervals for both models, decoding by transformers' own `generate` in turns, and our
loop with and without drafts on both, at each batch size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratios import Ratio, report

from tasc import Generator, MergePlan, NullDrafter, TaskIndex, TuneOptions, extend_checkpoint, learn_vocabulary, tune
from tasc.cli.console import err, print_table, progress_bars
from tasc.cli.evaluate import print_evaluation
from tasc.data import TokenStore, load_tokenizer, read_rows
from tasc.evaluation.decoder import Decoder
from tasc.evaluation.pairwise_eval import AGAINST, MODEL, results
from tasc.evaluation.task_eval import EvalOptions, Prediction
from tasc.models import load_checkpoint, smollm2, use_threads

LEAST = {"slu_atis": {1: 6.0, 8: 4.0}, "t2s_atis": {1: 4.0}}
"""Required decode speed-up, by set and batch size."""


@dataclass(frozen=True)
class Recipe:
    """One task, and where its models lie."""

    data: Path
    work: Path
    base: str
    size: int
    options: TuneOptions
    system: str | None
    longest: int

    @property
    def plan(self) -> Path:
        return self.work / "task.plan"

    @property
    def extended(self) -> Path:
        return self.work / "extended"

    def tuned(self, arm: str) -> Path:
        return self.work / f"tuned-{arm}"

    def index(self, kind: str) -> Path:
        """The index of the training rows in old or in new tokens, made when it is asked for first."""
        file = self.work / f"{kind}.tasc"
        if not file.exists():
            tokenizer = self.base if kind == "old" else str(self.extended)
            store = TokenStore.build(self.data, tokenizer, self.work / f"{kind}.store", split="train")
            TaskIndex.build(store, file, tokenizer=load_tokenizer(tokenizer))
        return file

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Rows whose output has at most `longest` tokens of the plain tokenizer: the same for both models."""
        rows = list(read_rows(self.data, split))
        ids = load_tokenizer(self.base).encode_batch([row["output"] for row in rows])
        return [row for row, output in zip(rows, ids, strict=True) if len(output) <= self.longest]


def prepare(recipe: Recipe) -> None:
    """Vocabulary, extended model, and both tunings, as far as they are not there yet."""
    recipe.work.mkdir(parents=True, exist_ok=True)
    if not recipe.plan.exists():
        plan = learn_vocabulary(recipe.data, recipe.base, recipe.plan, size=recipe.size, split="train")
        err.print(f"{len(plan)} new tokens")
    if not recipe.extended.exists():
        extend_checkpoint(recipe.base, MergePlan.open(recipe.plan), recipe.extended)
    for arm, model in (("extended", str(recipe.extended)), ("plain", recipe.base)):
        if not recipe.tuned(arm).exists():
            with progress_bars() as bar:
                move = bar(f"tuning ({arm})")
                tune(
                    model,
                    recipe.rows("train"),
                    recipe.tuned(arm),
                    options=recipe.options,
                    system=recipe.system,
                    progress=move,
                )
    for arm in ("extended", "plain"):
        log = recipe.tuned(arm) / "tuning.json"
        if log.exists():  # not where an un-extended model was put there by hand
            facts = json.loads(log.read_text())
            err.print(f"{arm}: {facts['steps']} steps of {facts['rows_per_step']} rows, {facts['seconds']:.0f} s")


def decoder(folder: Path, recipe: Recipe, dtype: str) -> Decoder:
    """A tuned model for transformers' `generate`."""
    model, tokenizer = load_checkpoint(str(folder), dtype=dtype)
    return Decoder(model, tokenizer, load_tokenizer(tokenizer), recipe.system)


@dataclass
class Method:
    """A model in our loop, drafted for or not."""

    generator: Generator
    seconds: float = 0.0
    steps: int = 0
    base_tokens: int = 0
    outputs: int = 0
    texts: list[str] | None = None


def combined(recipe: Recipe, sides: dict[str, Decoder], count: int, batch: int, max_tokens: int) -> dict[str, Any]:
    """Both models in our loop, plain and drafted for, in turns over the same prompts; texts must not change by drafts."""
    rows = recipe.rows("test")[:count]
    base = load_tokenizer(recipe.base)
    indexes = {
        "plain loop": None,
        "TASC-spec": recipe.index("old"),
        "TASC-spec, index of new tokens": recipe.index("new"),
    }
    methods: dict[tuple[str, str], Method] = {}
    for (arm, side), (name, index) in itertools.product((("plain", AGAINST), ("extended", MODEL)), indexes.items()):
        if arm == "extended" or name != "TASC-spec, index of new tokens":
            drafting: dict[str, Any] = {"drafter": NullDrafter()} if index is None else {"index": index}
            made = Generator(sides[side].model, sides[side].tokenizer, batch_size=batch, **drafting)
            methods[arm, name] = Method(made, texts=[])
    parts = [rows[k : k + batch] for k in range(0, len(rows), batch)]
    for turn, part in enumerate([parts[0], *parts]):  # the first once more, to warm up
        for method in list(methods.values())[:: 1 if turn % 2 else -1]:
            began = time.perf_counter()
            answers = method.generator.generate(
                [row["input"] for row in part], system=recipe.system, max_tokens=max_tokens
            )
            if turn:
                method.seconds += time.perf_counter() - began
                method.steps += answers.stats.steps
                method.outputs += len(part)
                method.base_tokens += sum(len(ids) + 1 for ids in base.encode_batch([a.text for a in answers]))
                assert method.texts is not None
                method.texts += [a.text for a in answers]
    for (arm, name), method in methods.items():
        same = sum(a == b for a, b in zip(method.texts or [], methods[arm, "plain loop"].texts or [], strict=True))
        assert same == method.outputs, f"{arm}, {name}: only {same} of {method.outputs} texts are plain decoding's"
    return {
        f"{arm} model, {name}": {
            "base_tokens_per_second": m.base_tokens / m.seconds,
            "steps_per_output": m.steps / m.outputs,
            "seconds_per_output": m.seconds / m.outputs,
        }
        for (arm, name), m in methods.items()
    }


def print_combined(batch: int, facts: dict[str, Any]) -> None:
    """Our loop: base tokens per second and steps per output."""
    first = next(iter(facts.values()))["base_tokens_per_second"]
    print_table(
        f"Our loop, batch {batch}",
        ("method", "base tokens/s", "of plain", "steps/output", "ms/output"),
        [
            (
                name,
                f["base_tokens_per_second"],
                f["base_tokens_per_second"] / first,
                f["steps_per_output"],
                1e3 * f["seconds_per_output"],
            )
            for name, f in facts.items()
        ],
    )


def ratios(recipe: Recipe, found: dict[str, Any], loops: dict[int, dict[str, Any]]) -> list[Ratio]:
    """Decoding against the un-extended model, and the combination against each half."""
    least = LEAST.get(recipe.data.name.partition(".")[0], {})
    made = []
    for timed in found["latency"]:
        size = timed["batch_size"]
        ours, theirs = (1e3 * timed["models"][side]["decode_seconds_per_row"] for side in (MODEL, AGAINST))
        made.append(
            Ratio(f"decode, batch {size}: ms/row", ours, "un-extended", theirs, lower=True, least=least.get(size))
        )
    for size, facts in loops.items():
        speed = {name: f["base_tokens_per_second"] for name, f in facts.items()}
        both = speed["extended model, TASC-spec"]
        for half in ("extended model, plain loop", "plain model, TASC-spec"):
            made.append(Ratio(f"TASC-ft × TASC-spec, batch {size}: base tokens/s", both, half, speed[half], least=1.0))
    return made


def answers(side: Decoder, recipe: Recipe, rows: list[dict[str, Any]], max_tokens: int) -> list[Prediction]:
    """Plain greedy decoding's answers, made fast: our loop is lossless."""
    with progress_bars() as bar:
        move = bar("answering")
        generator = Generator(side.model, side.tokenizer, index=recipe.index("old"), batch_size=4)
        said = []
        for done in range(0, len(rows), 20):
            part = rows[done : done + 20]
            made = generator.generate([row["input"] for row in part], system=recipe.system, max_tokens=max_tokens)
            said += [
                Prediction(row["input"], row["output"], *side.read(answer.ids))
                for row, answer in zip(part, made, strict=True)
            ]
            move(len(said), len(rows))
    return said


def measure(recipe: Recipe, options: EvalOptions, limit: int, loop_rows: int, dtype: str, output: Path | None) -> None:
    """Our loop, quality, latency; all of it as JSON in `output`."""
    arms = {MODEL: "extended", AGAINST: "plain"}
    sides = {side: decoder(recipe.tuned(arm), recipe, dtype) for side, arm in arms.items()}
    loops = {}
    for size in options.batch_sizes if loop_rows else ():
        loops[size] = combined(recipe, sides, loop_rows, size, options.max_tokens)
        print_combined(size, loops[size])
    rows = recipe.rows("test")[:limit]
    said = {side: answers(decoder, recipe, rows, options.max_tokens) for side, decoder in sides.items()}
    with progress_bars() as bar:
        found, _ = results(sides, rows, options=options, predictions=said, progress=bar)
    print_evaluation(found)
    found.pop("outputs")
    report("A task vocabulary", ratios(recipe, found, loops), output, results=found, loops=loops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, help="where models and results lie")
    parser.add_argument("--model", help="folder or hub name; by default SmolLM2-135M-Instruct")
    parser.add_argument("--system")
    parser.add_argument("--size", type=int, default=192, help="new tokens")
    parser.add_argument("--steps", type=int, default=332)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--longest", type=int, default=600, help="leave out rows with longer outputs")
    parser.add_argument("--limit", type=int, default=300, help="rows answered for quality")
    parser.add_argument("--latency-rows", type=int, default=16)
    parser.add_argument("--loop-rows", type=int, default=32, help="rows answered by each method of our loop")
    parser.add_argument("--batch-sizes", default="1,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=640)
    parser.add_argument("--dtype", default="float32", help="of the models when they answer")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny random model on a generated task")
    args = parser.parse_args()
    if (args.data is None or args.work is None) and not args.smoke:
        parser.error("give DATA and --work, or --smoke")
    if args.threads is not None:
        use_threads(args.threads)
    if args.smoke:
        use_threads(1)
        smoke()
        return
    tuning = TuneOptions(max_steps=args.steps, batch_size=args.batch, accumulate=args.accumulate, save_every=25)
    base = args.model or str(smollm2())
    recipe = Recipe(args.data, args.work, base, args.size, tuning, args.system, args.longest)
    prepare(recipe)
    sizes = tuple(int(size) for size in args.batch_sizes.split(","))
    options = EvalOptions(
        max_tokens=args.max_tokens, batch_sizes=sizes, latency_rows=args.latency_rows, rounds=args.rounds
    )
    measure(recipe, options, args.limit, args.loop_rows, args.dtype, args.output)


def smoke() -> None:
    """The whole of it on a tiny random model."""
    from smoke_task import tiny_checkpoint

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, model = tiny_checkpoint(folder)
        tuning = TuneOptions(max_steps=2, batch_size=4, precision="fp32", rank=2)
        recipe = Recipe(data, folder / "work", model, 16, tuning, None, 600)
        prepare(recipe)
        options = EvalOptions(max_tokens=16, batch_sizes=(1, 2), latency_rows=2, rounds=1, resamples=50)
        measure(recipe, options, 4, 4, "float32", None)


if __name__ == "__main__":
    main()
