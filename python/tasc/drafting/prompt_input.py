"""Locates the input inside a prompt: the part between the prefix and the suffix that all prompts of a task share.

Drafters retrieve similar rows for the input and copy from it. They must not see the system prompt or few-shot examples
as input. `PromptInputFinder` finds the input in prompts that are given as token ids.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc.data.ids import as_ids, common_prefix_length

if TYPE_CHECKING:
    from tasc._core import TaskIndex
    from tasc.data import TaskTokenizer

Ids: TypeAlias = NDArray[np.uint32]
"""(L,) token ids."""

PROBE_INPUTS = ("Cedar 7", "(olive)?", '12 "x"', "北京", "no.\nyes!")
"""Inputs that a template is rendered with. They begin and end in different ways, because a token that merges with the
start or end of an input belongs to the input."""

MAX_AFFIX_TOKENS = 1 << 16
"""Longest prefix and longest suffix that are learnt, in tokens."""

MIN_SUPPORT = 8
"""Number of matching prompts after which a learnt template is trusted, and of successive outliers that replace it."""

_MAX_CHANCE_MATCH = 16  # tokens that inputs may share by chance: "show me flights from"
_WORD_CONTEXT = 8  # tokens decoded on each side of a cut
_MAX_WORD_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Template:
    """Prompt template: the ids before and after the input.

    Attributes:
        prefix: (P,) ids before the input.
        suffix: (S,) ids after the input, up to the end of the prompt.
        anchored: Whether the prompt must begin with `prefix`; otherwise the last occurrence of `prefix` is used.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    anchored: bool = True

    @classmethod
    def rendered(cls, render: Callable[[str], Sequence[int]]) -> Template:
        """Return the template of a function that renders an input to prompt ids."""
        prompts = [as_ids(render(text)) for text in PROBE_INPUTS]
        return cls(tuple(_common_prefix(prompts).tolist()), tuple(_common_suffix(prompts).tolist()))

    def bounds(self, prompt: Ids) -> tuple[int, int] | None:
        """Return the input's (start, end) in a prompt; None if the prompt does not match the template.

        Examples:
            >>> Template((1, 2), (9,)).bounds(np.array([1, 2, 5, 6, 9], np.uint32))
            (2, 4)
        """
        end = len(prompt) - len(self.suffix)
        if end < len(self.prefix) or tuple(prompt[end:].tolist()) != self.suffix:
            return None
        positions = [0] if self.anchored or not self.prefix else np.flatnonzero(prompt[:end] == self.prefix[0])[::-1]
        for position in map(int, positions):
            start = position + len(self.prefix)
            if start <= end and tuple(prompt[position:start].tolist()) == self.prefix:
                return start, end
        return None


