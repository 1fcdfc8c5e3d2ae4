"""Teachers: the target's logits for rows, computed with every batch or once and cached.

A target's logits are its output head times its last hidden states. The states of all completion tokens therefore
determine all logits, with 2·H bytes per token instead of 2·V. They are computed once and stored in a file. Training any
number of drafts then needs only the output head of the target. The log-sum-exp of each token's logits is stored too: a
draft with a draft vocabulary then needs only the head's rows of its ids.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tasc.decoding.draft_model.eagle import is_head
from tasc.decoding.draft_model.vocabulary import head_rows
from tasc.decoding.engine.target import last_hidden_states
from tasc.errors import InputError
from tasc.files import new_folder, read_json
from tasc.progress import Progress
from tasc.training.examples import IGNORED, Collator, Example, digest
from tasc.training.schedule import dtype_of
from tasc.training.shared_prefix import prefix_cache, with_prefix

ROWS_PER_PASS = 16
"""Rows of a forward pass outside of training."""

_ROUNDING = 0.01
"""Tolerance as a share of the largest logit: bfloat16 rounding between two computations of the same product."""

_MAX_DEVIATION = 0.05
"""Tolerance as a share of the logits' standard deviation: mean bfloat16 difference between two batches of one model."""


class TeacherLogits(NamedTuple):
    """What the target predicts for n tokens, as the losses take it."""

    logits: Tensor
    """(n, V) logits of all ids, or of the ids of a draft vocabulary."""
    rest: Tensor | None = None
    """(n,) log-sum-exp of the logits of all other ids."""


class Teacher(Protocol):
    """Source of the target's logits, which the draft learns.

    Attributes:
        temperature: The logits are divided by it. Divide the draft's too (`at_temperature`).
    """

    temperature: float

    def over(self, ids: Tensor | None, rows: Sequence[int], batch: dict[str, Any]) -> TeacherLogits:
        """Return the logits of some ids for every completion token of a batch, row after row.

        Args:
            ids: (n,) int64 ids; None: all.
            rows: As for `logits`.
            batch: As for `logits`.
        """

    def logits(self, rows: Sequence[int], batch: dict[str, Any]) -> Tensor:
        """Return (n, V) logits for every completion token of a batch, row after row.

        Args:
            rows: (B,) numbers of the examples in the batch.
            batch: Batch of `Collator`.
        """


class OnlineTeacher:
    """Teacher that runs the target on every batch.

    Args:
        target: A transformers causal model.
        precision: Precision of its arithmetic, as in `DistillOptions`.
        temperature: See `Teacher`.
    """

    def __init__(self, target: Any, precision: str = "fp32", temperature: float = 1.0) -> None:
        self.target = target.eval().requires_grad_(False)
        self.temperature = temperature
        self._precision = precision

    @torch.no_grad()
    def logits(self, rows: Sequence[int], batch: dict[str, Any]) -> Tensor:
        """See `Teacher`."""
        with arithmetic(self.target, self._precision):
            return at_temperature(completion_logits(self.target, batch), self.temperature)

    def over(self, ids: Tensor | None, rows: Sequence[int], batch: dict[str, Any]) -> TeacherLogits:
        """See `Teacher`."""
        logits = self.logits(rows, batch)
        return TeacherLogits(logits) if ids is None else _rest(logits[:, ids], logits.float().logsumexp(-1))


