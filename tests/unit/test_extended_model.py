"""Models get rows for new tokens; nothing else about them changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tokenizers.decoders import DecodeStream  # noqa: E402
from vocabularies import ROWS, learn, make_tokenizer, saved  # noqa: E402

from tasc import MergePlan, extend_checkpoint, extend_model  # noqa: E402
from tasc.data import load_tokenizer  # noqa: E402
from tasc.errors import InputError, TokenizerMismatchError  # noqa: E402
from tasc.files import new_folder  # noqa: E402
from tasc.vocab.surgery import is_tied  # noqa: E402

SIZE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SIZE, "num_key_value_heads": 1, "head_dim": 8}
MODELS: dict[str, Any] = {
    "llama-tied": lambda v: transformers.LlamaConfig(**GROUPED, vocab_size=v, tie_word_embeddings=True),
    "llama-untied": lambda v: transformers.LlamaConfig(**GROUPED, vocab_size=v, tie_word_embeddings=False),
    "qwen2-tied": lambda v: transformers.Qwen2Config(**GROUPED, vocab_size=v, tie_word_embeddings=True),
    "gpt2": lambda v: transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=256, vocab_size=v, bos_token_id=None, eos_token_id=1, pad_token_id=0
    ),
    "gpt-neox": lambda v: transformers.GPTNeoXConfig(**SIZE, vocab_size=v, tie_word_embeddings=False),
    "phi-bias": lambda v: transformers.PhiConfig(**SIZE, vocab_size=v, tie_word_embeddings=False),
    "gemma2-capped": lambda v: transformers.Gemma2Config(**GROUPED, vocab_size=v),
    "gemma3-scaled": lambda v: transformers.Gemma3TextConfig(**GROUPED, vocab_size=v),
    "gemma3-nested": lambda v: transformers.Gemma3Config(
        text_config={**GROUPED, "vocab_size": v},
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        mm_tokens_per_image=1,
    ),
}  # fmt: skip
TOKENIZER = make_tokenizer("byte-level")
BASE = load_tokenizer(TOKENIZER).vocab_size


def make_model(name: str, rows: int = BASE) -> Any:
    torch.manual_seed(7)
    torch.set_num_threads(1)
    config = MODELS[name](rows)
    nested = name == "gemma3-nested"
    auto = transformers.AutoModelForImageTextToText if nested else transformers.AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32).eval()
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    return model


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> MergePlan:
    return learn(TOKENIZER, tmp_path_factory.mktemp("plan") / "task.plan")


def tables(model: Any) -> dict[str, Any]:
    outputs = model.get_output_embeddings()
    found = {"input": model.get_input_embeddings().weight, "output": outputs.weight, "bias": outputs.bias}
    return {name: table for name, table in found.items() if table is not None}


def expected(model: Any, name: str, table: Any, parts: list[int]) -> Any:
    """The row of a new token, said another way: every step halves what came before it."""
    if is_tied(model):
        return table[parts].mean(0)
    order = parts if name == "input" else parts[::-1]
    row, weight = torch.zeros_like(table[0]), 0.0
    for part in order:
        row, weight = row / 2 + table[part], weight / 2 + 1
    return row / weight


@pytest.mark.parametrize("name", MODELS)
def test_old_rows_stay_and_new_ones_begin_as_their_parts(name: str, plan: MergePlan) -> None:
    model = make_model(name)
    before = {key: table.detach().clone() for key, table in tables(model).items()}
    others = {key: value.clone() for key, value in model.state_dict().items() if value.shape[:1] != (BASE,)}
    tied = is_tied(model)
    assert tied == (name not in ("llama-untied", "gpt-neox", "phi-bias"))
    assert extend_model(model, plan) is model
    assert is_tied(model) == tied
    assert ("bias" in before) == (name == "phi-bias")
    for key, table in tables(model).items():
        assert len(table) == BASE + len(plan)
        assert torch.equal(table[:BASE], before[key])
        for k in range(len(plan)):
            row = expected(model, key, before[key], plan.expansion(k).tolist())
            torch.testing.assert_close(table[BASE + k], row, rtol=1e-5, atol=1e-6)
    for key, value in others.items():
        assert torch.equal(model.state_dict()[key], value)
    assert model.config.get_text_config().vocab_size == BASE + len(plan)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_every_new_row(name: str, plan: MergePlan) -> None:
    model = extend_model(make_model(name), plan)
    new = torch.arange(BASE, BASE + len(plan))
    for at in range(0, len(plan), 100):
        ids = new[at : at + 100].repeat_interleave(2)[None]
        model(input_ids=ids, labels=ids).loss.backward()
    for table in tables(model).values():
        gradients = table.grad[BASE:].abs().reshape(len(plan), -1).sum(1)
        assert (gradients > 0).all()


@pytest.mark.parametrize("name", ["llama-tied", "llama-untied", "phi-bias"])
def test_padding_is_filled_and_never_shrinks(name: str, plan: MergePlan) -> None:
    for rows, multiple, after in (
        (BASE + 500, 1, BASE + 500),
        (BASE + 500, 64, BASE + 500),
        (BASE + 3, 1, BASE + len(plan)),
        (BASE + 3, 1000, 1000 * -(-(BASE + len(plan)) // 1000)),
    ):
        model = make_model(name, rows)
        before = {key: table.detach().clone() for key, table in tables(model).items()}
        extend_model(model, plan, pad_to_multiple=multiple)
        end = BASE + len(plan)
        for key, table in tables(model).items():
            assert len(table) == after
            assert torch.equal(table[:BASE], before[key][:BASE])
            assert torch.equal(table[end:rows], before[key][end:rows]), "padding that is not used stays"
            torch.testing.assert_close(
                table[BASE + 1], expected(model, key, before[key], plan.expansion(1).tolist()), rtol=1e-5, atol=1e-6
            )
        assert model.config.vocab_size == after
        if after > max(rows, end):
            logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits
            assert (logits[..., max(rows, end) :] <= logits[..., :rows].max(-1, keepdim=True).values).all()


def test_models_that_cannot_be_extended(plan: MergePlan) -> None:
    with pytest.raises(InputError, match=rf"for {BASE - 1} tokens.*has {BASE}"):
        extend_model(make_model("llama-tied", BASE - 1), plan)
    with pytest.raises(InputError, match="pad_to_multiple is 0"):
        extend_model(make_model("llama-tied"), plan, pad_to_multiple=0)
    model = make_model("llama-tied")
    model.model.embed_tokens_per_layer = torch.nn.Embedding(BASE, 4)
    with pytest.raises(InputError, match=r"second embedding table, model\.embed_tokens_per_layer"):
        extend_model(model, plan)


@pytest.mark.parametrize(
    ("name", "dtype"), [("llama-tied", None), ("llama-untied", "bfloat16"), ("gemma3-scaled", None)]
)
def test_a_checkpoint_generates_exact_text(name: str, dtype: str | None, tmp_path: Path) -> None:
    source = saved(TOKENIZER, tmp_path / "model")
    make_model(name).save_pretrained(source)
    settings = {"eos_token_id": [1], "max_new_tokens": 31, "transformers_version": "0"}
    (source / "generation_config.json").write_text(json.dumps(settings))
    plan = learn(source, tmp_path / "task.plan")
    folder = extend_checkpoint(source, plan, tmp_path / "extended", dtype=dtype)
    assert not list(tmp_path.glob(".extended-*"))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == (torch.bfloat16 if dtype else torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert json.loads((folder / "generation_config.json").read_text()) == settings
    assert tokenizer.chat_template == transformers.AutoTokenizer.from_pretrained(source).chat_template
    task = load_tokenizer(folder)
    assert task.plan is not None and task.fingerprint == load_tokenizer(tokenizer).fingerprint
    messages = [{"role": "user", "content": "fly to boston"}]
    prompt = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    assert (prompt["input_ids"] < BASE).all()
    ids = model.generate(**prompt, max_new_tokens=40, do_sample=True, pad_token_id=0)[0].tolist()
    expanded = task.plan.expand(ids).tolist()
    assert tokenizer.decode(ids) == TOKENIZER.decode(expanded, skip_special_tokens=False)
    shown: list[str] = []
    streamer = transformers.TextStreamer(tokenizer)
    streamer.on_finalized_text = lambda text, stream_end=False: shown.append(text)
    (output,) = task.encode_outputs([ROWS[0]["output"] + " and 東京 🙂\nso on"])
    assert max(output) >= BASE
    for token in output:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(shown) == ROWS[0]["output"] + " and 東京 🙂\nso on"
    stream = DecodeStream()
    assert "".join(stream.step(task.tokenizer, i) or "" for i in output) == "".join(shown)


def test_the_folder_is_loaded_as_its_tokenizer_says(tmp_path: Path) -> None:
    """Some classes of transformers build a tokenizer of their own; tokens that only the settings name are added."""
    source = saved(TOKENIZER, tmp_path / "model")
    make_model("llama-tied").save_pretrained(source)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "GPT2Tokenizer"}))
    own = transformers.AutoTokenizer.from_pretrained(source)
    assert load_tokenizer(own).fingerprint != load_tokenizer(source).fingerprint, "the case is tested"
    plan = learn(source, tmp_path / "task.plan")
    folder = extend_checkpoint(source, plan, tmp_path / "extended")
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    assert load_tokenizer(loaded).fingerprint == load_tokenizer(folder).fingerprint
    assert loaded.eos_token == own.eos_token and loaded.chat_template == own.chat_template
    (source / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "[PAD]"}))
    with pytest.raises(InputError, match=r"loads for model differs from its tokenizer\.json"):
        extend_checkpoint(source, plan, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_added_token_beyond_the_matrices(tmp_path: Path, plan: MergePlan) -> None:
    """Gemma 3 1B has an image token without a row."""
    source = saved(TOKENIZER, tmp_path / "model")
    make_model("llama-tied", BASE - 1).save_pretrained(source)
    extend_checkpoint(source, plan, tmp_path / "out")
    extended = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert extended.get_input_embeddings().weight.shape[0] >= BASE + len(plan)


def test_a_checkpoint_that_is_refused_leaves_nothing(tmp_path: Path, plan: MergePlan) -> None:
    other = saved(make_tokenizer("byte-level", 300), tmp_path / "other")
    with pytest.raises(TokenizerMismatchError, match=f"{plan.fingerprint[:12]}.*other"):
        extend_checkpoint(other, plan, tmp_path / "out")
    source = saved(TOKENIZER, tmp_path / "model")
    make_model("llama-tied", BASE // 2).save_pretrained(source)
    with pytest.raises(InputError, match="the model has embeddings"):
        extend_checkpoint(source, plan, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "other"}
    with pytest.raises(InputError, match="is there already"):
        extend_checkpoint(source, plan, tmp_path / "other")
    with new_folder(tmp_path / "deep" / "new") as folder:
        (folder / "file").touch()
    assert (tmp_path / "deep" / "new" / "file").exists()
