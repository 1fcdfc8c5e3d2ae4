"""Acceptance rate of a draft model, from one teacher-forced pass over the target's outputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tasc.decoding.draft_model.eagle import is_head
from tasc.decoding.draft_model.vocabulary import DraftHead
from tasc.decoding.prompts import prompt_ids
from tasc.decoding.stats import Stats
from tasc.errors import CorpusError, PromptError
from tasc.evaluation.acceptance import Acceptance
from tasc.evaluation.bootstrap import estimate
from tasc.progress import Progress
from tasc.training.distill.losses import tvd
from tasc.training.distill.teacher import Teacher, at_temperature, batches, draft_batch, draft_logits
from tasc.training.examples import Example

_log = logging.getLogger(__name__)

BATCH_SIZE = 8
"""Requests that the loop decodes together."""


def target_outputs(
    target: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    system: str | None = None,
    max_tokens: int = 256,
    index: Any = None,
    name: str = "row",
    progress: Progress | None = None,
) -> list[Example]:
    """Generates the target's greedy outputs with the decoding loop of tasc. An index makes it faster, not different.

    A row whose prompt cannot be used, such as one beyond the target's context, is named in a warning and left out.

    Args:
        target: A transformers causal model.
        tokenizer: Hugging Face tokenizer of the target.
        rows: Rows with an `input` each.
        system: System message before each input.
        max_tokens: Maximum number of output tokens.
        index: `TaskIndex` of the task's outputs, or None.
        name: What a row is called in warnings, before its number.
        progress: Called with (rows done, rows).

    Returns:
        One example per row that can be used. Its completion ends with an end token unless it was cut at `max_tokens`.

    Raises:
        CorpusError: No row can be used.
    """
    from tasc.decoding.generator import Generator

    found: list[Example] = []
    with Generator(target, tokenizer, index=index, batch_size=BATCH_SIZE) as generator:

        def is_usable(number: int) -> bool:
            try:
                generator.check([rows[number]], system=system or "")
            except PromptError as error:
                _log.warning("skipped %s %d: the prompt %s", name, number, " ".join(error.reason.split()))
                return False
            return True

        rows = [row for number, row in enumerate(rows) if is_usable(number)]
        if not rows:
            raise CorpusError(f"the target can answer the prompt of no {name}; the warnings say why")
        for start in range(0, len(rows), 4 * BATCH_SIZE):
            inputs = rows[start : start + 4 * BATCH_SIZE]
            prompts = prompt_ids(tokenizer, inputs, None, system)
            made = generator.generate(inputs, system=system or "", max_tokens=max_tokens)
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
    """Measures α, τ and, with a teacher, α_exp of a draft on the target's greedy outputs.

    α and τ equal, token for token, the counts of the loop at temperature 0 with `ModelDrafter(draft, length=length)` or
    `EagleDrafter`, provided that the draft computes the same numbers for one token as for many. α_exp of an EAGLE head
    is that of the first token of a draft.

    Args:
        draft: A transformers causal model with the target's vocabulary, or with a draft vocabulary; or an EAGLE head,
            which needs a teacher with the states of whole rows.
        outputs: Outputs of `target_outputs`.
        eos: Ids that end an output (`tasc.data.endings.required_eos_ids`).
        teacher: Teacher of the target's logits for `outputs`, at whose temperature α_exp is; None: no α_exp.
        length: γ, tokens per draft.
        max_tokens: Limit of `target_outputs`, needed if outputs reached or nearly reached it.
        progress: Called with (rows done, rows).
    """
    draft.eval()
    head = DraftHead(draft)
    requests: list[Any] = [None] * len(outputs)
    overlaps: list[Any] = [None] * len(outputs)
    for rows, batch, sizes in batches(draft, outputs, pad_id=min(eos), progress=progress):
        with head.applied():
            logits = draft_logits(draft, draft_batch(draft, teacher, rows, batch, length))
        if teacher is not None:
            target = teacher.over(head.ids, rows, batch)
            scaled = at_temperature(logits[0], teacher.temperature)
            found = (1 - tvd(target.logits, scaled, target.rest)).cpu().double()
            for row, overlap in zip(rows, torch.split(found, sizes), strict=True):
                overlaps[row] = overlap.numpy()
        best = torch.stack([each.argmax(-1) for each in logits])  # (γ, n) of a head, else (1, n)
        drafted = best if head.ids is None else head.ids[best]
        for row, ids in zip(rows, torch.split(drafted.cpu(), sizes, 1), strict=True):
            completion = outputs[row].completion
            hits = (ids == torch.tensor(completion)).tolist()
            requests[row] = Stats.teacher_forced(
                hits if is_head(draft) else hits[0], length, ended=completion[-1] in eos, max_tokens=max_tokens
            )
    return Acceptance.of(requests, None if teacher is None else overlaps)


def difference(one: Acceptance, other: Acceptance) -> dict[str, Any]:
    """Return α and α_exp of `one` minus those of `other` on the same prompts: `{value, low, high}`, paired interval."""
    found: dict[str, Any] = {}
    for name in ("alpha", "alpha_exp"):
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours is not None and theirs is not None:
            found[name] = estimate(ours, against=theirs)
    return found
