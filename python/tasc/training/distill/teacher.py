"""Distributions of the target at the rows' outputs: computed beside the draft, or once and cached.

A target's logits are its output head times its last hidden states, so the states of all completion tokens say all of
it at 2·H bytes per token instead of 2·V. They are computed once, kept in a file, and the training of any number of
drafts needs nothing of the target but the head.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tasc.errors import InputError
from tasc.files import new_folder, remove_partial
from tasc.progress import Progress
from tasc.training.examples import IGNORED, Collator, Example, digest
from tasc.training.schedule import dtype_of

AT_ONCE = 16
"""Rows of a forward pass that computes states."""

_ROUNDING = 0.01
"""Of the largest logit: what bfloat16 may change between two ways to the same product."""

_SAME = 0.05
"""Of the logits' spread: what arithmetic in bfloat16 changes on average between two batches of the same model."""


class Teacher(Protocol):
    """Says what the draft should say."""

    def logits(self, rows: Sequence[int], batch: dict[str, Any]) -> Tensor:
        """(n, V) logits for every completion token of a batch, row after row.

        Args:
            rows: (B,) numbers of its examples.
            batch: The batch itself, as `Collator` makes it.
        """


class OnlineTeacher:
    """The target itself, run on every batch.

    Args:
        target: A transformers causal model.
        precision: Of its arithmetic, as in `DistillOptions`.
    """

    def __init__(self, target: Any, precision: str = "fp32") -> None:
        self.target = target.eval().requires_grad_(False)
        self._precision = precision

    @torch.no_grad()
    def logits(self, rows: Sequence[int], batch: dict[str, Any]) -> Tensor:
        """See `Teacher`."""
        with arithmetic(self.target, self._precision):
            return completion_logits(self.target, batch)


class CachedHiddenStates:
    """The target's last hidden states of all completion tokens, in a file, and its output head.

    Args:
        folder: Where `compute` has put them.
        head: The target's output head, in its place.
        precision: Of the head's arithmetic, as in `DistillOptions`.

    Attributes:
        states: (N, H), memory-mapped; float16 or float32 as they are, bfloat16 as its uint16 bits.
        begins: (R + 1,) int64, row r has `states[begins[r]:begins[r + 1]]`.
    """

    def __init__(self, folder: Path, head: Any, precision: str = "fp32") -> None:
        self._precision = precision
        self.head = head.eval().requires_grad_(False)
        self.states = np.load(folder / "states.npy", mmap_mode="r")
        self.begins = np.load(folder / "begins.npy")
        self.bits = json.loads((folder / "states.json").read_text())["dtype"] == "bfloat16"

    @torch.no_grad()
    def logits(self, rows: Sequence[int], batch: dict[str, Any]) -> Tensor:
        """See `Teacher`; the batch is not looked at."""
        found = np.concatenate([self.states[self.begins[r] : self.begins[r + 1]] for r in rows])
        states = torch.from_numpy(found)
        weight = self.head.weight
        states = (states.view(torch.bfloat16) if self.bits else states).to(weight.device, weight.dtype)
        with arithmetic(self.head, self._precision):
            logits: Tensor = self.head(states)
        return logits

    @classmethod
    def compute(
        cls,
        target: Any,
        examples: Sequence[Example],
        folder: Path,
        *,
        precision: str = "fp32",
        pad_id: int = 0,
        progress: Progress | None = None,
    ) -> CachedHiddenStates:
        """Runs the target over rows once and keeps its states, or opens what an earlier call kept.

        Args:
            target: A transformers causal model, in its place and dtype.
            examples: R rows.
            folder: Appears when all is written; 2 or 4 bytes · H per completion token.
            precision: Of the arithmetic, as in `DistillOptions`.
            pad_id: Any id.
            progress: Called with (rows done, R).

        Raises:
            InputError: The folder holds states of other rows or of another target; the disk is too small; or the
                target does more to its logits than its head does (soft-capping, a scale): use `OnlineTeacher`.
        """
        head = _head(target)
        target.eval()
        collator = Collator.for_model(target, pad_id)
        dtype = str(next(target.parameters()).dtype).removeprefix("torch.")
        facts = {"rows": digest(examples), "dtype": dtype, "precision": precision}
        first = on_device(target, collator([examples[0]]))
        said = _check_head(target, head, first)
        if not folder.exists():
            with arithmetic(target, precision):
                _write(target, head, collator, examples, folder, facts, progress)
        kept = cls(folder, head, precision)
        found = json.loads((folder / "states.json").read_text())
        if found != facts or (kept.logits([0], {}).float() - said.float()).abs().mean() > _SAME * said.float().std():
            raise InputError(f"{folder} holds states of other rows or of another target; remove it, or name another")
        return kept


