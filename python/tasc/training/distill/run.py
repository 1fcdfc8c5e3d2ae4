"""A whole distillation: the target's words, a reference, the draft, its baseline at equal compute, the figures."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tasc.data import Row, load_tokenizer
from tasc.errors import InputError
from tasc.files import write_json
from tasc.models import quiet_transformers
from tasc.progress import ProgressBars, no_bars
from tasc.training.distill.acceptance import acceptance, difference
from tasc.training.distill.dataset import DistillDataset, Outputs, check_rows, rows_digest
from tasc.training.distill.draft_init import check_same_tokens, cut_draft, save_draft
from tasc.training.distill.options import DistillOptions
from tasc.training.distill.teacher import Teacher
from tasc.training.distill.trainer import losses_of, order_of, rows_per_step, run_stage
from tasc.training.work_dir import WorkFolder, attention_for, processes

METRICS = "distill.json"
"""What a distilled draft says of its own making."""


@dataclass(frozen=True)
class Distilled:
    """Result of a distillation."""

    path: Path
    """The draft: `AutoModelForCausalLM` and `AutoTokenizer` load it."""
    metrics: dict[str, Any]
    """As in the checkpoint's `distill.json`: options, stages, compute, acceptance of each draft, comparison."""


def distill(
    target: str | Path,
    draft: str | Path | int | Sequence[int],
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
) -> Distilled:
    """Makes a small draft model say what a target says, and measures how often it does.

    The target speaks to the rows' outputs, or to its own; a reference copy of the draft learns from all tokens
    (DistillSpec), which shows where learning pays; the draft itself learns from those tokens (AdaSPEC). Until it is
    finished the work lies in `OUT.distilling`, from where a killed run goes on. Under ``torchrun`` or ``accelerate
    launch`` all devices train; the first one writes.

    Args:
        target: Folder or hub name of the model to draft for, tuned to the task already.
        draft: Folder or hub name of a smaller model with the same vocabulary; or which of the target's layers to make
            one of (see `cut_draft`): how many, or their numbers.
        rows: `{input, output}`; without `output` where `outputs="target"`.
        out: Folder to write; it must not be there yet.
        options: See `DistillOptions`.
        outputs: Learn from the rows' outputs as they are, or from what the target says to their inputs, greedily.
        validation: Rows whose inputs the target answers to measure acceptance; without any, nothing is measured.
        baseline: Also make the same draft by DistillSpec, on all tokens with the compute that all stages took, and
            compare. That draft is kept in `OUT.baseline`. Not where DistillSpec is what was asked for.
        reference: Folder of a reference distilled already, in place of training one.
        states: Folder for the target's kept states; None: inside `OUT.distilling`, removed with it.
        length: γ, tokens per draft, that acceptance is counted with.
        max_output: Most tokens of an output that the target is asked for.
        system: System message before each input.
        eos: The token that ends an output (see `tasc.data.load_tokenizer`).
        resume: Go on from `OUT.distilling`, if it holds a run with the same options and rows; otherwise begin anew.
        progress: Given what is done, what to tell how far it has come.

    Returns:
        The draft and its metrics.

    Raises:
        CorpusError: No rows, rows without input, or none short enough.
        InputError: An option that cannot be used; `out` or `OUT.baseline` is there already; `OUT.distilling` is of
            another run; models with vocabularies of different size.
        TokenizerMismatchError: The draft's tokenizer is another one.

    Source: AdaSPEC, arXiv 2510.19779; DistillSpec, arXiv 2310.08461.
    """
    quiet_transformers()
    out = Path(out)
    if out.exists():
        raise InputError(f"{out} is there already; name another folder or remove it")
    if outputs not in ("given", "target"):
        raise InputError(f"outputs={outputs!r}: given or target")
    if length < 1 or max_output < 1:
        raise InputError(f"length={length}, max_output={max_output}: at least 1")
    kept, held_out = list(rows), list(validation)
    check_rows(kept, "row", outputs=outputs == "given")
    if held_out:
        check_rows(held_out, "validation row", outputs=False)
    work = WorkFolder(out.with_name(out.name + ".distilling"))
    bar = progress or no_bars
    dataset = DistillDataset(str(target), kept, outputs, options, work.path, max_output, system, eos, bar)
    given = None if reference is None else Path(reference)
    run = _Run(dataset, draft, out, work, options, baseline and not options.is_distillspec, given)
    if run.baseline and run.baseline_out.exists() and not work.path.exists():
        raise InputError(f"{run.baseline_out} is there already; remove it, name another OUT, or give baseline=False")
    run.check_vocabularies()
    identity = {
        "target": str(target), "draft": str(draft), "rows": rows_digest(kept), "outputs": outputs,
        "validation": rows_digest(held_out), "baseline": run.baseline, "reference": str(given),
        "max_output": max_output, "system": system, "eos": eos, **asdict(options),
    }  # fmt: skip
    work.claim(identity, resume)
    run.train(work.path / "states" if states is None else Path(states))
    figures = run.measure(held_out, length) if held_out else {}
    return Distilled(out, run.publish(figures))


