"""Checkpoints have the fields that transformers 4 reads, and version 5 reads them as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from portable_models import CASES  # noqa: E402
from test_extended_model import make_model  # noqa: E402
from tiny_models import byte_tokenizer, tiny_model  # noqa: E402
from vocabularies import learn, make_tokenizer, saved  # noqa: E402

from tasc import extend_checkpoint  # noqa: E402
from tasc.portable import make_portable  # noqa: E402
from tasc.training.distill.draft_init import save_draft  # noqa: E402


def read(folder: Path, name: str = "config.json") -> dict[str, Any]:
    return dict(json.loads((folder / name).read_text()))


@pytest.mark.parametrize("name", CASES)
def test_the_older_fields_say_the_same(name: str, tmp_path: Path) -> None:
    make, expected = CASES[name]
    config = make()
    config.dtype = torch.bfloat16
    config.save_pretrained(tmp_path)
    before = read(tmp_path)
    loaded = transformers.AutoConfig.from_pretrained(tmp_path).to_dict()
    make_portable(tmp_path)
    after = read(tmp_path)
    assert {field: after.get(field) for field in expected} == expected
    assert after["torch_dtype"] == "bfloat16"
    assert {field: after.get(field) for field in before} == before
    again = transformers.AutoConfig.from_pretrained(tmp_path).to_dict()
    if name == "phi3-longrope":
        assert again["rope_parameters"].pop("type") == "longrope"  # the name that version 4 requires
    assert {field: again.get(field) for field in loaded} == loaded


def test_the_configuration_inside_another_one(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 5.0}
    config = {
        "model_type": "some_vl",
        "text_config": {"model_type": "llama", "rope_parameters": rope, "dtype": "float16"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    make_portable(tmp_path)
    assert read(tmp_path)["text_config"] == {**config["text_config"], "rope_theta": 5.0, "torch_dtype": "float16"}


def test_no_rope_no_change(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type":"gpt2", "n_embd": 8}')
    make_portable(tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"model_type":"gpt2", "n_embd": 8}'


def test_version_4_has_the_tokenizer_class(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<tool>"]})
    tokenizer.save_pretrained(tmp_path)
    make_portable(tmp_path)
    settings = read(tmp_path, "tokenizer_config.json")
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    assert settings["additional_special_tokens"] == ["<tool>"]
    assert "extra_special_tokens" not in settings
    tiny_model("llama").config.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again("a <tool> b<eos>") == tokenizer("a <tool> b<eos>")
    assert set(again.all_special_tokens) == {"<eos>", "<tool>"}


def test_a_class_without_tokenizer_json_stays(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    make_portable(tmp_path)
    assert read(tmp_path, "tokenizer_config.json") == {"tokenizer_class": "ByT5Tokenizer"}


def test_the_padding_side_of_a_class_stays(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    settings = read(tmp_path, "tokenizer_config.json")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "GemmaTokenizer"}))
    make_portable(tmp_path)
    settings = read(tmp_path, "tokenizer_config.json")
    assert (settings["tokenizer_class"], settings["padding_side"]) == ("PreTrainedTokenizerFast", "left")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_checkpoints_of_tasc_are_portable_and_their_sources_stay(tmp_path: Path) -> None:
    source = saved(make_tokenizer("byte-level"), tmp_path / "source")
    make_model("llama-tied").save_pretrained(source)
    before = contents(source)
    plan = learn(source, tmp_path / "task.plan")
    extended = extend_checkpoint(source, plan, tmp_path / "extended")
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    save_draft(model, transformers.AutoTokenizer.from_pretrained(source), tmp_path / "draft")
    assert contents(source) == before
    for folder in (extended, tmp_path / "draft"):
        config = read(folder)
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
        assert config["torch_dtype"] == config["dtype"] == "float32"
        assert read(folder, "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
