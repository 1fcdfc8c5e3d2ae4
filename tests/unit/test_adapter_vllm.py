"""vLLM's two interfaces, driven as vLLM 0.32 drives them; the engine itself: tests/integration/test_vllm_engine.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engines import Asked, Engine
from test_request_tracker import Told
from test_served import ROWS, build, ids
from tokenizers import Tokenizer

from tasc.adapters.vllm import TascProposer
from tasc.adapters.vllm_suffix import SuffixDecodingCache
from tasc.data import TaskTokenizer, load_tokenizer
from tasc.drafting.protocol import SafeDrafter
from tasc.errors import InputError, TokenizerMismatchError
from tasc.serving import Settings

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def task(tokenizer: Tokenizer) -> TaskTokenizer:
    return load_tokenizer(tokenizer)


@pytest.fixture
def index(tmp_path: Path, task: TaskTokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of half of the rows; the environment names it."""
    path = build(tmp_path / "task", task, ROWS[::2]).path
    monkeypatch.setenv("TASC_INDEX", str(path))
    return Path(path)


@pytest.fixture
def config(tmp_path: Path, tokenizer: Tokenizer) -> Any:
    """What a proposer reads of vLLM's configuration."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = SimpleNamespace(
        tokenizer=str(folder), trust_remote_code=False, max_model_len=512, get_vocab_size=lambda: 320,
        try_get_generation_config=lambda: {"eos_token_id": [1]},
    )  # fmt: skip
    return SimpleNamespace(model_config=model, speculative_config=SimpleNamespace(num_speculative_tokens=16))


def asked(task: TaskTokenizer) -> list[Asked]:
    return [Asked([*task.encode(row["input"]).tolist(), 200], ids(task, row).tolist()) for row in ROWS[:12]]


def test_a_proposer_drafts_learns_and_writes_its_metrics(index: Path, config: Any, task: TaskTokenizer) -> None:
    Path(f"{index}.json").write_text('{"learn": true, "cost": 0.02, "metrics": "tasc.prom"}')
    proposer = TascProposer(config)
    proposer.load_model(None)
    requests = asked(task)
    steps = Engine(lambda *step: proposer.propose(*step, slot_mappings=None), rows=4).run(requests)
    assert all(one.output == one.says for one in requests)
    counted = proposer.metrics.as_dict()["indexes"]["task.tasc"]
    assert counted["tau"] > 3 and counted["requests"] == len(requests)
    assert steps < sum(len(one.says) for one in requests) / 4
    assert "tasc_requests_total" in (index.parent / "tasc.prom").read_text()


def test_a_proposer_that_fails_leaves_the_engine_alone(
    index: Path, config: Any, task: TaskTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    proposer = TascProposer(config)
    tokens: Any = None  # as no engine would call it
    assert proposer.propose([[5], []], np.array([2, 3]), tokens) == [[], []]
    assert "goes on without drafts" in caplog.text
    assert proposer.propose([[5]], np.array([2]), np.zeros((1, 8), np.int32)) == [[]]


def test_what_is_wrong_with_the_settings_is_said_at_the_start(
    index: Path, config: Any, task: TaskTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Tokenizer.from_str(task.tokenizer.to_str())
    other.add_tokens(["zzz"])
    monkeypatch.setenv("TASC_INDEX", str(build(tmp_path / "other", load_tokenizer(other), ROWS).path))
    with pytest.raises(TokenizerMismatchError):
        TascProposer(config)
    monkeypatch.delenv("TASC_INDEX")
    with pytest.raises(InputError, match="TASC_INDEX is not set"):
        TascProposer(config)


def test_a_suffix_cache_follows_requests_by_name(index: Path, task: TaskTokenizer) -> None:
    """The calls of `SuffixDecodingProposer.propose` (vllm/v1/spec_decode/suffix_decoding.py), one request a step."""
    Path(f"{index}.json").write_text('{"learn": true}')
    cache = SuffixDecodingCache(24, 100, settings=Settings.from_environment(), tokenizer=task, eos=[1])
    for number, one in enumerate(asked(task)):
        assert number not in cache.active_requests and number not in cache.cached_requests
        cache.start_request(number, np.array(one.prompt, np.int32))
        steps, draft = 0, list[int]()
        while len(one.output) < len(one.says):
            ahead = one.says[len(one.output) :]
            right = 0
            while right < min(len(draft), len(ahead) - 1) and draft[right] == ahead[right]:
                right += 1
            new = ahead[: right + 1]
            one.output += new
            steps += 1
            cache.add_active_response(number, new)
            found = cache.speculate(
                number, np.array(one.output[-24:]), max_spec_tokens=16, max_spec_factor=1.0, min_token_prob=0.1
            )
            draft = found.token_ids
            assert len(draft) == len(found.probs) == len(found.parents) <= 16
        assert list(cache.active_requests) == [number]
        cache.stop_request(number)
        assert steps < len(one.says) / 2
    assert cache.metrics.as_dict()["indexes"]["task.tasc"]["tau"] > 3
    drafts = cache._tasks.choose([5])
    drafts.close()
    assert drafts.drafter.num_served == 12  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not active"):
        cache.speculate(0, np.array([5]))
    with pytest.raises(ValueError, match="not cached"):
        cache.evict_cached_response(0)
    cache.start_request("a", [5])
    with pytest.raises(ValueError, match="active already"):
        cache.start_request("a", [5])
    assert cache.speculate("a", np.array([5]), max_spec_tokens=0).token_ids == []


@pytest.mark.parametrize("where", ["start", "draft", "update"])
def test_a_suffix_cache_whose_drafter_fails_leaves_the_engine_alone(
    index: Path, task: TaskTokenizer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    cache = SuffixDecodingCache(settings=Settings.from_environment(), tokenizer=task, eos=[1])
    cache._tasks.choose([5]).drafter = SafeDrafter(Told({(5,): [11, 12, 13]}, fails=where))
    cache.start_request("a", [5])
    cache.add_active_response("a", [11])
    assert cache.speculate("a", [11]).token_ids == []
    cache.add_active_response("a", [12])
    cache.stop_request("a")
    assert cache.metrics.as_dict()["indexes"]["told"]["failures"] == 1


def test_the_plug_in_stands_in_for_arctic_inference_only_when_it_is_asked_to(index: Path) -> None:
    code = (
        "import sys; from importlib.util import find_spec; from tasc.adapters.vllm_suffix import register, "
        "SuffixDecodingCache\n"
        "before = find_spec('arctic_inference')\n"
        "register()\n"
        "if len(sys.argv) > 1:\n"
        "    from arctic_inference.suffix_decoding import SuffixDecodingCache as found\n"
        "    assert found is SuffixDecodingCache and find_spec('arctic_inference') is not None\n"
        "else:\n"
        "    assert 'arctic_inference.suffix_decoding' not in sys.modules and find_spec('arctic_inference') == before\n"
    )
    environment = {"TASC_INDEX": str(index), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code, "asked"], env=environment, check=True)
    environment["TASC_INDEX"] = ""
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