def chat_delimiters(tokenizer: Any) -> Template | None:
    """Return the ids before and after the last user message in prompts of the tokenizer's chat template.

    Args:
        tokenizer: transformers tokenizer.

    Returns:
        An unanchored template. None without a chat template, or if no special token precedes a user message alone:
        some templates put the system message inside the user message.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    histories: list[list[dict[str, str]]] = [
        [],
        [{"role": "system", "content": "Be brief."}],
        [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}],
    ]
    templates = [found for history in histories if (found := _chat_template(tokenizer, history)) is not None]
    if not templates:
        return None
    prefix = _common_suffix([as_ids(template.prefix) for template in templates]).tolist()
    suffixes = {template.suffix for template in templates}
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    if len(suffixes) > 1 or not special.intersection(prefix):
        return None
    first = next(k for k, token in enumerate(prefix) if token in special)
    return Template(tuple(prefix[first:]), suffixes.pop(), anchored=False)


def _chat_template(tokenizer: Any, history: list[dict[str, str]]) -> Template | None:
    """Return the template of a user message after a history; None if the chat template rejects the history."""

    def render(text: str) -> list[int]:
        messages = [*history, {"role": "user", "content": text}]
        return list(
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        )

    try:
        return Template.rendered(render)
    except Exception:  # templates reject roles and orders with exceptions of any type
        return None


class PromptInputFinder:
    """Finds the input in the prompts of one task, which are given as token ids.

    There are four cases:

    - A recorded template: the input lies between its prefix and its suffix.
    - An index that was built from whole prompts: `TaskIndex.find_input` finds the input, from the first prompt on.
    - No template: the longest common prefix and suffix of all prompts so far are learnt as the template, from the
      second prompt on. They get shorter with more prompts. The input is widened to whole words.
    - Delimiters of a chat template: the input is the last user message, from the first prompt on. After `MIN_SUPPORT`
      prompts, the part that all messages share at their start or end is cut off if it is longer than 16 tokens.
      Instructions and examples inside the message are cut off this way; a shared "show me flights from" is not.

    After `MIN_SUPPORT` matching prompts a learnt template is trusted. A prompt that shares almost none of its prefix is
    then an outlier and is ignored. After `MIN_SUPPORT` outliers in a row a new template is learnt.

    Memory is one prefix and one suffix of at most `MAX_AFFIX_TOKENS` ids. All methods are thread-safe.

    Args:
        tokenizer: Decodes the input's text.
        template: A recorded template; nothing is learnt then.
        delimiters: Delimiters of a user message, see `chat_delimiters`.

    Examples:
        >>> from tokenizers import Tokenizer, models
        >>> from tasc.data import load_tokenizer
        >>> words = {"Order": 0, ":": 1, "two": 2, "teas": 3, ".": 4}
        >>> finder = PromptInputFinder(load_tokenizer(Tokenizer(models.WordLevel(words))), Template((0, 1), (4,)))
        >>> finder.find([[0, 1, 2, 3, 4], [0, 3, 4]])
        ['two teas', None]
    """

    def __init__(
        self, tokenizer: TaskTokenizer, template: Template | None = None, *, delimiters: Template | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._delimiters = delimiters
        self._prefix: Ids | None = None
        self._suffix: Ids | None = None
        self._support = 0
        self._outliers = 0
        self._lock = threading.Lock()

    @property
    def template(self) -> Template | None:
        """The recorded or the learnt template; None before the second prompt."""
        if self._template is not None:
            return self._template
        if self._prefix is None or self._suffix is None or self._support < 2:
            return None
        return Template(tuple(self._prefix.tolist()), tuple(self._suffix.tolist()))

    def find(self, prompts: Iterable[Sequence[int]], index: TaskIndex | None = None) -> list[str | None]:
        """Learn from the prompts of a call, then find the input of each.

        Args:
            prompts: (N,) sequences of (L,) token ids.
            index: The index that drafts come from. Its template of prompts goes before what is learnt here.

        Returns:
            (N,) texts; None if the input is not known or blank.
        """
        arrays = [as_ids(prompt) for prompt in prompts]
        with self._lock:
            if self._template is None:
                for prompt in arrays:
                    self._learn(prompt)
            return [self._find(prompt, index) for prompt in arrays]

    def _find(self, prompt: Ids, index: TaskIndex | None) -> str | None:
        if self._template is not None:
            bounds = self._template.bounds(prompt)
        else:
            message = None if self._delimiters is None else self._delimiters.bounds(prompt)
            found = self._indexed_input(prompt, message, index)
            if found is not None:
                return found
            bounds = self._learnt_bounds(prompt)
            if message is not None:
                bounds = _narrowed(message, bounds) if bounds and self._support >= MIN_SUPPORT else message
        if bounds is None:
            return None
        text = self._tokenizer.decode(prompt[bounds[0] : bounds[1]])
        return text if text.strip() else None

    def _indexed_input(self, prompt: Ids, message: tuple[int, int] | None, index: TaskIndex | None) -> str | None:
        """Return the input by the index's template of prompts, in the last user message or in the whole prompt."""
        if index is None or index.input_template is None:
            return None
        parts = [prompt] if message is None else [prompt[message[0] : message[1]], prompt]
        texts = chain((self._tokenizer.decode(part) for part in parts), (self._text(part) for part in parts))
        return next((found for text in texts if (found := index.find_input(text)) is not None), None)

    def _learn(self, prompt: Ids) -> None:
        """Shorten the template to what it has in common with one more prompt, unless the prompt is an outlier."""
        if self._prefix is None or self._suffix is None:
            self._prefix, self._suffix = prompt[:MAX_AFFIX_TOKENS].copy(), prompt[-MAX_AFFIX_TOKENS:].copy()
            self._support, self._outliers = 1, 0
            return
        prefix, suffix = _common_prefix([self._prefix, prompt]), _common_suffix([self._suffix, prompt])
        lost = len(self._prefix) - len(prefix)
        if self._support >= MIN_SUPPORT and lost > max(_MAX_CHANCE_MATCH, len(prefix)):
            self._outliers += 1
            if self._outliers == MIN_SUPPORT:
                self._prefix = self._suffix = None
                self._learn(prompt)
            return
        self._prefix, self._suffix = prefix, suffix
        self._support, self._outliers = self._support + 1, 0

    def _learnt_bounds(self, prompt: Ids) -> tuple[int, int] | None:
        """Return the input's bounds by the learnt template, widened to whole words."""
        if self._prefix is None or self._suffix is None or self._support < 2:
            return None
        start, end = len(self._prefix), len(prompt) - len(self._suffix)
        if not np.array_equal(prompt[:start], self._prefix) or not np.array_equal(prompt[max(0, end) :], self._suffix):
            return None
        if start >= end:  # prefix and suffix overlap: this prompt has no part of its own
            return None
        for cut in range(start, max(0, start - _MAX_WORD_TOKENS), -1):
            if not self._within_word(prompt, cut):
                break
            start = cut - 1
        for cut in range(end, min(len(prompt), end + _MAX_WORD_TOKENS)):
            if not self._within_word(prompt, cut):
                break
            end = cut + 1
        return start, end

    def _within_word(self, prompt: Ids, cut: int) -> bool:
        """Whether a cut is inside a word or a character."""
        before, after = prompt[max(0, cut - _WORD_CONTEXT) : cut], prompt[cut : cut + _WORD_CONTEXT]
        left = self._text(before)
        both = self._text(np.concatenate([before, after]))
        if not both.startswith(left):
            return True
        return left[-1:].isalnum() and both[len(left) :][:1].isalnum()

    def _text(self, ids: Ids) -> str:
        """Decode ids with special tokens, which separate words."""
        text: str = self._tokenizer.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        return text


