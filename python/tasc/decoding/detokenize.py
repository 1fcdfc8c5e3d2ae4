"""Incremental detokenisation: whole characters only, cut before a stop string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_REPLACEMENT = "\ufffd"  # what decoders write for an incomplete character


class IncrementalDetokenizer:
    """Decodes token ids as they are generated.

    A piece of text is released once it ends in a complete character and can no longer be the start of a stop string.
    The concatenated pieces are the text.

    Args:
        tokenizer: transformers tokenizer.
        stop: Strings that end the output; the text is cut before the first one that occurs.
        special: Texts of the special tokens by id, see `special_tokens`. A stop string that contains one is looked for
            in the text with special tokens, any other in the text without them.

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

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), special: Mapping[int, str] | None = None) -> None:
        texts = set((special or {}).values())
        self._special_stop = [one for one in stop if any(text in one for text in texts)]
        self._stop = [one for one in stop if one not in self._special_stop]
        self._special = special if special and self._special_stop else {}
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._prefix_offset = 0  # decoding starts here, since a token's text depends on the token before it
        self._read_offset = 0  # ids before this are part of `text`
        self._released = 0
        self._full = ""  # `text` with special tokens
        self._inserted: list[tuple[int, int]] = []  # (start in `_full`, length) of each special token
        self.text = ""
        self.stopped = False

    def add(self, ids: Sequence[int]) -> int:
        """Append ids, up to the one that completes a stop string.

        Returns:
            Number of ids appended: all of them, unless a stop string was completed.
        """
        if not self._stop and not self._special_stop:
            self._ids.extend(ids)
            self._decode()
            return len(ids)
        for count, token in enumerate(ids, 1):
            before = len(self.text), len(self._full)
            if token in self._special:
                self._insert(self._special[token])
            self._ids.append(token)
            self._decode()
            if self._cut(*before):
                self.stopped = True
                return count
        return len(ids)

    def release(self) -> str:
        """Return the text that is final and has not been released yet."""
        end = len(self.text)
        if not self.stopped:
            end -= _overlap(self.text, self._stop)
            end = min(end, self._position(len(self._full) - _overlap(self._full, self._special_stop)))
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
            self._full += grown[len(known) :]
            self._prefix_offset, self._read_offset = self._read_offset, len(self._ids)

    def _insert(self, special: str) -> None:
        """Append a special token to the text with special tokens. An incomplete character before it is final."""
        before = len(self.text)
        self._decode(final=True)
        if len(self.text) > before:
            self._prefix_offset = self._read_offset  # no later byte completes that character
        self._inserted.append((len(self._full), len(special)))
        self._full += special

    def _position(self, full: int) -> int:
        """Return the position in `text` of a position in the text with special tokens."""
        return full - sum(min(length, full - start) for start, length in self._inserted if start < full)

    def _cut(self, before: int, full_before: int) -> bool:
        """Cut the text before the first stop string that ends after the first `before` (`full_before`) characters."""
        starts = _starts(self.text, self._stop, before)
        starts += [self._position(start) for start in _starts(self._full, self._special_stop, full_before)]
        if starts:
            self.text = self.text[: min(starts)]
        return bool(starts)


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of ids without special tokens and without clean-up of spaces."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Return the texts of a transformers tokenizer's special tokens by id; `decode` leaves these tokens out."""
    try:
        added = tokenizer.added_tokens_decoder
    except NotImplementedError:  # mistral-common's
        return dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return {token: str(text) for token, text in added.items() if text.special}


def _starts(text: str, stop: Sequence[str], before: int) -> list[int]:
    """Return the first position of each stop string that ends after the first `before` characters of a text."""
    return [start for one in stop if (start := text.find(one, max(0, before - len(one) + 1))) >= 0]


def _overlap(text: str, stop: Sequence[str]) -> int:
    """Return the length of the longest suffix of `text` that is a proper prefix of a stop string."""
    return max(
        (n for one in stop for n in range(min(len(one) - 1, len(text)), 0, -1) if text.endswith(one[:n])), default=0
    )
