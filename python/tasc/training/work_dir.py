"""Run of training: a work folder from which it can resume, and transformers' `Trainer` inside it."""

from __future__ import annotations

import ctypes
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasc.errors import InputError
from tasc.files import atomic_path, flush, os_errors, read_json, remove_folder, scratch_folder, sync, write_json
from tasc.progress import Progress
from tasc.training.examples import Example, shuffled_batches
from tasc.training.options import TrainingOptions
from tasc.training.schedule import TimeLimit, dtype_of

_log = logging.getLogger(__name__)

CURVE_POINTS = 200
"""Approximate number of points of a loss curve."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

EAGER_TOKENS = 640
"""Maximum row length for eager attention on a CPU."""


@dataclass(frozen=True)
class TrainedModel:
    """Result of a training run."""

    path: Path
    """The checkpoint: `AutoModelForCausalLM` and `AutoTokenizer` load it."""
    metrics: dict[str, Any]
    """As in the JSON file of metrics in the checkpoint's folder."""


@dataclass(frozen=True)
class WorkFolder:
    """Folder of an unfinished run: `NAME.suffix` beside the final folder."""

    path: Path

    def check_new(self, out: Path) -> None:
        """Check that `out` does not exist; remove the work folder of a run that was killed after it had written `out`.

        Raises:
            InputError: `out` exists, or another process works in the work folder.
        """
        if out.exists():
            with scratch_folder(self.path):
                if (self.path / _PUBLISHED).exists() and not (self.path / _FINISHED).exists():
                    remove_folder(self.path)
            raise InputError(f"{out} is there already; name another folder or remove it")

    @contextmanager
    def claim(self, identity: Mapping[str, Any], resume: bool) -> Iterator[None]:
        """Create the folder, or check that the existing folder belongs to this run; it is this run's in the block.

        Args:
            identity: Settings that must be equal to resume a run; JSON values.
            resume: Resume from an existing folder; otherwise remove it.

        Raises:
            InputError: The folder is of another run (the message names what differs), or another process works in it,
                or one process would have to drive several GPUs.
        """
        import torch

        state = processes()
        if torch.cuda.device_count() > 1 and state.num_processes == 1:
            raise InputError(
                f"{torch.cuda.device_count()} GPUs and one process; launch one for each (torchrun --nproc_per_node "
                f"{torch.cuda.device_count()} …), or name one GPU in CUDA_VISIBLE_DEVICES"
            )
        now = {"processes": state.num_processes, **identity}
        note = self.path / "run.json"
        with ExitStack() as held:
            with state.main_process_first():
                if state.is_main_process:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    held.enter_context(scratch_folder(self.path))
                    if not resume:
                        remove_folder(self.path)
                if not note.exists():
                    write_json(note, now, indent=2)
            before = _described(note)
            differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            if differing:
                raise InputError(
                    f"{self.path} is of another run ({', '.join(differing)} differ); "
                    "remove it, or start again with resume=False (--no-resume)"
                )
            held.enter_context(os_errors(self.path))
            try:
                yield
            except BaseException as error:
                if state.is_main_process:
                    if any(self.path.rglob("step-*")):
                        if not isinstance(error, _DivergedError):
                            said = "the steps so far are in %s, and the same command goes on from there"
                            _log.warning(said, self.path)
                    elif all(found == note for found in self.path.iterdir()):  # so another command may take the name
                        remove_folder(self.path)
                raise

    @contextmanager
    def publish(self, out: Path) -> Iterator[Path]:
        """A folder to fill with the result, renamed to `out` after the block; the work folder goes then."""
        finished = self.path / _FINISHED
        remove_folder(finished)
        with atomic_path(finished) as made:
            made.mkdir()
            yield made
        write_json(self.path / _PUBLISHED, str(out))
        finished.rename(out)
        remove_folder(self.path)


_FINISHED, _PUBLISHED = "finished", "published.json"
"""In a work folder: the finished result, and a note that it is being renamed."""


