"""CPU time of training: the beginning that all prompts share is computed once per batch, or in every row.

    python benches/python/shared_prefix.py DATA/NAME.jsonl.gz --system TEXT [--model MODEL] [--draft 3.6M] [-o FILE]
    python benches/python/shared_prefix.py --smoke

Loss and gradients of LoRA adapters on the same batches, in turns. The gradients are compared too. With --draft, it is
what `tasc distill` computes: the target's pass over a batch, and the gradients of a new, narrow draft.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ratios import Ratio, report
from smoke_task import tiny_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc import TuneOptions
from tasc.data import load_tokenizer, read_rows
from tasc.decoding.draft_model.vocabulary import cut_head, set_draft_vocabulary
from tasc.models import checkpoint, use_threads
from tasc.training.distill import DraftSize, narrow_draft
from tasc.training.distill.dataset import frequent_ids
from tasc.training.distill.options import NEW_VOCABULARY
from tasc.training.distill.teacher import completion_logits
from tasc.training.examples import Collator, make_examples, shuffled_batches
from tasc.training.finetune.optim import with_adapters
from tasc.training.shared_prefix import prefix_cache, with_prefix
from tasc.training.work_dir import attention


def step(model: Any, collator: Collator, rows: Sequence[Any]) -> tuple[float, Any]:
    """Seconds of CPU time of one loss and its gradients, and the gradients."""
    model.zero_grad()
    began = time.process_time()
    model(**collator(rows), **prefix_cache(model, collator, len(rows))).loss.backward()
    taken = time.process_time() - began
    return taken, torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])


def draft_step(model: Any, collator: Collator, rows: Sequence[Any]) -> tuple[float, Any]:
    """As `step`, of a draft's logits for the outputs' tokens: the target's part of the loss is not computed."""
    model.zero_grad()
    began = time.process_time()
    logits = completion_logits(model, collator(rows) | prefix_cache(model, collator, len(rows)))
    logits.logsumexp(-1).mean().backward()
    taken = time.process_time() - began
    return taken, torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])


@torch.no_grad()
def target_pass(model: Any, collator: Collator, rows: Sequence[Any]) -> tuple[float, Any]:
    """Seconds of CPU time of the target's logits, and the logits of the outputs' tokens."""
    began = time.process_time()
    logits = completion_logits(model, collator(rows) | prefix_cache(model, collator, len(rows)))
    return time.process_time() - began, logits.flatten()


def measure(
    data: Path, model: str, system: str, batch: int, steps: int, draft: DraftSize | None, output: Path | None
) -> None:
    """Measure both ways on the same batches."""
    examples = make_examples(
        list(read_rows(data, "train")), AutoTokenizer.from_pretrained(model), load_tokenizer(model), system=system
    )
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation=attention(examples))
    loaded.config.use_cache = False
    order = shuffled_batches([len(e) for e in examples], batch, steps + 1, 0)
    batches = [[examples[row] for row in order[k * batch : (k + 1) * batch]] for k in range(steps + 1)]
    if draft is None:
        adapted = with_adapters(loaded, TuneOptions(), [])
        for weight in adapted.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.02)
        jobs = [("a tuning step", "gradients", adapted, step)]
    else:
        ids = frequent_ids([e.completion for e in examples], [], NEW_VOCABULARY)
        narrow = narrow_draft(loaded, draft, ids)
        set_draft_vocabulary(narrow, ids)
        cut_head(narrow)
        jobs = [
            ("a pass of the target", "logits", loaded, target_pass),
            ("a draft's step", "gradients", narrow, draft_step),
        ]
    found: list[Ratio] = []
    for what, compared, trained, job in jobs:
        whole = Collator.for_model(trained, 0)
        shared = with_prefix(whole, trained, examples, batch)
        ours, theirs, apart = in_turns(job, trained, (shared, whole), batches)
        found += [
            Ratio(f"CPU seconds of {what}", ours, "whole rows", theirs, lower=True),
            Ratio(f"largest relative difference of the {compared}", apart, lower=True, limit=1e-3),
        ]
    prompt, new = (float(np.mean([len(part) for part in parts])) for parts in zip(
        *((e.prompt, e.completion) for e in examples), strict=True))  # fmt: skip
    report(
        f"{data.name.partition('.')[0]}: {len(shared.prefix)} of {prompt:.0f} prompt tokens shared, outputs of {new:.0f}",
        found,
        output,
    )


def in_turns(
    job: Callable[..., tuple[float, Any]], model: Any, ways: Sequence[Collator], batches: Sequence[Any]
) -> tuple[float, float, float]:
    """Mean seconds of a job with two collators over the same batches, and how far its results are apart at most."""
    seconds: dict[Collator, list[float]] = {way: [] for way in ways}
    apart = []
    for number, rows in enumerate(batches):  # the first warms up
        found = {way: job(model, way, rows) for way in list(ways)[:: 1 if number % 2 else -1]}
        for way, (taken, _) in found.items():
            seconds[way] += [taken] if number else []
        one, other = (found[way][1] for way in ways)
        apart.append(float((other - one).norm() / other.norm()))
    ours, theirs = (float(np.mean(seconds[way])) for way in ways)
    return ours, theirs, max(apart)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--model", default="smollm2", help="folder, hub name or smollm2")
    parser.add_argument("--system", default="Answer as the rows do.", help="system message of every prompt")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--draft", type=DraftSize.parse, help="size of a narrow draft: distillation, not tuning")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny random model on a generated task")
    options = parser.parse_args(arguments)
    use_threads(options.threads)
    if options.smoke:
        with tempfile.TemporaryDirectory() as name:
            data, model = tiny_checkpoint(Path(name))
            for draft in (None, DraftSize.parse("1M")):
                measure(data, model, options.system, 4, 2, draft, options.output)
        return
    if options.data is None:
        parser.error("give DATA, or --smoke")
    measure(
        options.data, checkpoint(options.model), options.system, options.batch, options.steps, options.draft,
        options.output,
    )  # fmt: skip


if __name__ == "__main__":
    main()
