"""vLLM's two interfaces, driven as vLLM 0.32 drives them; the engine itself: tests/integration/test_vllm_engine.py."""

from __future__ import annotations

import dataclasses
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
from test_served import NEW, ROWS, build, ids
from test_serving import until
from tokenizers import Tokenizer

from tasc.adapters.vllm import TascProposer
from tasc.adapters.vllm_requests import CACHE_SALT, ShownRequests, pass_cache_salt, show_requests
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


# --- what the model runner and the scheduler show of requests


@dataclasses.dataclass
class Params:
    """As much of the sampling parameters as the plug-in reads."""

    extra_args: dict[str, Any] | None = None


def new_runner() -> type:
    """Class of a model runner that calls its proposer as `GPUModelRunner` of vLLM 0.32 does, one request a step."""

    class Runner:
        def __init__(self, drafter: Any) -> None:
            self.drafter = drafter
            self.requests: dict[str, Any] = {}
            self.input_batch = SimpleNamespace(req_ids=[])

        def propose_draft_token_ids(self, scheduler_output: Any, emitted: Any, lengths: Any, tokens: Any) -> Any:
            if not isinstance(self.drafter, SimpleNamespace):
                return self.drafter.propose(emitted, lengths, tokens, slot_mappings=None)
            cache, [name], [new] = self.drafter.suffix_cache, self.input_batch.req_ids, emitted
            if name not in cache.active_requests:
                cache.start_request(name, tokens[0, : lengths[0] - len(new)])
            cache.add_active_response(name, new)
            return [cache.speculate(name, tokens[0, : lengths[0]], max_spec_tokens=16).token_ids]

        def run(self, prompt: list[int], output: list[int], extra: dict[str, Any] | None, lora: str | None) -> int:
            """Answer one request; return the number of steps."""
            name = f"request-{len(self.requests)}"
            adapter = None if lora is None else SimpleNamespace(lora_name=lora)
            self.requests[name] = SimpleNamespace(sampling_params=Params(extra), lora_request=adapter)
            self.input_batch.req_ids = [name]
            said, draft, steps = list[int](), list[int](), 0
            while len(said) < len(output):
                ahead, right = output[len(said) :], 0
                while right < min(len(draft), len(ahead) - 1) and draft[right] == ahead[right]:
                    right += 1
                new, steps = ahead[: right + 1], steps + 1
                said += new
                row = np.array([[*prompt, *said, *[0] * 50]], np.int32)
                [draft] = self.propose_draft_token_ids(None, [new], np.array([len(prompt) + len(said)]), row)
            if isinstance(self.drafter, SimpleNamespace):
                self.drafter.suffix_cache.stop_request(name)
            return steps

    return Runner


@pytest.fixture(params=["custom_class", "suffix"])
def proposer(request: pytest.FixtureRequest, config: Any, task: TaskTokenizer) -> Any:
    """Makes the proposer of a settings file."""

    def make() -> Any:
        if request.param == "custom_class":
            return TascProposer(config)
        return SimpleNamespace(
            suffix_cache=SuffixDecodingCache(settings=Settings.from_environment(), tokenizer=task, eos=[1])
        )

    return make


class Asks:
    """Runs the same question under fields that differ; its answer is not in the index."""

    def __init__(self, runner: Any, task: TaskTokenizer) -> None:
        self._runner = runner
        self._prompt, self._output = [*task.encode(NEW["input"]).tolist(), 200], ids(task, NEW).tolist()
        self.core = getattr(runner.drafter, "suffix_cache", runner.drafter)

    def __call__(self, lora: str | None = None, **extra: Any) -> int:
        return self._runner.run(self._prompt, self._output, extra or None, lora)  # type: ignore[no-any-return]

    def served(self) -> int:
        indexes = self.core.metrics.as_dict()["indexes"]
        return sum(one["served_rows"] for one in indexes.values())

    def count(self, name: str) -> int:
        return self.core.metrics.as_dict()["indexes"][name]["requests"]  # type: ignore[no-any-return]


def test_salts_reach_the_proposer(proposer: Any, index: Path, task: TaskTokenizer) -> None:
    Path(f"{index}.json").write_text('{"learn": true, "cost": 0.02}')
    runner = new_runner()
    assert show_requests(runner) and show_requests(runner)
    ask = Asks(runner(proposer()), task)
    first = ask(tasc_salt="one")
    until(lambda: ask.served() == 1)
    assert ask(tasc_salt="one") < first - 3
    until(lambda: ask.served() == 2)
    assert ask(tasc_salt="two") == ask() == first
    assert ask(tasc_salt=2) == ask(tasc_salt=["a", 1]) == first  # whatever a client sends
    assert ask.count("task.tasc") == 6


