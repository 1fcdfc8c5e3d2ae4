"""Rules for n-grams that can become one entry of a tokenizer's vocabulary, with reasons for those that cannot.

An output-only token is an entry of `model.vocab` that no merge produces. `encode` therefore never uses it. `decode`
puts its string in the place of its constituents' strings. Both statements require a tokenizer whose decoder treats the
strings of all tokens as one string, and an n-gram whose joined string decodes to the same text.
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
"""Letters with which byte-level tokenizers write bytes. Their decoder takes a token with any other letter as text."""

BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
"""Form of a byte in tokenizers with byte fallback."""

INCOMPLETE = "\ufffd"
"""Character that decoders emit for an incomplete character."""

FOLLOWERS = (
    *("", "a", "A", "ǅ", "ʰ", "あ", "\u0301", "1", "²", " ", "\n", "\r", "\t", "\u00a0"),
    *(".", "'", "'s", "/", "_", "-", "(", "🙂"),
)
"""One character of each kind that pre-tokenizers distinguish, and the end of the text."""


class TokenValidity:
    """Check of n-grams as new entries of a tokenizer's vocabulary.

    Args:
        task: Tokenizer without new tokens.

    Raises:
        InputError: No n-gram at all can be a token of this tokenizer. The message names the reason.
    """

    def __init__(self, task: TaskTokenizer) -> None:
        if task.plan is not None:
            raise InputError(f"{task.name} already has {len(task.plan)} new tokens; start from the base tokenizer")
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
        """Raise InputError for an added token that text could be encoded to once it is a vocabulary entry.

        Added tokens become entries too, so that they keep their ids.
        """
        word = bool(token.single_word and self._model.get("ignore_merges"))
        letter = len(token.content) == 1 and (not self._byte_level or token.content in ALPHABET)
        if token.content not in self._model["vocab"] and (word or letter):
            raise InputError(
                f"{name} has the added token {token.content!r} outside its model's vocabulary; as an entry there it "
                "could change how prompts are encoded, so such a tokenizer cannot be extended"
            )

    def string(self, expansion: Iterable[int]) -> str:
        """Return the string of a new token: its constituents' strings, joined."""
        return "".join(self._by_id[i] for i in expansion)

    @cached_property
    def barriers(self) -> list[int]:
        """Ids that no expansion may contain, ascending: special and added tokens, the unknown token, single bytes of
        byte fallback, and tokens whose string is not text."""
        found = {i for i, string in self._by_id.items() if not self._is_text(string)}
        found.update(self._tokenizer.get_added_tokens_decoder())
        if (unknown := self._strings.get(self._model.get("unk_token") or "")) is not None:
            found.add(unknown)
        return sorted(found)

    def _is_text(self, string: str) -> bool:
        if not string or BYTE_TOKEN.fullmatch(string):
            return False
        return not self._byte_level or ALPHABET.issuperset(string)

    def reason(self, expansion: Sequence[int]) -> str | None:
        """Return the reason why this n-gram cannot be a token; None if it can."""
        barrier = next((i for i in expansion if i not in self._by_id or i in self._barriers), None)
        if barrier is not None:
            return f"it contains the token {self._by_id.get(barrier, barrier)!r}, which cannot be joined with others"
        string = self.string(expansion)
        if string in self._strings:
            return "the vocabulary already has an entry with that string"
        if BYTE_TOKEN.fullmatch(string) or string == self._model.get("unk_token"):
            return "its string is the name of a byte or of the unknown token"
        text = self._tokenizer.decode(list(expansion), skip_special_tokens=False)
        if text.endswith(INCOMPLETE):
            return "it ends inside a character, so a stream could not show it at once"
        if self._model.get("ignore_merges") and self._can_be_a_word(text):
            return "the tokenizer encodes a word in its vocabulary without merging, so prompts could contain it"
        return None

    def invalid_tokens(self, plan: MergePlan) -> dict[int, str]:
        """Return the reasons by number of each new token of a plan that cannot be a token."""
        found: dict[int, str] = {}
        first: dict[str, int] = {}
        for k in sorted(range(len(plan)), key=lambda k: -int(plan.counts[k])):
            expansion = plan.expansion(k).tolist()
            why = self.reason(expansion)
            if why is None and first.setdefault(self.string(expansion), k) != k:
                why = "a more frequent new token has the same string"
            if why is not None:
                found[k] = why
        return found

    @cached_property
    def _barriers(self) -> frozenset[int]:
        return frozenset(self.barriers)

    def _can_be_a_word(self, text: str) -> bool:
        """Return whether pre-tokenization could ever produce `text` as one word.

        Pre-tokenizers look at no text before a word and at most one character after it. A text that is split before
        every kind of following character is therefore always split.
        """
        if INCOMPLETE in text:  # words consist of complete characters
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
    """Raise InputError for a model that would use a new vocabulary entry when it encodes."""
    kind = model.get("type")
    whys = {
        "WordPiece": "it takes the longest matching entry, so a new entry changes how prompts are encoded",
        "WordLevel": "its entries are whole words, so a new entry changes how prompts are encoded",
        "Unigram": "it scores all entries against each other, so a new entry changes how prompts are encoded",
    }
    if kind != "BPE":
        raise InputError(
            f"{name} is a {kind} tokenizer: {whys.get(str(kind), 'unknown type')}; a BPE tokenizer is needed"
        )
    for setting, why in (
        ("dropout", "its encoding is random, so the ids of an output are not fixed"),
        ("continuing_subword_prefix", "its tokens have another form inside words"),
        ("end_of_word_suffix", "its tokens have another form at the end of words"),
    ):
        if model.get(setting):
            raise InputError(f"{name} has {setting} {model[setting]!r}: {why}; such a tokenizer cannot be extended")


def _joins_bytes(decoder: dict[str, Any] | None, name: str) -> bool:
    """Return whether a decoder is byte-level. Raise InputError if it does not treat all tokens as one string."""
    if decoder is None:
        raise InputError(
            f"{name} has no decoder, so decoding puts a space between tokens; such a tokenizer cannot be extended"
        )
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return True
    for step in steps:
        if step["type"] == "Fuse":  # all further steps see one string
            break
        if not _letter_by_letter(step):
            raise InputError(
                f"{name} decodes with {step['type']}, which treats tokens one by one, so joined tokens would give "
                "another text; a tokenizer with a ByteLevel decoder, or Replace, ByteFallback and Fuse, is needed"
            )
    return False


def _letter_by_letter(step: dict[str, Any]) -> bool:
    """Return whether a decoder step changes letters independently of their place.

    `Metaspace` with a prepend scheme does not: it removes all marks of the first token.
    """
    if step["type"] == "Replace":
        return len(step["pattern"].get("String", "")) == 1
    return step["type"] == "ByteFallback" or (step["type"] == "Metaspace" and step.get("prepend_scheme") == "never")
