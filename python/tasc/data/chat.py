"""Conversations as a chat template renders them: the prompt, and the output as the model emits it.

An engine renders the turns before an answer with the generation prompt, and the model goes on from there. So the output
of a row with `messages` is the rendered conversation without its rendered prompt: with tool calls, reasoning and an
empty think block where the template writes them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from tasc.data.endings import FindFile, read_settings
from tasc.errors import CorpusError, InputError, import_optional

if TYPE_CHECKING:
    from tasc.data.tokenizer import TaskTokenizer

Message: TypeAlias = dict[str, Any]
"""A turn: `role`, `content`, and `tool_calls` and `reasoning_content` where known."""

TEMPLATE_FILE = "chat_template.jinja"
"""File of a model's chat template; older models have it in tokenizer_config.json."""

TOOL_TEMPLATE_FILE = "additional_chat_templates/tool_use.jinja"
"""File of the chat template for conversations with tools, where that is another one."""

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SYSTEM_ROLES = ("system", "developer")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_EMPTY_THINK_BLOCK = re.compile(r"<think>\s*</think>\s*\Z")
_SHOWN = 40  # characters of a row's question in an error


@dataclass(frozen=True)
class ChatTemplate:
    """Chat template of a tokenizer, in Jinja; transformers renders it.

    Examples:
        >>> source = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
        >>> template = ChatTemplate(source, {"eos_token": "#"})
        >>> template.render([{"role": "user", "content": "Hi"}])
        'Hi#'
    """

    source: str | dict[str, str] = field(repr=False, hash=False)
    """The template; or several by name, of which `tool_use` is for conversations with tools."""
    special_tokens: dict[str, str] = field(default_factory=dict, repr=False, hash=False)
    """Texts of special tokens by the names that the template uses, such as `bos_token`."""

    @classmethod
    def find(cls, find: FindFile) -> ChatTemplate | None:
        """Read the template from a model's files; None if the model has none."""
        settings = [read_settings(find, name) for name in ("tokenizer_config.json", "special_tokens_map.json")]
        file, tools = find(TEMPLATE_FILE), find(TOOL_TEMPLATE_FILE)
        source = settings[0].get("chat_template") if file is None else file.read_text(encoding="utf-8")
        if isinstance(source, list):
            source = {str(one["name"]): str(one["template"]) for one in source}
        if isinstance(source, str) and tools is not None:
            source = {"default": source, "tool_use": tools.read_text(encoding="utf-8")}
        if not isinstance(source, str | dict):
            return None
        named = {name: token for one in reversed(settings) for name, token in one.items() if name in _SPECIAL_TOKENS}
        texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in named.items()}
        return cls(source, {name: text for name, text in texts.items() if isinstance(text, str)})

    @classmethod
    def of(cls, tokenizer: Any) -> ChatTemplate | None:
        """Return the template of a transformers tokenizer; None if it has none."""
        source = getattr(tokenizer, "chat_template", None)
        if source is None:
            return None
        tokens = getattr(tokenizer, "special_tokens_map", {})
        return cls(source, {name: str(tokens[name]) for name in _SPECIAL_TOKENS if tokens.get(name) is not None})

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits: SHA-256 of the template, without special tokens."""
        return template_digest(self.source)

    def render(
        self, messages: Sequence[Message], *, tools: Any = None, add_generation_prompt: bool = False, **settings: Any
    ) -> str:
        """Render a conversation as text.

        Args:
            messages: Its turns.
            tools: JSON schemas of the tools that the model may call.
            add_generation_prompt: Whether the text ends with the beginning of the assistant's turn.
            settings: Further names that the template knows, such as `enable_thinking`.

        Raises:
            InputError: The template refuses the conversation.
            MissingExtraError: transformers is not installed.
        """
        renderer = self._renderer
        try:
            text: str = renderer.apply_chat_template(
                list(messages), tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False, **settings
            )
        except Exception as error:  # templates refuse roles, orders and contents with exceptions of any type
            why = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"is refused by the tokenizer's chat template ({why})") from error
        return text

    @cached_property
    def _renderer(self) -> Any:
        """A transformers tokenizer without a vocabulary."""
        from tokenizers import Tokenizer, models

        transformers = import_optional("transformers", "hf")
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.BPE()), chat_template=self.source, **self.special_tokens
        )


def template_digest(source: str | dict[str, str]) -> str:
    """SHA-256 of a template, or of several by name, in hex."""
    text = source if isinstance(source, str) else json.dumps(source, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row's conversation as text: the prompt that an engine gives to the model, and what follows it."""

    prompt: str
    output: str


CHAT_FIELDS = ("messages", "tools", "chat_template_kwargs")
"""Fields of a row that a chat template takes."""


