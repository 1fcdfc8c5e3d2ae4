"""Text of a growing id sequence: whole characters only, cut before a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_PARTIAL = "\ufffd"


class IncrementalDetokenizer:
    """Decodes ids as they come.

    A piece of text is released once it ends in a whole character and cannot be the beginning of a stop string any
    more. The pieces joined are the text.

    Args:
        tokenizer: transformers tokenizer.
        stop: Strings that end the output; the text is cut before the first that appears.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._window = 0  # decoding restarts here, so that a token's text depends on the one before it
        self._read = 0  # ids before this are part of `_text`
        self._text = ""
        self._released = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """Text so far, cut before the stop string once there is one."""
        return self._text

    def add(self, ids: Sequence[int]) -> int:
        """Append ids, up to the one that completes a stop string.

        Returns:
            How many of the ids were taken: all, unless a stop string was completed.
        """
        if not self._stop:
            self._ids.extend(ids)
            self._decode()
            return len(ids)
        for count, token in enumerate(ids, 1):
            self._ids.append(token)
            before = len(self._text)
            self._decode()
            if self._cut(before):
                self.stopped = True
                return count
        return len(ids)

    def release(self) -> str:
        """Text that is final and has not been released yet."""
        end = len(self._text)
        if not self.stopped:
            end -= max((_overlap(self._text, stop) for stop in self._stop), default=0)
        piece = self._text[self._released : end]
        self._released = max(self._released, end)
        return piece

    def finish(self) -> str:
        """The rest of the text, an incomplete last character as U+FFFD."""
        if not self.stopped:
            self._decode(final=True)
        piece = self._text[self._released :]
        self._released = len(self._text)
        return piece

    def _decode(self, final: bool = False) -> None:
        known = self._plain(self._ids[self._window : self._read])
        grown = self._plain(self._ids[self._window :])
        if len(grown) > len(known) and (final or not grown.endswith(_PARTIAL)):
            self._text += grown[len(known) :]
            self._window, self._read = self._read, len(self._ids)

    def _plain(self, ids: Sequence[int]) -> str:
        return decode(self._tokenizer, ids)

    def _cut(self, before: int) -> bool:
        """Cut the text before the first stop string that reaches past `before` characters."""
        starts = [found for stop in self._stop if (found := self._text.find(stop, max(0, before - len(stop) + 1))) >= 0]
        if starts:
            self._text = self._text[: min(starts)]
        return bool(starts)


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of ids without special tokens, spaces left as they are."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
