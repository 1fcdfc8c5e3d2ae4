"""Run of a distillation: target outputs, reference, draft, baseline at equal compute, acceptance figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tasc.checks import function, listed, of_kind, path, whole_number
from tasc.data import Row, load_tokenizer
from tasc.data.prompt_notes import PromptDefaults, tuning_notes
from tasc.decoding.draft_model.eagle import is_head, is_head_folder, load_head
from tasc.decoding.draft_model.vocabulary import cut_head, draft_vocabulary, expand_head, set_draft_vocabulary
from tasc.errors import InputError
from tasc.evaluation.provenance import folder_key
from tasc.files import as_json, new_folder, read_json, remove_folder, write_json, write_text
from tasc.models import check_name, load_weights, quiet_transformers
from tasc.portable import make_portable
from tasc.progress import ProgressBars, no_bars
from tasc.training.distill.acceptance import acceptance, difference
from tasc.training.distill.dataset import DistillDataset, Outputs, rows_digest
from tasc.training.distill.draft_init import check_same_tokens, cut_draft, save_draft
from tasc.training.distill.narrow_draft import DraftSize, narrow_draft
from tasc.training.distill.new_head import EAGLE, new_head, warn_unless_run
from tasc.training.distill.options import NEW_VOCABULARY, DistillOptions
from tasc.training.distill.teacher import Teacher
from tasc.training.distill.trainer import run_stage, token_losses
from tasc.training.examples import ROWS, Example, check_rows
from tasc.training.work_dir import TrainedModel, WorkFolder, attention, processes, row_order, rows_per_step

METRICS = "distill.json"
"""File with metrics in the folder of a distilled draft."""


def distill(
    target: str | Path,
    draft: str | Path | int | Sequence[int] | DraftSize,
    rows: Iterable[Row],
    out: str | Path,
    *,
    options: DistillOptions = DistillOptions(),  # noqa: B008  frozen
    outputs: Outputs = "given",
    validation: Iterable[Row] = (),
    baseline: bool = True,
    reference: str | Path | None = None,
    states: str | Path | None = None,
    length: int = 5,
    max_output: int = 256,
    system: str | None = None,
    eos: str | int | None = "auto",
    resume: bool = True,
    progress: ProgressBars | None = None,
) -> TrainedModel:
    """Distils a small draft model from a target and measures its acceptance rate.

    The target's distributions are learned on the outputs of the rows, or on the target's own outputs. With AdaSPEC, a
    reference copy of the draft first learns from all tokens (DistillSpec), which shows the tokens that can be learned.
    The draft then learns from those tokens. Unfinished work is in `OUT.distilling`, from which a stopped run resumes.
    Under ``torchrun`` or ``accelerate launch`` all devices train, and the first process writes.

    Args:
        target: Folder or hub name of the target, already tuned to the task.
        draft: Folder or hub name of a smaller model with the same vocabulary; or the target's layers to cut a draft
            from (see `cut_draft`): their number, or a list; or the size of a new, narrow draft (see `narrow_draft`),
            all of whose weights are trained; or "eagle" for a new EAGLE head (see `new_head`).
        rows: `{input, output}`; `output` is not needed with `outputs="target"`.
        out: Folder to write. It must not exist.
        options: See `DistillOptions`.
        outputs: `given`: learn from the outputs of the rows; `target`: from greedy outputs of the target.
        validation: Rows for whose inputs the target generates outputs to measure acceptance; if empty, nothing is
            measured. Early stopping (`patience`) needs them. They then choose the weights, so their figures are a
            little too high.
        baseline: Also train the same draft with DistillSpec, on all tokens with the compute of all stages, and compare.
            That draft is written to `OUT.baseline`. No effect if the options are DistillSpec.
        reference: Folder of an already distilled reference, instead of training one.
        states: Folder for the target's stored states; None: inside `OUT.distilling`, removed with it.
        length: γ, tokens per draft when acceptance is measured.
        max_output: Maximum number of tokens of a target output.
        system: System message before each input; "" for none. None: the one that the target was tuned with.
        eos: Token that ends an output (see `tasc.data.load_tokenizer`).
        resume: Resume from `OUT.distilling`, if it holds a run with the same options and rows; otherwise start again.
        progress: Called with the title of a job; returns its progress callback.

    Returns:
        The draft's folder and its metrics, as in its `distill.json`: options, stages, compute, acceptance of each
        draft, comparison.

    Raises:
        CorpusError: There are no rows, a row has no input, or every row is too long. One that is too long is left out.
        InputError: An argument is of a wrong type, or an option out of range; `out` or `OUT.baseline` exists;
            `OUT.distilling` is of another run; or the models have vocabularies of different size.
        TokenizerMismatchError: The draft has another tokenizer.

    Source: AdaSPEC, arXiv 2510.19779; DistillSpec, arXiv 2310.08461.

    Examples:
        >>> rows = [{"input": "two teas", "output": "tea: 2"}]  # doctest: +SKIP
        >>> made = distill("path/to/target", 4, rows, "draft", validation=rows)  # doctest: +SKIP
        >>> made.path, made.metrics["acceptance"]["draft"]["alpha"]  # doctest: +SKIP
    """
    quiet_transformers()
    path("target", target)
    check_name(str(target))
    if isinstance(draft, (str, PathLike)):
        if draft != EAGLE:
            check_name(str(draft))
    elif not isinstance(draft, DraftSize):
        layers = [draft] if isinstance(draft, int) else draft
        listed("draft", layers, int, "a model, a DraftSize, a number of layers or a list of layers")
    for name, folder in (("reference", reference), ("states", states)):
        if folder is not None:
            path(name, folder)
    if reference is not None:
        check_name(str(reference))
    of_kind("options", options, DistillOptions)
    if isinstance(draft, DraftSize):  # it has no embeddings or head of the target to keep
        options = replace(options, trainable="all")
    if isinstance(draft, DraftSize) or draft == EAGLE:
        limit = NEW_VOCABULARY if options.vocabulary is None else options.vocabulary
        options = replace(options, vocabulary=limit)
    if draft == EAGLE and not options.caches_states:
        raise InputError(
            "an EAGLE head learns from the target's cached states; distil it with keep_states=True and on_policy=0"
        )
    function("progress", progress)
    out = path("out", out)
    rows, held_out = listed("rows", rows, Mapping, ROWS), listed("validation", validation, Mapping, ROWS)
    work = WorkFolder(out.with_name(out.name + ".distilling"))
    work.check_new(out)
    if outputs not in ("given", "target"):
        raise InputError(f"outputs={outputs!r}: given or target")
    length, max_output = whole_number("length", length, 1), whole_number("max_output", max_output, 1)
    check_rows(rows, "row", outputs=outputs == "given")
    if held_out:
        check_rows(held_out, "validation row")
    elif options.patience:
        raise InputError(
            f"patience={options.patience}: early stopping needs validation rows; give validation (--validation-split)"
        )
    bar = progress or no_bars
    system = PromptDefaults.of(str(target), None, None).choose(system)
    dataset = DistillDataset(str(target), rows, outputs, options, work.path, max_output, system, eos, bar)
    given = None if reference is None else Path(reference)
    run = _Run(dataset, draft, out, work, options, baseline and not options.is_distillspec, given, held_out)
    if run.baseline and run.baseline_out.exists() and not run.baseline_note.exists():
        raise InputError(f"{run.baseline_out} is there already; remove it, name another OUT, or give baseline=False")
    run.check_vocabularies()
    has_baseline = run.baseline_note.exists()
    identity = {
        "target": str(target), "draft": str(draft), "rows": rows_digest(rows), "outputs": outputs,
        "validation": rows_digest(held_out), "baseline": run.baseline, "reference": str(given),
        "length": length, "max_output": max_output, "system": system, "eos": eos, **options.identity,
        "target files": folder_key(target), "reference files": None if given is None else folder_key(given),
        "draft files": folder_key(draft) if isinstance(draft, (str, PathLike)) and draft != EAGLE else None,
    }  # fmt: skip
    with work.claim(identity, resume):
        if has_baseline and processes().is_main_process:
            run.note_baseline()  # which `resume=False` has removed with the work folder
        run.train(work.path / "states" if states is None else Path(states))
        figures = run.measure(length) if held_out else {}
        return TrainedModel(out, run.publish(figures))


@dataclass(frozen=True)
class _Run:
    """Stages of a distillation. Each finished stage is stored in the work folder."""

    dataset: DistillDataset
    source: str | Path | int | Sequence[int] | DraftSize
    out: Path
    work: WorkFolder
    options: DistillOptions
    baseline: bool
    reference: Path | None
    held_out: Sequence[Row]

    def train(self, states: Path) -> None:
        """Train the reference, the draft and the baseline, unless they exist or are not needed."""
        options = self.options
        self._fresh()  # refuses what does not fit before the target runs over the rows
        if self.source == EAGLE and processes().is_main_process:
            warn_unless_run(self.dataset.target)
        teacher = self.dataset.teacher(states, self.dataset.examples, options.precision, self.source == EAGLE)
        if options.patience:
            _ = self.validation  # before the target is released
        self.dataset.forget_target()  # cached states need the output head only; an online teacher holds the target
        everything = replace(options, loss="forward_kl", select="all", init_from="draft", on_policy=0.0)
        if options.needs_reference and self.reference is None:
            self._stage("reference", everything, options.reference_steps or self.steps, teacher)
        tokens = self._reference_losses(teacher) if options.select == "adaspec" else None
        self._stage("draft", options, self.steps, teacher, tokens)
        if self.baseline:
            self._stage("baseline", everything, self.baseline_steps, teacher)

    @property
    def steps(self) -> int:
        """Optimizer steps of the draft's stage, unless it is stopped early."""
        options = self.options
        if options.epochs is None:
            return options.steps
        steps = options.epochs * len(self.dataset.examples) / rows_per_step(options)
        return max(1, math.ceil(round(steps, 9)))  # of epochs as a decimal number: 1.1·100/10 gives 11, not 12

    @cached_property
    def validation(self) -> tuple[list[Example], Teacher]:
        """The target's outputs to the validation rows, and a teacher for them."""
        dataset = self.dataset
        outputs = dataset.target_outputs(
            "validation.json", self.held_out, "the target answers the validation rows", "validation row"
        )
        return outputs, dataset.teacher(self.work.path / "validation-states", outputs, "fp32", self.source == EAGLE)

    @property
    def baseline_out(self) -> Path:
        """Folder of the finished baseline."""
        return self.out.with_name(self.out.name + ".baseline")

    @property
    def baseline_note(self) -> Path:
        """Note in the work folder: what is at `baseline_out` was written by a run of the same OUT."""
        return self.work.path / "baseline.json"

    def note_baseline(self) -> None:
        """Write `baseline_note`."""
        write_json(self.baseline_note, str(self.baseline_out))

    @property
    def baseline_steps(self) -> int:
        """Optimizer steps on all tokens with the compute of the draft's stages: steps of the reference, the forward
        passes of a reference and of on-policy samples (a third of an optimizer step per batch), and steps of the draft.
        The target's passes do not count."""
        options, done = self.options, self._done()
        draft_steps = done["draft"]["steps"] if "draft" in done else self.steps
        steps = draft_steps
        if options.needs_reference:
            steps += done["reference"]["steps"] if "reference" in done else options.reference_steps or self.steps
        if options.select == "adaspec":
            steps += math.ceil(len(self._visited) / (3 * rows_per_step(options)))
        if options.select == "moving":
            steps += math.ceil(draft_steps / 3)
        steps += math.ceil(options.on_policy * draft_steps / 3)
        return steps

    @property
    def _visited(self) -> list[int]:
        """Numbers of the rows that the draft learns from."""
        return sorted(set(row_order(self.dataset.examples, self.options, self.steps)))

    def measure(self, length: int) -> dict[str, Any]:
        """Acceptance over the target's own outputs of all drafts there are, and the draft against each."""
        dataset = self.dataset
        outputs, teacher = self.validation
        found = {}
        for name in ("untrained", "reference", "baseline", "draft"):
            folder = self._reference_folder if name == "reference" else self.work.path / name
            if name != "untrained" and not folder.exists():
                continue
            model = self._fresh() if name == "untrained" else self._model(folder)
            found[name] = acceptance(
                model.to(processes().device),
                outputs,
                dataset.eos_ids,
                teacher=teacher,
                length=length,
                max_tokens=dataset.max_output,
                progress=dataset.bar(f"acceptance ({name})"),
            )
        others = [name for name in ("reference", "baseline") if name in found]
        return {
            "length": length,
            "coverage": dataset.coverage(outputs),
            "acceptance": {name: one.summary() for name, one in found.items()},
            "draft_less": {name: difference(found["draft"], found[name]) for name in others},
        }

    def publish(self, figures: dict[str, Any]) -> dict[str, Any]:
        """Gives the finished draft its name; the work folder goes. Returns what `distill.json` says."""
        dataset = self.dataset
        metrics = {
            "target": dataset.model,
            "draft": str(self.source),
            "options": asdict(self.options),
            "outputs": dataset.outputs,
            "prompts": tuning_notes(dataset.rows, dataset.tokenizer, dataset.system),
            "rows": len(dataset.examples),
            "rows_left_out": dataset.left_out,
            "draft_vocabulary": self._vocabulary_facts(),
            "completion_tokens": sum(len(e.completion) for e in dataset.examples),
            "stages": self._done(),
            **figures,
        }
        if processes().is_main_process:
            if self.baseline:
                if self.baseline_note.exists():
                    remove_folder(self.baseline_out)  # of a run that was stopped right here
                self.note_baseline()
                with new_folder(self.baseline_out) as folder:
                    self._store("baseline", folder)
            with self.work.publish(self.out) as folder:
                self._store("draft", folder)
                write_text(folder / METRICS, as_json(metrics) + "\n")
        processes().wait_for_everyone()
        return metrics

    def check_vocabularies(self) -> None:
        """Check that all models have the target's vocabulary, and its tokenizer where they have one."""
        dataset = self.dataset
        if not isinstance(self.source, DraftSize) and self.source != EAGLE:
            draft = self._given(self.source)
            own = load_tokenizer(self.source) if isinstance(self.source, str | Path) else None
            check_same_tokens(dataset.target, draft, dataset.task, own)
        if self.reference is not None and is_head_folder(self.reference) != (self.source == EAGLE):
            raise InputError(f"reference {self.reference}: a reference must be an EAGLE head if the draft is one")
        if self.reference is not None and self.source != EAGLE:
            check_same_tokens(dataset.target, self._model(self.reference), dataset.task, load_tokenizer(self.reference))

    def _vocabulary_facts(self) -> dict[str, Any] | None:
        """Number of ids in the draft vocabulary, and the share of the rows' output tokens that it covers."""
        ids = self.dataset.vocabulary
        return None if ids is None else {"ids": len(ids), "coverage": self.dataset.coverage(self.dataset.examples)}

    def _fresh(self) -> Any:
        """Return the draft before training, float32, with its draft vocabulary and the whole head."""
        ids = self.dataset.vocabulary
        if isinstance(self.source, DraftSize):
            torch.manual_seed(self.options.seed)
            draft = narrow_draft(self.dataset.target, self.source, ids)
        elif self.source == EAGLE:
            torch.manual_seed(self.options.seed)
            return new_head(self.dataset.target, ids)
        else:
            draft = self._given(self.source)
        set_draft_vocabulary(draft, ids)
        return draft

    def _given(self, source: str | Path | int | Sequence[int]) -> Any:
        """Return the given model, or a cut of the target, float32.

        Raises:
            InputError: The given model is an EAGLE head.
        """
        if isinstance(source, str | Path) and is_head_folder(source):
            raise InputError(f"{source} is an EAGLE head; give --draft {EAGLE} to make a new one, or another draft")
        return self._model(source) if isinstance(source, str | Path) else cut_draft(self.dataset.target, source).float()

    def _model(self, folder: str | Path) -> Any:
        if is_head_folder(folder):
            return load_head(folder, self.dataset.target)
        return load_weights(AutoModelForCausalLM, folder, dtype=torch.float32)

    @property
    def _reference_folder(self) -> Path:
        return self.work.path / "reference" if self.reference is None else self.reference

    def _reference_losses(self, teacher: Teacher) -> dict[int, torch.Tensor]:
        """Return the reference's loss on every completion token, by training row."""
        dataset, file = self.dataset, self.work.path / "reference.json"
        with processes().main_process_first():
            if not file.exists():
                found = token_losses(
                    self._model(self._reference_folder).to(processes().device),
                    dataset.examples,
                    teacher,
                    self.options.loss,
                    rows=self._visited,
                    precision=self.options.precision,
                    progress=dataset.bar("weighing the tokens"),
                )
                write_json(file, {row: losses.tolist() for row, losses in found.items()})
        return {int(row): torch.tensor(losses) for row, losses in read_json(file).items()}

    def _stage(
        self,
        name: str,
        options: DistillOptions,
        steps: int,
        teacher: Teacher,
        tokens: Mapping[int, torch.Tensor] | None = None,
    ) -> None:
        """Trains one draft, unless that is done."""
        folder = self.work.path / name
        if folder.exists():
            return
        steps_folder = self.work.path / f"{name}.steps"
        draft = self._model(self._reference_folder) if options.init_from == "reference" else self._fresh()
        if is_head(draft) and draft_vocabulary(draft) != self.dataset.vocabulary:
            raise InputError(
                f"reference {self._reference_folder} has another draft vocabulary; distil it from the same rows"
            )
        set_draft_vocabulary(draft, self.dataset.vocabulary)
        if not is_head(draft):  # which has one attention only, and transformers would warn
            draft.set_attn_implementation(attention(self.dataset.examples) or draft.config._attn_implementation)
        cut_head(draft)
        facts = run_stage(
            draft,
            self.dataset.examples,
            teacher,
            steps_folder,
            options=options,
            steps=steps,
            reference=tokens,
            eos_ids=self.dataset.eos_ids,
            validation=self.validation if options.patience else None,
            progress=self.dataset.bar(f"distilling ({name})"),
        )
        if processes().is_main_process:
            write_json(self.work.path / "stages.json", self._done() | {name: facts})
            if not is_head(draft):
                expand_head(draft)
            save_draft(draft, self.dataset.tokenizer, folder)
            remove_folder(steps_folder)
        processes().wait_for_everyone()

    def _store(self, name: str, folder: Path) -> None:
        """Write a trained draft, its weights in the dtype that the target is stored in."""
        stored = AutoConfig.from_pretrained(self.dataset.model).dtype or torch.float32
        self._model(self.work.path / name).to(stored).save_pretrained(folder)
        self.dataset.tokenizer.save_pretrained(folder)
        make_portable(folder)

    def _done(self) -> dict[str, Any]:
        file = self.work.path / "stages.json"
        return dict(read_json(file)) if file.exists() else {}
