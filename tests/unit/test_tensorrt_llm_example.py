"""The drafter of examples/tensorrt_llm_drafter.py, without the engine: stand-ins for its base class and its requests.

They have what TensorRT-LLM's `drafter.py` and `llm_request.py` have as far as the example uses them: the arguments of
`Drafter`; `generation_requests`; `get_tokens(beam)`, `py_orig_prompt_len` and `py_draft_tokens` of a request.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from test_served import ROWS, build, ids
from tokenizers import Tokenizer

from tasc.data import TaskTokenizer, load_tokenizer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tensorrt_llm_drafter.py"
LONGEST = 6


class Drafter:
    def __init__(self, max_draft_len: int, max_total_draft_tokens: int) -> None:
        self.max_draft_len, self.max_total_draft_tokens = max_draft_len, max_total_draft_tokens


class Request:
    def __init__(self, prompt: list[int], answer: list[int]) -> None:
        self.prompt, self.answer, self.output = prompt, answer, answer[:1]
        self.py_orig_prompt_len = len(prompt)
        self.py_draft_tokens: list[int] = []

    def get_tokens(self, beam: int) -> list[int]:
        assert beam == 0
        return self.prompt + self.output

    def verify(self) -> None:
        """Accept the draft as far as it is the answer, and add a token of the model."""
        assert type(self.py_draft_tokens) is list and len(self.py_draft_tokens) <= LONGEST
        ahead = self.answer[len(self.output) :]
        right = 0
        while right < min(len(self.py_draft_tokens), len(ahead) - 1) and self.py_draft_tokens[right] == ahead[right]:
            right += 1
        self.output = self.output + ahead[: right + 1]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    names = [
        "tensorrt_llm",
        "tensorrt_llm._torch",
        "tensorrt_llm._torch.speculative",
        "tensorrt_llm._torch.speculative.drafter",
    ]
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].Drafter = Drafter  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("tensorrt_llm_drafter", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def task(tokenizer: Tokenizer) -> TaskTokenizer:
    return load_tokenizer(tokenizer)


def run(drafter: Any, requests: list[Request]) -> int:
    steps = 0
    while waiting := [request for request in requests if len(request.output) < len(request.answer)]:
        scheduled = waiting[steps % 2 : steps % 2 + 3] or waiting  # requests pause and change their rows
        drafter.prepare_draft_tokens(SimpleNamespace(generation_requests=scheduled))
        for request in scheduled:
            request.verify()
        steps += 1
    assert [request.output for request in requests] == [request.answer for request in requests]
    drafter.prepare_draft_tokens(SimpleNamespace(generation_requests=[]))
    return steps


def test_its_drafts_spare_steps(example: Any, tmp_path: Path, task: TaskTokenizer, tokenizer: Tokenizer) -> None:
    index = build(tmp_path / "task", task, ROWS)
    requests = [Request(task.encode(row["input"]).tolist(), ids(task, row).tolist()) for row in ROWS[:4]]
    limits = {"max_draft_len": LONGEST, "max_seq_len": 256, "vocab_size": tokenizer.get_vocab_size()}
    plain = run(SimpleNamespace(prepare_draft_tokens=lambda scheduled: None), requests)
    for request in requests:
        request.output = request.answer[:1]
    drafter = pickle.loads(pickle.dumps(example.TascDrafter(str(index.path), None, **limits)))
    drafter._tokenizer = task
    assert run(drafter, requests) < plain / 2


def test_a_failure_does_not_reach_the_engine(example: Any, tmp_path: Path, task: TaskTokenizer) -> None:
    drafter = example.TascDrafter(None, None, max_draft_len=LONGEST, max_seq_len=256, vocab_size=10**6)
    request = Request([1, 2], [3, 4, 5])
    request.py_orig_prompt_len = None  # type: ignore[assignment]
    request.py_draft_tokens = [9]
    drafter.prepare_draft_tokens(SimpleNamespace(generation_requests=[request]))
    assert request.py_draft_tokens == []


def test_the_page_has_its_code() -> None:
    page = (ROOT / "docs" / "how-to" / "tensorrt-llm.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    code = EXAMPLE.read_text()
    assert blocks[0] == code[code.index("import numpy") :]
