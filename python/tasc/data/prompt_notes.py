"""Notes of the prompts that an index or a tuned checkpoint was made with, their use by default, and mismatches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasc.data.chat import ChatTemplate, system_text, template_digest, without_blanks
from tasc.data.endings import read_settings
from tasc.data.tokenizer import model_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasc._core import TaskIndex
    from tasc.data.tokenizer import TaskTokenizer

_log = logging.getLogger(__name__)

TUNING_FILE = "tuning.json"
"""File with the metrics of a tuned checkpoint, and its notes."""

_SHOWN = 60  # characters of a system message in a warning
_LOOKED_AT = 8  # prompts of an engine, before it is said that they lack the system message


@dataclass(frozen=True, slots=True)
class PromptNotes:
    """System message and chat template of the prompts that something was made with."""

    origin: str
    """What was made with them, for people."""
    system: str | None
    knows_system: bool
    """Whether no `system` means that there was none."""
    template: str | None
    """Digest of the template (`ChatTemplate.digest`); None: not known."""

    @classmethod
    def of_index(cls, index: TaskIndex) -> PromptNotes:
        """Return the notes of an index; they are its store's."""
        notes = index.info()["notes"]
        source = notes.get("chat_template")
        system, template = notes.get("system"), None if source is None else template_digest(source)
        return cls(f"the index {index.path}", system, system is not None, template)

    @classmethod
    def of_model(cls, model: str) -> PromptNotes | None:
        """Return the notes of a checkpoint that `tasc tune` has written, by folder or hub name; None without any."""
        notes = read_settings(model_files(model), TUNING_FILE).get("prompts")
        if not isinstance(notes, dict):
            return None
        return cls(f"the model {model}", notes.get("system"), True, notes.get("chat_template_sha256"))


def index_prompts(model: str, index: TaskIndex | None, *, has_template: bool) -> dict[str, str]:
    """Return what the prompts of a model take from its notes and an index by default.

    Args:
        model: The model, by folder or hub name.
        index: The index, if there is one.
        has_template: Whether the model's tokenizer has a chat template.

    Returns:
        `system`: the system message, if there is one. `chat template`: the digest of the index's, if it is used.
    """
    chosen = _with_system(_notes_of(model, index))
    found = {} if chosen is None or chosen.system is None else {"system": chosen.system}
    template = None if index is None or has_template else PromptNotes.of_index(index).template
    return found if template is None else {**found, "chat template": template}


def _notes_of(model: str, index: TaskIndex | None) -> list[PromptNotes]:
    """Return the notes of a model, by folder or hub name, and of an index, in the order of preference."""
    found = [PromptNotes.of_model(model), None if index is None else PromptNotes.of_index(index)]
    return [one for one in found if one is not None]


def _with_system(notes: Sequence[PromptNotes]) -> PromptNotes | None:
    """Return the first notes that have a system message, which prompts get by default."""
    return next((one for one in notes if one.system), None)


def with_template(tokenizer: Any, index: TaskIndex | None) -> Any:
    """Return a transformers tokenizer; without a chat template, a copy with that of the index, and warn of it."""
    if index is None or getattr(tokenizer, "chat_template", "") is not None:
        return tokenizer
    source = index.info()["notes"].get("chat_template")
    if source is None:
        return tokenizer
    _log.warning("the tokenizer has no chat template; prompts get the one that the index %s was made with", index.path)
    tokenizer = copy(tokenizer)
    tokenizer.chat_template = source
    return tokenizer


def tuning_notes(rows: Iterable[Mapping[str, Any]], tokenizer: Any, system: str | None) -> dict[str, Any]:
    """Return the notes that a tuned checkpoint keeps: `system`, and the digest of the tokenizer's chat template.

    Args:
        rows: Rows that the model was tuned on. Where no `system` is given, the system message that all their
            conversations begin with is noted.
        tokenizer: transformers tokenizer.
        system: System message of the prompts.
    """
    template = ChatTemplate.of(tokenizer)
    systems = {system_text(row) for row in rows if row.get("messages")} if system is None and template else set()
    common = next(iter(systems)) if len(systems) == 1 else None
    return {
        "system": common if system is None else system,
        "chat_template_sha256": None if template is None else template.digest,
    }


