"""AdaSPEC in one file: a draft model cut from the target, distilled on what it can learn, and run in the loop.

    python examples/draft_model.py    (on 2 cores some fifteen minutes; --steps 20 for a look)

The target is SmolLM2-135M-Instruct with the demo's adapter. A second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc import Generator, HybridDrafter, ModelDrafter, NgramDrafter, NullDrafter, TaskIndex
from tasc.cli.console import progress_bars
from tasc.cli.distill import print_distilled
from tasc.data import TokenStore, load_tokenizer
from tasc.models import checkpoint
from tasc.training.distill import DistillOptions, distill

sys.path.insert(0, str(Path(__file__).parent / "demo"))
import assistant

ADAPTER = Path(assistant.__file__).with_name("adapter")


def main() -> None:
    """Rows → draft → its acceptance → answers, drafted for by n-grams, by the draft model, and by both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/draft"))
    parser.add_argument("--target", help="folder or hub name; by default SmolLM2 with the demo's adapter")
    parser.add_argument("--layers", type=int, default=4, help="of the target, for the draft")
    parser.add_argument("--select", default="adaspec", help="tokens to learn from: adaspec, random or all")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    target = options.target or checkpoint("smollm2", ADAPTER)
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    rows = assistant.rows(4000, seed=0)
    train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))

    if not (work / "draft").exists():
        with progress_bars() as bar:
            distill(
                target,
                options.layers,
                train[:800],
                work / "draft",
                options=DistillOptions(select=options.select, steps=options.steps, batch_size=8, save_every=25),
                validation=test[:50],
                system=assistant.SYSTEM,
                progress=bar,
            )
    print_distilled(work / "draft", json.loads((work / "draft" / "distill.json").read_text()))

    model, tokenizer = AutoModelForCausalLM.from_pretrained(target), AutoTokenizer.from_pretrained(target)
    draft = AutoModelForCausalLM.from_pretrained(work / "draft")
    task = load_tokenizer(target)
    index = TaskIndex.build(TokenStore.build(train, task, work / "rows.store"), work / "task.tasc", tokenizer=task)
    drafters = {
        "plain": NullDrafter(),
        "n-grams": NgramDrafter(index, tokenizer=task),
        "draft model": ModelDrafter(draft),
        "both": HybridDrafter(NgramDrafter(index, tokenizer=task), ModelDrafter(draft)),
    }
    for name, drafter in drafters.items():
        made = Generator(model, tokenizer, drafter=drafter).generate(
            [row["input"] for row in test[50:70]], system=assistant.SYSTEM, max_tokens=128
        )
        stats = made.stats
        print(f"{name}: {stats.tokens / made.wall_seconds:.1f} tokens/s, {stats.tau:.2f} tokens per target step")


if __name__ == "__main__":
    main()
