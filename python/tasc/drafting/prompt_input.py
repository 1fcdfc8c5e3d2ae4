"""Where a prompt holds its input: between what all prompts of a task begin with and what they all end with.

Drafts that know their input look at it alone: neither a system prompt nor few-shot examples are retrieved on or copied
from. Where a prompt comes as token ids, `PromptInputFinder` finds the input in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tasc.data import TaskTokenizer

Ids: TypeAlias = NDArray[np.uint32]
"""(L,) token ids."""

DUMMIES = ("Cedar 7", "(olive)?", '12 "x"', "北京", "no.\nyes!")
"""Inputs that a template is rendered with: they begin and end in different ways, as what is tokenised together with a
neighbour belongs to the input."""

MOST_KEPT = 1 << 16
"""Longest prefix and longest suffix, in tokens, that are learnt."""

TRUSTED = 8
"""A template that held for so many prompts is not given up for fewer that do not fit."""

_CHANCE = 16  # tokens that inputs may share by chance: "show me flights from"
_NEAR = 8  # tokens decoded on each side of a cut
_LONGEST_WORD = 64  # tokens


@dataclass(frozen=True, slots=True)
class Template:
    """What stands around the input.

    Attributes:
        prefix: (P,) ids before it.
        suffix: (S,) ids after it, up to the prompt's end.
        anchored: Whether the prompt begins with `prefix`; else its last occurrence counts.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    anchored: bool = True

    @classmethod
    def rendered(cls, render: Callable[[str], Sequence[int]]) -> Template:
        """The template of prompts that `render` makes of inputs."""
        prompts = [as_prompt(render(text)) for text in DUMMIES]
        prefix, suffix = common_prefix(prompts), common_suffix(prompts)
        return cls(tuple(prefix.tolist()), tuple(suffix.tolist()))

    def bounds(self, prompt: Ids) -> tuple[int, int] | None:
        """(first, one past the last) id of the input; None when the prompt is not made this way.

        Example:
            >>> Template((1, 2), (9,)).bounds(np.array([1, 2, 5, 6, 9], np.uint32))
            (2, 4)
        """
        end = len(prompt) - len(self.suffix)
        if end < len(self.prefix) or tuple(prompt[end:].tolist()) != self.suffix:
            return None
        places = [0] if self.anchored or not self.prefix else np.flatnonzero(prompt[:end] == self.prefix[0])[::-1]
        for place in map(int, places):
            start = place + len(self.prefix)
            if start <= end and tuple(prompt[place:start].tolist()) == self.prefix:
                return start, end
        return None


