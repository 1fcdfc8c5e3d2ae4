"""CPU time of a tuning step: the beginning that all prompts share is computed once per batch, or in every row.

    python benches/python/shared_prefix.py DATA/NAME.jsonl.gz --system TEXT [--model MODEL] [-o FILE]
    python benches/python/shared_prefix.py --smoke

Loss and gradients of LoRA adapters on the same batches, in turns. The gradients are compared too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ratios import Ratio, report
from smoke_task import tiny_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc import TuneOptions
from tasc.data import load_tokenizer, read_rows
from tasc.models import checkpoint, use_threads
from tasc.training.examples import Collator, make_examples, shuffled_batches
from tasc.training.finetune.optim import with_adapters
from tasc.training.finetune.shared_prefix import prefix_cache, with_prefix
from tasc.training.work_dir import attention


def step(model: Any, collator: Collator, rows: Sequence[Any]) -> tuple[float, Any]:
    """Seconds of CPU time of one loss and its gradients, and the gradients."""
    model.zero_grad()
    began = time.process_time()
    model(**collator(rows), **prefix_cache(model, collator, len(rows))).loss.backward()
    taken = time.process_time() - began
    return taken, torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])


def measure(data: Path, model: str, system: str, batch: int, steps: int, output: Path | None) -> None:
    """Measure both ways on the same batches."""
    examples = make_examples(
        list(read_rows(data, "train")), AutoTokenizer.from_pretrained(model), load_tokenizer(model), system=system
    )
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation=attention(examples))
    loaded.config.use_cache = False
    adapted = with_adapters(loaded, TuneOptions(), [])
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.02)
    whole = Collator.for_model(adapted, 0)
    shared = with_prefix(whole, adapted, examples, batch)
    order = shuffled_batches([len(e) for e in examples], batch, steps + 1, 0)
    seconds: dict[Collator, list[float]] = {whole: [], shared: []}
    apart = []
    for number in range(steps + 1):  # the first warms up
        rows = [examples[row] for row in order[number * batch : (number + 1) * batch]]
        found = {way: step(adapted, way, rows) for way in list(seconds)[:: 1 if number % 2 else -1]}
        for way, (taken, _) in found.items():
            seconds[way] += [taken] if number else []
        apart.append(float((found[whole][1] - found[shared][1]).norm() / found[whole][1].norm()))
    ours, theirs = (float(np.mean(seconds[way])) for way in (shared, whole))
    prompt, new = (float(np.mean([len(part) for part in parts])) for parts in zip(
        *((e.prompt, e.completion) for e in examples), strict=True))  # fmt: skip
    report(
        f"{data.name.partition('.')[0]}: {len(shared.prefix)} of {prompt:.0f} prompt tokens shared, outputs of {new:.0f}",
        [Ratio("CPU seconds of a tuning step", ours, "whole rows", theirs, lower=True),
         Ratio("largest relative difference of the gradients", max(apart), lower=True, limit=1e-3)],
        output,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--model", default="smollm2", help="folder, hub name or smollm2")
    parser.add_argument("--system", default="Answer as the rows do.", help="system message of every prompt")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny random model on a generated task")
    options = parser.parse_args(arguments)
    use_threads(options.threads)
    if options.smoke:
        with tempfile.TemporaryDirectory() as name:
            data, model = tiny_checkpoint(Path(name))
            measure(data, model, options.system, 4, 2, options.output)
        return
    if options.data is None:
        parser.error("give DATA, or --smoke")
    measure(options.data, checkpoint(options.model), options.system, options.batch, options.steps, options.output)


if __name__ == "__main__":
    main()