@dataclass(frozen=True)
class _Run:
    """The stages of a distillation, each kept in the work folder once it is done."""

    dataset: DistillDataset
    source: str | Path | int | Sequence[int]
    out: Path
    work: WorkFolder
    options: DistillOptions
    baseline: bool
    reference: Path | None

    def train(self, states: Path) -> None:
        """The reference, the draft and its baseline, as far as they are asked for and not there yet."""
        options = self.options
        teacher = self.dataset.teacher(states, self.dataset.examples, options.precision)
        self.dataset.forget_target()  # a kept teacher needs its head alone, a live one has it
        everything = replace(options, loss="forward_kl", select="all", init_from="draft")
        if options.needs_reference and self.reference is None:
            self._stage("reference", everything, options.reference_steps or options.steps, teacher)
        tokens = self._reference_losses(teacher) if options.select == "adaspec" else None
        self._stage("draft", options, options.steps, teacher, tokens)
        if self.baseline:
            self._stage("baseline", everything, self.baseline_steps, teacher)

    @property
    def baseline_out(self) -> Path:
        """Path of the finished baseline."""
        return self.out.with_name(self.out.name + ".baseline")

    @property
    def baseline_steps(self) -> int:
        """Steps on all tokens that cost what the draft's stages do: those of the reference, its pass over the rows that
        the draft learns from (a forward pass is a third of a training step), and the draft's own."""
        options = self.options
        steps = options.steps
        if options.needs_reference:
            steps += options.reference_steps or options.steps
        if options.select == "adaspec":
            steps += math.ceil(len(self._visited) / (3 * rows_per_step(options)))
        return steps

    @property
    def _visited(self) -> list[int]:
        """Numbers of the rows that the draft learns from."""
        return sorted(set(order_of(self.dataset.examples, self.options, self.options.steps)))

    def measure(self, rows: Sequence[Row], length: int) -> dict[str, Any]:
        """Acceptance over the target's own outputs of all drafts there are, and the draft against each."""
        dataset = self.dataset
        outputs = dataset.target_outputs("validation.json", rows, "the target answers the validation rows")
        teacher = dataset.teacher(self.work.path / "validation-states", outputs, "fp32")
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
            "rows": len(dataset.examples),
            "rows_left_out": dataset.left_out,
            "completion_tokens": sum(len(e.completion) for e in dataset.examples),
            "stages": self._done(),
            **figures,
        }
        if processes().is_main_process:
            draft = self.work.path / "draft"
            _store_as(dataset.model, draft)
            write_json(draft / METRICS, metrics)
            if self.baseline:
                shutil.rmtree(self.baseline_out, ignore_errors=True)  # of a run that was stopped right here
                _store_as(dataset.model, self.work.path / "baseline")
                (self.work.path / "baseline").rename(self.baseline_out)
            self.work.publish(draft, self.out)
        processes().wait_for_everyone()
        return metrics

    def check_vocabularies(self) -> None:
        """Check that all models have the target's vocabulary, and its tokenizer where they have one."""
        dataset = self.dataset
        own = load_tokenizer(self.source) if isinstance(self.source, str | Path) else None
        check_same_tokens(dataset.target, self._fresh(), dataset.task, own)
        if self.reference is not None:
            check_same_tokens(dataset.target, self._model(self.reference), dataset.task, load_tokenizer(self.reference))

    def _fresh(self) -> Any:
        """The draft as it comes, float32."""
        if isinstance(self.source, str | Path):
            return self._model(self.source)
        return cut_draft(self.dataset.target, self.source).float()

    def _model(self, folder: str | Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @property
    def _reference_folder(self) -> Path:
        return self.work.path / "reference" if self.reference is None else self.reference

    def _reference_losses(self, teacher: Teacher) -> dict[int, torch.Tensor]:
        """Return the reference's loss on every completion token, by training row."""
        dataset, file = self.dataset, self.work.path / "reference.json"
        with processes().main_process_first():
            if not file.exists():
                found = losses_of(
                    self._model(self._reference_folder).to(processes().device),
                    dataset.examples,
                    teacher,
                    self.options.loss,
                    rows=self._visited,
                    precision=self.options.precision,
                    progress=dataset.bar("weighing the tokens"),
                )
                write_json(file, {row: losses.tolist() for row, losses in found.items()})
        return {int(row): torch.tensor(losses) for row, losses in json.loads(file.read_text()).items()}

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
        draft = self._model(self._reference_folder) if options.init_from == "reference" else self._fresh()
        draft.set_attn_implementation(attention_for(self.dataset.examples) or draft.config._attn_implementation)
        facts = run_stage(
            draft,
            self.dataset.examples,
            teacher,
            self.work.path / f"{name}.steps",
            options=options,
            steps=steps,
            reference=tokens,
            pad_id=min(self.dataset.eos_ids),
            progress=self.dataset.bar(f"distilling ({name})"),
        )
        if processes().is_main_process:
            write_json(self.work.path / "stages.json", self._done() | {name: facts})
            save_draft(draft, self.dataset.tokenizer, folder)
        processes().wait_for_everyone()

    def _done(self) -> dict[str, Any]:
        file = self.work.path / "stages.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}


def _store_as(target: str, folder: Path) -> None:
    """A draft's weights in the dtype that the target is stored in."""
    stored = AutoConfig.from_pretrained(target).dtype or torch.float32
    if stored != torch.float32:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.to(stored).save_pretrained(folder)
