"""SmolLM2 arrives whole: right weights, right digits, right end of text."""

import math
from pathlib import Path

import pytest

from tasc import models
from tasc.errors import InputError, TascError

PARAGRAPH = (
    "The history of the lighthouse begins with simple fires that were kept burning on hills to guide sailors home. "
    "Over time people built tall towers of stone, and placed large lamps at the top so that the light could be seen "
    "from far away. Today most lighthouses are automatic, and many ships use satellites to find their way, but the "
    "old towers still stand on the coast and remind visitors of the long story of the sea."
)


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return models.smollm2()


@pytest.mark.model
def test_perplexity_on_english_is_that_of_a_whole_model(checkpoint: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = AutoTokenizer.from_pretrained(checkpoint)(PARAGRAPH, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
    assert math.exp(loss) < 30  # queries and keys left in GGUF order give hundreds


@pytest.mark.model
@pytest.mark.parametrize("text", ["Call 1234 on 2026-11-21.", "héllo 日本語  \n\t", '{"a": [1, 22]}', " x", ""])
def test_tokenizer_round_trips_and_splits_digits(checkpoint: Path, text: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([i]) for i in ids]
    assert all(sum(c.isdigit() for c in piece) <= 1 for piece in pieces)


@pytest.mark.model
def test_bare_tokenizer_file_agrees_with_transformers(checkpoint: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    bare = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    whole = transformers.AutoTokenizer.from_pretrained(checkpoint)
    assert bare.encode(PARAGRAPH + " 1234", add_special_tokens=False).ids == whole(PARAGRAPH + " 1234")["input_ids"]


@pytest.mark.model
def test_generation_ends_at_the_end_of_the_turn(checkpoint: Path) -> None:
    transformers = pytest.importorskip("transformers")
    settings = transformers.GenerationConfig.from_pretrained(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    assert settings.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_environment_variable_moves_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASC_CACHE", str(tmp_path))
    assert models.cache_root() == tmp_path
    assert models.cache_root(tmp_path / "other") == tmp_path / "other"
    monkeypatch.delenv("TASC_CACHE")
    assert models.cache_root() == Path.home() / ".cache" / "tasc"


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"not it")
    with pytest.raises(TascError, match="sha256"):
        models._check_sha256(tmp_path / "model.gguf", models._GGUF_SHA256)


def test_a_failed_making_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("stopped")

    pytest.importorskip("filelock")
    with pytest.raises(RuntimeError, match="stopped"):
        models._made_once(tmp_path / "model", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    pytest.importorskip("filelock")
    (tmp_path / ".tasc-dead.tmp").mkdir()
    made = models._made_once(tmp_path / "model", lambda folder: (folder / "done").touch())
    assert [path.name for path in made.iterdir()] == ["done"]
    assert not (tmp_path / ".tasc-dead.tmp").exists()


def test_concurrent_callers_make_it_once(tmp_path: Path) -> None:
    pytest.importorskip("filelock")
    from concurrent.futures import ThreadPoolExecutor

    calls: list[Path] = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "done").write_text("whole")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: models._made_once(tmp_path / "model", make), range(8)))
    assert len(calls) == 1
    assert {(path / "done").read_text() for path in found} == {"whole"}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A random two-layer Llama with a byte tokenizer, saved."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(kinds.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_merged_checkpoint_equals_base_with_adapter(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("TASC_CACHE", str(tmp_path / "cache"))
    config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config).save_pretrained(tmp_path / "adapter")
    merged = models.merge_adapter(tiny, tmp_path / "adapter")
    assert merged.parent == tmp_path / "cache"

    ids = torch.tensor([AutoTokenizer.from_pretrained(merged)("abc")["input_ids"]])
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), str(tmp_path / "adapter")).eval()
    plain = AutoModelForCausalLM.from_pretrained(merged)
    with torch.no_grad():
        expected, found = adapted(ids).logits, plain(ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny)(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(base, expected, atol=1e-5)

    stamp = (merged / "model.safetensors").stat().st_mtime_ns
    assert models.merge_adapter(tiny, tmp_path / "adapter") == merged  # kept, not merged again
    assert (merged / "model.safetensors").stat().st_mtime_ns == stamp

    settings = tmp_path / "adapter" / "adapter_config.json"
    settings.write_text(settings.read_text() + "\n")  # other content, other checkpoint
    assert models.merge_adapter(tiny, tmp_path / "adapter") != merged


def test_a_folder_without_adapter_is_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        models.merge_adapter(tiny, tmp_path)