class PromptWatch:
    """Compares the prompts that an engine serves with the notes of its index, and warns of each difference once.

    An engine makes its prompts itself: it knows neither the system message nor the template of the index.

    Args:
        tokenizer: Tokenizer of the engine's model; None: nothing is compared.
    """

    def __init__(self, tokenizer: TaskTokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._said: set[str] = set()
        self._origin, self._system, self._left = "", "", 0

    def begin(self, index: TaskIndex | None) -> None:
        """Compare with the notes of this index from now on."""
        self._left = 0
        if index is None or self._tokenizer is None:
            return
        notes, template = PromptNotes.of_index(index), self._tokenizer.chat_template
        if template is not None and notes.template not in (None, template.digest):
            self._warn(
                f"{notes.origin} was made with another chat template than the tokenizer's: its outputs may begin and "
                "end in another way; make it again with this tokenizer"
            )
        if notes.system:
            self._origin, self._system, self._left = notes.origin, notes.system, _LOOKED_AT

    def look(self, prompt: Sequence[int] | NDArray[Any]) -> None:
        """Look for the system message in a prompt, until one has it or several have not."""
        if self._left == 0 or self._tokenizer is None:
            return
        text = self._tokenizer.tokenizer.decode([int(token) for token in prompt], skip_special_tokens=False)
        found = without_blanks(self._system) in without_blanks(text)
        self._left = 0 if found else self._left - 1
        if not found and self._left == 0:
            self._warn(
                f"none of the first {_LOOKED_AT} prompts has the system message that {self._origin} was made with, "
                f"{shown_system(self._system)}: drafts fit better if requests begin with it"
            )

    def _warn(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            _log.warning("%s", line)


class PromptDefaults:
    """System message of a model's prompts by default: the one that the model was tuned with, or else its index.

    Prompts that differ from these notes are named in a warning, each difference once.

    Args:
        notes: Notes in the order of preference.
        tokenizer: transformers tokenizer of the model.
    """

    def __init__(self, notes: Sequence[PromptNotes], tokenizer: Any) -> None:
        self._notes = notes
        self._compared: set[str | None] = set()
        chosen = _with_system(notes)
        self.system = None if chosen is None else chosen.system
        template = ChatTemplate.of(tokenizer)
        for one in notes:
            if template is not None and one.template not in (None, template.digest):
                _log.warning(
                    "%s was made with another chat template than the tokenizer's: its outputs may begin and end in "
                    "another way; make it again with this tokenizer",
                    one.origin,
                )
        if chosen is not None:
            self.compare(self.system)

    @classmethod
    def of(cls, model: str, tokenizer: Any, index: TaskIndex | None) -> PromptDefaults:
        """Return the defaults of a model, by folder or hub name, and an index, if there is one."""
        return cls(_notes_of(model, index), tokenizer)

    def choose(self, system: str | None) -> str | None:
        """Return the system message of a call: the given one ("" for none), or else the one by default."""
        if system is None:
            return self.system
        self.compare(system)
        return system

    def compare(self, system: str | None) -> None:
        """Warn if prompts begin with another system message than those that a model or an index was made with."""
        if system in self._compared:
            return
        self._compared.add(system)
        for one in self._notes:
            if (one.system or one.knows_system) and (system or None) != one.system:
                _log.warning("prompts have %s, but %s was made with %s", _named(system), one.origin, _named(one.system))


def _named(system: str | None) -> str:
    if not system:
        return "no system message"
    return f"the system message {shown_system(system)}"


def shown_system(system: str) -> str:
    """Return the beginning of a system message as a warning shows it."""
    return repr(system[:_SHOWN] + "…" * (len(system) > _SHOWN))