def row_prompt(row: Mapping[str, Any], system: str | None = None) -> dict[str, Any]:
    """Return the arguments of `ChatTemplate.render` for the prompt of a row with `messages`.

    Args:
        row: `messages`, with or without the answer, and `tools` and `chat_template_kwargs` where there are any.
        system: System message of a conversation that begins with none.

    Raises:
        InputError: `messages` are no conversation.

    Examples:
        >>> row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
        >>> row_prompt(row, system="Be brief.")["messages"]
        [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi'}]
    """
    messages = conversation(row["messages"], system)
    turns = messages[:-1] if messages[-1].get("role") == "assistant" else messages
    settings, tools = (_decoded(row.get(name)) for name in ("chat_template_kwargs", "tools"))
    if not isinstance(settings or {}, Mapping):
        raise InputError(f"has chat_template_kwargs that are {type(settings).__name__}, they must be an object")
    return {**(settings or {}), "messages": turns, "tools": tools or None, "add_generation_prompt": True}


def render_row(template: ChatTemplate, row: Mapping[str, Any], system: str | None = None) -> Rendered:
    """Render the conversation of a row.

    Args:
        template: Template of the model's tokenizer.
        row: As for `row_prompt`.
        system: As for `row_prompt`.

    Raises:
        InputError: `messages` are no conversation, the template refuses it, or it does not tell what the model emits:
            the rendered conversation does not begin with the rendered prompt.

    Examples:
        >>> template = ChatTemplate(
        ...     "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        ...     "{% if add_generation_prompt %}<assistant>{% endif %}"
        ... )
        >>> row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
        >>> render_row(template, row)
        Rendered(prompt='<user>Hi<assistant>', output='Hello.')
    """
    messages = conversation(row["messages"], system)
    if messages[-1].get("role") != "assistant":
        raise InputError("has messages that do not end with a turn of the assistant, which is the output")
    turns = row_prompt(row, system)
    prompt = template.render(**turns)
    turns["add_generation_prompt"] = False
    whole = template.render(**{**turns, "messages": messages})
    answer = {name: value for name, value in messages[-1].items() if name != "tool_calls"}
    if "tool_calls" in messages[-1] and whole == template.render(**{**turns, "messages": [*messages[:-1], answer]}):
        raise InputError("has tool calls, which the chat template leaves out; give the row as `input` and `output`")
    if whole.startswith(prompt):
        return Rendered(prompt, whole[len(prompt) :])
    # A generation prompt may have an empty think block where the rendered answer has none: the answer follows it.
    block = _EMPTY_THINK_BLOCK.search(prompt)
    reasons = any(map(answer.get, _REASONING)) or "</think>" in answer["content"]
    if block is not None and not reasons and whole.startswith(prompt[: block.start()]):
        return Rendered(prompt, whole[block.start() :])
    # Some templates put other blanks around the end of the last turn than between turns.
    before = template.render(**turns)
    generation_prompt = prompt[len(before) :] if prompt.startswith(before) else ""
    start = whole.rfind(generation_prompt)
    if generation_prompt and start >= 0 and without_blanks(whole[:start]) == without_blanks(before):
        return Rendered(prompt, whole[start + len(generation_prompt) :])
    raise InputError(
        f"has an answer that cannot follow its prompt: the chat template ends the prompt with {prompt[-_SHOWN:]!r} and "
        "does not write this before the answer; add the answer's `reasoning_content` if the model reasons, or give the "
        "row as `input` and `output`"
    )