def chat_markers(tokenizer: Any) -> Template | None:
    """What stands around the last user message in the prompts of a chat template, whatever comes before it.

    Args:
        tokenizer: transformers tokenizer.

    Returns:
        None without a chat template, or with one that does not mark a user message by a special token of its own
        (some put the system message inside it).
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    before: list[list[dict[str, str]]] = [
        [],
        [{"role": "system", "content": "Be brief."}],
        [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}],
    ]
    found = [template for messages in before if (template := _chat_template(tokenizer, messages)) is not None]
    if not found:
        return None
    prefix = common_suffix([as_prompt(t.prefix) for t in found]).tolist()
    suffixes = {t.suffix for t in found}
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    if len(suffixes) > 1 or not special.intersection(prefix):
        return None
    first = next(k for k, token in enumerate(prefix) if token in special)
    return Template(tuple(prefix[first:]), suffixes.pop(), anchored=False)


def _chat_template(tokenizer: Any, before: list[dict[str, str]]) -> Template | None:
    def render(text: str) -> list[int]:
        messages = [*before, {"role": "user", "content": text}]
        return list(
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        )

    try:
        return Template.rendered(render)
    except Exception:  # templates refuse roles and orders in their own ways
        return None


class PromptInputFinder:
    """Finds the input in prompts of one task that come as ids.

    With a recorded template it is what stands between its prefix and suffix. Without one, the template is learnt: what
    all prompts so far begin and end with, widened to whole words, so that it is known from the second prompt on and
    shrinks as more come. Markers of a chat template give the last user message from the first prompt on; once `TRUSTED`
    prompts have been seen, it is narrowed by what they share at its ends, if that is longer than inputs that begin
    alike: instructions and examples inside the message. Keeps one prefix and one suffix of at most
    `MOST_KEPT` ids. Safe to use from many threads.

    Args:
        tokenizer: Tells the input's text.
        template: A recorded template; nothing is learnt then.
        markers: What marks a user message; see `chat_markers`.

    Example:
        >>> locator = PromptInputFinder(tokenizer, Template((1, 2), (9,)))  # doctest: +SKIP
        >>> locator.find([[1, 2, 5, 6, 9]])                            # doctest: +SKIP
        ['book a table']
    """

    def __init__(
        self, tokenizer: TaskTokenizer, template: Template | None = None, *, markers: Template | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._markers = markers
        self._prefix: Ids | None = None
        self._suffix: Ids | None = None
        self._seen = 0
        self._strays = 0
        self._lock = threading.Lock()

    @property
    def template(self) -> Template | None:
        """The template as it is recorded or learnt by now; None before two prompts."""
        if self._template is not None:
            return self._template
        if self._prefix is None or self._suffix is None or self._seen < 2:
            return None
        return Template(tuple(self._prefix.tolist()), tuple(self._suffix.tolist()))

    def find(self, prompts: Iterable[Sequence[int]]) -> list[str | None]:
        """Learn from the prompts of a call, then find the input of each: its text, or None where it is not known.

        Args:
            prompts: (L,) ids each.
        """
        arrays = [as_prompt(prompt) for prompt in prompts]
        with self._lock:
            if self._template is None:
                for prompt in arrays:
                    self._learn(prompt)
            return [self._find(prompt) for prompt in arrays]

    def _find(self, prompt: Ids) -> str | None:
        if self._template is not None:
            bounds = self._template.bounds(prompt)
        else:
            bounds = self._learnt(prompt)
            marked = None if self._markers is None else self._markers.bounds(prompt)
            if marked is not None:
                bounds = _narrowed(marked, bounds) if bounds is not None and self._seen >= TRUSTED else marked
        if bounds is None:
            return None
        text = self._tokenizer.decode(prompt[bounds[0] : bounds[1]])
        return text if text.strip() else None

    def _learn(self, prompt: Ids) -> None:
        """The template becomes what it has in common with one more prompt."""
        if self._prefix is None or self._suffix is None:
            self._prefix, self._suffix = prompt[:MOST_KEPT].copy(), prompt[-MOST_KEPT:].copy()
            self._seen, self._strays = 1, 0
            return
        prefix, suffix = common_prefix([self._prefix, prompt]), common_suffix([self._suffix, prompt])
        lost = len(self._prefix) - len(prefix)
        if self._seen >= TRUSTED and lost > max(_CHANCE, len(prefix)):
            self._strays += 1
            if self._strays == TRUSTED:
                self._prefix = self._suffix = None
                self._learn(prompt)
            return
        self._prefix, self._suffix = prefix, suffix
        self._seen, self._strays = self._seen + 1, 0

    def _learnt(self, prompt: Ids) -> tuple[int, int] | None:
        """Bounds by the learnt template, at whole words."""
        if self._prefix is None or self._suffix is None or self._seen < 2:
            return None
        start, end = len(self._prefix), len(prompt) - len(self._suffix)
        if not np.array_equal(prompt[:start], self._prefix) or not np.array_equal(prompt[max(0, end) :], self._suffix):
            return None
        if start >= end:  # the suffix begins within the prefix: nothing changes in this prompt
            return None
        for cut in range(start, max(0, start - _LONGEST_WORD), -1):
            if not self._within_word(prompt, cut):
                break
            start = cut - 1
        for cut in range(end, min(len(prompt), end + _LONGEST_WORD)):
            if not self._within_word(prompt, cut):
                break
            end = cut + 1
        return start, end

    def _within_word(self, prompt: Ids, cut: int) -> bool:
        """Whether a word goes on over a cut, or a character does."""
        before, after = prompt[max(0, cut - _NEAR) : cut], prompt[cut : cut + _NEAR]
        left = self._text(before)
        both = self._text(np.concatenate([before, after]))
        if not both.startswith(left):
            return True
        return left[-1:].isalnum() and both[len(left) :][:1].isalnum()

    def _text(self, ids: Ids) -> str:
        """With special tokens: words do not go on over them."""
        text: str = self._tokenizer.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        return text


def _narrowed(marked: tuple[int, int], learnt: tuple[int, int]) -> tuple[int, int]:
    """The marked part, on each side without what all prompts share there, if that is more than chance."""
    start = learnt[0] if learnt[0] - marked[0] > _CHANCE else marked[0]
    end = learnt[1] if marked[1] - learnt[1] > _CHANCE else marked[1]
    return (start, end) if start < end else marked


def common_prefix(prompts: Sequence[Ids]) -> Ids:
    """The ids that all prompts begin with."""
    shared = prompts[0]
    for prompt in prompts[1:]:
        size = min(len(shared), len(prompt))
        differ = np.flatnonzero(shared[:size] != prompt[:size])
        shared = shared[: int(differ[0]) if len(differ) else size]
    return shared


def common_suffix(prompts: Sequence[Ids]) -> Ids:
    """The ids that all prompts end with."""
    return common_prefix([prompt[::-1] for prompt in prompts])[::-1]


def as_prompt(ids: Sequence[int] | NDArray[Any]) -> Ids:
    """(L,) ids as an array of their own type."""
    return np.asarray(ids, np.uint32)
