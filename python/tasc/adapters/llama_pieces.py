"""llama-cpp-python: tokens whose text is longer than 32 bytes, as many of a task vocabulary are.

llama-cpp-python (0.3.36) reads the text of a token into 32 bytes. A longer text is lost, without an error. llama.cpp
itself and its server have no such limit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

_FIRST_SIZE = 64  # bytes


def with_long_tokens(llama: Any) -> Any:
    """Lets a `llama_cpp.Llama` object decode tokens of any length.

    Args:
        llama: The `Llama` object. Its `tokenizer_` is replaced.

    Returns:
        `llama`.

    Examples:
        >>> llama = with_long_tokens(Llama("tuned.gguf"))  # doctest: +SKIP
    """
    import llama_cpp

    vocabulary = llama._model.vocab

    def read(token: int, buffer: Any, size: int, special: bool) -> int:
        return int(llama_cpp.llama_token_to_piece(vocabulary, token, buffer, size, 0, special))

    llama.tokenizer_ = LongTokens(llama.tokenizer_, read, llama.token_bos())
    return llama


class LongTokens:
    """A tokenizer of llama-cpp-python whose `detokenize` knows no longest token.

    Args:
        inner: The tokenizer that encodes.
        read: `llama_token_to_piece`: writes the text of a token into a buffer of the given size and returns its length,
            or minus the length if the buffer is too small.
        bos: Id of the BOS. A space behind it is dropped, as llama-cpp-python does.
    """

    def __init__(self, inner: Any, read: Callable[[int, Any, int, bool], int], bos: int) -> None:
        self._inner, self._read, self._bos = inner, read, bos
        self._pieces: dict[tuple[int, bool], bytes] = {}

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Encode a text."""
        return list(self._inner.tokenize(text, add_bos, special))

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Return the text of tokens."""
        text = b"".join(self._piece(int(token), special) for token in tokens)
        return text[1:] if len(tokens) > 0 and tokens[0] == self._bos and text[:1] == b" " else text

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        """Encode a text."""
        return self.tokenize(text.encode("utf-8", errors="ignore"), add_bos, special)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without bytes that are no UTF-8."""
        return self.detokenize(tokens).decode("utf-8", errors="ignore")

    def _piece(self, token: int, special: bool) -> bytes:
        if (found := self._pieces.get((token, special))) is None:
            size = _FIRST_SIZE
            buffer = ctypes.create_string_buffer(size)
            while (length := self._read(token, buffer, size, special)) < 0:
                size = -length
                buffer = ctypes.create_string_buffer(size)
            found = self._pieces[token, special] = buffer.raw[:length]
        return found
