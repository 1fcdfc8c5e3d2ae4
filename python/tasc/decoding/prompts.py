"""Conversion of prompts (texts, chat messages, token ids) to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jinja2 import TemplateError

from tasc.errors import InputError, PromptError

Prompt: TypeAlias = "str | Sequence[int] | Sequence[Mapping[str, str]] | np.ndarray[Any, Any]"
"""A string, token ids, or a list of chat messages `{"role": …, "content": …}`."""


def prompt_ids(
    tokenizer: Any, inputs: Sequence[str] | None, prompts: Sequence[Prompt] | None, system: str | None
) -> list[list[int]]:
    """Return the token ids of a call's prompts.

    Args:
        tokenizer: transformers tokenizer; may be None if all prompts are ids.
        inputs: User texts. Each becomes the user message of the tokenizer's chat template, after `system`. A tokenizer
            without a chat template gets the text and a newline.
        prompts: Complete prompts. Strings are tokenised unchanged, with the tokenizer's own special tokens.
        system: System message before each of `inputs`.

    Raises:
        InputError: Both or neither of `inputs` and `prompts` are given, or a string is given instead of a list.
        PromptError: A prompt has no token, or it cannot be tokenized.
    """
    if (inputs is None) == (prompts is None):
        raise InputError("give either inputs= (user texts) or prompts= (strings, ids or messages), not both or neither")
    for name, value in (("inputs", inputs), ("prompts", prompts)):
        if isinstance(value, str):
            raise InputError(f"{name}= is one string; give a list: {name}=[{value[:20]!r}]")
    if inputs is None and system is not None:
        raise InputError("system= goes with inputs=; put it into the messages or strings of prompts= yourself")
    rows: list[list[int]] = []
    for number, prompt in enumerate(prompts or () if inputs is None else inputs):
        try:
            rows.append(_of_prompt(tokenizer, prompt) if inputs is None else _of_input(tokenizer, prompt, system))
        except (InputError, TemplateError) as error:
            raise PromptError(number, f"cannot be tokenized: {error}") from error
        if not rows[-1]:
            raise PromptError(number, "has no token; give at least one, such as the tokenizer's BOS")
    return rows


def known_inputs(inputs: Sequence[str] | None, prompts: Sequence[Prompt] | None) -> list[str | None]:
    """Return the input's text of each prompt: `inputs` themselves, the last user message of a chat, else None."""
    if inputs is not None:
        return list(inputs)
    return [
        user_text([m for m in prompt if isinstance(m, Mapping)]) if _is_chat(prompt) else None
        for prompt in prompts or ()
    ]


def user_text(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the text of the last user message; None without one."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            parts = [part.get("text") for part in content or () if isinstance(part, Mapping)]
            return "\n".join(text for text in parts if isinstance(text, str)) or None
    return None


def _is_chat(prompt: Prompt) -> bool:
    return not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Mapping)


def _of_input(tokenizer: Any, text: Any, system: str | None) -> list[int]:
    if not isinstance(text, str):
        raise InputError(f"inputs= takes strings, got {type(text).__name__}; give ids or messages as prompts=")
    if getattr(tokenizer, "chat_template", None) is None:
        return _tokenized(tokenizer, (f"{system}\n" if system else "") + text + "\n")
    messages = [{"role": "system", "content": system}] if system is not None else []
    return _of_messages(tokenizer, [*messages, {"role": "user", "content": text}])


def _of_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        return _tokenized(tokenizer, prompt)
    if _is_chat(prompt):
        return _of_messages(tokenizer, list(prompt))
    ids = np.asarray(prompt)
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise InputError(
            f"a prompt is a string, a list of ids or a list of messages; got {ids.ndim}-dimensional {ids.dtype}"
        )
    return [int(token) for token in ids]


def _of_messages(tokenizer: Any, messages: list[Any]) -> list[int]:
    if getattr(tokenizer, "chat_template", None) is None:
        raise InputError("the tokenizer has no chat template; give strings or ids, or set tokenizer.chat_template")
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(ids)


def _tokenized(tokenizer: Any, text: str) -> list[int]:
    if tokenizer is None:
        raise InputError("a prompt is text but there is no tokenizer; give one to Generator(model, tokenizer)")
    return list(tokenizer(text)["input_ids"])
