"""Validity of n-grams as entries of a tokenizer's vocabulary, with the reason where one is invalid.

An output-only token is an entry of `model.vocab` that no merge makes. `encode` never finds it then, and `decode` puts
its string where the strings of its constituents would stand. Both hold only for tokenizers whose decoder works on the
tokens' strings as if they were one, and for n-grams whose joint string means the same to it; this module says which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from tokenizers import pre_tokenizers

from tasc._core import MergePlan
from tasc.data import TaskTokenizer
from tasc.errors import InputError

ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())
"""The letters that byte-level tokenizers write bytes with; their decoder takes a token with any other as plain text."""

BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
"""How tokenizers with byte fallback write a byte."""

INCOMPLETE = "\ufffd"
"""What decoders put for half a character."""

FOLLOWERS = (
    *("", "a", "A", "ǅ", "ʰ", "あ", "\u0301", "1", "²", " ", "\n", "\r", "\t", "\u00a0"),
    *(".", "'", "'s", "/", "_", "-", "(", "🙂"),
)
"""One of each kind of character that pre-tokenizers tell apart, and the end of the text."""


class TokenValidity:
    """Rules for a further entry of a tokenizer's vocabulary.

    Args:
        task: The tokenizer as it is, without new tokens.

    Raises:
        InputError: No n-gram at all can be a token of this tokenizer; it says why.
    """

    def __init__(self, task: TaskTokenizer) -> None:
        if task.plan is not None:
            raise InputError(f"{task.name} has {len(task.plan)} new tokens already; start from the tokenizer it was")
        self._tokenizer = task.tokenizer
        self._strings = task.tokenizer.get_vocab(with_added_tokens=True)
        self._by_id = {number: string for string, number in self._strings.items()}
        state = json.loads(task.tokenizer.to_str())
        self._model = state["model"]
        _check_model(self._model, task.name)
        self._byte_level = _joins_bytes(state["decoder"], task.name)
        for token in task.tokenizer.get_added_tokens_decoder().values():
            self._check_added(token, task.name)

    def _check_added(self, token: Any, name: str) -> None:
        """Added tokens become entries too, so that they keep their ids; refuses one that text could then turn into."""
        word = bool(token.single_word and self._model.get("ignore_merges"))
        letter = len(token.content) == 1 and (not self._byte_level or token.content in ALPHABET)
        if token.content not in self._model["vocab"] and (word or letter):
            raise InputError(
                f"{name} has the added token {token.content!r} outside its model's vocabulary; prompts could be "
                "encoded otherwise once it is an entry there, so such a tokenizer cannot be extended"
            )

    def string(self, expansion: Iterable[int]) -> str:
        """The string that a new token gets: those of its constituents, one after the other."""
        return "".join(self._by_id[i] for i in expansion)

    @cached_property
    def barriers(self) -> list[int]:
        """Ids that no new token may hold, ascending: special and added tokens, the unknown token, single bytes of byte
        fallback, and what is no plain piece of text."""
        held = set(self._tokenizer.get_added_tokens_decoder())
        unknown = self._strings.get(self._model.get("unk_token") or "")
        held |= set() if unknown is None else {unknown}
        return sorted(held | {i for i, string in self._by_id.items() if not self._plain(string)})

    def _plain(self, string: str) -> bool:
        if not string or BYTE_TOKEN.fullmatch(string):
            return False
        return not self._byte_level or ALPHABET.issuperset(string)

    def fault(self, expansion: Sequence[int]) -> str | None:
        """Why this n-gram cannot be a token; None when it can."""
        barrier = next((i for i in expansion if i not in self._by_id or i in self._barred), None)
        if barrier is not None:
            return f"it holds the token {self._by_id.get(barrier, barrier)!r}, which joins with no other"
        string = self.string(expansion)
        if string in self._strings:
            return "the vocabulary has an entry of that string"
        if BYTE_TOKEN.fullmatch(string) or string == self._model.get("unk_token"):
            return "its string is the name of a byte or of the unknown token"
        text = self._tokenizer.decode(list(expansion), skip_special_tokens=False)
        if text.endswith(INCOMPLETE):
            return "it ends inside a character, so a stream could not show it when it comes"
        if self._model.get("ignore_merges") and self._can_be_a_word(text):
            return "the tokenizer takes a word that its vocabulary holds without merging, so prompts could hold it"
        return None

    def faults(self, plan: MergePlan) -> dict[int, str]:
        """The new tokens of a plan that cannot be, and why."""
        found: dict[int, str] = {}
        first: dict[str, int] = {}
        for k in sorted(range(len(plan)), key=lambda k: -int(plan.counts[k])):
            expansion = plan.expansion(k).tolist()
            why = self.fault(expansion)
            if why is None and first.setdefault(self.string(expansion), k) != k:
                why = "another new token, used more, has the same string"
            if why is not None:
                found[k] = why
        return found

    @cached_property
    def _barred(self) -> frozenset[int]:
        return frozenset(self.barriers)

    def _can_be_a_word(self, text: str) -> bool:
        """Whether pre-tokenizing could ever give `text` whole.

        Pre-tokenizers look at no text before a word, and behind it at most at one character. So a text that is split,
        whatever kind of character follows, is always split.
        """
        if INCOMPLETE in text:  # words are made of whole characters
            return False
        split = self._tokenizer.pre_tokenizer
        normalize = self._tokenizer.normalizer
        for follower in FOLLOWERS:
            whole = normalize.normalize_str(text + follower) if normalize else text + follower
            words = split.pre_tokenize_str(whole) if split else [(whole, (0, len(whole)))]
            if not words or words[0][1][1] >= len(text):
                return True
        return False


def _check_model(model: dict[str, Any], name: str) -> None:
    """Refuses models that would use a new entry of the vocabulary when they encode."""
    kind = model.get("type")
    whys = {
        "WordPiece": "it takes the longest entry that matches, so a new one changes how prompts are encoded",
        "WordLevel": "its entries are whole words, so a new one changes how prompts are encoded",
        "Unigram": "it weighs every entry against all others, so a new one changes how prompts are encoded",
    }
    if kind != "BPE":
        raise InputError(
            f"{name} is a {kind} tokenizer: {whys.get(str(kind), 'not known here')}; a BPE tokenizer is needed"
        )
    for setting, why in (
        ("dropout", "its encoding is random, so outputs have no ids of their own"),
        ("continuing_subword_prefix", "its tokens are written otherwise inside words"),
        ("end_of_word_suffix", "its tokens are written otherwise at the end of words"),
    ):
        if model.get(setting):
            raise InputError(f"{name} has {setting} {model[setting]!r}: {why}; such a tokenizer cannot be extended")


def _joins_bytes(decoder: dict[str, Any] | None, name: str) -> bool:
    """Whether a decoder is byte-level. Raises InputError for one that does not treat tokens as if they were one
    string."""
    if decoder is None:
        raise InputError(
            f"{name} has no decoder, so it puts a space between tokens; such a tokenizer cannot be extended"
        )
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return True
    for step in steps:
        if step["type"] == "Fuse":  # one string from here on
            break
        if not _letter_by_letter(step):
            raise InputError(
                f"{name} decodes with {step['type']}, which treats tokens one by one, so text would change if they "
                "were joined; a tokenizer with a ByteLevel decoder, or Replace, ByteFallback and Fuse, is needed"
            )
    return False


def _letter_by_letter(step: dict[str, Any]) -> bool:
    """Whether a step of a decoder changes letters wherever they stand. `Metaspace` with a prepend scheme does not: it
    drops all marks of the first token."""
    if step["type"] == "Replace":
        return len(step["pattern"].get("String", "")) == 1
    return step["type"] == "ByteFallback" or (step["type"] == "Metaspace" and step.get("prepend_scheme") == "never")
