"""Incremental detokenisation: whole characters only, cut before a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_REPLACEMENT = "\ufffd"  # what decoders write for an incomplete character


class IncrementalDetokenizer:
    """Decodes token ids as they are generated.

    A piece of text is released once it ends in a complete character and can no longer be the start of a stop string.
    The concatenated pieces are the text.

    Args:
        tokenizer: transformers tokenizer.
        stop: Strings that end the output; the text is cut before the first one that occurs.

    Attributes:
        text: Text so far, cut before the stop string if there is one.
        stopped: Whether a stop string has occurred.

    Examples:
        >>> class ByteTokenizer:
        ...     def decode(self, ids, **options):
        ...         return bytes(ids).decode(errors="replace")
        >>> detokenizer = IncrementalDetokenizer(ByteTokenizer(), stop=["!"])
        >>> [(detokenizer.add([byte]), detokenizer.release()) for byte in "é!".encode()]
        [(1, ''), (1, 'é'), (1, '')]
        >>> detokenizer.text, detokenizer.stopped
        ('é', True)
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._prefix_offset = 0  # decoding starts here, since a token's text depends on the token before it
        self._read_offset = 0  # ids before this are part of `text`
        self._released = 0
        self.text = ""
        self.stopped = False

    def add(self, ids: Sequence[int]) -> int:
        """Append ids, up to the one that completes a stop string.

        Returns:
            Number of ids appended: all of them, unless a stop string was completed.
        """
        if not self._stop:
            self._ids.extend(ids)
            self._decode()
            return len(ids)
        for count, token in enumerate(ids, 1):
            self._ids.append(token)
            before = len(self.text)
            self._decode()
            if self._cut(before):
                self.stopped = True
                return count
        return len(ids)

    def release(self) -> str:
        """Return the text that is final and has not been released yet."""
        end = len(self.text)
        if not self.stopped:
            end -= max((_overlap(self.text, stop) for stop in self._stop), default=0)
        piece = self.text[self._released : end]
        self._released = max(self._released, end)
        return piece

    def finish(self) -> str:
        """Return the rest of the text; an incomplete last character becomes U+FFFD."""
        if not self.stopped:
            self._decode(final=True)
        piece = self.text[self._released :]
        self._released = len(self.text)
        return piece

    def _decode(self, final: bool = False) -> None:
        known = decode(self._tokenizer, self._ids[self._prefix_offset : self._read_offset])
        grown = decode(self._tokenizer, self._ids[self._prefix_offset :])
        if len(grown) > len(known) and (final or not grown.endswith(_REPLACEMENT)):
            self.text += grown[len(known) :]
            self._prefix_offset, self._read_offset = self._read_offset, len(self._ids)

    def _cut(self, before: int) -> bool:
        """Cut the text before the first stop string that ends after the first `before` characters."""
        starts = [found for stop in self._stop if (found := self.text.find(stop, max(0, before - len(stop) + 1))) >= 0]
        if starts:
            self.text = self.text[: min(starts)]
        return bool(starts)


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of ids without special tokens and without clean-up of spaces."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that is a proper prefix of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
