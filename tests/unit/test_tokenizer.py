import json
from pathlib import Path
from typing import Any

import pytest
from conftest import train_tokenizer
from tokenizers import Tokenizer, processors

from tasc.data import TaskTokenizer, load_tokenizer
from tasc.errors import InputError

CHAT = ["<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]


def folder(tmp_path: Path, tokenizer: Tokenizer, **files: Any) -> Path:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("files", "end"),
    [
        ({"generation_config": {"eos_token_id": [1, 2, 3]}}, "<|eot_id|>"),
        ({"generation_config": {"eos_token_id": [2, 0]}}, "<|eom_id|>"),
        (
            {"generation_config": {"eos_token_id": 1}, "tokenizer_config": {"eos_token": "<|eot_id|>"}},
            "<|end_of_text|>",
        ),
        ({"tokenizer_config": {"eos_token": "<|eom_id|>"}, "config": {"eos_token_id": 1}}, "<|eom_id|>"),
        ({"tokenizer_config": {"eos_token": {"content": "<|eom_id|>", "special": True}}}, "<|eom_id|>"),
        ({"tokenizer_config": {"eos_token": None}, "special_tokens_map": {"eos_token": "<|eom_id|>"}}, "<|eom_id|>"),
        ({"config": {"eos_token_id": 1}}, "<|end_of_text|>"),
        ({"config": {"eos_token_id": 10**12}, "tokenizer_config": {"eos_token": "</nothing>"}}, "<|eot_id|>"),
        ({"generation_config": {"eos_token_id": -1}}, "<|eot_id|>"),
        ({}, "<|eot_id|>"),
    ],
)
def test_the_end_token_is_found(tmp_path: Path, files: dict[str, Any], end: str) -> None:
    tokenizer = train_tokenizer(CHAT)
    path = folder(tmp_path, tokenizer, **files)
    for source in (path, str(path), path / "tokenizer.json"):
        task = load_tokenizer(source)
        assert task.eos_id == tokenizer.token_to_id(end)
        assert task.name == tmp_path.name
    assert load_tokenizer(path, eos=None).eos_id is None
    assert load_tokenizer(path, eos="<|begin_of_text|>").eos_id == 0
    assert load_tokenizer(load_tokenizer(path), eos=2).eos_id == 2


def test_no_end_token(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([])
    assert load_tokenizer(tokenizer).eos_id is None
    for eos in ("</s>", 5000, -1):
        with pytest.raises(InputError, match="has no token"):
            load_tokenizer(tokenizer, eos=eos)


def test_the_fingerprint_is_that_of_the_ids(tokenizer: Tokenizer, tokenizer_file: Path) -> None:
    same = load_tokenizer(tokenizer).fingerprint
    assert len(same) == 64
    assert load_tokenizer(tokenizer_file).fingerprint == same
    changed = Tokenizer.from_str(tokenizer.to_str())
    changed.enable_truncation(3)
    changed.enable_padding(length=9)
    changed.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    task = load_tokenizer(changed)
    assert task.fingerprint == same
    assert task.encode("boston boston boston").size > 3
    assert changed.truncation is not None, "the caller's own is left as it is"
    changed.add_tokens(["brand new"])
    assert load_tokenizer(changed).fingerprint != same
    assert load_tokenizer(train_tokenizer(["<|endoftext|>", "<|im_end|>"], 270)).fingerprint != same


def test_a_transformers_tokenizer_is_the_same_as_its_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = folder(
        tmp_path,
        train_tokenizer(CHAT),
        tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end_of_text|>"},
        generation_config={"eos_token_id": [1, 3]},
    )
    loaded = transformers.AutoTokenizer.from_pretrained(path)
    loaded("some text", truncation=True, max_length=2)  # leaves its settings behind
    one, other = load_tokenizer(loaded), load_tokenizer(path)
    assert one.fingerprint == other.fingerprint
    assert (one.eos_id, one.name) == (other.eos_id, other.name) == (3, tmp_path.name)
    memory = transformers.PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(CHAT), eos_token="<|eom_id|>")
    assert load_tokenizer(memory).eos_id == 2


def test_encoding_and_decoding(tokenizer: Tokenizer) -> None:
    task = load_tokenizer(tokenizer)
    assert isinstance(task, TaskTokenizer)
    assert load_tokenizer(task) is task
    texts = ["boston", "", "ünï 🙂", "a\nb"]
    for text, ids in zip(texts, task.encode_batch(texts), strict=True):
        assert task.encode(text).tolist() == ids
        assert task.decode(ids) == text
        assert all(i < task.vocab_size for i in ids)
    assert task.decode([*task.encode("x"), task.eos_id]) == "x"


def test_ids_may_have_gaps() -> None:
    state = json.loads(train_tokenizer([]).to_str())
    before = len(state["model"]["vocab"])
    state["model"]["vocab"]["gap"] = before + 100
    assert load_tokenizer(Tokenizer.from_str(json.dumps(state))).vocab_size == before + 101


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match=r"there is no tokenizer at .*/nowhere"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"there is no tokenizer at tokenizer-of-mine\.json"):
        load_tokenizer("tokenizer-of-mine.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is no tokenizer"):
        load_tokenizer(tmp_path)
    path = folder(tmp_path, train_tokenizer([]))
    (path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is not JSON"):
        load_tokenizer(path)
    with pytest.raises(InputError, match="dict is no fast tokenizer"):
        load_tokenizer({})
