"""Comparison of drafters on one task: rows are indexed once, held-out rows are replayed through each drafter."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasc.data.endings import required_eos
from tasc.data.rows import AUTO
from tasc.drafting.protocol import Drafter
from tasc.errors import InputError
from tasc.evaluation.baselines import (
    PromptLookupDrafter,
    SuffixDecodingDrafter,
    suffix_decoding_installed,
    suffix_depth,
)
from tasc.evaluation.replay import ReplayResult
from tasc.files import temporary_folder
from tasc.progress import ProgressBars, of_fraction

if TYPE_CHECKING:
    from tasc._core import TaskIndex
    from tasc.data import TaskTokenizer, TokenStore

FAMILIES = ("tasc", "suffix", "prompt-lookup")
"""Names that `make_drafters` accepts; `suffix` is one drafter per factor."""

FACTORS = (1.0, 4.0, 16.0)
"""Values of `max_spec_factor` for SuffixDecoding; its default is 1."""

BEST = "suffix-best"
"""Name of SuffixDecoding with its best factor."""


@dataclass(frozen=True, slots=True)
class Task:
    """Indexed rows of a task, and its held-out rows."""

    store: "TokenStore"
    index: "TaskIndex"
    tokenizer: "TaskTokenizer"
    held_out: list[dict[str, Any]]
    eos: int

    def outputs(self) -> Iterator[NDArray[np.uint32]]:
        """Yield each indexed output with its EOS, (T,) uint32, with repeats."""
        for document, weight in self.store:
            yield from itertools.repeat(document, weight)


@contextmanager
def open_task(
    data: Path,
    tokenizer: "TaskTokenizer",
    *,
    corpus: Sequence[Path] = (),
    input_field: str = AUTO,
    output_field: str = AUTO,
    limit: int | None = None,
    inputs: bool = True,
    system: str | None = None,
    progress: ProgressBars,
) -> Iterator[Task]:
    """Index a task in a temporary folder, which is removed when the context ends.

    Rows with a split: `train` is indexed and `test` held out. Rows without: all are held out and `corpus` is indexed.

    Args:
        data: Rows `{input, output, split?}`.
        tokenizer: Tokenizer of the target, with an end token.
        corpus: Files to index instead of the `train` rows of `data`.
        input_field: Field with the inputs; `auto` finds it.
        output_field: Field with the outputs; `auto` finds it.
        limit: Maximum number of held-out rows, the first ones; None for all.
        inputs: Whether the index sees the rows' inputs.
        system: System message of the prompts, as for `TokenStore.build`.
        progress: Called with the title of a job; returns its progress callback.

    Raises:
        InputError: If there is nothing to index or nothing to hold out.
    """
    from tasc._core import TaskIndex
    from tasc.data import TokenStore, read_rows

    fields: dict[str, Any] = {"input_field": input_field, "output_field": output_field}
    rows = list(read_rows([data], **fields))
    has_split = any("split" in row for row in rows)
    if not has_split and not corpus:
        raise InputError(f"{data} has no split column, so nothing says what to index: name those rows with --corpus")
    held_out = [r for r in rows if r.get("split") == "test"] if has_split else rows
    if not held_out:
        raise InputError(f"{data} has no rows to hold out: its split column never says 'test'")
    end = required_eos(tokenizer)
    with temporary_folder() as folder:
        path = folder / "rows.store"
        train = (row for row in rows if row.get("split") == "train")
        sources = read_rows(corpus, **fields) if corpus else train
        store = TokenStore.build(sources, tokenizer, path, system=system, progress=progress("tokenising"))
        file = folder / "task.tasc"
        index = TaskIndex.build(
            store, file, tokenizer=tokenizer, inputs=inputs, progress=of_fraction(progress("indexing"))
        )
        yield Task(store, index, tokenizer, held_out[:limit], end)


def make_drafters(names: Iterable[str], task: Task, max_tokens: int) -> Iterator[Drafter]:
    """Yield the named drafters one at a time, so that their caches need not be in memory together.

    Args:
        names: Some of `FAMILIES`.
        task: Task to draft for.
        max_tokens: Maximum number of tokens per draft.

    Raises:
        InputError: If a name is not one of `FAMILIES`.
        BaselineMissingError: If `suffix` is named and not installed.
    """
    from tasc._core import NgramDrafter

    for name in check_families(names):
        if name == "tasc":
            yield NgramDrafter(task.index, tokenizer=task.tokenizer)
        elif name == "prompt-lookup":
            yield PromptLookupDrafter()
        else:
            for factor in FACTORS:
                yield SuffixDecodingDrafter(task.outputs(), factor=factor, depth=suffix_depth(max_tokens))


def check_families(names: Iterable[str]) -> list[str]:
    """Return the names without repeats.

    Raises:
        InputError: If a name is not one of `FAMILIES`.
    """
    kept = list(dict.fromkeys(names))
    for name in kept:
        if name not in FAMILIES:
            raise InputError(f"unknown drafter {name!r}: choose from {', '.join(FAMILIES)}")
    return kept


def families_here() -> list[str]:
    """Return the names of `FAMILIES` whose packages are installed."""
    return [name for name in FAMILIES if name != "suffix" or suffix_decoding_installed()]


def best_suffix(results: Iterable[ReplayResult]) -> ReplayResult | None:
    """Return SuffixDecoding with the highest speed-up, renamed `suffix-best`; None if it did not run."""
    theirs = [r for r in results if r.name.startswith("suffix-")]
    return replace(max(theirs, key=lambda r: r.speedup), name=BEST) if theirs else None
