"""Words as they stand inside a text: the ids that an output would have for them, whatever the kind of tokenizer."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from toy_task import build_toy_task

from tasc import NgramDrafter, TaskIndex
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer
from tasc.errors import InputError

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WRITTEN = st.text("abcdefgh 0123456789\"',.:(){}北京上海", max_size=12)
LINES = [
    'he said: "boston" is a city; from boston to denver, "denver" (boston) 1 2 3 2024 "2024"',
    '{"from": "boston", "to": "san francisco", "day": "5", "at": "17:30"} is a boston, is "x"',
    "北京是中国的首都。从上海到北京的航班 是北京",
    "show me flights from boston to san francisco on may 5th, 2024 at 17:30",
] * 8


def byte_level(*before: pre_tokenizers.PreTokenizer, regex: bool = True) -> Tokenizer:
    made = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    made.pre_tokenizer = pre_tokenizers.Sequence([*before, level])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(LINES, trainer)
    return made


def metaspace(model: models.Model, *, scheme: str = "always", split: bool = True) -> Tokenizer:
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    alphabet = sorted({c for line in LINES for c in line} | {chr(c) for c in range(32, 127)} | {"\n", "▁"})
    if isinstance(model, models.Unigram):
        trainer: trainers.Trainer = trainers.UnigramTrainer(
            vocab_size=500, initial_alphabet=alphabet, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
        )
    else:
        trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(LINES, trainer)
    return made


def llama_2() -> Tokenizer:
    """No pre-tokenizer: the whole text is one word, blanks are letters of it, and one is put before it."""
    trained = metaspace(models.BPE())
    made = Tokenizer(trained.model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return made


KINDS = {
    "gpt-2": byte_level(),
    "digits": byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "llama-3": byte_level(pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), regex=False),
    "no regex": byte_level(regex=False),
    "sentencepiece-bpe": metaspace(models.BPE()),
    "sentencepiece-unigram": metaspace(models.Unigram()),
    "metaspace-first": metaspace(models.BPE(), scheme="first"),
    "llama-2": llama_2(),
}


@pytest.fixture(scope="module", params=KINDS)
def task(request: pytest.FixtureRequest) -> TaskTokenizer:
    return load_tokenizer(KINDS[request.param])


def reads(task: TaskTokenizer, before: str, piece: str) -> str:
    """A text's ids followed by those of a piece, as text."""
    return task.decode([*task.encode(before), *task.spell([piece])[0]])


@pytest.mark.parametrize("piece", ["boston", "b", "5", "2024", "17", "北京", "北", "denver", "Boston", "zürich"[:1]])
def test_a_word_follows_a_mark(task: TaskTokenizer, piece: str) -> None:
    for before in ('is "', '{"from": "', "("):
        assert reads(task, before, piece) == before + piece


@pytest.mark.parametrize("piece", [" boston", " 5", " 2024", ",", '"', " 北京", ' "', " Boston"])
def test_anything_else_follows_a_word(task: TaskTokenizer, piece: str) -> None:
    for before in ("is a", "from denver"):
        assert reads(task, before, piece) == before + piece


@pytest.mark.parametrize("name", ["gpt-2", "llama-3", "digits"])
def test_the_ids_are_those_of_running_text(name: str) -> None:
    task = load_tokenizer(KINDS[name])
    ids = task.encode('flights "boston" from boston').tolist()
    bare, spaced = task.spell(["boston", " boston"])
    assert bare != spaced
    assert any(ids[k : k + len(bare)] == bare for k in range(len(ids)))
    assert ids[-len(spaced) :] == spaced


def test_digits_are_spelled_one_by_one() -> None:
    task = load_tokenizer(KINDS["digits"])
    assert len(task.spell(["2024"])[0]) == 4
    assert [task.decode([i]) for i in task.spell(["2024"])[0]] == list("2024")


def test_the_order_is_kept_and_nothing_is_nothing(task: TaskTokenizer) -> None:
    pieces = ["boston", "", " boston", "boston", "5"]
    assert task.spell(pieces) == [task.spell([p])[0] for p in pieces]
    assert task.spell(["", "x"])[0] == []
    assert task.spell([]) == []


def test_words_of_a_vocabulary_of_words() -> None:
    """Where a mark grows together with the word behind it, the word stands alone."""
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "boston": 1, "is": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    task = load_tokenizer(made)
    assert task.spell(["boston", " boston", "is"]) == [[1], [1], [2]]


def test_a_tokenizer_without_a_blank_before_its_text_is_not_fooled() -> None:
    """Merges over the mark: another mark is tried."""
    made = byte_level(regex=False)
    made = Tokenizer(models.BPE(vocab={**made.get_vocab(), '"q': 9000}, merges=[('"', "q")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    task = load_tokenizer(made)
    assert [task.decode([i]) for i in task.spell(["q"])[0]] == ["q"]


@given(st.sampled_from(sorted(KINDS)), st.lists(WRITTEN, max_size=6))
def test_every_piece_reads_as_itself(name: str, pieces: list[str]) -> None:
    task = load_tokenizer(KINDS[name])
    for piece, ids in zip(pieces, task.spell(pieces), strict=True):
        before = 'is "' if piece[:1].isalnum() else "is a"
        assert task.decode([*task.encode(before), *ids]) == before + piece


@given(st.text(max_size=20))
def test_any_text_is_spelled_by_bytes(piece: str) -> None:
    task = load_tokenizer(KINDS["gpt-2"])
    before = 'is "' if piece[:1].isalnum() else "is a"
    assert task.decode([*task.encode(before), *task.spell([piece])[0]]) == before + piece


def test_a_failure_reaches_its_own_request_alone(tmp_path: Path) -> None:
    """Two threads start requests; the tokenizer fails for the texts of one of them."""

    class Fails:
        def spell(self, pieces: list[str]) -> list[list[int]]:
            if any("boom" in piece for piece in pieces):
                raise ValueError(f"cannot tokenise {pieces}")
            return [[1] for _ in pieces]

    drafter = NgramDrafter(build_toy_task(tmp_path)["index"], tokenizer=Fails())
    raised: dict[str, list[BaseException]] = {"boom": [], "boston": []}

    def start(word: str) -> None:
        for number in range(300):
            try:
                drafter.start([1], f"{word}{number} to denver")
            except BaseException as error:
                raised[word].append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=start, args=(word,)) for word in ("boom", "boston", "boston")]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not raised["boston"]
    assert [str(error)[:8] for error in raised["boom"] if isinstance(error, ValueError)] == ["cannot t"] * 300


def test_a_tokenizer_that_cannot_spell_is_refused(tmp_path: Path) -> None:
    task = load_tokenizer(byte_level())
    rows = [{"input": f"from boston to {k}", "output": f"boston {k}"} for k in range(3)]
    store = TokenStore.build(rows, task, tmp_path / "rows.store", eos=None)
    index = TaskIndex.build(store, tmp_path / "task.tasc", tokenizer=task)
    for call in (
        lambda: TaskIndex.build(store, tmp_path / "other.tasc", tokenizer=task.tokenizer),
        lambda: NgramDrafter(index, tokenizer=task.tokenizer),
    ):
        with pytest.raises(InputError, match=r"tokenizer is Tokenizer; give tasc\.load_tokenizer\(tokenizer\)"):
            call()
    assert not (tmp_path / "other.tasc").exists()
