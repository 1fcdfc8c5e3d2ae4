"""Training data of a draft model: the rows' outputs or the target's outputs, and a teacher for either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc.data import Row, TaskTokenizer, TokenStore, load_tokenizer
from tasc.data.endings import required_eos_ids
from tasc.errors import CorpusError
from tasc.files import write_json
from tasc.progress import ProgressBars
from tasc.training.distill.acceptance import target_outputs
from tasc.training.distill.options import DistillOptions
from tasc.training.distill.teacher import CachedHiddenStates, OnlineTeacher, Teacher
from tasc.training.examples import Example, digest, make_examples, short_enough
from tasc.training.work_dir import processes

Outputs: TypeAlias = Literal["given", "target"]


@dataclass(frozen=True)
class DistillDataset:
    """The target, the rows, and what the one says to the other; made when asked for first and kept in `work`.

    Attributes:
        model: Folder or hub name of the target.
        rows: To learn from.
        outputs: `given`: the rows' own; `target`: what the target says to their inputs, greedily.
        options: Of the distillation.
        work: Folder for what takes long: outputs, states.
        max_output: Most tokens that the target is asked for.
        system: System message before each input.
        eos: The token that ends an output.
        bar: Tells how far things have come.
    """

    model: str
    rows: Sequence[Row]
    outputs: Outputs
    options: DistillOptions
    work: Path
    max_output: int
    system: str | None
    eos: str | int | None
    bar: ProgressBars

    @cached_property
    def tokenizer(self) -> Any:
        """The target's transformers tokenizer."""
        return AutoTokenizer.from_pretrained(self.model)

    @cached_property
    def task(self) -> TaskTokenizer:
        """The tokenizer as a `TaskTokenizer`."""
        return load_tokenizer(self.model, eos=self.eos)

    @cached_property
    def target(self) -> Any:
        """The target as it answers: float32 on a CPU, its own dtype on a GPU."""
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(self.model, dtype=dtype)
        return model.to(processes().device).eval()

    def forget_target(self) -> None:
        """Gives up its memory; it is loaded again where it is needed."""
        self.__dict__.pop("target", None)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end an output."""
        return required_eos_ids(self.target, self.tokenizer)

    @property
    def examples(self) -> list[Example]:
        """Return the training examples."""
        return self._kept[0]

    @property
    def left_out(self) -> int:
        """Rows that are too long."""
        return self._kept[1]

    @cached_property
    def _kept(self) -> tuple[list[Example], int]:
        made = (
            make_examples(self.rows, self.tokenizer, self.task, system=self.system)
            if self.outputs == "given"
            else self.target_outputs("outputs.json", self.rows, "the target answers the rows")
        )
        return short_enough(made, self.options.max_tokens)

    def target_outputs(self, name: str, rows: Sequence[Row], what: str) -> list[Example]:
        """The target's outputs to rows."""
        file = self.work / name
        with processes().main_process_first():
            if not file.exists():
                outputs = target_outputs(
                    self.target,
                    self.tokenizer,
                    rows,
                    system=self.system,
                    max_tokens=self.max_output,
                    index=self._index(),
                    progress=self.bar(what),
                )
                write_json(file, [[e.prompt, e.completion] for e in outputs])
        return [Example(p, c, len(p) + len(c)) for p, c in json.loads(file.read_text())]

    def teacher(self, folder: Path, examples: Sequence[Example], precision: str) -> Teacher:
        """Says what the target says to examples."""
        if not self.options.keep_states:
            return OnlineTeacher(self.target, precision)
        with processes().main_process_first():
            return CachedHiddenStates.compute(
                self.target,
                examples,
                folder,
                precision=precision,
                pad_id=min(self.eos_ids),
                progress=self.bar("the target's states"),
            )

    def _index(self) -> Any:
        """An index of the rows' outputs, where they have some: it makes the target answer faster, the same."""
        from tasc._core import TaskIndex

        known = [row for row in self.rows if row.get("output") is not None]
        if not known:
            return None
        file = self.work / "rows.tasc"
        if not file.exists():
            lines = self.work / "rows.jsonl"
            lines.write_text("".join(json.dumps(row) + "\n" for row in known))
            (self.work / "rows.store").unlink(missing_ok=True)
            store = TokenStore.build(lines, self.task, self.work / "rows.store")
            TaskIndex.build(store, file, tokenizer=self.task)
        return TaskIndex.open(file)


def check_rows(rows: Sequence[Row], what: str, *, outputs: bool) -> None:
    """Nothing, where all rows have what is needed.

    Raises:
        CorpusError: There is no row, or one lacks an input (with `outputs`: or an output).
    """
    if not rows:
        raise CorpusError(f"there is no {what} to learn from")
    for number, row in enumerate(rows):
        if row.get("input") is None:
            raise CorpusError(f"{what} {number} has no input; distillation needs rows with one")
        if outputs and row.get("output") is None:
            raise CorpusError(f"{what} {number} has no output; give one, or learn from the target's: outputs='target'")


def rows_digest(rows: Sequence[Row]) -> str:
    """Return a digest of the rows and their order."""
    texts = ([list(str(row.get(name)).encode()) for name in ("input", "output")] for row in rows)
    return digest(Example(input, output, 0) for input, output in texts)
