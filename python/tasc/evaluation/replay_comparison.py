"""Comparison of drafters on one task: rows are indexed once, held-out rows are replayed through each drafter."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasc.data.endings import required_eos
from tasc.data.rows import AUTO
from tasc.drafting.protocol import Drafter
from tasc.drafting.retokenizing import ngram_drafter
from tasc.errors import InputError
from tasc.evaluation.baselines import (
    PromptLookupDrafter,
    SuffixDecodingDrafter,
    suffix_decoding_installed,
    suffix_depth,
)
from tasc.evaluation.provenance import data_facts, index_facts
from tasc.evaluation.replay import ReplayResult
from tasc.files import temporary_folder
from tasc.progress import ProgressBars, of_fraction

if TYPE_CHECKING:
    from tasc._core import TaskIndex
    from tasc.data import TaskTokenizer, TokenStore

_log = logging.getLogger(__name__)

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
    provenance: dict[str, Any] = field(default_factory=dict)
    """Files of the held-out rows and of the index, as in a result."""

    def outputs(self) -> Iterator[NDArray[np.uint32]]:
        """Yield each indexed output with its EOS, (T,) uint32, with repeats."""
        plan = self.tokenizer.plan
        in_base_tokens = plan is not None and self.store.fingerprint == plan.fingerprint
        for document, weight in self.store:
            if in_base_tokens:
                document = np.asarray(plan.segment(document), np.uint32)  # type: ignore[union-attr]
            yield from itertools.repeat(document, weight)


@contextmanager
def open_task(
    data: Path | None,
    tokenizer: "TaskTokenizer",
    *,
    corpus: Sequence[Path] = (),
    index: Path | None = None,
    held_out: Path | None = None,
    input_field: str = AUTO,
    output_field: str = AUTO,
    limit: int | None = None,
    inputs: bool = True,
    system: str | None = None,
    progress: ProgressBars,
) -> Iterator[Task]:
    """Index a task in a temporary folder, which is removed when the context ends, or open its index.

    Rows with a split: `train` is indexed and `test` held out. Rows without: all are held out and `corpus` is indexed.
    With `held_out`, all rows of that file are held out, and of `data` `train` or, without a split, all are indexed.

    Args:
        data: Rows `{input, output, split?}`; None with `held_out` and an index or a corpus.
        tokenizer: Tokenizer of the target, with an end token.
        corpus: Files to index instead of the rows of `data`.
        index: Index to draft from, such as the one that is deployed; then nothing is indexed.
        held_out: File of the held-out rows.
        input_field: Field with the inputs; `auto` finds it.
        output_field: Field with the outputs; `auto` finds it.
        limit: Maximum number of held-out rows, the first ones; None for all.
        inputs: Whether the index sees the rows' inputs.
        system: System message of the prompts, as for `TokenStore.build`.
        progress: Called with the title of a job; returns its progress callback.

    Raises:
        InputError: If there is nothing to index or nothing to hold out.
        TokenizerMismatchError: The index was made with another tokenizer.
    """
    from tasc._core import TaskIndex
    from tasc.data import TokenStore, read_rows

    end = required_eos(tokenizer)
    if index is not None and corpus:
        raise InputError("give an index, or --corpus to build one, not both")
    fields: dict[str, Any] = {"input_field": input_field, "output_field": output_field}
    rows, train = _held_out_rows(data, held_out, fields, indexes=index is None and not corpus)
    source = held_out or data
    assert source is not None
    provenance: dict[str, Any] = {"held_out": data_facts(source, len(rows[:limit]))}
    with temporary_folder() as folder:
        path = folder / "rows.store"
        if index is not None:
            opened = TaskIndex.open(index)
            ngram_drafter(opened, tokenizer)  # checks that it is the model's
            store: Any = opened.to_store(path)
        else:
            sources = list(corpus) or [one for one in (data,) if one is not None]
            provenance["indexed"] = [data_facts(one) for one in sources]
            texts = read_rows(corpus, **fields) if corpus else train
            store = TokenStore.build(texts, tokenizer, path, system=system, progress=progress("tokenising"))
            file = folder / "task.tasc"
            opened = TaskIndex.build(
                store, file, tokenizer=tokenizer, inputs=inputs, progress=of_fraction(progress("indexing"))
            )
        if index is not None or held_out is not None:
            _warn_of_known(rows[:limit], store, tokenizer, end)
        provenance["index"] = index_facts(opened, index)
        yield Task(store, opened, tokenizer, rows[:limit], end, provenance)


def _held_out_rows(
    data: Path | None, held_out: Path | None, fields: dict[str, Any], *, indexes: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the held-out rows, and the rows of `data` to index, if `indexes`.

    Args:
        data: As for `open_task`.
        held_out: As for `open_task`.
        fields: Fields of the inputs and the outputs.
        indexes: Whether rows of `data` are indexed.
    """
    from tasc.data import read_rows

    if data is None and (held_out is None or indexes):
        raise InputError("name the rows of the task, or --held-out with --index or --corpus")
    rows = list(read_rows([data], **fields)) if data is not None and (indexes or held_out is None) else []
    has_split = any("split" in row for row in rows)
    train = [row for row in rows if row.get("split") == "train"] if has_split else rows
    if held_out is not None:
        return list(read_rows([held_out], **fields)), train
    if not has_split and indexes:
        raise InputError(
            f"{data} has no split column, so nothing says what to index: name those rows with --corpus, or name an "
            "index or the rows to hold out"
        )
    kept = [row for row in rows if row.get("split") == "test"] if has_split else rows
    if not kept:
        raise InputError(f"{data} has no rows to hold out: its split column never says 'test'")
    return kept, train


def _warn_of_known(rows: list[dict[str, Any]], store: Any, tokenizer: "TaskTokenizer", eos: int) -> None:
    """Log how many held-out rows, input and output, are in an index: their figures say nothing of new rows."""
    wanted = {row["input"] for row in rows if row.get("input")}
    known: dict[str, set[bytes]] = {}
    for number in range(store.num_inputs):
        text, document, _ = store.input(number)
        if text in wanted:
            known.setdefault(text, set()).add(np.asarray(store.document(document), np.uint32).tobytes())
    is_base = store.fingerprint != tokenizer.fingerprint
    outputs = (tokenizer.encode_batch if is_base else tokenizer.encode_outputs)([row["output"] for row in rows])
    pairs = zip(rows, outputs, strict=True)
    count = sum(np.array([*ids, eos], np.uint32).tobytes() in known.get(row.get("input", ""), ()) for row, ids in pairs)
    if count:
        _log.warning(
            "%d of %d held-out rows are in the index, input and output: new rows will gain less", count, len(rows)
        )


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
    for name in check_families(names):
        if name == "tasc":
            yield ngram_drafter(task.index, task.tokenizer)
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