def _described(note: Path) -> dict[str, Any]:
    """Read the description of a run.

    Raises:
        InputError: It is damaged.
    """
    with suppress(InputError):
        found = read_json(note)
        if isinstance(found, dict):
            return found
    raise InputError(f"{note} is damaged; remove {note.parent}, or start again with resume=False (--no-resume)")


def processes() -> Any:
    """Return accelerate's state of the processes that a launcher has started for this run, on CPUs too."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def rows_per_step(options: TrainingOptions) -> int:
    """Return the number of rows of an optimizer step on all devices together."""
    return options.batch_size * options.accumulate * int(processes().num_processes)


def row_order(examples: Sequence[Example], options: TrainingOptions, steps: int) -> list[int]:
    """Return row numbers in the order in which `steps` optimizer steps train on them."""
    return shuffled_batches([len(e) for e in examples], rows_per_step(options), steps, options.seed)


def trainer_arguments(folder: Path, options: TrainingOptions, steps: int) -> Any:
    """Return `TrainingArguments` of transformers for rows in their given order, with checkpoints in `folder`."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = dtype_of(options.precision, device)
    return transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        train_sampling_strategy="sequential",  # the order is `row_order`
        max_grad_norm=1.0,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device == "cpu",
        logging_steps=max(1, steps // CURVE_POINTS),
        logging_nan_inf_filter=False,  # which writes 0 in place of a loss that is not a number
        save_steps=options.save_every,
        eval_strategy="no",  # `_validator` evaluates when the checkpoint is whole
        prediction_loss_only=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=device == "cuda",
        disable_tqdm=True,
        report_to=options.trackers,
        seed=options.seed,
    )


def fit(trainer: Any, progress: Progress | None, limit: TimeLimit | None = None) -> dict[str, Any]:
    """Run a `Trainer` to its end, from its last whole checkpoint if there is one.

    A checkpoint is a folder `checkpoint-N` while it is written, and `step-N` once it is whole; only the last one stays.

    Args:
        trainer: The trainer.
        progress: Called with (steps done, steps in all); with a limit, with (seconds spent, seconds of the limit).
        limit: Time after which no further step begins; at least one is made.

    Returns:
        `seconds`, `resumed_at` (step), `curve` [{step, loss, grad_norm, learning_rate}], `validation` [{step, loss}].

    Raises:
        InputError: The loss is no finite number.
    """
    import transformers

    return_freed_memory()
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.add_callback(_loss_check())
    trainer.add_callback(_keeper())
    if trainer.eval_dataset is not None:
        trainer.add_callback(_validator(trainer))
    if limit is not None:
        trainer.add_callback(_timer(limit, progress))
    elif progress is not None:
        trainer.add_callback(_reporter(progress))
    begin = time.perf_counter()
    last = max(_checkpoints(trainer.args.output_dir), key=_step, default=None)
    if last is not None and processes().is_main_process:
        _log.info("going on from step %d of %d, in %s", _step(last), trainer.args.max_steps, last.parent)
    with suppress(_EndedError):
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    log = trainer.state.log_history
    return {
        "seconds": round(time.perf_counter() - begin, 1),
        "resumed_at": 0 if last is None else _step(last),
        "curve": [{k: e[k] for k in ("step", "loss", "grad_norm", "learning_rate")} for e in log if "loss" in e],
        "validation": [{"step": e["step"], "loss": e["eval_loss"]} for e in log if "eval_loss" in e],
    }


def attention(examples: Sequence[Example]) -> str | None:
    """Return `eager` for short rows on a CPU, else None.

    Eager attention trains short rows faster there. Its memory grows with the square of their length.
    """
    import torch

    short = max(map(len, examples)) <= EAGER_TOKENS
    return "eager" if short and not torch.cuda.is_available() else None


