"""Completion-only fine-tuning of a causal model on a task's rows: LoRA and new embedding rows, or all parameters.

Source: TASC-ft, arXiv 2602.24174 (fine-tune the extended model on the task); QLoRA, arXiv 2305.14314. Training uses
transformers' `Trainer` and peft. This package adds row order, trainable parameters, learning-rate schedule and a
checkpoint for any server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tasc.checks import function, listed, of_kind, path
from tasc.data import Row, load_tokenizer
from tasc.data.prompt_notes import tuning_notes
from tasc.errors import InputError, import_optional
from tasc.models import quiet_transformers
from tasc.progress import Progress
from tasc.training.examples import ROWS, make_examples, short_enough
from tasc.training.finetune.options import TuneOptions
from tasc.training.finetune.run import Run
from tasc.training.work_dir import TrainedModel, WorkFolder


def tune(
    model: str | Path,
    rows: Iterable[Row],
    out: str | Path,
    *,
    options: TuneOptions = TuneOptions(),  # noqa: B008  frozen
    validation: Iterable[Row] = (),
    system: str | None = None,
    eos: str | int | None = "auto",
    resume: bool = True,
    progress: Progress | None = None,
) -> TrainedModel:
    """Fine-tunes a checkpoint on `{input, output}` rows, with the loss on outputs only, and writes a merged checkpoint.

    The recipe is the same for every checkpoint; an extended one (`tasc.extend_checkpoint`) also learns its new tokens.
    Unfinished work is in `OUT.tuning`, from which a stopped run resumes. Under ``torchrun`` or ``accelerate launch``
    all devices train, and the first process writes.

    Args:
        model: Folder or hub name of the initial model.
        rows: `{input, output}`; the model's chat template turns inputs into prompts.
        out: Folder to write. It must not exist.
        options: See `TuneOptions`.
        validation: Rows whose loss is measured at each checkpoint. They are not trained on.
        system: System message before each input.
        eos: Token that ends an output (see `load_tokenizer`).
        resume: Resume from `OUT.tuning`, if it holds a run with the same options and rows; otherwise start again.
        progress: Called with (steps done, steps in all).

    Returns:
        The checkpoint's folder and its metrics, as in its `tuning.json`: options, steps, seconds, tokens, `curve`
        [{step, loss, rate, …}].

    Raises:
        CorpusError: There are no rows, a row has no input, or every row is too long.
        InputError: An argument is of a wrong type, or an option out of range; `out` exists; or `OUT.tuning` is of
            another run.
        MissingExtraError: `tasc-lm[ft]` is not installed, or `tasc-lm[qlora]` where the method is `qlora`.

    Examples:
        >>> rows = [{"input": "two teas", "output": "tea: 2"}]  # doctest: +SKIP
        >>> tune("path/to/model", rows, "tuned", options=TuneOptions(epochs=2.0)).path  # doctest: +SKIP
        PosixPath('tuned')
    """
    for package in ("accelerate", "peft"):
        import_optional(package, "ft")
    transformers = import_optional("transformers", "ft")
    quiet_transformers()
    path("model", model)
    out = path("out", out)
    rows, held_out = listed("rows", rows, Mapping, ROWS), listed("validation", validation, Mapping, ROWS)
    of_kind("options", options, TuneOptions)
    function("progress", progress)
    if options.method == "qlora":
        import_optional("bitsandbytes", "qlora")
        _check_unquantised(transformers.AutoConfig.from_pretrained(model), model)
    work = WorkFolder(out.with_name(out.name + ".tuning"))
    work.check_new(out)
    task = load_tokenizer(model, eos=eos)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    made, config = make_examples(rows, tokenizer, task, system=system), transformers.AutoConfig.from_pretrained(model)
    examples, left_out = short_enough(made, options.max_tokens, config)
    checked = make_examples(held_out, tokenizer, task, system=system) if held_out else []
    new_ids = (
        [] if task.plan is None else list(range(task.plan.base_vocab_size, task.plan.base_vocab_size + len(task.plan)))
    )
    run = Run(str(model), out, work, options, examples, checked, new_ids, tokenizer, progress)
    with work.claim(run.identity, resume):
        history = run.train()
        metrics = {
            "options": asdict(options),
            "model": str(model),
            "prompts": tuning_notes(rows, tokenizer, system),
            "new_tokens": len(new_ids),
            "rows": len(examples),
            "rows_left_out": left_out,
            "tokens_per_row": {
                "prompt": round(float(np.mean([len(e.prompt) for e in examples])), 2),
                "completion": round(float(np.mean([len(e.completion) for e in examples])), 2),
            },
            **history,
        }
        run.publish(metrics)
    return TrainedModel(out, metrics)


def _check_unquantised(config: Any, model: str | Path) -> None:
    """Check that `qlora` can merge its adapters into unquantised weights.

    Raises:
        InputError: The checkpoint is quantised.
    """
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(
            f"{model} is quantised, and method='qlora' merges into unquantised weights; give the unquantised model"
        )