class CachedHiddenStates:
    """Teacher from the target's last hidden states of all completion tokens, in a file, and its output head.

    Args:
        folder: Folder that `compute` has written.
        head: Output head of the target, on its device.
        precision: Precision of the head's arithmetic, as in `DistillOptions`.

    Attributes:
        temperature: See `Teacher`.
        states: (M, H), memory-mapped; float16 or float32, or bfloat16 as uint16 bits.
        ends: (R + 1,) int64; the states of row r are the last ones of `states[ends[r]:ends[r + 1]]`, as many as its
            completion has tokens. With whole rows, those of its prompt stand before them.
        begins: (R + 1,) int64; row r has `totals[begins[r]:begins[r + 1]]`.
        totals: (N,) float32 log-sum-exp of the logits of each completion token, at the temperature.
        is_whole: Whether the states of prompts are stored too.
    """

    def __init__(self, folder: Path, head: Any, precision: str = "fp32") -> None:
        self._precision = precision
        self.head = head.eval().requires_grad_(False)
        self.states = np.load(folder / "states.npy", mmap_mode="r")
        self.begins = np.load(folder / "begins.npy")
        self.totals = np.load(folder / "totals.npy")
        facts = read_json(folder / "states.json")
        self.is_whole = bool(facts.get("whole"))
        self.temperature = float(facts.get("temperature", 1.0))
        self.ends = np.load(folder / "ends.npy") if self.is_whole else self.begins
        self.bits = facts["dtype"] == "bfloat16"
        self._cut: tuple[Tensor, Any] | None = None  # ids, and the head's rows of them

    @torch.no_grad()
    def logits(self, rows: Sequence[int], batch: dict[str, Any]) -> Tensor:
        """See `Teacher`; `batch` is not used."""
        return self._product(self.head, rows)

    @torch.no_grad()
    def over(self, ids: Tensor | None, rows: Sequence[int], batch: dict[str, Any]) -> TeacherLogits:
        """See `Teacher`; `batch` is not used."""
        if ids is None:
            return TeacherLogits(self.logits(rows, batch))
        if self._cut is None or not torch.equal(self._cut[0], ids):
            self._cut = ids, head_rows(self.head, ids)
        logits = self._product(self._cut[1], rows)
        totals = np.concatenate([self.totals[self.begins[r] : self.begins[r + 1]] for r in rows])
        return _rest(logits, torch.from_numpy(totals).to(logits.device))

    def row_states(self, rows: Sequence[int], batch: dict[str, Any]) -> Tensor:
        """Return the (B, T, H) states of whole rows, which an EAGLE head reads; zeros where there are none.

        Args:
            rows: (B,) numbers of the examples in the batch.
            batch: Batch of `Collator`.
        """
        found = torch.zeros(*batch["input_ids"].shape, self.states.shape[1])
        for place, (row, first) in enumerate(zip(rows, batch["attention_mask"].argmax(1).tolist(), strict=True)):
            states = self._tensor(self.states[self.ends[row] : self.ends[row + 1]])
            found[place, first : first + len(states)] = states
        return found.to(batch["input_ids"].device)

    def _tensor(self, stored: Any) -> Tensor:
        states = torch.from_numpy(np.array(stored))
        return states.view(torch.bfloat16) if self.bits else states

    def _product(self, head: Any, rows: Sequence[int]) -> Tensor:
        ends = [(self.ends[r + 1] - (self.begins[r + 1] - self.begins[r]), self.ends[r + 1]) for r in rows]
        states, weight = self._tensor(np.concatenate([self.states[begin:end] for begin, end in ends])), head.weight
        with arithmetic(head, self._precision):
            logits: Tensor = head(states.to(weight.device, weight.dtype))
        return at_temperature(logits, self.temperature)

    @classmethod
    def compute(
        cls,
        target: Any,
        examples: Sequence[Example],
        folder: Path,
        *,
        precision: str = "fp32",
        pad_id: int = 0,
        whole: bool = False,
        temperature: float = 1.0,
        progress: Progress | None = None,
    ) -> CachedHiddenStates:
        """Run the target over rows once and store its states, or open the states that an earlier call stored.

        Args:
            target: A transformers causal model, on its device and in its dtype.
            examples: R rows.
            folder: Folder to write, 2 or 4 bytes · H per completion token. It appears when it is complete.
            precision: Precision of the arithmetic, as in `DistillOptions`.
            pad_id: Any id.
            whole: Whether to store the states of the prompts too, which an EAGLE head reads. Stored ones serve other
                drafts too.
            temperature: See `Teacher`.
            progress: Called with (rows done, R).

        Raises:
            InputError: The folder holds states of other rows, another target or temperature; the disk is too small; or
                the target changes its logits after the output head (soft cap, scale): use `OnlineTeacher`.
        """
        head = _head(target)
        target.eval()
        dtype = str(next(target.parameters()).dtype).removeprefix("torch.")
        facts = {"rows": digest(examples), "dtype": dtype, "precision": precision, "totals": True}
        facts |= {"whole": True} if whole else {}
        facts |= {"temperature": temperature} if temperature != 1.0 else {}
        _, first, _ = next(batches(target, examples, rows=[0], pad_id=pad_id))
        expected = at_temperature(_check_head(target, head, first).float(), temperature)
        if not folder.exists():
            with arithmetic(target, precision):
                _write(target, head, examples, folder, facts, pad_id, progress)
        if read_json(folder / "states.json") in (facts, facts | {"whole": True}):
            cached = cls(folder, head, precision)
            deviation = (cached.logits([0], {}).float() - expected).abs().mean()
            if deviation <= _MAX_DEVIATION * expected.std():
                return cached
        raise InputError(
            f"{folder} holds states of other rows, another target or temperature; remove it, or name another"
        )