def _decoded(value: Any) -> Any:
    """Return JSON that a table holds as text, or any other value as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def without_blanks(text: str) -> str:
    """Return a text without white space: templates differ in it."""
    return "".join(text.split())


def conversation(messages: Any, system: str | None = None) -> list[Message]:
    """Return turns in the form that engines give to templates.

    Contents are text, and arguments of tool calls are objects, as in vLLM; APIs give parts of a content, and arguments
    as JSON text.

    Args:
        messages: The turns, as a row or a request has them.
        system: System message of a conversation that begins with none.

    Raises:
        InputError: `messages` are no conversation, or one is not text.

    Examples:
        >>> conversation([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}])
        [{'role': 'user', 'content': 'Hi'}]
    """
    if not isinstance(messages, list | tuple) or not messages or not all(isinstance(one, Mapping) for one in messages):
        raise InputError("has messages that are no list of turns like {'role': 'user', 'content': 'text'}")
    turns = []
    for one in messages:
        known = {name: value for name, value in one.items() if not _is_nothing(value)}
        turns.append({**known, "content": _content(one.get("content"))})
        if "tool_calls" in known:
            turns[-1]["tool_calls"] = [_tool_call(call) for call in known["tool_calls"]]
    if system and turns[0].get("role") not in _SYSTEM_ROLES:
        turns.insert(0, {"role": "system", "content": system})
    return turns


def _content(content: Any) -> str:
    if content is None:  # beside tool calls
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise InputError(f"has a message whose content is not text but {type(content).__name__}")
    return "\n".join(map(_part_text, content))


def _part_text(part: Any) -> str:
    text, kind = (part.get("text"), part.get("type", "text")) if isinstance(part, Mapping) else (part, "text")
    if not isinstance(text, str) or not str(kind).endswith("text"):  # `text`, OpenAI's `input_text` and `output_text`
        raise InputError(f"has a message whose content is not text: it has a part of type {kind!r}")
    return text


def _is_nothing(value: Any) -> bool:
    """Whether a field is given as nothing, as APIs give `tool_calls`."""
    return value is None or (isinstance(value, list) and not value)


def _tool_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments", ""), str):
        return call
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:  # what the model said was no JSON
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def user_text(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the text of the last user message; None without one."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            listed = content if isinstance(content, (list, tuple)) else ()
            parts = [part.get("text") if isinstance(part, Mapping) else part for part in listed]
            return "\n".join(text for text in parts if isinstance(text, str)) or None
    return None


def system_text(row: Mapping[str, Any]) -> str | None:
    """Return the system message that the conversation of a row begins with; None without one."""
    first = row["messages"][0]
    return _content(first.get("content")) if first.get("role") in _SYSTEM_ROLES else None


def render_rows(
    template: ChatTemplate | None, rows: Iterable[Mapping[str, Any]], system: str | None = None
) -> Iterator[str | Rendered]:
    """Yield the output of each row: rendered where the row has `messages` and there is a template, else its `output`.

    Raises:
        CorpusError: As `render_row`, naming the row.
    """
    for number, row in enumerate(rows, start=1):
        if template is None or not row.get("messages"):
            yield row["output"]
            continue
        try:
            yield render_row(template, row, system)
        except InputError as error:
            asked = str(row.get("input") or "")
            shown = f" ({asked[:_SHOWN]!r})" if asked else ""
            raise CorpusError(f"row {number}{shown} {error}") from error


def encode_outputs(task: TaskTokenizer, outputs: Sequence[str | Rendered]) -> list[list[int]]:
    """Return the ids of outputs in base tokens, each with the end token as the model emits it.

    A rendered output ends with the first token of `stop_ids`, or else with an end token that only blanks follow; the
    model does not emit these blanks. Other outputs get the tokenizer's `eos_id`, if there is one.

    Args:
        task: Tokenizer of the model.
        outputs: (N,) outputs of `render_rows`.

    Returns:
        (N,) lists of ids.
    """
    end = [] if task.eos_id is None else [task.eos_id]
    alone = task.encode_batch([one.output if isinstance(one, Rendered) else one for one in outputs])
    wholes = iter(task.encode_batch([one.prompt + one.output for one in outputs if isinstance(one, Rendered)]))
    found = []
    for ids, prompt in zip(alone, encode_prompts(task, outputs), strict=True):
        if prompt is None:
            found.append(ids + end)
            continue
        whole = next(wholes)
        # Where a token spans the border, the model cannot emit it, and the output is tokenized alone.
        ids = whole[len(prompt) :] if whole[: len(prompt)] == prompt else ids
        found.append(_until_end(task, ids) or ids + end)
    return found


def output_texts(task: TaskTokenizer, rows: Iterable[Mapping[str, Any]], system: str | None = None) -> list[str]:
    """Return the output of each row as text without special tokens, as decoders return it.

    Raises:
        CorpusError: As `render_row`, naming the row.
    """
    outputs = list(render_rows(task.chat_template, rows, system))
    ids = iter(encode_outputs(task, [one for one in outputs if isinstance(one, Rendered)]))
    return [task.decode(next(ids)) if isinstance(one, Rendered) else one for one in outputs]


def encode_prompts(task: TaskTokenizer, outputs: Sequence[str | Rendered]) -> list[list[int] | None]:
    """Return the ids of the rendered prompts; None for outputs that were not rendered."""
    ids = iter(task.encode_batch([one.prompt for one in outputs if isinstance(one, Rendered)]))
    return [next(ids) if isinstance(one, Rendered) else None for one in outputs]


def _until_end(task: TaskTokenizer, ids: list[int]) -> list[int] | None:
    """Return the ids up to the end token; None if there is none."""
    stop = next((k for k, token in enumerate(ids) if token in task.stop_ids), None)
    last = max((k for k, token in enumerate(ids) if token in task.end_ids), default=None) if stop is None else stop
    if last is None or (stop is None and task.tokenizer.decode(ids[last + 1 :], skip_special_tokens=False).strip()):
        return None
    return ids[: last + 1]
