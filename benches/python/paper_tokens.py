"""New tokens as others choose and use them: Algorithm 1 of TASC-ft (arXiv 2602.24174), and AdaptiVocab (arXiv 2503.19693).

Selection and use are apart, so that each selection can be measured with each use:

- `algorithm_1` repeats: of the n-grams of the present tokenisation take the one with the largest frequency × (n − 1) that
  was not looked at yet, and add it unless `PrefixCollisions` refuses it. What "present tokenisation" means is up to an
  `Outputs`: `AddedOutputs` encodes texts with added tokens, `MergedOutputs` merges base ids.
- `adaptivocab` counts the n-grams of base ids once. It takes the one with the largest frequency × (n − 1) and subtracts
  from every other n-gram the number of its occurrences that overlap with the taken one.
- `Added`, `OutputOnly` and `Patched` are the uses: added tokens, our output-only ids, and AdaptiVocab's replacement of base
  ids from left to right, by the n-gram taken first.
"""

from __future__ import annotations

import heapq
import json
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Literal

from tokenizers import Tokenizer

from tasc.data import TaskTokenizer
from tasc.vocab.token_validity import INCOMPLETE, TokenValidity

Gram = tuple[int, ...]


class Outputs(ABC):
    """Distinct outputs in the tokenisation that the tokens added so far give.

    Args:
        task: Tokenizer without new tokens.
        outputs: Number of rows by text.
    """

    def __init__(self, task: TaskTokenizer, outputs: Mapping[str, int]) -> None:
        self.task = task
        self.texts = sorted(outputs)
        self.rows = [outputs[text] for text in self.texts]
        self.ids: list[list[int]] = task.encode_batch(self.texts)
        self.strings = {i: string for string, i in task.tokenizer.get_vocab(with_added_tokens=True).items()}
        self.documents = ["".join(self.strings[i] for i in ids) for ids in self.ids]
        self.first = task.vocab_size
        self.pieces: list[Gram] = []
        """The n-gram of each new token in the tokenisation in which it was taken: ids of base and earlier new tokens."""
        self.expansions: list[Gram] = []
        """The same in base ids."""
        self._known = set(self.strings.values())
        self._borders: dict[int, list[int]] = {}

    def expansion(self, gram: Gram) -> Gram:
        parts = (self.expansions[i - self.first] if i >= self.first else (i,) for i in gram)
        return tuple(base for part in parts for base in part)

    def string(self, gram: Gram) -> str:
        """The tokens' strings as the vocabulary writes them, joined."""
        return "".join(self.strings[i] for i in gram)

    def holders(self, string: str) -> list[int]:
        """The outputs with this string."""
        return [k for k, document in enumerate(self.documents) if string in document]

    def borders(self, k: int) -> list[int]:
        """Places of an output's string at which its tokens begin, and its length."""
        if k not in self._borders:
            self._borders[k] = list(accumulate((len(self.strings[i]) for i in self.ids[k]), initial=0))
        return self._borders[k]

    def rows_with(self, gram: Gram) -> int:
        return sum(self.rows[k] for k in self.holders(self.string(gram)) if _holds(self.ids[k], gram))

    def admits(self, gram: Gram) -> bool:
        """Whether an n-gram can become a token."""
        return self.string(gram) not in self._known and self._valid(self.expansion(gram))

    def add(self, gram: Gram) -> list[tuple[int, list[int]]]:
        """Make an n-gram the next new token; return the outputs that are tokenised differently, with their ids before."""
        string = self.string(gram)
        self._take(gram)
        self.pieces.append(gram)
        self.expansions.append(self.expansion(gram))
        self.strings[self.first + len(self.pieces) - 1] = string
        self._known.add(string)
        held = self.holders(string)
        changed = []
        for k, now in zip(held, self._tokenised(held, gram), strict=True):
            if now != self.ids[k]:
                changed.append((k, self.ids[k]))
                self.ids[k] = now
                self._borders.pop(k, None)
        return changed

    @abstractmethod
    def _valid(self, expansion: Gram) -> bool: ...

    @abstractmethod
    def _take(self, gram: Gram) -> None: ...

    @abstractmethod
    def _tokenised(self, outputs: Sequence[int], gram: Gram) -> list[list[int]]:
        """Ids of these outputs with the new token `gram`, which all of them hold as text."""


