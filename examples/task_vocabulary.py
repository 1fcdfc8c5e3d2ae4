"""TASC-ft in one file: a task's vocabulary, a model that learns to say it, and both drafted for.

    python examples/task_vocabulary.py    (on 2 cores some ten minutes; --steps 20 for a look)

SmolLM2-135M-Instruct learns the demo's assistant task. A second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc import Generator, NullDrafter, TaskIndex, TuneOptions, extend_checkpoint, learn_vocabulary, tune
from tasc.cli.console import progress_bars
from tasc.data import TokenStore, load_tokenizer
from tasc.models import smollm2

sys.path.insert(0, str(Path(__file__).parent / "demo"))
import assistant


def main() -> None:
    """Rows → plan → extended model → tuned model → answers, plainly and with drafts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/vocabulary"))
    parser.add_argument("--model", help="folder or hub name; by default SmolLM2-135M-Instruct")
    parser.add_argument("--size", type=int, default=256, help="new tokens")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    base = options.model or str(smollm2())
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    rows = assistant.rows(4000, seed=0)
    train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))

    if not (work / "tuned").exists():
        with progress_bars() as bar:
            plan = learn_vocabulary(train, base, work / "task.plan", size=options.size)
            if not (work / "extended").exists():
                extend_checkpoint(base, plan, work / "extended")
            move = bar("tuning")
            tune(
                work / "extended",
                train,
                work / "tuned",
                options=TuneOptions(max_steps=options.steps, batch_size=8, save_every=50),
                system=assistant.SYSTEM,
                progress=move,
            )

    store = TokenStore.build(train, base, work / "rows.store")
    index = TaskIndex.build(store, work / "task.tasc", tokenizer=load_tokenizer(base))  # base tokens: serves any model
    model = AutoModelForCausalLM.from_pretrained(work / "tuned")
    tokenizer = AutoTokenizer.from_pretrained(work / "tuned")
    old = load_tokenizer(base)
    ways = {"new tokens": {"drafter": NullDrafter()}, "new tokens, drafted for": {"index": index}}
    for name, way in ways.items():
        made = Generator(model, tokenizer, **way).generate(
            [row["input"] for row in test[:20]], system=assistant.SYSTEM, max_tokens=128
        )
        total = sum(len(old.encode(answer.text)) + 1 for answer in made)
        right = sum(answer.text == row["output"] for answer, row in zip(made, test, strict=False))
        print(f"{name}: {total / made.stats.steps:.1f} base tokens per step, "
              f"{total / made.wall_seconds:.0f} per second, {right} of 20 exact")  # fmt: skip
    print(json.dumps({"input": test[0]["input"], "output": made[0].text}, ensure_ascii=False))


if __name__ == "__main__":
    main()
