"""A task small enough for CI: generated rows, a tokenizer made for them, and a random model of two layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generated_tasks import rows
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOS = "<|im_end|>"


def write_rows(folder: Path, kind: str = "slots", train: int = 200, test: int = 10) -> Path:
    """Writes rows `{input, output, split}` of one generated task; returns the file."""
    made = rows(kind, train + test, seed=1)
    path = folder / f"{kind}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for i, row in enumerate(made):
            file.write(json.dumps({**row, "split": "train" if i < train else "test"}) + "\n")
    return path


def write_tokenizer(folder: Path, data: Path, vocab_size: int = 600) -> Path:
    """Trains a byte-level BPE on the rows; returns a folder that transformers loads too."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    lines = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    tokenizer.train_from_iterator((f"{r['input']}\n{r['output']}" for r in lines), trainer)
    target = folder / "tokenizer"
    target.mkdir()
    tokenizer.save(str(target / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "pad_token": EOS}
    (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return target


def tiny_model(tokenizer: Path) -> tuple[Any, Any]:
    """A random Llama of two layers and the transformers form of the tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    loaded = AutoTokenizer.from_pretrained(str(tokenizer))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(loaded),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
        eos_token_id=loaded.eos_token_id,
        bos_token_id=loaded.eos_token_id,
    )
    return LlamaForCausalLM(config).eval(), loaded


def tiny_checkpoint(folder: Path) -> tuple[Path, str]:
    """Writes the rows and a checkpoint of the random model; returns the file of rows and the checkpoint's folder."""
    data = write_rows(folder)
    for part in tiny_model(write_tokenizer(folder, data)):
        part.save_pretrained(folder / "model")
    return data, str(folder / "model")


def extended_model(model: Any, tokenizer: Any, data: Path, folder: Path) -> Path:
    """The model with a task vocabulary of the rows, not tuned; returns its folder."""
    from tasc import extend_checkpoint, learn_vocabulary
    from tasc.data import load_tokenizer

    for part in (model, tokenizer):
        part.save_pretrained(folder / "plain")
    plan = learn_vocabulary(data, load_tokenizer(tokenizer), folder / "task.plan", size=16, split="train")
    return extend_checkpoint(folder / "plain", plan, folder / "extended")
