"""Run of fine-tuning: a work folder to resume from, transformers' `Trainer`, the finished checkpoint."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasc.data.prompt_notes import TUNING_FILE
from tasc.data.tokenizer import PLAN_FILE, model_files
from tasc.evaluation.provenance import folder_key
from tasc.files import as_json, write_text
from tasc.models import load_weights
from tasc.portable import make_portable
from tasc.progress import Progress
from tasc.training.examples import Collator, Example, digest
from tasc.training.finetune.optim import optimizer_and_schedule, with_adapters
from tasc.training.finetune.options import TuneOptions
from tasc.training.schedule import dtype_of
from tasc.training.shared_prefix import trainer_class, with_prefix
from tasc.training.work_dir import WorkFolder, attention, fit, processes, row_order, rows_per_step, trainer_arguments

COPIED = ("generation_config.json", PLAN_FILE)
"""Files that are copied from the model to the tuned checkpoint, if they exist."""


@dataclass(frozen=True)
class Run:
    """Settings and data of one run, and its steps."""

    model: str
    out: Path
    work: WorkFolder
    options: TuneOptions
    examples: Sequence[Example]
    validation: Sequence[Example]
    new_ids: list[int]
    tokenizer: Any
    progress: Progress | None

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that must be equal to resume a run."""
        return {
            "model": self.model, "model files": folder_key(self.model), "rows": digest(self.examples),
            "validation": digest(self.validation), **self.options.identity,
        }  # fmt: skip

    def train(self) -> dict[str, Any]:
        """Train to the end and save the result in the work folder; return steps, seconds and loss curves."""
        import torch
        import transformers

        options = self.options
        effective = rows_per_step(options)
        steps = options.max_steps or max(1, math.ceil(options.epochs * len(self.examples) / effective))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        transformers.set_seed(options.seed)
        model = self._trainable_model(dtype_of(options.precision, device))
        whole_rows = Collator.for_model(model, self._pad_id())
        trainer = trainer_class()(
            model=model,
            args=trainer_arguments(self.work.path, options, steps),
            train_dataset=[self.examples[row] for row in row_order(self.examples, options, steps)],
            eval_dataset=list(self.validation) or None,
            data_collator=with_prefix(whole_rows, model, [*self.examples, *self.validation], options.batch_size),
            optimizers=optimizer_and_schedule(model, options, steps),
        )
        history = fit(trainer, self.progress)
        trainer.save_model(str(self.work.path / "learnt"))
        return {
            "steps": steps,
            "rows_per_step": effective,
            "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
            **history,
        }

    def publish(self, metrics: dict[str, Any]) -> None:
        """Merge the trained parameters into the model, write the checkpoint and remove the work folder."""
        state = processes()
        if state.is_main_process:
            with self.work.publish(self.out) as finished:
                self._merged().save_pretrained(finished)
                self.tokenizer.save_pretrained(finished)
                make_portable(finished)
                find = model_files(self.model)
                for name in COPIED:
                    if (found := find(name)) is not None:
                        shutil.copyfile(found, finished / name)
                write_text(finished / TUNING_FILE, as_json(metrics, indent=2) + "\n")
        state.wait_for_everyone()

    def _trainable_model(self, dtype: Any) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        full = self.options.method == "full"
        quantised = {"quantization_config": _nf4(dtype)} if self.options.method == "qlora" else {}
        model = load_weights(
            AutoModelForCausalLM,
            self.model,
            dtype=torch.float32 if full else dtype,
            attn_implementation=attention(self.examples),
            **quantised,
        )
        model.config.use_cache = False
        return model if full else with_adapters(model, self.options, self.new_ids)

    def _merged(self) -> Any:
        """The tuned model: merged in float32, then cast to the stored dtype of the original model.

        The base is read from its checkpoint again, so `qlora` merges into the weights as they were before quantisation.
        """
        import torch
        from peft import PeftModel
        from transformers import AutoConfig, AutoModelForCausalLM

        stored = AutoConfig.from_pretrained(self.model).dtype or torch.float32
        if self.options.method == "full":
            return load_weights(AutoModelForCausalLM, self.work.path / "learnt", dtype=torch.float32).to(stored)
        base = load_weights(AutoModelForCausalLM, self.model, dtype=torch.float32)
        return PeftModel.from_pretrained(base, str(self.work.path / "learnt")).merge_and_unload().to(stored)

    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.examples[0].completion[-1] if pad is None else pad)


def _nf4(dtype: Any) -> Any:
    """Return the settings of transformers for linear layers in 4 bits (NF4), computed in `dtype` (QLoRA).

    The scales of the blocks are quantised too. Embeddings and the output head stay as they are.
    """
    from transformers import BitsAndBytesConfig

    settings: Any = BitsAndBytesConfig
    return settings(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
