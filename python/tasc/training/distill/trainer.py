"""Stage of a distillation: the draft is trained on the teacher's logits for some tokens of each batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from tasc.decoding.draft_model.eagle import is_head
from tasc.decoding.draft_model.vocabulary import DraftHead
from tasc.files import atomic_path
from tasc.progress import Progress
from tasc.training.distill.losses import LOSSES
from tasc.training.distill.moving_reference import MovingReference
from tasc.training.distill.new_head import STEPS
from tasc.training.distill.on_policy import sampled_outputs
from tasc.training.distill.options import DistillOptions
from tasc.training.distill.teacher import (
    CachedHiddenStates,
    Teacher,
    arithmetic,
    at_temperature,
    batches,
    completion_logits,
    draft_batch,
    draft_logits,
)
from tasc.training.distill.token_selection import all_tokens, random_tokens, select_tokens
from tasc.training.examples import Collator, Example
from tasc.training.schedule import TimeLimit, adamw
from tasc.training.shared_prefix import prefix_cache, with_prefix
from tasc.training.work_dir import fit, processes, row_order, rows_per_step, trainer_arguments


@dataclass(frozen=True)
class RowCollator:
    """Collator of row numbers: makes their batch, with the numbers as `rows`, (B,) int64."""

    collator: Collator
    examples: Sequence[Example]

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Make the batch of these rows."""
        return self.collator([self.examples[row] for row in rows]) | {"rows": torch.tensor(rows)}


