"""Forms of rows: which fields of a row are its input and its output."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from tasc.data.request_logs import answered, is_logged
from tasc.errors import CorpusError

_log = logging.getLogger(__name__)

Row: TypeAlias = dict[str, Any]
"""A row of a task: `output`, and `input`, `split` and more where known."""

INPUTS = ("input", "prompt", "question")
"""Fields that may hold the input, the first one of a row counts."""

OUTPUTS = ("output", "completion", "response", "answer", "text")
"""Fields that may hold the output, the first one of a row counts."""

TURNS = {"messages": "chat messages", "conversations": "ShareGPT conversations", "prompt": "a prompt of chat messages"}
"""Fields that may hold the turns of a chat."""

_CHAT_FIELDS = ("system", "tools", "chat_template_kwargs")
_LOG_FIELDS = ("request", "response", "body", "custom_id", "error")

FIELDS = frozenset((*INPUTS, *OUTPUTS, *TURNS, *_CHAT_FIELDS, *_LOG_FIELDS, "instruction", "context", "split"))
"""All fields that may say what a row is."""

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
"""Role of a turn by the names that are used for it."""

_OPTIONS = "input_field and output_field (--input-field, --output-field)"
_BY_VALUE = frozenset((*TURNS, *_LOG_FIELDS))  # fields whose values tell what a row is, not their names alone
_QUIET = {"split", "id"}  # fields that nobody takes for an input


@dataclass(frozen=True, slots=True)
class Pair:
    """Rows with a field for the input and a field for the output.

    Args:
        input: Field with the input.
        output: Field with the output.
        instruction: Whether the field `instruction` comes before the input, as in Alpaca's rows.
    """

    input: str
    output: str
    instruction: bool = False

    def __str__(self) -> str:
        """Return what was understood, in words."""
        if self.instruction:
            return f"`instruction` and `{self.input}` are the input, `{self.output}` is the output"
        return f"`{self.input}` is the input, {self.without_input}"

    @property
    def without_input(self) -> str:
        """What was understood of rows without an input, in words."""
        return f"`{self.output}` is the output"

    def rows(self, where: str, row: Mapping[str, Any], needs_output: bool) -> Iterator[Row]:
        """Yield the row of a row of this form. It has no fields that would make a row of another form of it."""
        rest = {k: v for k, v in row.items() if k not in (self.input, self.output, "messages", "instruction")}
        parts = [_input_text(where, self.input, row.get(self.input))]
        if self.instruction:
            parts.insert(0, _input_text(where, "instruction", row["instruction"]))
            parts = [part for part in parts if part] or [None]
        if None not in parts:
            rest["input"] = "\n".join(part for part in parts if part is not None)
        if needs_output or row.get(self.output) is not None:
            rest["output"] = _output_text(where, self.output, row.get(self.output))
        yield rest


@dataclass(frozen=True, slots=True)
class Chat:
    """Rows with the turns of a chat.

    Args:
        turns: Field with the turns.
        answer: Field with the answer to the turns; None: the assistant's turns among them are the answers.
        every_turn: Whether each of the assistant's turns is a row, or only the last one.
    """

    turns: str
    answer: str | None
    every_turn: bool

    def __str__(self) -> str:
        """Return what was understood, in words."""
        which = "each assistant turn is an output" if self.every_turn else "the last assistant turn is the output"
        return f"{TURNS[self.turns]}; " + (which if self.answer is None else f"`{self.answer}` is the output")

    def rows(self, where: str, row: Mapping[str, Any], needs_output: bool) -> Iterator[Row]:
        """Yield a row for each answer: all turns up to it as `messages`, its text, and the last user turn before it."""
        turns = [_turn(f"{where}: {self.turns}[{k}]", turn) for k, turn in enumerate(_decoded(row[self.turns]))]
        rest = {k: v for k, v in row.items() if k not in (self.turns, self.answer, "input", "output")}
        if isinstance(rest.get("system"), str) and turns[0]["role"] not in ("system", "developer"):
            turns.insert(0, {"role": "system", "content": rest.pop("system")})
        if self.answer is not None and row[self.answer] is not None:
            turns += _answer(f"{where}: {self.answer}", row[self.answer])
        ends = [k for k, turn in enumerate(turns) if turn["role"] == "assistant"]
        if not ends:
            if needs_output:
                raise CorpusError(f"{where}: no turn of {self.turns!r} is the assistant's, so the row has no output")
            yield {**rest, **_last_user_turn(where, turns), "messages": turns}
        for end in ends if self.every_turn else ends[-1:]:
            output = {"output": _said(where, turns[end])}
            yield {**rest, **_last_user_turn(where, turns[:end]), **output, "messages": turns[: end + 1]}


Form: TypeAlias = Pair | Chat


class FormReader:
    """Reader of the rows of one file: its first row decides what the fields mean, and the others must agree.

    Args:
        name: Name of the file, for the line that says what was understood.
        input_field: Field with the input; None: found from the fields.
        output_field: Field with the output; None: found from the fields.
        needs_output: Whether a row without output is an error.
        every_turn: Whether each assistant turn of a chat is a row.
    """

    def __init__(
        self, name: str, input_field: str | None, output_field: str | None, needs_output: bool, every_turn: bool
    ) -> None:
        self._name = name
        self._input_field, self._output_field = input_field, output_field
        self._needs_output, self._every_turn = needs_output, every_turn
        self._form: Form | None = None
        self._fields: tuple[str, ...] | None = None  # of the row before, where its form depends on their names alone

    def rows(self, where: str, row: Mapping[str, Any]) -> Iterator[Row]:
        """Yield the rows that a row of the file stands for: one, or none, or several turns.

        Raises:
            CorpusError: The row cannot be understood, or has another form than the rows before it.
        """
        if self._form is not None and tuple(row) == self._fields:
            yield from self._made(where, row, self._form)
            return
        logged = self._input_field is None and self._output_field is None and is_logged(row)
        plain_rows = list(answered(where, row, self._leave_out)) if logged else [row]
        for plain in plain_rows:
            if logged and self._needs_output and "completion" not in plain and "response" in row:
                self._leave_out("requests without a response")
                continue
            if isinstance(self._form, Pair) and self._needs_output:
                check_fields(where, plain, {self._form.output: "output_field"})
            form = self._form_of(where, plain)
            is_first, self._form = self._form is None, self._form or form
            if form != self._form:
                raise CorpusError(
                    f"{where}: {form}, but in the rows before it {self._form}; keep rows of one form in a file, or "
                    f"name the fields with {_OPTIONS}"
                )
            for made in self._made(where, plain, form):
                if is_first:
                    self._tell(form, plain, made, logged)
                    is_first = False
                yield made
        self._fields = None if logged or _BY_VALUE & row.keys() else tuple(row)

    def _leave_out(self, what: str) -> None:
        notice(f"{self._name}: {what} are left out")

    def _made(self, where: str, row: Mapping[str, Any], form: Form) -> Iterator[Row]:
        """Yield what a row becomes, and say so once where its output is JSON."""
        yield from form.rows(where, row, self._needs_output)
        if isinstance(form, Pair) and not isinstance(row.get(form.output), str | None):
            notice(f"{self._name}: outputs that are JSON become text as json.dumps writes it")

    def _form_of(self, where: str, row: Mapping[str, Any]) -> Form:
        given = self._input_field, self._output_field
        if given == (None, None) and (turns := next((field for field in TURNS if _are_turns(row.get(field))), None)):
            last = _decoded(row[turns])[-1]
            is_answered = isinstance(last, Mapping) and ROLES.get(str(_role(last))) == "assistant"
            answer = None if is_answered else next((field for field in OUTPUTS if field in row), None)
            return Chat(turns, answer, self._every_turn)
        known = next((field for field in OUTPUTS if field in row and field != self._input_field), None)
        empty = next((field for field in ("messages", "conversations") if field in row), None)
        if given == (None, None) and known is None and empty is not None:
            said = "turns of a chat, as in [{'role': 'user', 'content': 'text'}]"
            raise CorpusError(f"{where}: field {empty!r} holds no {said}")
        output = self._output_field or known or "output"
        check_fields(where, row, {output: "output_field"} if self._needs_output or self._output_field else {})
        if self._input_field == output and (self._needs_output or self._output_field):
            raise CorpusError(
                f"{where}: field {output!r} cannot be both input and output; name another with {_OPTIONS}"
            )
        if self._input_field is not None:
            if self._input_field != "input":
                check_fields(where, row, {self._input_field: "input_field"})
            return Pair(self._input_field, output)
        if "instruction" in row and output != "instruction":
            return Pair(_first(("input", "context"), row, output), output, instruction=True)
        return Pair(_first(INPUTS, row, output), output)

    def _tell(self, form: Form, row: Mapping[str, Any], made: Row, logged: bool) -> None:
        """Say what was understood, unless the row was `{input, output}` or read before, or all fields were named."""
        if form == Pair("input", "output") or None not in (self._input_field, self._output_field):
            return
        if isinstance(form, Chat):
            if form.answer is None and "output" in row and made.get("output") == row["output"]:
                return  # read before
            said = str(form)
        else:
            said = str(form) if form.instruction or form.input in row else form.without_input
            used = {form.input, form.output, "instruction" if form.instruction else "", *_QUIET}
            unused = [field for field, value in row.items() if field not in used and isinstance(value, str)]
            said += f"; not used: {', '.join(unused)}" if unused else ""
        notice(f"{self._name}: {'requests with their responses; ' if logged else ''}{said}")


@lru_cache(maxsize=1024)
def notice(line: str) -> None:
    """Log a line, once however often the file is read."""
    _log.warning("%s", line)


def _first(fields: Sequence[str], row: Mapping[str, Any], output: str) -> str:
    """Return the first field that the row has and that is not its output; the first other one if it has none."""
    others = [field for field in fields if field != output]
    return next((field for field in others if field in row), others[0])


def check_fields(where: str, fields: Collection[str], needed: Mapping[str, str]) -> None:
    """Check that a row has some fields, given with the option that names each.

    Raises:
        CorpusError: A field is missing.
    """
    for field, option in needed.items():
        if field not in fields:
            had = ", ".join(map(repr, fields)) or "none"
            raise CorpusError(
                f"{where}: has no field {field!r}; its fields are {had}: name one as {option} "
                f"(--{option.replace('_', '-')})"
            )


def check_text(where: str, field: str, value: Any, wanted: str) -> None:
    """Check that the value of a field is text that can be encoded as UTF-8.

    Raises:
        CorpusError: It is not.
    """
    if not isinstance(value, str):
        fix = f"; write it as {json.dumps(json.dumps(value))}" if isinstance(value, int | float) else ""
        raise CorpusError(f"{where}: field {field!r} is {type(value).__name__}, it must be {wanted}{fix}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(f"{where}: field {field!r} is no valid text: {error.reason}") from error


def _input_text(where: str, field: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        value = _dumped(where, field, value)
    check_text(where, field, value, "text or null")
    return str(value)


def _output_text(where: str, field: str, value: Any) -> str:
    if isinstance(value, Mapping | list):
        value = _dumped(where, field, value)
    check_text(where, field, value, "text")
    return str(value)


def _dumped(where: str, field: str, value: Any) -> str:
    """Return JSON as text, in the order of its fields: the order in which a model writes them."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: field {field!r} cannot be written as JSON: {error}") from error


