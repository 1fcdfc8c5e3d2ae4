"""Training data of a distillation: outputs of the rows or of the target, and a teacher for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasc.data import Row, TaskTokenizer, TokenStore, load_tokenizer
from tasc.data.chat import CHAT_FIELDS
from tasc.data.endings import required_eos_ids
from tasc.drafting.defaults import MEMORY_BYTES
from tasc.files import read_json, write_json
from tasc.models import load_weights
from tasc.progress import ProgressBars
from tasc.training.distill.acceptance import target_outputs
from tasc.training.distill.options import DistillOptions
from tasc.training.distill.teacher import CachedHiddenStates, OnlineTeacher, Teacher
from tasc.training.examples import Example, digest, make_examples, short_enough
from tasc.training.work_dir import processes

Outputs: TypeAlias = Literal["given", "target"]


@dataclass(frozen=True)
class DistillDataset:
    """Target, rows, and the target's outputs for them. Each part is made on first use and stored in `work`.

    Attributes:
        model: Folder or hub name of the target.
        rows: Rows to learn from.
        outputs: `given`: the outputs of the rows; `target`: greedy outputs of the target for their inputs.
        options: Options of the distillation.
        work: Folder for results that take long: outputs, states.
        max_output: Maximum number of tokens of a target output.
        system: System message before each input.
        eos: Token that ends an output.
        bar: Called with the title of a job; returns its progress callback.
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
        """The target's tokenizer as a `TaskTokenizer`."""
        return load_tokenizer(self.model, eos=self.eos)

    @cached_property
    def target(self) -> Any:
        """The target model: float32 on a CPU, its stored dtype on a GPU."""
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        model = load_weights(AutoModelForCausalLM, self.model, dtype=dtype)
        return model.to(processes().device).eval()

    def forget_target(self) -> None:
        """Release the target's memory. It is loaded again when it is needed."""
        self.__dict__.pop("target", None)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end an output."""
        return required_eos_ids(self.target, self.tokenizer)

    @cached_property
    def examples(self) -> list[Example]:
        """Examples to learn from."""
        made = (
            make_examples(self.rows, self.tokenizer, self.task, system=self.system)
            if self.outputs == "given"
            else self.target_outputs("outputs.json", self.rows, "target outputs")
        )
        return short_enough(made, self.options.max_tokens, self.target.config)[0]

    @property
    def left_out(self) -> int:
        """Number of rows that are too long, or whose prompt the target cannot answer."""
        return len(self.rows) - len(self.examples)

    @cached_property
    def vocabulary(self) -> list[int] | None:
        """Ids of the draft vocabulary, ascending; None: all ids."""
        limit = self.options.vocabulary
        if not limit:
            return None
        special = {*self.eos_ids, *self.tokenizer.all_special_ids}
        size = self.target.get_input_embeddings().weight.shape[0]
        ids = frequent_ids([e.completion for e in self.examples], [k for k in special if k < size], limit)
        return ids if len(ids) < size else None

    def coverage(self, outputs: Sequence[Example]) -> float:
        """Return the share of the outputs' tokens that are in the draft vocabulary."""
        known = None if self.vocabulary is None else frozenset(self.vocabulary)
        inside = [known is None or token in known for example in outputs for token in example.completion]
        return sum(inside) / max(1, len(inside))

    def target_outputs(self, name: str, rows: Sequence[Row], what: str, row_name: str = "row") -> list[Example]:
        """Load the target's outputs for rows from the file `name`, or generate them first; as `target_outputs`."""
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
                    name=row_name,
                    progress=self.bar(what),
                )
                write_json(file, [[e.prompt, e.completion] for e in outputs])
        return [Example(p, c, len(p) + len(c)) for p, c in read_json(file)]

    def teacher(self, folder: Path, examples: Sequence[Example], precision: str, whole: bool) -> Teacher:
        """Return a teacher for examples; cached states go to `folder`, those of prompts too if `whole`."""
        if not self.options.caches_states:
            return OnlineTeacher(self.target, precision, self.options.temperature)
        with processes().main_process_first():
            return CachedHiddenStates.compute(
                self.target,
                examples,
                folder,
                precision=precision,
                pad_id=min(self.eos_ids),
                whole=whole,
                temperature=self.options.temperature,
                progress=self.bar("target states"),
            )

    def _index(self) -> Any:
        """Index of the rows' outputs, if they have any. It makes the target faster without changing its outputs."""
        from tasc._core import TaskIndex

        known = [row for row in self.rows if row.get("output") is not None]
        if not known:
            return None
        file = self.work / "rows.tasc"
        if not file.exists():
            (self.work / "rows.store").unlink(missing_ok=True)
            store = TokenStore.build(known, self.task, self.work / "rows.store", system=self.system)
            TaskIndex.build(store, file, tokenizer=self.task)
        return TaskIndex.open(file, memory_bytes=MEMORY_BYTES)


def frequent_ids(outputs: Iterable[Sequence[int]], always: Iterable[int], limit: int) -> list[int]:
    """Return the ids that outputs use, at most `limit` of them by count, and those of `always`: ascending.

    >>> frequent_ids([[7, 7, 3], [3, 5]], [1], 3)
    [1, 3, 7]
    """
    counts = Counter(token for output in outputs for token in output)
    kept = set(always)
    ranked = sorted(counts.keys() - kept, key=lambda token: (-counts[token], token))
    return sorted(kept.union(ranked[: max(0, limit - len(kept))]))


def rows_digest(rows: Sequence[Row]) -> str:
    """Return a digest of these rows in this order."""

    def texts(row: Row) -> list[list[int]]:
        chat = {name: row[name] for name in CHAT_FIELDS if row.get(name)}
        output = [row.get("output"), chat] if chat else row.get("output")
        return [list(str(one).encode()) for one in (row.get("input"), output)]

    return digest(Example(input, output, 0) for input, output in map(texts, rows))
