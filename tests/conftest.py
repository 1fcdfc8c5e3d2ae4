"""What tests of several folders share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def train_tokenizer(special: list[str], vocab_size: int = 320) -> Tokenizer:
    """A byte-level BPE tokenizer of a few merges; any text has ids, and decodes to itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = ['{"intent": "flight", "from": "boston"}', '{"intent": "fare", "to": "san francisco"}'] * 4
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


@pytest.fixture(autouse=True)
def training_log_level() -> Iterator[None]:
    """Restores what the commands `tune` and `distill` set, so that no test sees the records that another asked for."""
    logger = logging.getLogger("tasc.training")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Its end of turn is `<|im_end|>`, id 1."""
    return train_tokenizer(["<|endoftext|>", "<|im_end|>"])


@pytest.fixture(scope="session")
def tokenizer_file(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a bare tokenizer.json."""
    path = tmp_path_factory.mktemp("toy") / "tokenizer.json"
    tokenizer.save(str(path))
    return path
