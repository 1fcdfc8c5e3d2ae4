"""llama.cpp runs a model with a task vocabulary, converted by its own script: same prompt ids, same text.

`TASC_LLAMA_CPP` names a folder with llama.cpp's source (`vendor/llama.cpp` of the sdist of llama-cpp-python). The
script needs sentencepiece. `TASC_TUNED_CHECKPOINT` may name a tuned checkpoint, `TASC_TUNED_SYSTEM` its system prompt;
else SmolLM2 is extended, and a bias draws its new tokens. Tried with llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasc import MergePlan, extend_checkpoint, learn_vocabulary
from tasc.adapters.llama_pieces import with_long_tokens
from tasc.data.tokenizer import PLAN_FILE
from tasc.models import smollm2

pytestmark = [pytest.mark.engine, pytest.mark.model]
llama_cpp: Any = pytest.importorskip("llama_cpp")
torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

SYSTEM = os.environ.get("TASC_TUNED_SYSTEM", "Extract the intent and the slots of the request as JSON.")
INPUTS = ["flights from boston to denver on monday", "turn the lights off in 10 minutes, s'il vous plaît"]
TEXTS = ["", "Hello  world\n\n\tx = 1234.5", "東京 → köln 🙂🙂", 'I\'ve {"value": "boston"}, it\'s 10:30', "a" * 50]
ROWS = [{"output": f'{{"name": "fromloc.city_name", "value": "city {k}", "köln": {k}}}'} for k in range(40)]
TOKENS = 24
QUANTISED = {"f16": 1, "q8_0": 7, "q4_0": 2}
"""Types of `llama_model_quantize`, as llama.h numbers them."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("TASC_TUNED_CHECKPOINT"):
        return Path(given)
    folder = tmp_path_factory.mktemp("extended")
    plan = learn_vocabulary(ROWS, smollm2(), folder / "task.plan", size=20, held_out=0.0)
    return extend_checkpoint(smollm2(), plan, folder / "model")


@pytest.fixture(scope="module")
def full(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in float32, as llama.cpp's script converts it."""
    if not (source := os.environ.get("TASC_LLAMA_CPP")):
        pytest.skip("TASC_LLAMA_CPP names no folder")
    pytest.importorskip("sentencepiece")
    file = tmp_path_factory.mktemp("gguf") / "model.f32.gguf"
    command = [sys.executable, f"{source}/convert_hf_to_gguf.py", str(checkpoint), "--outfile", str(file)]
    done = subprocess.run([*command, "--outtype", "f32"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return file


@pytest.fixture(scope="module", params=["f32", *QUANTISED])
def llama(full: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """The model in llama.cpp, with the logits of all positions."""
    file = full
    if request.param != "f32":
        file = full.with_name(f"model.{request.param}.gguf")
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype, settings.nthread = QUANTISED[request.param], 1
        assert llama_cpp.llama_model_quantize(bytes(full), bytes(file), settings) == 0
    made = with_long_tokens(llama_cpp.Llama(str(file), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False))
    yield request.param, made
    made.close()
    if file != full:
        file.unlink()


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def plan(checkpoint: Path) -> MergePlan:
    return MergePlan.open(checkpoint / PLAN_FILE)


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def prompt(tokenizer: Any, text: str) -> str:
    return str(tokenizer.apply_chat_template(messages(text), add_generation_prompt=True, tokenize=False))


def anew(llama: Any) -> Any:
    """The model without its cache: a prompt of which only the end is computed has slightly other logits."""
    llama.reset()
    return llama


def said(llama: Any, ids: list[int], bias: Any = None) -> list[int]:
    """The greedy output, without its end."""
    tokens: list[int] = []
    for token in anew(llama).generate(ids, temp=0.0, logits_processor=bias):
        if token == llama.token_eos() or len(tokens) == TOKENS:
            break
        tokens.append(int(token))
    return tokens


def towards_new(plan: MergePlan) -> Any:
    """A logits processor that adds 3 to every new token, so that an untuned model draws some."""
    if "TASC_TUNED_CHECKPOINT" in os.environ:
        return None

    def process(ids: Any, scores: Any) -> Any:
        scores[plan.base_vocab_size :] += 3
        return scores

    return llama_cpp.LogitsProcessorList([process])


def test_prompts_have_the_same_ids(llama: tuple[str, Any], tokenizer: Any) -> None:
    _, model = llama
    for text in [*TEXTS, *(prompt(tokenizer, text) for text in INPUTS), *(row["output"] for row in ROWS[:3])]:
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert model.tokenize(text.encode(), add_bos=False, special=True) == expected


def test_every_new_token_decodes_to_its_text(llama: tuple[str, Any], tokenizer: Any, plan: MergePlan) -> None:
    _, model = llama
    for k in range(len(plan)):
        base = plan.expansion(k).tolist()
        assert model.detokenize([plan.base_vocab_size + k]) == model.detokenize(base)
        text = model.detokenize([plan.base_vocab_size + k]).decode(errors="replace")
        assert text == tokenizer.decode(base, clean_up_tokenization_spaces=False)


def test_the_text_is_that_of_transformers(
    llama: tuple[str, Any], checkpoint: Path, tokenizer: Any, plan: MergePlan
) -> None:
    """Greedy ids at float32; the other types need only run and say something with new tokens in it."""
    kind, model = llama
    biased = towards_new(plan)
    peer = None
    if kind == "f32":
        torch.set_num_threads(1)
        peer = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    bias = {(k,): 3.0 for k in range(plan.base_vocab_size, plan.base_vocab_size + len(plan))} if biased else None
    new = 0
    for text in INPUTS:
        ids = tokenizer(prompt(tokenizer, text), add_special_tokens=False)["input_ids"]
        found = said(model, ids, biased)
        new += sum(token >= plan.base_vocab_size for token in found)
        if peer is not None:
            given = torch.tensor([ids])
            output = peer.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=TOKENS, do_sample=False,
                sequence_bias=bias, eos_token_id=model.token_eos(), pad_token_id=0,
            )  # fmt: skip
            expected = [token for token in output[0, len(ids) :].tolist() if token != model.token_eos()]
            assert found == expected
    assert new > 0


def test_chat_and_completion_streamed(llama: tuple[str, Any], tokenizer: Any) -> None:
    _, model = llama
    for text in INPUTS:
        whole = prompt(tokenizer, text)
        options = {"temperature": 0.0, "max_tokens": TOKENS}
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
        expected = tokenizer.decode(said(model, ids), clean_up_tokenization_spaces=False)
        complete = anew(model)(whole, **options)["choices"][0]["text"]
        parts = [part["choices"][0]["text"] for part in anew(model)(whole, stream=True, **options)]
        chat = anew(model).create_chat_completion(messages(text), **options)["choices"][0]["message"]["content"]
        streamed = [
            part["choices"][0]["delta"].get("content", "")
            for part in anew(model).create_chat_completion(messages(text), stream=True, **options)
        ]
        assert complete == "".join(parts) == chat == "".join(streamed) == expected
