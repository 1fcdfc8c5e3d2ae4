"""New tokens change nothing but how outputs are written: prompts keep their ids, ids decode to the exact text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.decoders import DecodeStream
from vocabularies import FRAGMENTS, KINDS, ROWS, SPECIAL, learn, make_tokenizer, plain_plan, saved

from tasc import MergePlan, extend_tokenizer, learn_vocabulary
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer
from tasc.data.tokenizer import PLAN_FILE
from tasc.errors import InputError, TokenizerMismatchError
from tasc.vocab.token_validity import FOLLOWERS, TokenValidity

METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


def added(content: str) -> dict[str, object]:
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "special"), False)
    return {"id": 2, "content": content, "single_word": True, **flags}


TEXTS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=8)), max_size=6).map("".join)


@pytest.fixture(scope="module", params=KINDS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TaskTokenizer, TaskTokenizer]:
    """A tokenizer and the extended one."""
    base = load_tokenizer(make_tokenizer(request.param))
    plan = learn(base, tmp_path_factory.mktemp("plan") / "task.plan", max_length=6)
    assert len(plan) >= 10
    return base, extend_tokenizer(base, plan)


def streamed(tokenizer: TaskTokenizer, ids: list[int]) -> str:
    """The text of a stream; streams of byte fallback fail where bytes that were shown turn out to be no character."""
    stream, shown = DecodeStream(skip_special_tokens=True), ""
    for i in ids:
        try:
            shown += stream.step(tokenizer.tokenizer, i) or ""
        except Exception:  # the library raises bare Exception
            return f"{shown} and no more"
    return shown


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_prompts_keep_their_ids_and_outputs_their_text(
    pair: tuple[TaskTokenizer, TaskTokenizer], texts: list[str]
) -> None:
    base, extended = pair
    ids = base.encode_batch(texts)
    assert extended.encode_batch(texts) == ids
    for text, old, new in zip(texts, ids, extended.encode_outputs(texts), strict=True):
        assert extended.encode(text).tolist() == old
        assert len(new) <= len(old)
        assert extended.decode(new) == base.decode(old)
        assert streamed(extended, new) == streamed(base, old)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_ids_decode_as_their_expansion(pair: tuple[TaskTokenizer, TaskTokenizer], data: st.DataObject) -> None:
    """What an untrained model emits: new tokens anywhere, half characters, special tokens."""
    base, extended = pair
    assert extended.plan is not None
    new = st.integers(extended.plan.base_vocab_size, extended.vocab_size - 1)
    ids = data.draw(st.lists(st.one_of(new, st.integers(0, extended.vocab_size - 1)), max_size=12))
    expanded = extended.plan.expand(np.asarray(ids, np.uint32)).tolist()
    assert extended.decode(ids) == base.decode(expanded)
    assert streamed(extended, ids) == streamed(base, expanded)


def test_the_texts_of_new_tokens_are_encoded_as_before(pair: tuple[TaskTokenizer, TaskTokenizer]) -> None:
    """Alone and next to any kind of character."""
    base, extended = pair
    said = [base.tokenizer.decode(extended.plan.expansion(k).tolist()) for k in range(len(extended.plan or ()))]
    texts = [before + text + behind for text in said for before in FOLLOWERS[::4] for behind in FOLLOWERS]
    assert extended.encode_batch(texts) == base.encode_batch(texts)


def test_outputs_are_shorter(pair: tuple[TaskTokenizer, TaskTokenizer]) -> None:
    base, extended = pair
    outputs = [row["output"] for row in ROWS]
    ratio = sum(map(len, extended.encode_outputs(outputs))) / sum(map(len, base.encode_batch(outputs)))
    assert ratio < 0.8
    assert base.encode_outputs(outputs) == base.encode_batch(outputs)


def test_old_tokens_keep_id_text_and_flags(pair: tuple[TaskTokenizer, TaskTokenizer]) -> None:
    base, extended = pair
    assert extended.plan is not None
    before, after = base.tokenizer.get_vocab(), extended.tokenizer.get_vocab()
    assert "[tool]" not in json.loads(base.tokenizer.to_str())["model"]["vocab"], "the case is tested"
    assert before.items() <= after.items()
    assert sorted(set(after.values()) - set(before.values())) == list(range(base.vocab_size, extended.vocab_size))
    assert extended.vocab_size == base.vocab_size + len(extended.plan)
    for i, token in base.tokenizer.get_added_tokens_decoder().items():
        assert str(extended.tokenizer.get_added_tokens_decoder()[i]) == str(token)
    assert extended.eos_id == base.eos_id
    assert extended.fingerprint != base.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_the_same_to_tasc_and_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = saved(make_tokenizer(kind), tmp_path / "model")
    plan = learn(folder, tmp_path / "task.plan")
    extended = extend_tokenizer(folder, plan)
    extended.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / PLAN_FILE).write_bytes(plan.path.read_bytes())
    fast = transformers.AutoTokenizer.from_pretrained(folder)
    for loaded in (load_tokenizer(folder), load_tokenizer(folder / "tokenizer.json"), load_tokenizer(fast)):
        assert loaded.fingerprint == extended.fingerprint
        assert loaded.plan is not None and len(loaded.plan) == len(plan)
        assert loaded.eos_id == 1
        assert load_tokenizer(loaded, eos=None).plan is loaded.plan
    for text in FRAGMENTS:
        (ids,) = extended.encode_outputs([text])
        assert fast(text, add_special_tokens=False)["input_ids"] == extended.encode(text).tolist()
        assert fast.decode(ids) == extended.decode(extended.encode(text))


def test_a_store_of_an_extended_tokenizer_holds_new_ids(tmp_path: Path) -> None:
    base = load_tokenizer(make_tokenizer("byte-level"))
    plan = learn(base, tmp_path / "task.plan")
    extended = extend_tokenizer(base, plan)
    store = TokenStore.build(ROWS[:4], extended, tmp_path / "rows.store")
    assert store.vocab_size == extended.vocab_size
    assert store.fingerprint == extended.fingerprint
    for k in range(len(store)):
        document = store.document(k)
        assert document[-1] == base.eos_id
        assert np.array_equal(plan.segment(plan.expand(document)), document)
    assert any((store.document(k) >= base.vocab_size).any() for k in range(len(store)))
    with pytest.raises(TokenizerMismatchError):
        store.append(ROWS[:1], base)


def test_learning_leaves_out_what_cannot_be_a_token(tmp_path: Path) -> None:
    """In `ROWS`, plain learning finds whole words; `ignore_merges` would then find them in prompts."""
    base = load_tokenizer(make_tokenizer("ignore-merges"))
    plain = plain_plan(base, tmp_path / "plain.plan", size=30, max_length=4)
    invalid = TokenValidity(base).invalid_tokens(plain)
    assert any("without merging" in why for why in invalid.values())
    with pytest.raises(InputError, match=r"n-grams of .* cannot be tokens of tokenizer, for example .*: .*learn"):
        extend_tokenizer(base, plain)
    plan = learn(base, tmp_path / "task.plan", size=30, max_length=4)
    assert not TokenValidity(base).invalid_tokens(plan)
    assert len(plan) == len(plain) == 30, "others took their place"


def test_what_cannot_be_a_token() -> None:
    base = load_tokenizer(make_tokenizer("marked"))
    validity = TokenValidity(base)
    vocab = base.tokenizer.get_vocab()
    assert set(validity.barriers) == {vocab[t] for t in [*SPECIAL, "[tool]", *(f"<0x{b:02X}>" for b in range(256))]}
    ids = [vocab[letter] for letter in "<0x0A>"]
    assert "name of a byte" not in str(validity.reason(ids)), "in this vocabulary it is an entry"
    assert "entry with that string" in str(validity.reason(ids))
    assert "cannot be joined" in str(validity.reason([vocab["a"], vocab["<0x0A>"]]))
    assert "cannot be joined" in str(validity.reason([vocab["a"], 10**6]))


def test_half_characters() -> None:
    base = load_tokenizer(make_tokenizer("byte-level"))
    validity = TokenValidity(base)
    head, *tail = base.encode("東").tolist()
    word = base.encode("x").tolist()
    assert "inside a character" in str(validity.reason([*word, head]))
    assert validity.reason([*tail, *word]) is None
    assert validity.reason([head, *tail]) is None


def test_two_n_grams_of_one_string(tmp_path: Path) -> None:
    """`ab` + `c` and `a` + `bc` cannot both be the token `abc`."""
    letters = {letter: k for k, letter in enumerate(["<eos>", "a", "b", "c", "ab", "bc", "x"])}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.decoder = decoders.Sequence([decoders.Fuse()])
    task = load_tokenizer(tokenizer, eos="<eos>")
    from tasc._core import StoreWriter

    writer = StoreWriter.create(
        tmp_path / "s", fingerprint=task.fingerprint, tokenizer="letters", vocab_size=7, eos_id=0
    )
    documents = [[6, 4, 3, 6, 6, 0], [4, 3, 6, 0], [1, 5, 6, 0], [6, 1, 5, 0], [6, 6, 4, 3, 0]]
    ids = np.concatenate([np.asarray(d, np.uint32) for d in documents])
    writer.push(ids, np.cumsum([len(d) for d in documents], dtype=np.uint64), [None] * len(documents))
    writer.finish()
    store = TokenStore.open(tmp_path / "s")
    options = {"size": 10, "min_count": 2, "min_documents": 2, "max_length": 2, "held_out": 0.0}
    plain = MergePlan.learn(store, tmp_path / "plain.plan", **options)
    expansions = {tuple(plain.expansion(k).tolist()) for k in range(len(plain))}
    assert {(4, 3), (1, 5)} <= expansions
    (invalid,) = TokenValidity(task).invalid_tokens(plain).items()
    assert plain.expansion(invalid[0]).tolist() == [1, 5] and "same string" in invalid[1]
    plan = learn_vocabulary(store, task, tmp_path / "task.plan", **options)
    left = {tuple(plan.expansion(k).tolist()) for k in range(len(plan))}
    assert (4, 3) in left and (1, 5) not in left


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s["model"].update(dropout=0.1), "random"),
        (lambda s: s["model"].update(continuing_subword_prefix="##"), "inside words"),
        (lambda s: s["model"].update(end_of_word_suffix="</w>"), "end of words"),
        (lambda s: s.update(decoder=None), "has no decoder"),
        (lambda s: s.update(decoder={"type": "BPEDecoder", "suffix": "</w>"}), "decodes with BPEDecoder"),
        (lambda s: s.update(decoder={"type": "Strip", "content": " ", "start": 1, "stop": 0}), "decodes with Strip"),
        (lambda s: s["added_tokens"].append(added("é")), "added token 'é'"),
        (lambda s: (s["added_tokens"].append(added("x1")), s["model"].update(ignore_merges=True)), "added token 'x1'"),
        (lambda s: s.update(decoder=METASPACE), "decodes with Metaspace"),
    ],
)
def test_tokenizers_that_cannot_be_extended(change: object, why: str) -> None:
    state = json.loads(Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[])).to_str())
    state["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    TokenValidity(load_tokenizer(Tokenizer.from_str(json.dumps(state))))
    change(state)  # type: ignore[operator]
    with pytest.raises(InputError, match=why):
        TokenValidity(load_tokenizer(Tokenizer.from_str(json.dumps(state))))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0), "scores all entries"),
        (models.WordPiece({"[UNK]": 0, "a": 1}), "longest matching entry"),
        (models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"), "whole words"),
    ],
)
def test_models_that_cannot_be_extended(model: models.Model, why: str) -> None:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InputError, match=why):
        learn_vocabulary([{"output": "a a a"}], tokenizer, "unused.plan")


def test_plan_and_tokenizer_must_belong_together(tmp_path: Path) -> None:
    base, other = load_tokenizer(make_tokenizer("byte-level")), load_tokenizer(make_tokenizer("byte-level", 300))
    plan = learn(base, tmp_path / "task.plan")
    both = f"{base.fingerprint[:12]}.*{other.fingerprint[:12]}"
    with pytest.raises(TokenizerMismatchError, match=both):
        extend_tokenizer(other, plan)
    store = TokenStore.build(ROWS, base, tmp_path / "rows.store")
    with pytest.raises(TokenizerMismatchError, match=both):
        learn_vocabulary(store, other, tmp_path / "other.plan")
    extended = extend_tokenizer(base, plan)
    with pytest.raises(InputError, match="already has 60 new tokens"):
        learn_vocabulary(ROWS, extended, tmp_path / "other.plan")
    (tmp_path / "model").mkdir()
    for tokenizer in (base, other):
        tokenizer.tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
        (tmp_path / "model" / PLAN_FILE).write_bytes(plan.path.read_bytes())
        with pytest.raises(TokenizerMismatchError, match="is not that of the tokenizer beside it"):
            load_tokenizer(tmp_path / "model")


def test_gaps_between_ids_stay(tmp_path: Path) -> None:
    state = json.loads(make_tokenizer("byte-level").to_str())
    vocab = state["model"]["vocab"]
    vocab["far"] = len(vocab) + 20
    base = load_tokenizer(Tokenizer.from_str(json.dumps(state)))
    extended = extend_tokenizer(base, learn(base, tmp_path / "task.plan"))
    assert extended.tokenizer.token_to_id("far") == base.tokenizer.token_to_id("far")
    for text in FRAGMENTS:
        assert extended.encode(text).tolist() == base.encode(text).tolist()
        assert extended.decode(extended.encode_outputs([text])[0]) == base.decode(base.encode(text))
