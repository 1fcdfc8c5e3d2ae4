"""A check without a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasc._core import NgramDrafter, TaskIndex
from tasc.data import Row, TokenStore
from tasc.data.endings import required_eos
from tasc.drafting.prompt_input import template_in_words
from tasc.errors import InputError
from tasc.evaluation.check.drafts import draft_figures
from tasc.evaluation.check.predictors import predictors
from tasc.evaluation.check.result import CheckResult
from tasc.evaluation.check.rows import LONGEST, MAX_ROWS, MIN_HELD_OUT, RowSplit, split_rows
from tasc.evaluation.check.verdict import index_command, verdict
from tasc.evaluation.check.vocabulary import vocabulary_figures
from tasc.evaluation.replay import encode_rows
from tasc.files import temporary_folder
from tasc.progress import ProgressBars, no_bars, of_fraction

if TYPE_CHECKING:
    from tasc.data import TaskTokenizer
    from tasc.evaluation.check.with_model import ModelCheck

MAX_TOKENS = 30_000
"""About the number of held-out tokens that are replayed; of longer outputs, fewer rows are."""


def check_rows(
    rows: Iterable[Row],
    tokenizer: TaskTokenizer,
    *,
    files: Sequence[str] = ("ROWS",),
    outputs: str = "",
    inputs: str = "",
    source: str | None = None,
    limit: int = MAX_ROWS,
    model: ModelCheck | None = None,
    progress: ProgressBars = no_bars,
) -> CheckResult:
    """Check what tasc would bring on a task.

    Args:
        rows: Past rows of the task, each with an `output`.
        tokenizer: Tokenizer of the model, with an end token.
        files: How the next commands name the files of rows.
        outputs: Option of the next commands that names the field of the outputs, with a space before it.
        inputs: Options of the next commands that need inputs: their field and the system prompt.
        source: How the next commands name the tokenizer, and its end token where that is not the tokenizer's own; None:
            by its display name.
        limit: Most rows that are looked at.
        model: Model that answers held-out rows, and how; None: a check without a model. An error of this part, or
            Ctrl-C in it, is not raised: it is `failed` of the result, so that the figures of the rows are not lost.
        progress: Called with the title of a job; returns its progress callback.

    Raises:
        InputError: The rows cannot be split, or the tokenizer has no end token.
    """
    eos = required_eos(tokenizer)
    parts = split_rows(rows, limit=limit)
    with temporary_folder() as folder:
        store = TokenStore.build(parts.train, tokenizer, folder / "rows.store")
        index = TaskIndex.build(
            store, folder / "task.tasc", tokenizer=tokenizer, progress=of_fraction(progress("indexing"))
        )
        held_out = encode_rows(parts.held_out, tokenizer, eos=eos)
        step = _step([len(row.output) for row in held_out])
        replayed, held_out = replace(parts, held_out=parts.held_out[::step]), held_out[::step]
        cut = sum(len(row.output) > LONGEST for row in held_out)
        held_out = [replace(row, output=row.output[:LONGEST]) for row in held_out]
        drafts = draft_figures(lambda: NgramDrafter(index, tokenizer=tokenizer), held_out, progress=progress)
        vocabulary, plan, no_vocabulary = None, None, ""
        try:
            vocabulary, plan = vocabulary_figures(store, index, held_out, tokenizer, folder, progress=progress)
        except InputError as error:
            no_vocabulary = str(error).partition(", or lower ")[0]  # a check has no options to lower
        chosen = outputs + (" --split train" if parts.by == "column" else "")
        name = source or tokenizer.name
        named = " ".join(files) + chosen
        found = verdict(drafts, vocabulary, rows=len(parts.train), data=named, tokenizer=name, inputs=inputs)
        says, failed = None, None
        if model is not None:
            from tasc.evaluation.check.with_model import (
                check_with_model,
                draft_verdict,
                served_verdict,
                tuned_verdict,
            )

            try:
                says = check_with_model(model, tokenizer, index, plan, parts.train, parts.held_out, progress=progress)
            except (Exception, KeyboardInterrupt) as error:  # the figures of the rows are not lost with it
                failed = error
            else:
                failed = says.pop("failed", None)
                data = " ".join(f"--data {file}" for file in files) + chosen + inputs
                found = tuned_verdict(found, says, data=data, model=name)
                indexing = index_command(named, inputs, name)
                found = served_verdict(found, model, says, index=indexing)
                found = draft_verdict(found, model, says, data=data, index=indexing)
        return CheckResult(
            rows=_facts(replayed) | {"cut": cut},
            tokenizer=tokenizer.name,
            drafts=drafts,
            vocabulary=vocabulary,
            no_vocabulary=no_vocabulary,
            predictors=predictors(
                _with_inputs(parts.train, index),
                _with_inputs(replayed.held_out, index),
                [ids for ids, _ in store],
                [row.output for row in held_out],
                plan,
            ),
            verdict=found,
            model=says,
            input_place=template_in_words(index, tokenizer),
            failed=failed,
        )


def _step(lengths: Sequence[int]) -> int:
    """Return k so that every k-th output is enough: about `MAX_TOKENS` tokens in all, and `MIN_HELD_OUT` rows."""
    return max(1, min(round(sum(lengths) / MAX_TOKENS), len(lengths) // MIN_HELD_OUT))


def _with_inputs(rows: list[Row], index: TaskIndex) -> list[Row]:
    """Return rows whose `input` is the input alone where it is a whole prompt."""
    if index.input_template is None:
        return rows
    return [
        {**row, "input": index.find_input(row["input"]) or row["input"]} if row.get("input") else row for row in rows
    ]


def _facts(parts: RowSplit) -> dict[str, Any]:
    indexed = {(row["input"], row["output"]) for row in parts.train if row.get("input")}
    return {
        "all": parts.of,
        "train": len(parts.train),
        "held_out": len(parts.held_out),
        "with_input": sum(bool(row.get("input")) for part in (parts.train, parts.held_out) for row in part),
        "known": sum((row.get("input"), row["output"]) in indexed for row in parts.held_out),
        "split_by": parts.by,
    }