def _decoded(value: Any) -> Any:
    """Return JSON that a table holds as text, or any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _are_turns(value: Any) -> bool:
    value = _decoded(value)
    return isinstance(value, Sequence) and len(value) > 0 and all(isinstance(turn, Mapping) for turn in value)


def _role(turn: Mapping[str, Any]) -> Any:
    return turn.get("role", turn.get("from"))


def _turn(where: str, turn: Any) -> Row:
    """Return a turn `{role, content, …}`; null fields, which Arrow gives to all turns, are left out.

    The API hands over a refusal in a field of its own, in place of the content: it is what the model has said.
    """
    role = ROLES.get(str(_role(turn)))
    if role is None:
        known = ", ".join(ROLES)
        raise CorpusError(f"{where}: the role is {_role(turn)!r}; it must be one of {known}")
    rest = {k: v for k, v in turn.items() if k not in ("role", "from", "content", "value") and v is not None}
    content = turn.get("content", turn.get("value"))
    refusal = rest.pop("refusal", None)
    content = refusal if content is None else content
    call = rest.pop("function_call", None)  # before there were tools
    calls = [call] if call else []
    if _role(turn) in ("function_call", "tool_call") and not isinstance(found := _decoded(content), str | None):
        calls, content = found if isinstance(found, list) else [found], None
    if calls and not rest.get("tool_calls"):
        rest["tool_calls"] = [{"type": "function", "function": one} for one in calls]
    return {"role": role, "content": content, **rest}


def _answer(where: str, value: Any) -> list[Row]:
    """Return the turns of an answer: text, a message, or messages."""
    value = _decoded(value)
    if isinstance(value, Mapping) and "role" in value:
        value = [value]
    if _are_turns(value):
        return [_turn(where, turn) for turn in value]
    return [{"role": "assistant", "content": value if isinstance(value, str) else _dumped(where, "", value)}]


def _last_user_turn(where: str, turns: Sequence[Row]) -> Row:
    last = next((turn for turn in reversed(turns) if turn["role"] == "user"), None)
    return {} if last is None else {"input": _content(where, last)}


def _said(where: str, turn: Row) -> str:
    """Return the text of an answer; calls of tools as JSON, since a template says how a model writes them."""
    calls = [call.get("function", call) for call in turn.get("tool_calls") or [] if isinstance(call, Mapping)]
    text = [_content(where, turn)] if turn["content"] is not None or not calls else []
    return "\n".join(part for part in [*text, *(_dumped(where, "tool_calls", call) for call in calls)] if part)


def _content(where: str, turn: Row) -> str:
    """Return the text of a turn, which may come in parts."""
    content = turn["content"]
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part if isinstance(part, Mapping) else {} for part in content]
        strange = next((part for part in parts if not isinstance(part.get("text"), str)), None)
        if strange is not None:
            kind = strange.get("type", "of no type")
            raise CorpusError(f"{where}: the {turn['role']} turn has a part {kind!r}; only text can be read")
        content = "\n".join(part["text"] for part in parts)  # as engines do for templates
    check_text(where, f"{turn['role']} turn", content, "text, parts of text or null")
    return str(content)