class Distiller(transformers.Trainer):  # type: ignore[misc, unused-ignore]
    """`Trainer` of transformers with the loss of a distillation.

    Args:
        teacher: Teacher of the draft.
        options: Options; `loss`, `select`, `k`, `on_policy`, `temperature` and `patience` are used.
        reference: (T,) loss of the reference per completion token, by row, for `select="adaspec"`.
        eos_ids: Ids that end an output.
        validation: Outputs of the target and a teacher for them, for early stopping.
        **given: Arguments of the `Trainer`.
    """

    loss_is_scaled_for_ga = False  # the loss is a mean per pass

    def __init__(
        self,
        *,
        teacher: Teacher,
        options: DistillOptions,
        reference: Mapping[int, Tensor] | None,
        eos_ids: Collection[int] = (),
        validation: tuple[Sequence[Example], Teacher] | None = None,
        **given: Any,
    ) -> None:
        super().__init__(eval_dataset=None if validation is None else validation[0], **given)
        self._validation = validation
        self.model_accepts_loss_kwargs = False
        self._teacher = teacher
        self._options = options
        self._reference = reference
        self._eos_ids = eos_ids
        self._ids = DraftHead(given["model"]).ids
        self._collator: Collator = given["data_collator"].collator
        self._moving = MovingReference(given["model"]) if options.select == "moving" else None
        if self._moving is not None:
            self.add_callback(self._moving)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the mean loss of the selected tokens of a batch.

        An EAGLE head learns from each of its steps. Its tokens are selected by the losses of the first one.
        """
        rows = inputs.pop("rows").tolist()
        if self._options.on_policy and torch.rand(()) < self._options.on_policy:
            inputs = self._sampled(rows)
        target = self._teacher.over(self._ids, rows, inputs)

        def losses(model: Any, steps: int) -> list[Tensor]:
            batch = draft_batch(model, self._teacher, rows, inputs, steps)
            found = draft_logits(model, batch | prefix_cache(model, self._collator, len(rows)))
            scaled = [at_temperature(logits, self._teacher.temperature) for logits in found]
            return [LOSSES[self._options.loss](target.logits, logits, target.rest) for logits in scaled]

        per_token = losses(model, STEPS)
        chosen = self._selected(rows, per_token[0].detach(), lambda reference: losses(reference, 1)[0])
        loss = torch.stack([each[chosen].mean() for each in per_token]).mean()
        return (loss, {}) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure 1 − α_exp on the validation rows; keep the best weights, and stop when `patience` is used up."""
        from accelerate.utils import broadcast_object_list

        assert self._validation is not None
        outputs, teacher = self._validation
        draft: Any = self.accelerator.unwrap_model(self.model)
        per_token = torch.cat([*token_losses(draft, outputs, teacher, "tvd").values()])
        [loss] = broadcast_object_list([per_token.double().mean().item()])  # all processes decide alike
        losses = [entry["eval_loss"] for entry in self.state.log_history if "eval_loss" in entry]
        self.log({"eval_loss": loss})
        if loss < min(losses, default=math.inf):
            if processes().is_main_process:
                with atomic_path(self._best) as made:
                    save_file({name: weight.contiguous() for name, weight in _trained(draft).items()}, made)
        elif len(losses) - losses.index(min(losses)) >= self._options.patience:
            self.control.should_training_stop = True
        return {"eval_loss": loss}

    @torch.no_grad()
    def take_best(self) -> None:
        """Load the weights of the best checkpoint."""
        processes().wait_for_everyone()
        stored = load_file(self._best)
        for name, weight in _trained(self.accelerator.unwrap_model(self.model)).items():
            weight.copy_(stored[name])

    @property
    def _best(self) -> Path:
        """File with the weights of the best checkpoint."""
        return Path(str(self.args.output_dir), "best.safetensors")

    def _sampled(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return a batch of outputs that the draft samples now, as long as the longest of these rows at most."""
        draft: Any = self.accelerator.unwrap_model(self.model)
        made: Any = self.data_collator
        examples = [made.examples[row] for row in rows]
        batch = self._collator(
            sampled_outputs(
                draft, [one.prompt for one in examples], self._collator,
                ids=self._ids, eos=self._eos_ids, limit=max(len(one.completion) for one in examples),
                temperature=self._options.temperature,
            )
        )  # fmt: skip
        return {name: value.to(draft.device) for name, value in batch.items()}

    def _selected(self, rows: Sequence[int], per_token: Tensor, losses: Callable[[Any], Tensor]) -> Tensor:
        """Return (n,) bool, the tokens to learn from; `losses` computes the (n,) losses of another model."""
        if self._moving is not None:
            with torch.no_grad():
                return select_tokens(per_token, losses(self._moving.model), self._options.k)
        if self._reference is not None:
            reference = torch.cat([self._reference[row] for row in rows]).to(per_token.device)
            return select_tokens(per_token, reference, self._options.k)
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
    eos_ids: Collection[int] = (0,),
    validation: tuple[Sequence[Example], Teacher] | None = None,
    limit: TimeLimit | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train `draft` in place. A stopped stage resumes from its last checkpoint in `folder`.

    Args:
        draft: A transformers causal model with the target's vocabulary, float32; with a draft vocabulary, its head is
            cut (`cut_head`).
        examples: Rows. They form batches of similar length, in an order that depends on the seed alone.
        teacher: Teacher of the draft.
        folder: Folder for checkpoints. It stays, so that the caller can save the result first.
        options: Options; `options.steps` is not used.
        steps: Optimizer steps.
        reference: (T,) loss of the reference per completion token, by row.
        eos_ids: Ids that end an output.
        validation: Outputs of the target and a teacher for them: the stage stops early, by `options.patience`.
        limit: Time of the stage; the learning rate then falls with the time. None: as long as the steps take.
        progress: As for `fit`.

    Returns:
        JSON values: `steps` done, `rows_per_step`, `trainable` (number of parameters), `seconds`, `resumed_at`,
        `curve`; with early stopping also `validation`, [{step, loss}] with 1 − α_exp as loss, and `kept_step`.
    """
    transformers.set_seed(options.seed)
    draft.config.use_cache = False
    draft.train()
    _set_trainable(draft, options)
    trainable = sum(parameter.numel() for parameter in draft.parameters() if parameter.requires_grad)
    collator = Collator.for_model(draft, min(eos_ids))
    if isinstance(teacher, CachedHiddenStates) and not is_head(draft):  # others run over whole rows
        collator = with_prefix(collator, draft, examples, options.batch_size)
    trainer = Distiller(
        teacher=teacher,
        options=options,
        reference=reference,
        eos_ids=eos_ids,
        validation=validation,
        model=draft,
        args=trainer_arguments(folder, options, steps),
        train_dataset=row_order(examples, options, steps),
        data_collator=RowCollator(collator, examples),
        optimizers=_optimizer(draft, options, steps, limit),
    )
    history = fit(trainer, progress, limit)
    kept: dict[str, Any] = {}
    if validation is not None:
        trainer.take_best()
        best = min(history["validation"], key=lambda entry: entry["loss"])
        kept = {"validation": history["validation"], "kept_step": best["step"]}
    draft.config.use_cache = True
    draft.eval().requires_grad_(True)
    trainer.accelerator.unwrap_model(draft, keep_fp32_wrapper=False)  # takes off the autocast of the training
    return {
        "steps": trainer.state.global_step,
        "rows_per_step": rows_per_step(options),
        "trainable": trainable,
        **{name: history[name] for name in ("seconds", "resumed_at", "curve")},
        **kept,
    }


@torch.no_grad()
def token_losses(
    model: Any,
    examples: Sequence[Example],
    teacher: Teacher,
    loss: str,
    *,
    rows: Sequence[int] | None = None,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> dict[int, Tensor]:
    """Compute the loss of a model on every completion token of `rows` (None: all): (T,) float32 on the CPU, by row."""
    model.eval()
    head = DraftHead(model)
    found: dict[int, Tensor] = {}
    for chosen, batch, sizes in batches(model, examples, rows=rows, progress=progress):
        with arithmetic(model, precision), head.applied():
            logits = completion_logits(model, draft_batch(model, teacher, chosen, batch, 1))
        target = teacher.over(head.ids, chosen, batch)
        scaled = at_temperature(logits, teacher.temperature)
        per_token = LOSSES[loss](target.logits, scaled, target.rest).cpu()
        found |= {row: part.clone() for row, part in zip(chosen, torch.split(per_token, sizes), strict=True)}
    return found


def _trained(draft: Any) -> dict[str, Tensor]:
    """Return the weights that are trained, by name."""
    return {name: weight for name, weight in draft.named_parameters() if weight.requires_grad}


def _set_trainable(draft: Any, options: DistillOptions) -> None:
    draft.requires_grad_(True)
    if options.trainable == "blocks":
        for module in (draft.get_input_embeddings(), draft.get_output_embeddings()):
            module.requires_grad_(False)


def _optimizer(draft: Any, options: DistillOptions, steps: int, limit: TimeLimit | None) -> tuple[Any, Any]:
    """AdamW over the trainable parameters, with weight decay on matrices only, and its learning rate by step."""
    trainable = [parameter for parameter in draft.parameters() if parameter.requires_grad]
    matrices, rest = [p for p in trainable if p.ndim > 1], [p for p in trainable if p.ndim <= 1]
    rate, decay = options.learning_rate, options.weight_decay
    return adamw([(matrices, rate, decay, 0), (rest, rate, 0.0, 0)], steps, options.warmup, limit)