class AddedOutputs(Outputs):
    """As the paper has it: new tokens are added tokens of the tokenizer, which finds them in the text before it merges."""

    def __init__(self, task: TaskTokenizer, outputs: Mapping[str, int]) -> None:
        super().__init__(task, outputs)
        self._tokenizer = Tokenizer.from_str(task.tokenizer.to_str())

    def _valid(self, expansion: Gram) -> bool:
        """An added token is whole characters, and a text that is an entry (`é` writes a byte) would get that entry's id."""
        text = self.task.tokenizer.decode(list(expansion), skip_special_tokens=False)
        return INCOMPLETE not in text and self.task.tokenizer.token_to_id(text) is None

    def _take(self, gram: Gram) -> None:
        text = self.task.tokenizer.decode(list(self.expansion(gram)), skip_special_tokens=False)
        self._tokenizer.add_tokens([text])
        assert self._tokenizer.token_to_id(text) == self.first + len(self.pieces)

    def _tokenised(self, outputs: Sequence[int], gram: Gram) -> list[list[int]]:
        texts = [self.texts[k] for k in outputs]
        return [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


class MergedOutputs(Outputs):
    """The same choice for output-only ids: a new token replaces its n-gram in the ids, from left to right."""

    @cached_property
    def _validity(self) -> TokenValidity:
        return TokenValidity(self.task)

    def _valid(self, expansion: Gram) -> bool:
        return self._validity.reason(expansion) is None

    def _take(self, gram: Gram) -> None:
        pass

    def _tokenised(self, outputs: Sequence[int], gram: Gram) -> list[list[int]]:
        return [_replaced(self.ids[k], gram, self.first + len(self.pieces) - 1) for k in outputs]


def _holds(ids: Sequence[int], gram: Gram) -> bool:
    return any(tuple(ids[k : k + len(gram)]) == gram for k, i in enumerate(ids) if i == gram[0])


def _replaced(ids: Sequence[int], gram: Gram, by: int) -> list[int]:
    made, at = [], 0
    while at < len(ids):
        if ids[at] == gram[0] and tuple(ids[at : at + len(gram)]) == gram:
            made.append(by)
            at += len(gram)
        else:
            made.append(ids[at])
            at += 1
    return made


@dataclass(frozen=True)
class PrefixCollisions:
    """The paper's filter: a token t is refused if its Prefix Collision Score is `most` or more.

    The score is the share of outputs in which a suffix of t's text is a proper prefix of another token's text. The summary
    that this is made from leaves two readings; the suffix may be the whole text in both:

    - `tokens`: the output holds such a token anywhere, with or without t.
    - `places`: the output holds t's text, and t's text ends inside a token that begins in it: that token is what t breaks.
    """

    reading: Literal["tokens", "places"]
    most: float

    def refuses(self, outputs: Outputs, gram: Gram) -> bool:
        return self.score(outputs, gram) >= self.most

    def score(self, outputs: Outputs, gram: Gram) -> float:
        found = self._places(outputs, gram) if self.reading == "places" else self._tokens(outputs, gram)
        return sum(outputs.rows[k] for k in found) / sum(outputs.rows)

    @staticmethod
    def _tokens(outputs: Outputs, gram: Gram) -> Iterator[int]:
        string = outputs.string(gram)
        suffixes = {string[k:] for k in range(len(string))}
        used = set().union(*outputs.ids)
        collide = {
            i for i in used if any(outputs.strings[i][:k] in suffixes for k in range(1, len(outputs.strings[i])))
        }
        return (k for k, ids in enumerate(outputs.ids) if not collide.isdisjoint(ids))

    @staticmethod
    def _places(outputs: Outputs, gram: Gram) -> Iterator[int]:
        string = outputs.string(gram)
        for k in outputs.holders(string):
            document, borders = outputs.documents[k], outputs.borders(k)
            begin = document.find(string)
            while begin >= 0:
                end = begin + len(string)
                after = bisect_left(borders, end)
                if borders[after] != end and borders[after - 1] >= begin:
                    yield k
                    break
                begin = document.find(string, begin + 1)


def algorithm_1(
    outputs: Outputs,
    size: int,
    longest: int,
    *,
    refuse: PrefixCollisions | None = None,
    min_count: int = 1,
    min_rows: int = 1,
) -> Outputs:
    """Add up to `size` tokens to `outputs`, each an n-gram of 2 … `longest` present tokens; return `outputs`.

    Counts are of all occurrences, overlapping ones too, weighted with rows. They are kept up to date from the outputs that
    each new token changes. They rise and fall: a heap holds an entry for every count that an n-gram has risen to.
    """
    counts = _counted(zip(outputs.ids, outputs.rows, strict=True), longest)
    heap = [(-_gain(gram, n), gram) for gram, n in counts.items() if n >= min_count]
    heapq.heapify(heap)
    seen: set[Gram] = set()
    while heap and len(outputs.pieces) < size:
        gain, gram = heapq.heappop(heap)
        if gram in seen or counts[gram] < min_count:
            continue
        if -gain != _gain(gram, counts[gram]):
            if -gain > _gain(gram, counts[gram]):
                heapq.heappush(heap, (-_gain(gram, counts[gram]), gram))
            continue
        seen.add(gram)
        if not outputs.admits(gram) or outputs.rows_with(gram) < min_rows:
            continue
        if refuse is not None and refuse.refuses(outputs, gram):
            continue
        changed = outputs.add(gram)
        change = _counted(((outputs.ids[k], outputs.rows[k]) for k, _ in changed), longest)
        for other, n in _counted(((before, outputs.rows[k]) for k, before in changed), longest).items():
            change[other] -= n
        for other, by in change.items():
            counts[other] += by
            if by > 0 and counts[other] >= min_count and other not in seen:
                heapq.heappush(heap, (-_gain(other, counts[other]), other))
    return outputs


def _gain(gram: Gram, count: int) -> int:
    return count * (len(gram) - 1)


def _grams(ids: Sequence[int], longest: int) -> Iterator[Gram]:
    for n in range(2, longest + 1):
        yield from zip(*(ids[k:] for k in range(n)), strict=False)


def _counted(outputs: Iterable[tuple[Sequence[int], int]], longest: int) -> Counter[Gram]:
    """Occurrences of the n-grams of outputs, weighted with their rows."""
    by_rows: dict[int, Counter[Gram]] = {}
    for ids, rows in outputs:
        by_rows.setdefault(rows, Counter()).update(_grams(ids, longest))
    found = by_rows.pop(1, Counter())
    for rows, counts in by_rows.items():
        for gram, n in counts.items():
            found[gram] += n * rows
    return found


def adaptivocab(
    outputs: Mapping[Gram, int],
    size: int,
    longest: int,
    *,
    admits: Callable[[Gram], bool],
    min_count: int = 1,
    min_rows: int = 1,
) -> list[Gram]:
    """N-grams of base ids in the order in which AdaptiVocab takes them.

    Args:
        outputs: Number of rows by output.
        size: Most n-grams.
        longest: Longest n-gram.
        admits: Whether an n-gram can become a token.
        min_count: Fewest occurrences, after the overlapping ones are subtracted.
        min_rows: Fewest rows with the n-gram.
    """
    counts: Counter[Gram] = Counter()
    held: dict[Gram, list[Gram]] = {}
    for ids, rows in outputs.items():
        for gram in _grams(ids, longest):
            counts[gram] += rows
        for gram in set(_grams(ids, longest)):
            held.setdefault(gram, []).append(ids)
    heap = [(-_gain(gram, n), gram) for gram, n in counts.items() if n >= min_count]
    heapq.heapify(heap)
    taken: dict[Gram, None] = {}
    while heap and len(taken) < size:
        gain, gram = heapq.heappop(heap)
        if counts[gram] < min_count or gram in taken:
            continue
        if -gain != _gain(gram, counts[gram]):  # counts only fall
            heapq.heappush(heap, (-_gain(gram, counts[gram]), gram))
            continue
        if not admits(gram) or sum(outputs[ids] for ids in held[gram]) < min_rows:
            continue
        taken[gram] = None
        for ids in held[gram]:
            rows = outputs[ids]
            for at in (k for k in range(len(ids)) if ids[k : k + len(gram)] == gram):
                for other in _overlapping(ids, at, at + len(gram), longest):
                    if other != gram:
                        counts[other] -= rows
    return list(taken)


def _overlapping(ids: Gram, begin: int, end: int, longest: int) -> Iterator[Gram]:
    """N-grams that share a token with `ids[begin:end]`, once per occurrence."""
    for n in range(2, longest + 1):
        for k in range(max(0, begin - n + 1), min(end, len(ids) - n + 1)):
            yield ids[k : k + n]


class Vocabulary(ABC):
    """New tokens as a tokenizer really uses them; the ids of new tokens begin at `task.vocab_size`."""

    task: TaskTokenizer
    expansions: Sequence[Gram]

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of any text, prompts among them."""

    @abstractmethod
    def labels(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of outputs, as they are trained."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Text of ids."""

    def expand(self, ids: Iterable[int]) -> list[int]:
        first = self.task.vocab_size
        return [base for i in ids for base in (self.expansions[i - first] if i >= first else (i,))]


@dataclass(frozen=True)
class Added(Vocabulary):
    """Added tokens, `AddedToken(text)` as transformers' `add_tokens` makes them."""

    task: TaskTokenizer
    expansions: Sequence[Gram]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        made = Tokenizer.from_str(self.task.tokenizer.to_str())
        made.add_tokens([self.task.tokenizer.decode(list(e), skip_special_tokens=False) for e in self.expansions])
        return made

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def labels(self, texts: Sequence[str]) -> list[list[int]]:
        return self.encode(texts)

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


@dataclass(frozen=True)
class OutputOnly(Vocabulary):
    """Output-only ids and the segmentation with the fewest tokens, ties to the longest token first."""

    task: TaskTokenizer
    expansions: Sequence[Gram]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        state = json.loads(self.task.tokenizer.to_str())
        strings = {i: string for string, i in self.task.tokenizer.get_vocab(with_added_tokens=True).items()}
        for number, token in self.task.tokenizer.get_added_tokens_decoder().items():
            state["model"]["vocab"].setdefault(token.content, number)
        for k, expansion in enumerate(self.expansions):
            state["model"]["vocab"]["".join(strings[i] for i in expansion)] = self.task.vocab_size + k
        return Tokenizer.from_str(json.dumps(state))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def labels(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._fewest(tuple(ids)) for ids in self.encode(texts)]

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @cached_property
    def _numbers(self) -> dict[Gram, int]:
        return {expansion: self.task.vocab_size + k for k, expansion in enumerate(self.expansions)}

    @cached_property
    def _lengths(self) -> dict[int, list[int]]:
        """Lengths of the expansions that begin with a base id, the longest first."""
        found: dict[int, set[int]] = {}
        for expansion in self.expansions:
            found.setdefault(expansion[0], set()).add(len(expansion))
        return {i: sorted(lengths, reverse=True) for i, lengths in found.items()}

    def _fewest(self, ids: Gram) -> list[int]:
        costs = [0] * (len(ids) + 1)
        steps = [1] * len(ids)
        for at in range(len(ids) - 1, -1, -1):
            best = costs[at + 1] + 1
            for n in reversed(self._lengths.get(ids[at], [])):  # the longest of the best remains
                if at + n <= len(ids) and costs[at + n] + 1 <= best and ids[at : at + n] in self._numbers:
                    best, steps[at] = costs[at + n] + 1, n
            costs[at] = best
        made, at = [], 0
        while at < len(ids):
            made.append(ids[at] if steps[at] == 1 else self._numbers[ids[at : at + steps[at]]])
            at += steps[at]
        return made


@dataclass(frozen=True)
class Patched(Vocabulary):
    """AdaptiVocab's tokenizer, for prompts and outputs: base ids, then n-grams from left to right, the first taken first."""

    task: TaskTokenizer
    expansions: Sequence[Gram]
    _ranks: dict[Gram, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        self._ranks.update({gram: k for k, gram in enumerate(self.expansions)})
        return [self._patched(tuple(ids)) for ids in self.task.encode_batch(texts)]

    def labels(self, texts: Sequence[str]) -> list[list[int]]:
        return self.encode(texts)

    def decode(self, ids: list[int]) -> str:
        return self.task.decode(self.expand(ids))

    def _patched(self, ids: Gram) -> list[int]:
        made, at, none = [], 0, len(self.expansions)
        longest = max(map(len, self.expansions), default=1)
        while at < len(ids):
            rank = min((self._ranks.get(ids[at : at + n], none) for n in range(2, longest + 1)), default=none)
            made.append(ids[at] if rank == none else self.task.vocab_size + rank)
            at += 1 if rank == none else len(self.expansions[rank])
        return made