def batches(
    model: Any,
    examples: Sequence[Example],
    *,
    rows: Sequence[int] | None = None,
    pad_id: int = 0,
    collator: Collator | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[list[int], dict[str, Any], list[int]]]:
    """Yield batches of examples of similar length: row numbers, the batch on the model's device, completion lengths.

    Args:
        model: A transformers causal model.
        examples: Examples to choose from.
        rows: Numbers of the examples; None: all.
        pad_id: Any id.
        collator: Collator to use; None: one of whole rows.
        progress: Called with (rows done, rows) after each batch.
    """
    collator = collator or Collator.for_model(model, pad_id)
    order = sorted(range(len(examples)) if rows is None else rows, key=lambda row: len(examples[row]))
    for start in range(0, len(order), ROWS_PER_PASS):
        chosen = [(row, examples[row]) for row in order[start : start + ROWS_PER_PASS]]
        batch = collator([example for _, example in chosen])
        on_device = {name: value.to(model.device) for name, value in batch.items()}
        yield [row for row, _ in chosen], on_device, [len(example.completion) for _, example in chosen]
        if progress is not None:
            progress(start + len(chosen), len(order))


def completion_logits(model: Any, batch: dict[str, Any]) -> Tensor:
    """Return the (n, V) logits that predict the completion tokens of a batch, row after row.

    Args:
        model: A transformers causal model, wrapped or not.
        batch: Batch of `Collator` on the model's device, with its `labels`.
    """
    return draft_logits(model, batch)[0]


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return logits divided by a temperature above 0."""
    return logits if temperature == 1.0 else logits / temperature


def draft_logits(model: Any, batch: dict[str, Any]) -> list[Tensor]:
    """Return `completion_logits`, and those of an EAGLE head's further steps: (n, V) each.

    Args:
        model: As for `completion_logits`.
        batch: As for `completion_logits`; for a head, from `draft_batch`.
    """
    logits: Tensor = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return [_of_completions(one, batch["labels"]) for one in (logits if logits.ndim == 4 else [logits])]


def draft_batch(
    draft: Any, teacher: Teacher | None, rows: Sequence[int], batch: dict[str, Any], steps: int
) -> dict[str, Any]:
    """Return a batch as a draft takes it: with the target's states and the number of steps, if it is an EAGLE head.

    Raises:
        InputError: The draft is a head, and the teacher has no states of whole rows.
    """
    if not is_head(draft):
        return batch
    if not (isinstance(teacher, CachedHiddenStates) and teacher.is_whole):
        raise InputError(
            "an EAGLE head reads the target's states of whole rows; give CachedHiddenStates.compute(…, whole=True)"
        )
    return batch | {"states": teacher.row_states(rows, batch), "num_steps": steps}


def arithmetic(model: Any, precision: str) -> Any:
    """Return the autocast context for a precision of `DistillOptions`."""
    device = next(model.parameters()).device.type
    dtype = dtype_of(precision, device)
    return torch.autocast(device, dtype, enabled=dtype != torch.float32)


def _of_completions(columns: Tensor, labels: Tensor) -> Tensor:
    """Select from (B, T, …) the n positions that predict completion tokens: (n, …)."""
    return columns[:, -labels.shape[1] : -1][labels[:, 1:] != IGNORED]


def _rest(logits: Tensor, totals: Tensor) -> TeacherLogits:
    """Return logits of some ids with the log-sum-exp of all others, from (n,) log-sum-exps of all."""
    inside = (logits.float().logsumexp(-1) - totals).clamp(max=0.0)  # above 0 by rounding alone
    return TeacherLogits(logits, totals + (-inside.expm1()).log())


def _offsets(lengths: Iterable[int]) -> Any:
    return np.concatenate([[0], np.cumsum(list(lengths))]).astype(np.int64)


def _head(target: Any) -> Any:
    head = target.get_output_embeddings()
    if head is None:
        raise InputError(f"{type(target).__name__} has no output head; distil with keep_states=False")
    return head


@torch.no_grad()
def _check_head(target: Any, head: Any, batch: dict[str, Any]) -> Tensor:
    """Return the target's logits for a batch; raise InputError if they differ from the output of its head."""
    with _head_inputs(head) as seen:
        logits = completion_logits(target, batch)
    product = head(_of_completions(seen[-1], batch["labels"]))
    if product.shape != logits.shape or (product - logits).abs().max() > _ROUNDING * logits.abs().max():
        raise InputError(
            f"{type(target).__name__} changes its logits after the output head (a scale or soft cap), so its states "
            "do not determine them; distil with keep_states=False"
        )
    return logits