def return_freed_memory() -> None:
    """Make glibc map large tensors separately, so that freed memory returns to the system.

    Otherwise glibc raises its threshold to 32 MB, and batches of varying length fragment the heap: tuning a model of
    135 M parameters with batches of 16 rows grew from 5 to 16 GB within half an hour. No effect with other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, size in ((_M_MMAP_THRESHOLD, 2 << 20), (_M_TRIM_THRESHOLD, 16 << 20)):
            mallopt(option, size)


def checkpoint_folder(folder: str, step: int) -> Path:
    """Return the folder of a whole checkpoint."""
    return Path(folder, f"step-{step}")


def _checkpoints(folder: str) -> list[Path]:
    """Return the whole checkpoints in a folder."""
    return list(Path(folder).glob("step-*"))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _keeper() -> Any:
    """A callback of the `Trainer`: renames each checkpoint when all of it is on the disk, and removes older ones."""
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        """Renames checkpoints."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Remove what a killed process has left of a checkpoint."""
            if state.is_world_process_zero:
                for torn in Path(args.output_dir).glob("checkpoint-*"):
                    remove_folder(torn)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Rename the checkpoint that all processes have written."""
            processes().wait_for_everyone()
            if state.is_world_process_zero:
                made = Path(args.output_dir, f"checkpoint-{state.global_step}")
                older = _checkpoints(args.output_dir)
                sync(made)
                made.rename(checkpoint_folder(args.output_dir, state.global_step))
                flush(made.parent)
                for checkpoint in older:
                    remove_folder(checkpoint)
                losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
                said = f"loss {losses[-1]:.4f}" if losses else "checkpoint kept"
                _log.info("step %d of %d: %s", state.global_step, state.max_steps, said)

    return Keeper()


class _EndedError(Exception):
    """A run that was stopped after its last step, when its training was to end."""


class _DivergedError(InputError):
    """A run whose loss is no finite number."""


def _loss_check() -> Any:
    """A callback of the `Trainer` that ends a run whose loss is no finite number, on a batch or on the validation rows.

    The weights are lost.
    """
    from transformers import TrainerCallback

    class LossCheck(TrainerCallback):
        """Checks the loss."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            """Check what is logged."""
            for name, what in (("loss", "loss"), ("eval_loss", "validation loss")):
                loss = (logs or {}).get(name, 0.0)
                if not math.isfinite(loss):
                    raise _DivergedError(
                        f"the {what} is {loss} at step {state.global_step}: the training has diverged; start again "
                        "with --no-resume (resume=False) and a lower learning_rate"
                    )

    return LossCheck()


def _validator(trainer: Any) -> Any:
    """A callback of the `Trainer` that measures the validation loss of each checkpoint, once it is on the disk.

    So a run that is stopped meanwhile has its steps. It resumes with the validation of its last checkpoint.
    """
    import torch
    from transformers import TrainerCallback

    class Validator(TrainerCallback):
        """Validates checkpoints."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Validate the checkpoint that a run resumes from, if the run was stopped before."""
            if state.global_step and not any(
                entry["step"] == state.global_step for entry in state.log_history if "eval_loss" in entry
            ):
                self._validate(state)
            if control.should_training_stop:
                raise _EndedError

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Validate the checkpoint."""
            self._validate(state)

        def _validate(self, state: Any) -> None:
            with torch.random.fork_rng():  # the checkpoint has the random state of before
                loss = trainer.evaluate()["eval_loss"]
            if state.is_world_process_zero:
                _log.info("step %d of %d: validation loss %.4f", state.global_step, state.max_steps, loss)

    return Validator()


def _timer(limit: TimeLimit, progress: Progress | None) -> Any:
    """A callback of the `Trainer` that stops it before a step that would end after the limit."""
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        """Watches the time."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Note the time of the first step."""
            self._begin = limit.spent

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Stop if the next step, at the mean time of the steps so far, would end after the limit."""
            spent = limit.spent
            if progress is not None:
                progress(min(spent, limit.seconds), limit.seconds)
            if spent + (spent - self._begin) / state.global_step > limit.seconds:
                control.should_training_stop = True

    return Timer()


def _reporter(progress: Progress) -> Any:
    """A callback of the `Trainer` that reports its steps to `progress`."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        """Reports after every step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Report (steps done, steps in all) from the first process."""
            if state.is_world_process_zero:
                progress(state.global_step, state.max_steps)

    return Reporter()