def completion_logits(model: Any, batch: dict[str, Any]) -> Tensor:
    """(n, V) logits that say the completion tokens of a batch, row after row.

    Args:
        model: A transformers causal model, under a wrapper or not.
        batch: Of `Collator`, on the model's device; `labels` may stay in it.
    """
    logits: Tensor = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return _of_completions(logits, batch["labels"])


def arithmetic(model: Any, precision: str) -> Any:
    """The context in which a model computes in a precision of `DistillOptions`."""
    device = next(model.parameters()).device.type
    dtype = dtype_of(precision, device)
    return torch.autocast(device, dtype, enabled=dtype != torch.float32)


def on_device(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch where the model is."""
    return {name: value.to(model.device) for name, value in batch.items()}


def _of_completions(columns: Tensor, labels: Tensor) -> Tensor:
    """(n, …) of (B, T, …): what stands where completion tokens are said."""
    return columns[:, -labels.shape[1] : -1][labels[:, 1:] != IGNORED]


def _head(target: Any) -> Any:
    head = target.get_output_embeddings()
    if head is None:
        raise InputError(f"{type(target).__name__} has no output head of its own; distil with keep_states=False")
    return head


@torch.no_grad()
def _check_head(target: Any, head: Any, batch: dict[str, Any]) -> Tensor:
    """The target's logits over a batch, which must be its head's."""
    with _into(head) as seen:
        logits = completion_logits(target, batch)
    product = head(_of_completions(seen[-1], batch["labels"]))
    if product.shape != logits.shape or (product - logits).abs().max() > _ROUNDING * logits.abs().max():
        raise InputError(
            f"{type(target).__name__} changes its logits after the output head (a scale or soft cap), so kept states "
            "do not say them; distil with keep_states=False"
        )
    return logits


@contextmanager
def _into(head: Any) -> Iterator[list[Tensor]]:
    """Collect the inputs of the output head, call by call."""
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
    collator: Collator,
    examples: Sequence[Example],
    folder: Path,
    facts: dict[str, Any],
    progress: Progress | None,
) -> None:
    begins = np.concatenate([[0], np.cumsum([len(e.completion) for e in examples])]).astype(np.int64)
    width = head.weight.shape[1]
    kind = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[facts["dtype"]]
    needed = int(begins[-1]) * width * np.dtype(kind).itemsize
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InputError(
            f"the states of {begins[-1]:,} tokens take {needed / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} "
            "GB free; free some, learn from fewer rows, or distil with keep_states=False"
        )
    remove_partial(folder)
    with new_folder(folder) as made:
        states: Any = np.lib.format.open_memmap(made / "states.npy", "w+", kind, (int(begins[-1]), width))
        order = sorted(range(len(examples)), key=lambda row: len(examples[row]))
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            batch = on_device(target, collator([examples[row] for row in rows]))
            with _into(head) as seen:
                completion_logits(target, batch)
            kept = _of_completions(seen[-1], batch["labels"]).cpu().to(getattr(torch, facts["dtype"]))
            found = (kept.view(torch.uint16) if kind == np.uint16 else kept).numpy()
            for row, part in zip(
                rows, np.split(found, np.cumsum([len(examples[row].completion) for row in rows])[:-1]), strict=True
            ):
                states[begins[row] : begins[row + 1]] = part
            if progress is not None:
                progress(start + len(rows), len(order))
        states.flush()
        np.save(made / "begins.npy", begins)
        (made / "states.json").write_text(json.dumps(facts) + "\n")