@contextmanager
def _head_inputs(head: Any) -> Iterator[list[Tensor]]:
    """Record the inputs of the output head, one per call."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def _write(
    target: Any,
    head: Any,
    examples: Sequence[Example],
    folder: Path,
    facts: dict[str, Any],
    pad_id: int,
    progress: Progress | None,
) -> None:
    begins = _offsets(len(e.completion) for e in examples)
    whole = bool(facts.get("whole"))
    ends = _offsets(len(e.prompt) + len(e.completion) - 1 for e in examples) if whole else begins
    width = head.weight.shape[1]
    kind = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[facts["dtype"]]
    needed = int(ends[-1]) * width * np.dtype(kind).itemsize
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InputError(
            f"the states of {ends[-1]:,} tokens take {needed / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} "
            "GB free; free some, or learn from fewer rows" + ("" if whole else ", or distil with keep_states=False")
        )
    with new_folder(folder) as made:
        states: Any = np.lib.format.open_memmap(made / "states.npy", "w+", kind, (int(ends[-1]), width))
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and would kill the process below
            with (made / "states.npy").open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        totals = np.empty(int(begins[-1]), np.float32)
        collator = Collator.for_model(target, pad_id)
        if not whole:
            collator = with_prefix(collator, target, examples, ROWS_PER_PASS)
        for rows, batch, sizes in batches(target, examples, collator=collator, progress=progress):
            before = prefix_cache(target, collator, len(rows))
            with _head_inputs(head) as seen, last_hidden_states(target, whole) as of_rows:
                logits = completion_logits(target, batch | before)
            if whole:
                places = zip(batch["attention_mask"].argmax(1).tolist(), rows, strict=True)
                parts = [
                    of_rows[-1][k, first : first + ends[row + 1] - ends[row]] for k, (first, row) in enumerate(places)
                ]
            else:
                parts = list(torch.split(_of_completions(seen[-1], batch["labels"]), sizes))
            scaled = at_temperature(logits.float(), facts.get("temperature", 1.0))
            sums = torch.split(scaled.logsumexp(-1).cpu(), sizes)
            for row, part, total in zip(rows, parts, sums, strict=True):
                found = part.cpu().to(getattr(torch, facts["dtype"]))
                states[ends[row] : ends[row + 1]] = (found.view(torch.uint16) if kind == np.uint16 else found).numpy()
                totals[begins[row] : begins[row + 1]] = total.numpy()
        states.flush()
        for name, array in {"begins": begins, "totals": totals, **({"ends": ends} if whole else {})}.items():
            stored = io.BytesIO()  # numpy ignores that the last bytes of a file cannot be written
            np.save(stored, array)
            (made / f"{name}.npy").write_bytes(stored.getvalue())
        (made / "states.json").write_text(json.dumps(facts) + "\n")
