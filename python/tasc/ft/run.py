"""One run of fine-tuning: a work folder that it can resume from, transformers' `Trainer`, the finished checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tasc.data.tokenizer import PLAN_FILE
from tasc.errors import InputError
from tasc.ft.examples import Collator, Example, shuffled_batches
from tasc.ft.learn import dtype_of, optimizer_and_schedule, with_adapters
from tasc.ft.options import TuneOptions

TuneProgress: TypeAlias = Callable[[int, int, float | None], None]
"""Called with (steps done, steps in all, loss lately)."""

METRICS = "tuning.json"
"""What a tuned checkpoint says of its own tuning."""

COPIED = ("generation_config.json", PLAN_FILE)
"""Files that a tuned checkpoint takes over from the model as they are, where they are there."""

EAGER_TOKENS = 640
"""Longest rows that are trained with plain attention on a CPU."""

LOGGED = 200
"""About so many points of a loss curve."""


@dataclass(frozen=True)
class Run:
    """What a run needs, and what it does."""

    model: str
    out: Path
    options: TuneOptions
    examples: Sequence[Example]
    validation: Sequence[Example]
    new_ids: list[int]
    tokenizer: Any
    progress: TuneProgress | None

    @property
    def work(self) -> Path:
        """Where the run lies until it is finished."""
        return self.out.with_name(self.out.name + ".tuning")

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to go on."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(json.dumps([example.prompt, example.completion]).encode())
        return {
            "model": self.model,
            "rows": digest.hexdigest(),
            "processes": _processes().num_processes,
            **asdict(self.options),
        }

    def claim(self, resume: bool) -> None:
        """Makes the work folder, or checks that the one there is of this very run.

        Raises:
            InputError: It is of another run, naming what differs; or several GPUs are to be driven by one process.
        """
        import torch

        state = _processes()
        if torch.cuda.device_count() > 1 and state.num_processes == 1:
            raise InputError(
                f"{torch.cuda.device_count()} GPUs and one process; launch one for each (torchrun --nproc_per_node "
                f"{torch.cuda.device_count()} …), or name one GPU in CUDA_VISIBLE_DEVICES"
            )
        note = self.work / "run.json"
        with state.main_process_first():
            if not resume and state.is_main_process:
                shutil.rmtree(self.work, ignore_errors=True)
            if not note.exists():
                self.work.mkdir(parents=True, exist_ok=True)
                note.write_text(json.dumps(self.identity, indent=2) + "\n")
        before, now = json.loads(note.read_text()), self.identity
        differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if differing:
            raise InputError(
                f"{self.work} is of another run ({', '.join(differing)} differ); "
                "remove it, or begin anew with resume=False"
            )

    def train(self) -> dict[str, Any]:
        """Trains to the end and leaves what was learnt in the work folder; returns steps, seconds and loss curves."""
        import torch
        import transformers
        from transformers.trainer_utils import get_last_checkpoint

        options = self.options
        effective = options.batch_size * options.accumulate * _processes().num_processes
        steps = options.max_steps or max(1, math.ceil(options.epochs * len(self.examples) / effective))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        transformers.set_seed(options.seed)
        model = self._learner(dtype_of(options.precision, device))
        order = shuffled_batches([len(e) for e in self.examples], effective, steps, options.seed)
        trainer = transformers.Trainer(
            model=model,
            args=self._arguments(steps, device),
            train_dataset=[self.examples[row] for row in order],
            eval_dataset=list(self.validation) or None,
            data_collator=Collator.for_model(model, self._pad_id()),
            optimizers=optimizer_and_schedule(model, options, steps),
            callbacks=[_told(self.progress)] if self.progress else [],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        begin = time.perf_counter()
        last: str | None = get_last_checkpoint(str(self.work))  # type: ignore[no-untyped-call]
        trainer.train(resume_from_checkpoint=last)
        trainer.save_model(str(self.work / "learnt"))
        log = trainer.state.log_history
        return {
            "steps": steps,
            "rows_per_step": effective,
            "seconds": round(time.perf_counter() - begin, 1),
            "resumed_at": 0 if last is None else int(last.rpartition("-")[2]),
            "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "curve": [{k: e[k] for k in ("step", "loss", "grad_norm", "learning_rate")} for e in log if "loss" in e],
            "validation": [{"step": e["step"], "loss": e["eval_loss"]} for e in log if "eval_loss" in e],
        }

    def publish(self, metrics: dict[str, Any]) -> None:
        """Merges what was learnt into the model and gives the finished checkpoint its name; the work folder goes."""
        state = _processes()
        if state.is_main_process:
            finished = self.work / "finished"
            shutil.rmtree(finished, ignore_errors=True)
            self._merged().save_pretrained(finished)
            self.tokenizer.save_pretrained(finished)
            for name in COPIED:
                found = self._beside_the_model(name)
                if found is not None:
                    shutil.copyfile(found, finished / name)
            (finished / METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
            finished.rename(self.out)
            shutil.rmtree(self.work)
        state.wait_for_everyone()

    def _arguments(self, steps: int, device: str) -> Any:
        import torch
        import transformers

        options = self.options
        dtype = dtype_of(options.precision, device)
        return transformers.TrainingArguments(
            output_dir=str(self.work),
            max_steps=steps,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=options.batch_size,
            gradient_accumulation_steps=options.accumulate,
            train_sampling_strategy="sequential",  # the order is `shuffled_batches`
            max_grad_norm=1.0,
            bf16=dtype == torch.bfloat16,
            fp16=dtype == torch.float16,
            use_cpu=device == "cpu",
            logging_steps=max(1, steps // LOGGED),
            save_steps=options.save_every,
            save_total_limit=1,
            eval_strategy="steps" if self.validation else "no",
            eval_steps=options.save_every,
            prediction_loss_only=True,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=device == "cuda",
            disable_tqdm=True,
            report_to=[],
            seed=options.seed,
        )

    def _learner(self, dtype: Any) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        full = self.options.method == "full"
        model: Any = AutoModelForCausalLM.from_pretrained(
            self.model,
            dtype=torch.float32 if full else dtype,
            attn_implementation=self._attention(),
        )
        model.config.use_cache = False
        return model if full else with_adapters(model, self.options, self.new_ids)

    def _attention(self) -> str | None:
        """On a CPU short rows train faster with plain attention; its memory grows with the square of their length."""
        import torch

        short = max(map(len, self.examples)) <= EAGER_TOKENS
        return "eager" if short and not torch.cuda.is_available() else None

    def _merged(self) -> Any:
        """The tuned model as the one it came from is stored: merged in float32, then in that one's dtype."""
        import torch
        from peft import PeftModel
        from transformers import AutoConfig, AutoModelForCausalLM

        stored = AutoConfig.from_pretrained(self.model).dtype or torch.float32
        if self.options.method == "full":
            model: Any = AutoModelForCausalLM.from_pretrained(self.work / "learnt", dtype=torch.float32)
            return model.to(stored)
        base = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        return PeftModel.from_pretrained(base, str(self.work / "learnt")).merge_and_unload().to(stored)

    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.examples[0].completion[-1] if pad is None else pad)

    def _beside_the_model(self, name: str) -> Path | None:
        """A file of the model's folder, or of the hub's cache."""
        if Path(self.model).is_dir():
            file = Path(self.model) / name
            return file if file.exists() else None
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.model, name)
        return Path(cached) if isinstance(cached, str) else None


def _processes() -> Any:
    """The processes that a launcher has started for this run, as accelerate knows them; on CPUs too."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def _told(progress: TuneProgress) -> Any:
    """A callback of the `Trainer` that passes on how far it is."""
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        """Reports after every step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Steps done, steps in all, the loss logged last."""
            losses = [entry["loss"] for entry in state.log_history[-2:] if "loss" in entry]
            if state.is_world_process_zero:
                progress(state.global_step, state.max_steps, losses[-1] if losses else None)

    return Told()
