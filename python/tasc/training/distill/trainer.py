"""One stage of a distillation: a draft is trained on the teacher's distributions at some tokens of each batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from tasc.progress import Progress
from tasc.training.distill.losses import LOSSES
from tasc.training.distill.options import DistillOptions
from tasc.training.distill.teacher import Teacher, arithmetic, completion_logits, on_device
from tasc.training.distill.token_selection import all_tokens, random_tokens, select_tokens
from tasc.training.examples import Collator, Example, shuffled_batches
from tasc.training.schedule import share_of_rate
from tasc.training.work_dir import fit, processes, trainer_arguments

AT_ONCE = 16
"""Rows of a forward pass that weighs tokens."""


@dataclass(frozen=True)
class Numbered:
    """A collator of row numbers: their batch, and the numbers themselves as `rows`, (B,) int64."""

    collator: Collator
    examples: Sequence[Example]

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """The batch of these rows."""
        return self.collator([self.examples[row] for row in rows]) | {"rows": torch.tensor(rows)}


class Distiller(transformers.Trainer):  # type: ignore[misc, unused-ignore]
    """transformers' `Trainer` with the loss of a distillation.

    Args:
        teacher: Says what the draft should say.
        options: Which loss, and which tokens.
        reference: By row, (T,) loss of the reference per completion token; None: nothing is selected by it.
        **given: As the `Trainer` has them.
    """

    loss_is_scaled_for_ga = False  # a mean per pass

    def __init__(
        self, *, teacher: Teacher, options: DistillOptions, reference: Mapping[int, Tensor] | None, **given: Any
    ) -> None:
        super().__init__(**given)
        self.model_accepts_loss_kwargs = False
        self._teacher = teacher
        self._options = options
        self._reference = reference

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean loss of the selected tokens of a batch."""
        rows = inputs.pop("rows").tolist()
        per_token = LOSSES[self._options.loss](self._teacher.logits(rows, inputs), completion_logits(model, inputs))
        loss = per_token[self._selected(rows, per_token.detach())].mean()
        return (loss, {}) if return_outputs else loss

    def _selected(self, rows: Sequence[int], per_token: Tensor) -> Tensor:
        if self._reference is not None:
            said = torch.cat([self._reference[row] for row in rows]).to(per_token.device)
            return select_tokens(per_token, said, self._options.k)
        if self._options.select == "random":
            return random_tokens(per_token, self._options.k)
        return all_tokens(per_token)


def run_stage(
    draft: Any,
    examples: Sequence[Example],
    teacher: Teacher,
    folder: Path,
    *,
    options: DistillOptions,
    steps: int,
    reference: Mapping[int, Tensor] | None = None,
    pad_id: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains `draft` in place; a stopped stage goes on from its last checkpoint in `folder`.

    Args:
        draft: A transformers causal model of the target's vocabulary, float32.
        examples: Rows; batches of similar length in an order that the seed alone decides.
        teacher: Says what the draft should say.
        folder: For checkpoints, removed at the end.
        options: How; their `steps` aside.
        steps: Optimizer steps.
        reference: By row, (T,) loss of the reference per completion token.
        pad_id: Any id.
        progress: Called with (steps done, steps in all).

    Returns:
        Steps, rows per step, seconds, loss curve, trainable weights; plain JSON values.
    """
    transformers.set_seed(options.seed)
    draft.config.use_cache = False
    draft.train()
    _let_learn(draft, options)
    learning = sum(weight.numel() for weight in draft.parameters() if weight.requires_grad)
    trainer = Distiller(
        teacher=teacher,
        options=options,
        reference=reference,
        model=draft,
        args=trainer_arguments(
            folder,
            steps=steps,
            batch_size=options.batch_size,
            accumulate=options.accumulate,
            precision=options.precision,
            save_every=options.save_every,
            seed=options.seed,
        ),
        train_dataset=order_of(examples, options, steps),
        data_collator=Numbered(Collator.for_model(draft, pad_id), examples),
        optimizers=_optimizer(draft, options, steps),
    )
    history = fit(trainer, progress)
    processes().wait_for_everyone()
    if processes().is_main_process:
        shutil.rmtree(folder)
    draft.config.use_cache = True
    draft.eval().requires_grad_(True)
    return {
        "steps": steps,
        "rows_per_step": rows_per_step(options),
        "trainable": learning,
        **{name: history[name] for name in ("seconds", "resumed_at", "curve")},
    }


def rows_per_step(options: DistillOptions) -> int:
    """Rows of an optimizer step on all devices together."""
    return options.batch_size * options.accumulate * int(processes().num_processes)


def order_of(examples: Sequence[Example], options: DistillOptions, steps: int) -> list[int]:
    """Numbers of the rows in the order in which a stage of so many steps learns from them."""
    return shuffled_batches([len(e) for e in examples], rows_per_step(options), steps, options.seed)


@torch.no_grad()
def losses_of(
    model: Any,
    examples: Sequence[Example],
    teacher: Teacher,
    loss: str,
    *,
    rows: Sequence[int] | None = None,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> dict[int, Tensor]:
    """A model's loss on every completion token of some rows (None: of all): by row, (T,) float32 on the CPU."""
    model.eval()
    collator = Collator.for_model(model, 0)
    found: dict[int, Tensor] = {}
    order = sorted(range(len(examples)) if rows is None else rows, key=lambda row: len(examples[row]))
    for start in range(0, len(order), AT_ONCE):
        some = order[start : start + AT_ONCE]
        batch = on_device(model, collator([examples[row] for row in some]))
        with arithmetic(model, precision):
            said = completion_logits(model, batch)
        per_token = LOSSES[loss](teacher.logits(some, batch), said).cpu()
        ends = np.cumsum([len(examples[row].completion) for row in some])[:-1].tolist()
        found |= {row: part.clone() for row, part in zip(some, torch.tensor_split(per_token, ends), strict=True)}
        if progress is not None:
            progress(start + len(some), len(order))
    return found


def _let_learn(draft: Any, options: DistillOptions) -> None:
    draft.requires_grad_(True)
    if options.trainable == "blocks":
        for module in (draft.get_input_embeddings(), draft.get_output_embeddings()):
            module.requires_grad_(False)


def _optimizer(draft: Any, options: DistillOptions, steps: int) -> tuple[Any, Any]:
    """AdamW over what learns, decay on matrices alone, and its rate by step."""
    weights = [weight for weight in draft.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=options.learning_rate, betas=(0.9, 0.98))
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_rate(0, steps, options.warmup))
