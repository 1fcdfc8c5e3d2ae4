"""Conversion of prompts (texts, chat messages, token ids) to token ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tasc.data.chat import conversation, row_prompt, user_text
from tasc.data.ids import as_ids
from tasc.errors import InputError, PromptError
from tasc.printable import a_type

Prompt: TypeAlias = "str | Sequence[int] | Sequence[Mapping[str, str]] | np.ndarray[Any, Any]"
"""A string, token ids, or a list of chat messages `{"role": …, "content": …}`."""

Input: TypeAlias = "str | Mapping[str, Any]"
"""A user's text; or a row: `messages`, and `tools` and `chat_template_kwargs` where there are any, or an `input`.

An answer at the end of `messages` is left out.
"""


def prompt_ids(
    tokenizer: Any, inputs: Sequence[Input] | None, prompts: Sequence[Prompt] | None, system: str | None
) -> list[list[int]]:
    """Return the token ids of a call's prompts.

    Args:
        tokenizer: transformers tokenizer; may be None if all prompts are ids.
        inputs: User texts and rows. A text becomes the user message of the tokenizer's chat template, after
            `system`. A tokenizer without a chat template gets the text and a newline.
        prompts: Complete prompts. Strings are tokenised unchanged, with the tokenizer's own special tokens.
        system: System message before each of `inputs` that does not begin with one; "": none.

    Raises:
        InputError: Both or neither of `inputs` and `prompts` are given, or one of them is no list.
        PromptError: A prompt cannot be used; the message names it.
    """
    if (inputs is None) == (prompts is None):
        raise InputError("give either inputs= (user texts) or prompts= (strings, ids or messages), not both or neither")
    name, given = ("inputs", inputs) if prompts is None else ("prompts", prompts)
    if isinstance(given, str):
        raise InputError(f"{name}= is one string; give a list: {name}=[{given[:20]!r}]")
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Collection):
        raise InputError(f"{name}= is {type(given).__name__}; give a list")
    if hasattr(given, "columns"):  # the items of a DataFrame are the names of its columns
        raise InputError(f"{name}= is {a_type(given)}; give a list: {name}=table[column].tolist()")
    if isinstance(given, Sequence) and given and all(isinstance(one, Mapping) and "role" in one for one in given):
        raise InputError(f"{name}= is one list of messages; give a list of such lists: prompts=[messages]")
    if prompts is not None and system is not None:
        raise InputError("system= goes with inputs=; put it into the messages or strings of prompts= yourself")
    if not isinstance(system, str | None):
        raise InputError(f"system= is {type(system).__name__}; give a string")
    rows = []
    for number, prompt in enumerate(given):
        try:
            ids = _of_input(tokenizer, prompt, system) if prompts is None else _of_prompt(tokenizer, prompt)
        except InputError as error:
            raise PromptError(number, str(error)) from error
        if not ids:
            raise PromptError(number, "has no token; give at least one, such as the tokenizer's BOS")
        rows.append(ids)
    return rows


def known_inputs(inputs: Sequence[Input] | None, prompts: Sequence[Prompt] | None) -> list[str | None]:
    """Return the input's text of each prompt: the user's text, the last user message of a chat, else None."""
    if inputs is not None:
        return [one if isinstance(one, str) else _known_input(one) for one in inputs]
    return [
        user_text([m for m in prompt if isinstance(m, Mapping)]) if _is_chat(prompt) else None
        for prompt in prompts or ()
    ]


def _known_input(row: Mapping[str, Any]) -> str | None:
    text = row.get("input")
    return text if isinstance(text, str) else user_text(row.get("messages") or ())


def _is_chat(prompt: Prompt) -> bool:
    return isinstance(prompt, (list, tuple)) and len(prompt) > 0 and isinstance(prompt[0], Mapping)


def _of_input(tokenizer: Any, text: Any, system: str | None) -> list[int]:
    if isinstance(text, Mapping):
        has_template = getattr(tokenizer, "chat_template", None) is not None
        if text.get("messages") and (has_template or "input" not in text):
            settings = row_prompt(text, system)
            return _of_messages(tokenizer, settings.pop("messages"), **settings)
        text = text.get("input", text)
    if not isinstance(text, str):
        raise InputError(f"is {type(text).__name__}, but inputs= takes strings; give ids or messages as prompts=")
    if getattr(tokenizer, "chat_template", None) is None:
        return _tokenized(tokenizer, (f"{system}\n" if system else "") + text + "\n")
    messages = [{"role": "system", "content": system}] if system else []
    return _of_messages(tokenizer, [*messages, {"role": "user", "content": text}])


def _of_prompt(tokenizer: Any, prompt: Any) -> list[int]:
    if isinstance(prompt, str):
        return _tokenized(tokenizer, prompt)
    if _is_chat(prompt):
        return _of_messages(tokenizer, conversation(prompt))
    try:
        ids: list[int] = as_ids(prompt).tolist()
    except InputError as error:
        raise InputError(f"is no string, no list of messages and no list of ids: {error}") from error
    return ids


def _of_messages(tokenizer: Any, messages: list[Any], **settings: Any) -> list[int]:
    if getattr(tokenizer, "chat_template", None) is None:
        raise InputError(
            "is a chat, but the tokenizer has no chat template; give strings or ids, or set tokenizer.chat_template"
        )
    for message in messages:
        _check_text(message.get("content") if isinstance(message, Mapping) else None)
    try:
        settings = {**settings, "add_generation_prompt": True, "tokenize": True, "return_dict": False}
        ids = tokenizer.apply_chat_template(messages, **settings)
    except Exception as error:  # templates reject roles, orders and contents with exceptions of any type
        has_system = any(isinstance(message, Mapping) and message.get("role") == "system" for message in messages)
        fix = "leave the system message out or put its text into the input" if has_system else "change the messages"
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"is refused by the tokenizer's chat template ({why}); {fix}") from error
    return list(ids)


def _tokenized(tokenizer: Any, text: str) -> list[int]:
    if tokenizer is None:
        raise InputError("is text, but there is no tokenizer; give one to Generator(model, tokenizer)")
    _check_text(text)
    return list(tokenizer(text)["input_ids"])


def _check_text(text: Any) -> None:
    """Check that a string has no lone surrogate, which no tokenizer takes."""
    try:
        _ = text.encode() if isinstance(text, str) else None
    except UnicodeEncodeError as error:
        raise InputError(
            f"is no valid text: character {error.start} is half of a surrogate pair, {text[error.start]!r}; "
            "remove it or write the whole character"
        ) from error
