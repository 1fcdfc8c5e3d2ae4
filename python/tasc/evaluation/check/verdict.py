"""A verdict in words: whether tasc is worth it on a task, with which settings, and the next command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tasc.drafting.defaults import DEFAULT_SLOPE
from tasc.printable import counted

if TYPE_CHECKING:
    from tasc.evaluation.check.drafts import DraftFigures
    from tasc.evaluation.check.vocabulary import VocabularyFigures

NOTHING, LITTLE = 1.1, 1.5
"""Speed-ups up to which a method brings nothing, and little."""

UNKNOWN_DRAFT_MODEL = "A draft model may still help (`tasc distill`); it is unknown here what it would bring"
"""Sentence of a verdict against an index; it goes where a draft model was trained."""

FEW_ROWS = 200
"""Rows below which the figures are likely to rise with more rows."""

INDEX = "task.tasc"
"""File of the index in the next commands."""

Level = Literal["worth it", "a little", "do not bother"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do.

    Attributes:
        level: What drafts from an index bring at the default cost of a drafted token.
        sentences: The verdict in words, one fact each.
        settings: Settings to use, by the name of the option.
        next_commands: Commands to run next, in this order.
    """

    level: Level
    sentences: list[str]
    settings: dict[str, str]
    next_commands: list[str]


def verdict(
    drafts: list[DraftFigures],
    vocabulary: VocabularyFigures | None,
    *,
    rows: int,
    data: str,
    tokenizer: str,
    inputs: str = "",
) -> Verdict:
    """Judge the figures of a check.

    Args:
        drafts: Drafts by cost; one of the costs is `DEFAULT_SLOPE`.
        vocabulary: Task vocabularies; None where none could be learned.
        rows: Number of rows that are indexed.
        data: Files of rows, and options that choose among their rows, quoted for a shell.
        tokenizer: Tokenizer or model, quoted for a shell.
        inputs: Options of the command that needs inputs, with a space before each.
    """
    usual = next(one for one in drafts if one.cost == DEFAULT_SLOPE)
    level = _level(usual)
    opening = "It may help" if level == "a little" and usual.speedup["low"] is None else _OPENINGS[level]
    sentences = [f"{opening}: {_drafts_in_words(drafts, usual)}"]
    commands = []
    if level != "do not bother":
        commands.append(index_command(data, inputs, tokenizer))
    settings = {} if level == "do not bother" else {"--index": INDEX}
    if vocabulary is not None:
        both = next(one for one in vocabulary.drafts if one.cost == DEFAULT_SLOPE)
        size = next(one for one in vocabulary.sizes if one.wanted == vocabulary.recommended)
        plain = size.speedup["value"] or 1.0
        if plain > NOTHING:
            sentences.append(
                f"If you fine-tune the model anyway: {counted(size.tokens, 'new token')} alone "
                f"{'brings' if size.tokens == 1 else 'bring'} {plain:.1f} times, and with drafts {_times(both)} "
                f"at cost {both.cost:g}. This assumes that the tuned model uses "
                f"{percent(vocabulary.adoption)} of the new tokens that fit"
            )
            settings["--size"] = str(vocabulary.recommended)
            commands.append(
                f"tasc vocab learn {data} --tokenizer {tokenizer} --size {vocabulary.recommended} -o task.plan"
            )
        else:
            sentences.append("A task vocabulary would not help: the outputs hardly repeat phrases")
    if level == "do not bother":
        sentences.append(UNKNOWN_DRAFT_MODEL)
    if usual.speedup["low"] is None:
        sentences.append("One row is held out: no interval, and the next row may differ much. Give more rows")
    if rows < FEW_ROWS:
        indexed = "is indexed" if rows == 1 else "are indexed"
        sentences.append(f"Only {counted(rows, 'row')} {indexed}: more rows give better drafts and narrower intervals")
    sentences.append("All of this holds for a model whose outputs are like the rows'")
    return Verdict(level, sentences, settings, commands)


def index_command(data: str, inputs: str, tokenizer: str) -> str:
    """Return the command that builds the index; the arguments are those of `verdict`."""
    return f"tasc index build {data}{inputs} --tokenizer {tokenizer} -o {INDEX}"


_OPENINGS = {
    "worth it": "Worth it",
    "a little": "It helps a little",
    "do not bother": "Do not bother with an index",
}


def percent(share: float, digits: int = 0) -> str:
    """Return a share as a percentage, as in 95 %."""
    return f"{100 * share:.{digits}f} %"


def _level(figures: DraftFigures) -> Level:
    """Judge by the interval: it must lie above a limit as a whole. Without one, the best verdict is `a little`."""
    low, value = figures.speedup["low"], figures.speedup["value"] or 1.0
    if value <= NOTHING or (low is not None and low <= 1.0):
        return "do not bother"
    return "worth it" if low is not None and low > LITTLE else "a little"


def _drafts_in_words(drafts: list[DraftFigures], usual: DraftFigures) -> str:
    last = drafts[-1]
    said = f"drafts bring {_times(usual)} at cost {usual.cost:g}"
    return said if last is usual else f"{said}, and {_times(last)} where a drafted token costs {last.cost:g} of a step"


def _times(figures: DraftFigures) -> str:
    """Return a speed-up with its interval, in words."""
    low, high = figures.speedup["low"], figures.speedup["high"]
    if low is None or high is None or f"{low:.1f}" == f"{high:.1f}":
        return f"{figures.speedup['value']:.1f} times"
    return f"{low:.1f} to {high:.1f} times"