def test_the_number_of_prompt_tokens_is_shown(index: Path) -> None:
    shown = ShownRequests(Settings.from_environment())
    shown.show(["a"], {"a": SimpleNamespace(num_prompt_tokens=4)})  # the first runner's state of a request
    assert shown.of_step().num_prompt("a") == 4  # type: ignore[union-attr]
    new = SimpleNamespace(req_id="a", sampling_params=None, lora_request=None, prompt_len=3)  # what the second is sent
    shown.follow([new], [])
    shown.show(["a"])
    assert shown.of_step().num_prompt("a") == 3  # type: ignore[union-attr]


def test_keys_and_adapters_reach_the_proposer(proposer: Any, index: Path, task: TaskTokenizer) -> None:
    file = index.with_name("all.json")
    listed = [{"path": index.name, "key": "A"}, {"path": index.name, "lora": "B"}]
    file.write_text(json.dumps({"indexes": listed, "learn": True, "cost": 0.02}))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TASC_INDEX", str(file))
        runner = new_runner()
        show_requests(runner)
        ask = Asks(runner(proposer()), task)
    ask(tasc_index="A")
    ask(lora="B")
    assert ask.count("task.tasc") == 2
    ask(tasc_index="C")
    ask(lora="D")
    assert ask.count("unknown") == 2
    ask()
    assert ask.count("none") == 1


def test_a_runner_that_shows_nothing_is_said_once_and_leaks_nothing(
    proposer: Any,
    index: Path,
    task: TaskTokenizer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Path(f"{index}.json").write_text('{"learn": true, "cost": 0.02}')
    ask = Asks(new_runner()(proposer()), task)
    first = ask()
    until(lambda: ask.served() == 1)
    assert ask() < first - 3  # as ever: requests are known by their tokens
    assert caplog.text.count("does not show tasc its requests") == 1
    Path(f"{index}.json").write_text('{"learn": true, "cost": 0.02, "salt": "tasc_salt"}')
    ask = Asks(new_runner()(proposer()), task)
    ask(tasc_salt="one")
    ask(tasc_salt="two")
    assert ask.count("unknown") == 2 and ask.served() == 0
    assert "own context alone" in caplog.text
    assert not show_requests(type("Other", (), {}))


class Message:
    """As much of the scheduler's `NewRequestData` as the plug-in touches."""


@dataclasses.dataclass
class NewRequest(Message):
    req_id: str
    sampling_params: Params | None

    @classmethod
    def from_request(cls, request: Any, block_ids: Any, uses_mrope: bool = False) -> NewRequest:
        return cls(request.request_id, request.sampling_params)


def test_a_cache_salt_is_passed_on_and_cannot_be_forged(
    proposer: Any,
    index: Path,
    task: TaskTokenizer,
) -> None:
    message: Any = dataclasses.make_dataclass("Message", [], bases=(NewRequest,))
    pass_cache_salt(message)
    pass_cache_salt(message)
    params = Params({"tasc_index": "A", CACHE_SALT: "forged"})
    salted = message.from_request(SimpleNamespace(request_id="a", sampling_params=params, cache_salt="S"), ())
    assert type(salted) is message and salted.req_id == "a"
    assert salted.sampling_params.extra_args == {"tasc_index": "A", CACHE_SALT: "S"}
    assert params.extra_args == {"tasc_index": "A", CACHE_SALT: "forged"}  # the request itself stays as it is
    plain = message.from_request(SimpleNamespace(request_id="b", sampling_params=Params(), cache_salt=None), ())
    assert plain.sampling_params.extra_args == {CACHE_SALT: None}
    pooled = message.from_request(SimpleNamespace(request_id="c", sampling_params=None, cache_salt="S"), ())
    assert pooled.sampling_params is None

    Path(f"{index}.json").write_text('{"learn": true, "cost": 0.02, "salt": "cache_salt"}')
    runner = new_runner()
    show_requests(runner)
    ask = Asks(runner(proposer()), task)
    first = ask(**salted.sampling_params.extra_args | {"tasc_index": None})
    until(lambda: ask.served() == 1)
    assert ask(**{CACHE_SALT: "S"}) < first - 3
    assert ask(**{CACHE_SALT: "T"}) == ask(**{CACHE_SALT: None}) == first
    assert ask.count("task.tasc") == 4
    ask(tasc_salt="S")  # the scheduler has not passed the salt on: nobody knows whose request it is
    assert ask.count("unknown") == 1
