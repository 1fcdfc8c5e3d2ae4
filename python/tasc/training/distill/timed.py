"""Distillation for a limited time, of a target in memory: what a check with a model trains to see what it brings."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tasc.data import Row, TaskTokenizer
from tasc.data.endings import required_eos_ids
from tasc.errors import InputError, import_optional
from tasc.files import temporary_folder
from tasc.progress import Clock, ProgressBars, no_bars
from tasc.training.distill.draft_init import cut_draft
from tasc.training.distill.options import DistillOptions
from tasc.training.distill.teacher import OnlineTeacher
from tasc.training.distill.trainer import run_stage
from tasc.training.examples import make_examples, short_enough
from tasc.training.schedule import TimeLimit
from tasc.training.work_dir import attention

LAYERS = 4
"""Layers of the draft model; of a target with fewer than 8, half of them."""

_MOST_STEPS = 20_000
_CPU_BATCH = 4  # rows of a step, as in the measurements of docs/distillation.md


@dataclass(frozen=True, slots=True)
class TimedDistillation:
    """Distillation with the default settings of `distill`, for a limited time.

    The target runs on every batch, because its states of all rows may take longer than the limit.

    Args:
        minutes: Time of the training, above 0. At least one step is made.
        clock: Returns seconds.

    Raises:
        InputError: `minutes` is out of its range, or there are several GPUs.
        MissingExtraError: accelerate is not installed.
    """

    minutes: float
    clock: Clock = time.perf_counter

    def __post_init__(self) -> None:
        """Check what can be checked without a target."""
        if not 0 < self.minutes < math.inf:
            raise InputError(f"a draft model cannot be trained for {self.minutes:g} minutes: give a number above 0")
        import_optional("accelerate", "ft")
        count = torch.cuda.device_count()
        if count > 1:
            raise InputError(f"{count} GPUs, and a check trains a draft model on one: name it in CUDA_VISIBLE_DEVICES")

    def cut(self, target: Any) -> Any:
        """Cut the untrained draft model from a target.

        Raises:
            InputError: The target cannot be cut.
        """
        return cut_draft(target, min(LAYERS, max(1, target.config.get_text_config().num_hidden_layers // 2)))

    def __call__(
        self,
        target: Any,
        tokenizer: Any,
        rows: Sequence[Row],
        task: TaskTokenizer,
        system: str | None = None,
        progress: ProgressBars = no_bars,
    ) -> tuple[Any, dict[str, Any]]:
        """Train a draft model.

        Args:
            target: A transformers causal model in evaluation mode.
            tokenizer: Its Hugging Face tokenizer.
            rows: Rows with input and output; those without an input are left out.
            task: The tokenizer, with an end token.
            system: System message before each input.
            progress: Called with the title of the job; returns its progress callback.

        Returns:
            The draft model in the target's type, and facts as JSON values: `minutes`, `steps`, `rows_per_step`, `rows`,
            `layers`, `parameters`.

        Raises:
            CorpusError: No row has an input, or every row is too long.
            InputError: The target cannot be cut.
        """
        limit = TimeLimit(60.0 * self.minutes, self.clock)
        batch_size = _CPU_BATCH if target.device.type == "cpu" else DistillOptions.batch_size
        options = DistillOptions(batch_size=batch_size, save_every=_MOST_STEPS)
        made = make_examples([row for row in rows if row.get("input")], tokenizer, task, system=system)
        examples, _ = short_enough(made, options.max_tokens, target.config)
        draft = self.cut(target).float()
        own = draft.config._attn_implementation
        draft.set_attn_implementation(attention(examples) or own)
        with temporary_folder() as folder:
            stage = run_stage(
                draft, examples, OnlineTeacher(target, options.precision), folder, options=options,
                steps=_MOST_STEPS, eos_ids=required_eos_ids(target, tokenizer), limit=limit,
                progress=progress("training a draft model"),
            )  # fmt: skip
        draft.set_attn_implementation(own)
        return draft.to(target.dtype), {
            "minutes": round(limit.spent / 60.0, 2), "steps": stage["steps"], "rows_per_step": stage["rows_per_step"],
            "rows": len(examples), "layers": draft.config.get_text_config().num_hidden_layers,
            "parameters": draft.num_parameters(),
        }  # fmt: skip
