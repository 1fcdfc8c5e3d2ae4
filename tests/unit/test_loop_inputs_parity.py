"""With everything switched on (rows with inputs, a fitted mixture, copies), the text is still plain decoding's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_models import byte_tokenizer, peer_greedy, tiny_model

from tasc import Generator, NgramDrafter, TaskIndex
from tasc._core import StoreWriter
from tasc.data import TokenStore, load_tokenizer
from tasc.drafting.protocol import INDEX_SOURCES

MAX_TOKENS = 24
TOKENIZER = byte_tokenizer()
TASK = load_tokenizer(TOKENIZER)
INPUTS = [f"{verb} flights from {a} to {b}" for verb, a, b in zip(
    ("show", "list", "find", "book", "show", "list"), ("rome", "oslo", "bern", "kiew", "bari", "graz"),
    ("lyon", "nice", "riga", "rome", "oslo", "bern"), strict=True,
)]  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "gpt2", "mistral-window"])
def task(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[list[int]], TaskIndex]:
    """A model, what it says to the inputs, and an index of rows like that: alike, but seldom the same."""
    model = tiny_model(request.param)
    expected = [peer_greedy(model, TOKENIZER(f"{text}\n")["input_ids"], MAX_TOKENS) for text in INPUTS]
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp(request.param)
    outputs, inputs = [], []
    for k in range(60):
        output = np.array(expected[k % 6], np.uint32)
        output[rng.integers(0, len(output), k % 4)] = rng.integers(1, 257, k % 4)
        outputs.append(output)
        inputs.append(f"{INPUTS[k % 6]} {k // 6}")
    writer = StoreWriter.create(
        folder / "rows.store", fingerprint=TASK.fingerprint, vocab_size=TASK.vocab_size, eos_id=TASK.eos_id
    )
    writer.push(np.concatenate(outputs), np.cumsum([len(o) for o in outputs], dtype=np.uint64), inputs)
    writer.finish()
    store = TokenStore.open(folder / "rows.store")
    return model, expected, TaskIndex.build(store, folder / "task.tasc", tokenizer=TASK)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_drafts_that_know_their_input_change_no_text(task: Any, batch_size: int) -> None:
    model, expected, index = task
    assert index.info()["inputs"] == 60
    assert index.info()["fit"] is not None
    generator = Generator(model, TOKENIZER, index=index, batch_size=batch_size, costs=0.02)
    made = generator.generate(INPUTS, max_tokens=MAX_TOKENS)
    assert [item.ids for item in made] == expected
    assert made.stats.drafter_errors == 0
    assert made.stats.accepted > made.stats.steps, "the drafts must have been of use, or nothing was tested"
    for prompts in ([f"{text}\n" for text in INPUTS], [TOKENIZER(f"{text}\n")["input_ids"] for text in INPUTS]):
        again = generator.generate(prompts=prompts[::-1], max_tokens=MAX_TOKENS)
        assert [item.ids for item in again] == expected[::-1]
        assert again.stats.drafter_errors == 0


@pytest.mark.parametrize("without", INDEX_SOURCES)
def test_nor_do_they_without_a_source(task: Any, without: str) -> None:
    model, expected, index = task
    drafter = NgramDrafter(index, tokenizer=TASK, without=[without])
    generator = Generator(model, TOKENIZER, drafter=drafter, batch_size=3, costs=0.02)
    made = generator.generate(INPUTS, max_tokens=MAX_TOKENS)
    assert [item.ids for item in made] == expected
    assert without not in made.stats.drafted_by
