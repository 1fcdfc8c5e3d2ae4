"""Tokens of any length are decoded for llama-cpp-python."""

from __future__ import annotations

from typing import Any

import pytest

from tasc.adapters.llama_pieces import LongTokens

TEXTS = [b"", b" a", "köln 🙂".encode(), b"x" * 64, b"y" * 65, b'{"intent": "flight"}' * 40]


class Inner:
    def tokenize(self, text: bytes, add_bos: bool, special: bool) -> list[int]:
        return [len(text), int(add_bos), int(special)]


def read(token: int, buffer: Any, size: int, special: bool) -> int:
    text = TEXTS[token] if special or token != 2 else b""
    if len(text) > size:
        return -len(text)
    buffer[: len(text)] = text
    return len(text)


@pytest.mark.parametrize("token", range(len(TEXTS)))
def test_no_text_is_lost(token: int) -> None:
    tokenizer = LongTokens(Inner(), read, bos=99)
    for _ in range(2):
        assert tokenizer.detokenize([token], special=True) == TEXTS[token]
        assert tokenizer.detokenize([token, token], prev_tokens=[1], special=True) == TEXTS[token] * 2


def test_the_rest_is_as_in_llama_cpp_python() -> None:
    tokenizer = LongTokens(Inner(), read, bos=0)
    assert tokenizer.detokenize([0, 1]) == b"a"  # the BOS, then a space
    assert tokenizer.detokenize([1, 1]) == b" a a"
    assert tokenizer.detokenize([2]) == b""  # a special token
    assert tokenizer.detokenize([]) == b""
    assert tokenizer.decode([1, 3]) == " a" + "x" * 64
    assert tokenizer.encode("ö", add_bos=False) == [2, 0, 1]
