"""Result of a check as sentences and tables, for the terminal and the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasc.evaluation.check.model_summary import measured_table, model_sentences, prediction_table
from tasc.evaluation.check.predictors import PAPER_TASKS, Predictors
from tasc.evaluation.check.rows import LONGEST
from tasc.evaluation.check.verdict import percent
from tasc.printable import counted

if TYPE_CHECKING:
    from tasc.evaluation.check.drafts import DraftFigures
    from tasc.evaluation.check.drift import DriftResult
    from tasc.evaluation.check.result import CheckResult
    from tasc.evaluation.check.vocabulary import SizeFigures


@dataclass(frozen=True, slots=True)
class Table:
    """Table of texts; the first column is the name of a row."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Summary:
    """Sentences, tables and commands.

    Attributes:
        facts: What was looked at, as a sentence.
        verdict: Sentences of the verdict.
        tables: Figures.
        notes: Sentences about the texts.
        next_commands: Commands to run next.
    """

    facts: str
    verdict: list[str]
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    next_commands: list[str] = field(default_factory=list)


def summarize(result: CheckResult) -> Summary:
    """Summarize a check of rows."""
    rows = result.rows
    used = rows["train"] + rows["held_out"]
    hashed = {0: "the output", used: "the input"}.get(rows["with_input"], "the input, or of the output without one")
    by = "their split column" if rows["split_by"] == "column" else f"a hash of {hashed}"
    by += f"; of {counted(rows['cut'], 'output')} the first {LONGEST:,} tokens alone" if rows["cut"] else ""
    sample = "" if used == rows["all"] else f" of {rows['all']:,}"
    known = (
        f"; {rows['known']:,} of them indexed too, input and output: new rows will gain less" if rows["known"] else ""
    )
    place = "" if result.input_place is None else f"; {result.input_place}"
    return Summary(
        f"{counted(used, 'row')}{sample}, {rows['with_input']:,} with an input: {rows['train']:,} indexed, "
        f"{rows['held_out']:,} held out (by {by}){known}{place}",
        [*_model_sentences(result), *result.verdict.sentences],
        [*_tables(result), *_model_tables(result)],
        [*_vocabulary_notes(result), *_text_notes(result.predictors)],
        result.verdict.next_commands,
    )


def summarize_drift(result: DriftResult, next_commands: list[str]) -> Summary:
    """Summarize a comparison of an index with the last requests."""
    facts = f"{result.index}: the last {counted(result.rows, 'request')}, replayed on the index"
    return Summary(facts, result.in_words(), next_commands=next_commands)


def _tables(result: CheckResult) -> list[Table]:
    vocabulary = result.vocabulary
    both = ["–"] * len(result.drafts) if vocabulary is None else [_speedup(one) for one in vocabulary.drafts]
    found = [
        Table(
            "Speed-up by the cost of a drafted token, 95 % intervals",
            ["cost", "τ", "drafts", "and vocabulary"],
            [
                [f"{one.cost:g}", f"{one.tau['value']:.1f}", _speedup(one), with_tokens]
                for one, with_tokens in zip(result.drafts, both, strict=True)
            ],
        )
    ]
    if vocabulary is not None:
        found.append(
            Table(
                f"Task vocabulary alone, {percent(vocabulary.adoption)} of its tokens used",
                ["new tokens", "tokens saved", "speed-up"],
                [[f"{one.tokens:,}", percent(one.saved["value"] or 0.0, 1), _speedup(one)] for one in vocabulary.sizes],
            )
        )
    return found


def _model_sentences(result: CheckResult) -> list[str]:
    """Return what a model says, or that it could not be checked; a verdict that sends it to be tuned has said so."""
    said = model_sentences(result.model) if result.model is not None and result.model["says"]["agrees"] else []
    if result.failed is None:
        return said
    part, rest = "check with the model", "the figures are those of the rows alone"
    if result.model is not None:
        part, rest = "measurement", "the predictions were made before it"
    if isinstance(result.failed, KeyboardInterrupt):
        return [f"The {part} was stopped; {rest}", *said]
    return [f"The {part} failed; {rest}: {result.failed}", *said]


def _model_tables(result: CheckResult) -> list[Table]:
    found = result.model
    if found is None or not found["says"]["agrees"]:
        return []
    tables = [prediction_table(found, one) for one in found["predictions"]]
    return [Table(*one) for one in [*tables, *([] if found["measured"] is None else [measured_table(found)])]]


def _vocabulary_notes(result: CheckResult) -> list[str]:
    return [f"No task vocabulary: {result.no_vocabulary}"] if result.vocabulary is None else []


def _text_notes(figures: Predictors) -> list[str]:
    said = f"H₂ of the output tokens is {figures.renyi:.1f} bits"
    if figures.renyi_extended is not None:
        said += f", with the vocabulary {figures.renyi_extended:.1f}"
    found = [said, f"{percent(figures.repeated)} of the held-out output tokens repeat phrases of past outputs"]
    if figures.copied is not None:
        found.append(f"{percent(figures.copied)} of the output words occur in their input")
    relative = figures.relative_entropy
    if relative is not None:
        name, near = min(PAPER_TASKS, key=lambda task: abs(task[1] - relative))
        words = f"The entropy of the outputs relative to the inputs is {_signed(relative)}"
        found.append(f"{words}; in the paper {name} has {_signed(near)}")
    return found


def _speedup(figures: DraftFigures | SizeFigures) -> str:
    found = figures.speedup
    if found["low"] is None:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} ({found['low']:.2f}–{found['high']:.2f})"


def _signed(share: float) -> str:
    return f"{100 * share:+.0f} %".replace("-", "−")
