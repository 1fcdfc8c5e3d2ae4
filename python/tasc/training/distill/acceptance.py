"""Acceptance rate of a draft model from one teacher-forced pass over the target's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tasc.decoding.prompts import prompt_ids
from tasc.decoding.stats import Stats
from tasc.evaluation.acceptance import Acceptance
from tasc.evaluation.bootstrap import bootstrap_interval
from tasc.progress import Progress
from tasc.training.distill.losses import tvd
from tasc.training.distill.teacher import Teacher, completion_logits, on_device
from tasc.training.distill.trainer import AT_ONCE
from tasc.training.examples import Collator, Example

GENERATED_AT_ONCE = 8
"""Requests that the loop answers side by side."""


def target_outputs(
    target: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    system: str | None = None,
    max_tokens: int = 256,
    index: Any = None,
    progress: Progress | None = None,
) -> list[Example]:
    """Generate the target's greedy outputs in tasc's loop. An index makes it faster; the text is the same without.

    Args:
        target: A transformers causal model.
        tokenizer: Its Hugging Face tokenizer.
        rows: `{input, …}` each.
        system: System message before each input.
        max_tokens: Most output tokens.
        index: `TaskIndex` of the task's outputs, or None.
        progress: Called with (rows answered, rows).

    Returns:
        One per row; its completion ends with an EOS unless it was cut at `max_tokens`.
    """
    from tasc.decoding.generator import Generator

    found: list[Example] = []
    with Generator(target, tokenizer, index=index, batch_size=GENERATED_AT_ONCE) as generator:
        for start in range(0, len(rows), 4 * GENERATED_AT_ONCE):
            inputs = [row["input"] for row in rows[start : start + 4 * GENERATED_AT_ONCE]]
            prompts = prompt_ids(tokenizer, inputs, None, system)
            made = generator.generate(inputs, system=system, max_tokens=max_tokens)
            found += [Example(p, m.ids, len(p) + len(m.ids)) for p, m in zip(prompts, made, strict=True)]
            if progress is not None:
                progress(len(found), len(rows))
    return found


@torch.no_grad()
def acceptance(
    draft: Any,
    outputs: Sequence[Example],
    eos: frozenset[int],
    *,
    teacher: Teacher | None = None,
    length: int = 5,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> Acceptance:
    """α, τ and, with a teacher, α_exp of a draft over the target's own greedy outputs.

    α and τ are those that the loop counts at temperature 0 with `ModelDrafter(draft, length=length)`, to the token, as
    far as the draft's arithmetic is the same for one token and for many.

    Args:
        draft: A transformers causal model of the target's vocabulary.
        outputs: Of `target_outputs`.
        eos: Ids that end an output (`tasc.data.endings.required_eos_ids`).
        teacher: Says the target's logits over `outputs`; None: no α_exp.
        length: γ, tokens per draft.
        max_tokens: As in `target_outputs`, where outputs came near it.
        progress: Called with (rows done, rows).
    """
    draft.eval()
    collator = Collator.for_model(draft, min(eos))
    requests: list[Any] = [None] * len(outputs)
    overlaps: list[Any] = [None] * len(outputs)
    order = sorted(range(len(outputs)), key=lambda row: len(outputs[row]))
    for start in range(0, len(order), AT_ONCE):
        rows = order[start : start + AT_ONCE]
        batch = on_device(draft, collator([outputs[row] for row in rows]))
        logits = completion_logits(draft, batch)
        sizes = [len(outputs[row].completion) for row in rows]
        said = torch.split(logits.argmax(-1).cpu(), sizes)
        near = (
            torch.split((1 - tvd(teacher.logits(rows, batch), logits)).cpu(), sizes) if teacher else [None] * len(rows)
        )
        for row, ids, overlap in zip(rows, said, near, strict=True):
            completion = outputs[row].completion
            requests[row] = Stats.teacher_forced(
                [a == b for a, b in zip(ids.tolist(), completion, strict=True)],
                length,
                ended=completion[-1] in eos,
                max_tokens=max_tokens,
            )
            overlaps[row] = None if overlap is None else overlap.double().numpy()
        if progress is not None:
            progress(start + len(rows), len(order))
    return Acceptance.of(requests, overlaps if teacher else None)


def difference(one: Acceptance, other: Acceptance) -> dict[str, Any]:
    """Return the difference of two drafts' α and α_exp over the same prompts, with paired intervals."""
    found: dict[str, Any] = {}
    for name in ("alpha", "alpha_exp"):
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours is None or theirs is None or ours.value is None or theirs.value is None:
            continue
        interval = bootstrap_interval(ours, against=theirs)
        ends = {} if interval is None else {"low": interval.low, "high": interval.high}
        found[name] = {"value": ours.value - theirs.value, **ends}
    return found