def template_in_words(index: TaskIndex, tokenizer: TaskTokenizer) -> str | None:
    """Say where the input is in the prompts that an index was built from; None if its rows' inputs were no prompts.

    Args:
        index: The index.
        tokenizer: Its tokenizer.
    """
    template = index.input_template
    if template is None:
        return None
    before, after = (len(tokenizer.encode(template[side])) for side in ("before", "after"))
    start = f"the last {template['before']!r}" if template["repeated"] else f"{before:,} tokens that all prompts share"
    end = f" and precedes {after:,} tokens that all prompts share"
    return f"the input is what follows {start}{end if after else ''}"


def _narrowed(message: tuple[int, int], learnt: tuple[int, int]) -> tuple[int, int]:
    """Cut off what all messages share at their start and end, where it is longer than a chance match."""
    start = learnt[0] if learnt[0] - message[0] > _MAX_CHANCE_MATCH else message[0]
    end = learnt[1] if message[1] - learnt[1] > _MAX_CHANCE_MATCH else message[1]
    return (start, end) if start < end else message


def _common_prefix(prompts: Sequence[Ids]) -> Ids:
    return prompts[0][: min(common_prefix_length(prompts[0], prompt) for prompt in prompts)]


def _common_suffix(prompts: Sequence[Ids]) -> Ids:
    return _common_prefix([prompt[::-1] for prompt in prompts])[::-1]
