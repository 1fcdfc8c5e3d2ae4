"""vLLM's second model runner: hooks and speculator, driven as vLLM 0.33 drives them, on stand-ins for its modules.

The runner itself: tests/integration/test_vllm_engine.py (0.32) and test_vllm_v2_classes.py (0.33).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engines import Asked, Engine
from test_adapter_vllm import asked, config, index, task  # noqa: F401  # fixtures

from tasc.adapters import vllm_v2
from tasc.adapters.vllm_v2 import PROPOSER, watch_second_runner
from tasc.data import TaskTokenizer
from tasc.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

UNSUPPORTED = "speculative method 'custom_class'"
OURS = SimpleNamespace(method="custom_class", model=PROPOSER)


class Group:
    """Ranks of tensor parallelism in one process: the first one's values are handed to the next that asks."""

    def __init__(self, rank: int = 0, sent: list[Any] | None = None) -> None:
        self.rank_in_group, self.sent = rank, [] if sent is None else sent

    def broadcast(self, values: Any, src: int = 0) -> Any:
        if self.rank_in_group == src:
            self.sent.append(values.clone())
        else:
            values.copy_(self.sent.pop(0))
        return values


def copied(data: Any, out: Any) -> Any:
    return out.copy_(torch.from_numpy(data))


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """What the hooks and the speculator import of vLLM 0.33."""

    class VllmConfig:
        speculative_config: Any = OURS

        def _get_v2_model_runner_unsupported_features(self) -> list[str]:
            return [UNSUPPORTED, "rain"]

    class GPUModelRunner:
        def add_requests(self, scheduler_output: Any) -> str:
            return "added"

    def init_speculator(vllm_config: Any, device: Any, req_states: Any) -> Any:
        return "vLLM's own"

    parts: dict[str, dict[str, Any]] = {
        "vllm": {
            "__version__": "0.33.0", "__version_tuple__": (0, 33, 0),
            "envs": SimpleNamespace(VLLM_USE_V2_MODEL_RUNNER=True),
        },
        "vllm.config": {"VllmConfig": VllmConfig},
        "vllm.distributed.parallel_state": {"get_tp_group": Group},
        "vllm.utils.gpu_sync_debug": {"gpu_sync_allowed": nullcontext},
        "vllm.utils.torch_utils": {"async_tensor_h2d": copied},
        "vllm.v1.worker.gpu": {},
        "vllm.v1.worker.gpu.model_runner": {"GPUModelRunner": GPUModelRunner, "init_speculator": init_speculator},
        "vllm.v1.worker.gpu.spec_decode": {"init_speculator": init_speculator},
        "vllm.v1.worker.gpu.spec_decode.speculator": {"BaseSpeculator": type("BaseSpeculator", (), {})},
    }  # fmt: skip
    made = {name: ModuleType(name) for name in parts}
    for name, members in parts.items():
        vars(made[name]).update(members)
        monkeypatch.setitem(sys.modules, name, made[name])
    vars(made["vllm.v1.worker.gpu"])["spec_decode"] = made["vllm.v1.worker.gpu.spec_decode"]
    sys.modules.pop("tasc.adapters.vllm_speculator", None)
    yield SimpleNamespace(
        top=made["vllm"], config=VllmConfig, model_runner=GPUModelRunner,
        runner=made["vllm.v1.worker.gpu.model_runner"], spec_decode=made["vllm.v1.worker.gpu.spec_decode"],
        parallel=made["vllm.distributed.parallel_state"],
    )  # fmt: skip
    sys.modules.pop("tasc.adapters.vllm_speculator", None)


class States:
    """As much of `RequestState` as a speculator reads.

    Args:
        on_host: Whether the host sees the tokens.
    """

    def __init__(self, slots: int, longest: int, on_host: bool) -> None:
        tokens = torch.full((slots, longest), -9, dtype=torch.int32)
        self.all_token_ids = SimpleNamespace(gpu=tokens)
        if on_host:
            self.all_token_ids._uva_buf = SimpleNamespace(np=tokens.numpy())
            self.all_token_ids.gpu = None  # not to be read then
        self.tokens = tokens.numpy()
        self.total_len = SimpleNamespace(gpu=torch.zeros(slots, dtype=torch.int32))


class Runner:
    """Calls a speculator as the runner does, for the batches of an `Engine`.

    Args:
        engine: The fixture.
        on_host: As for `States`.
        extra: Returns the extra arguments of the next request.
    """

    def __init__(self, engine: Any, on_host: bool = True, extra: Callable[[], Any] = dict) -> None:
        self.states, self._extra = States(16, 512, on_host), extra
        self.speculator = engine.make(self.states)
        self._runner = engine.model_runner()
        self._runner.speculator = self.speculator
        self.most: int | None = None
        self.prefix = "request-"
        self._prompts: list[list[int]] = []
        self._slots: dict[str, int] = {}
        self._ended: set[str] = set()
        self.drafts: Any = None

    def run(self, requests: list[Asked], **options: Any) -> int:
        """Answer requests; returns the number of steps."""
        self._prompts = [one.prompt for one in requests]
        assert len({tuple(prompt) for prompt in self._prompts}) == len(self._prompts)
        steps = Engine(self.step, **options).run(requests)
        assert all(one.output == one.says for one in requests)
        self._begin([], set(self._slots))
        return steps

    def step(self, emitted: list[list[int]], lengths: Any, tokens: Any) -> list[list[int]]:
        names = [self._name(tokens[row, : lengths[row]].tolist()) for row in range(len(emitted))]
        self._begin([name for name in names if name not in self._slots], set())
        slots = np.array([self._slots[name] for name in names])
        for row, slot in enumerate(slots.tolist()):
            self.states.tokens[slot, : lengths[row]] = tokens[row, : lengths[row]]
            self.states.total_len.gpu[slot] = int(lengths[row])
        batch = SimpleNamespace(
            num_reqs=len(names), req_ids=names, idx_mapping=torch.from_numpy(slots), idx_mapping_np=slots
        )
        counts = torch.tensor([len(new) for new in emitted], dtype=torch.int32)
        self.drafts = self.speculator.propose(
            batch, None, None, None, None, counts, None, None, None, None, None,
            num_speculative_tokens=self.most, dp_sync_state=None, mm_inputs=None,
        )  # fmt: skip
        assert self.drafts.shape == (len(names), 16) and self.drafts.dtype == torch.int64
        return self.drafts.tolist()  # type: ignore[no-any-return]

    def _name(self, known: list[int]) -> str:
        (number,) = (k for k, prompt in enumerate(self._prompts) if known[: len(prompt)] == prompt)
        return f"{self.prefix}{number}"

    def _begin(self, names: list[str], ended: set[str]) -> None:
        new = []
        for name in names:
            self._slots[name] = 15 - len(self._slots)
            params = SimpleNamespace(extra_args=self._extra())
            new.append(SimpleNamespace(req_id=name, sampling_params=params, lora_request=None))
        assert self._runner.add_requests(SimpleNamespace(scheduled_new_reqs=new, finished_req_ids=ended)) == "added"
        for name in ended:
            del self._slots[name]


@pytest.fixture
def engine(
    vllm: SimpleNamespace,
    config: Any,  # noqa: F811
    index: Path,  # noqa: F811
    task: TaskTokenizer,  # noqa: F811
) -> SimpleNamespace:
    """The parts of vLLM, an index, and what makes the speculator of some request states as the runner does."""
    vars(config.speculative_config).update(vars(OURS), enable_adaptive_verification=True)
    config.scheduler_config = SimpleNamespace(max_num_seqs=8)
    config.parallel_config = SimpleNamespace(prefill_context_parallel_size=1)
    watch_second_runner()

    def make(states: Any) -> Any:
        return vllm.spec_decode.init_speculator(config, torch.device("cpu"), states)

    return SimpleNamespace(**vars(vllm), make=make, settings=config, index=index, task=task)


def counted(speculator: Any, name: str = "task.tasc") -> dict[str, Any]:
    return speculator.drafts.metrics.as_dict()["indexes"][name]  # type: ignore[no-any-return]


@pytest.mark.parametrize("on_host", [True, False])
def test_a_speculator_drafts_learns_and_writes_its_metrics(engine: SimpleNamespace, on_host: bool) -> None:
    """Rows move, requests are preempted and taken up again, prompts come in chunks."""
    Path(f"{engine.index}.json").write_text('{"learn": true, "metrics": "tasc.prom"}')
    runner = Runner(engine, on_host=on_host)
    requests = asked(engine.task)
    steps = runner.run(requests, rows=4, pauses=[0, 0, 1, 0, 2], chunks=[0, 2])
    assert steps < sum(len(one.says) for one in requests) / 4
    found = counted(runner.speculator)
    assert found["tau"] > 3 and found["requests"] == len(requests) and found["failures"] == 0
    assert "tasc_requests_total" in (engine.index.parent / "tasc.prom").read_text()


def test_what_a_draft_leaves_of_its_row_has_no_probability(engine: SimpleNamespace) -> None:
    runner = Runner(engine)
    speculator, seen = runner.speculator, 0
    step = runner.step

    def checked(*given: Any) -> list[list[int]]:
        nonlocal seen
        drafts = step(*given)
        probs = speculator.draft_token_confidence_probs[: len(drafts)].tolist()
        for draft, found, expected in zip(drafts, probs, speculator.drafts.batch.probs, strict=True):
            rest = [0] * (16 - len(expected))
            assert found == [*expected, *rest] and draft[len(expected) :] == rest
            seen += len(expected)
        return drafts

    runner.step = checked  # type: ignore[method-assign]
    runner.run(asked(engine.task)[:4], rows=2)
    assert seen > 50


def test_a_step_has_no_more_drafted_tokens_than_it_may(engine: SimpleNamespace) -> None:
    runner = Runner(engine)
    requests = asked(engine.task)[:2]
    whole = runner.run(requests, rows=1)
    for most in (3, 0):
        runner = Runner(engine)
        runner.most = most
        requests = asked(engine.task)[:2]
        steps = runner.run(requests, rows=1)
        assert steps > whole
        tokens = counted(runner.speculator)
        assert tokens["tau"] <= 1 + most
        assert most or steps == sum(len(one.says) for one in requests)


def test_a_speculator_that_fails_leaves_the_engine_alone(
    engine: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(engine)
    requests = asked(engine.task)[:2]
    runner._prompts = [one.prompt for one in requests]
    tokens = np.array([[*one.prompt, *one.says] for one in requests][:1], np.int32)
    whole = len(requests[0].prompt)
    assert any(runner.step([tokens[0, whole : whole + 1].tolist()], np.array([whole + 1]), tokens)[0])
    runner.states.total_len = None  # type: ignore[assignment]
    batch = SimpleNamespace(num_reqs=2, req_ids=["a", "b"], idx_mapping=torch.arange(2), idx_mapping_np=np.arange(2))
    for _ in range(2):
        drafts = runner.speculator.propose(batch, None, None, None, None, torch.ones(2, dtype=torch.int32))
        assert drafts.shape == (2, 16) and not drafts.any()
        assert not runner.speculator.draft_token_confidence_probs[:2].any()
    assert caplog.text.count("goes on without drafts") == 1
    assert runner.speculator.drafts.metrics.as_dict()["failed_steps"] == 1


def test_requests_that_vllm_makes_up_are_not_counted(engine: SimpleNamespace) -> None:
    runner = Runner(engine)
    runner.prefix = "_warmup_-"
    requests = asked(engine.task)[:2]
    assert runner.run(requests, rows=1) == sum(len(one.says) for one in requests)
    assert not runner.speculator.drafts.metrics.as_dict()["indexes"]
    dummy = SimpleNamespace(num_reqs=3)
    assert runner.speculator.propose(dummy, *[None] * 10, dummy_run=True, is_profile=True).shape == (3, 16)


def test_all_ranks_verify_what_the_first_one_drafts(engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(engine.parallel, "get_tp_group", lambda: Group(0, sent))
    first = Runner(engine)
    sys.modules.pop("tasc.adapters.vllm_speculator")
    monkeypatch.setattr(engine.parallel, "get_tp_group", lambda: Group(1, sent))
    monkeypatch.delenv("TASC_INDEX")  # the others need no index
    second = Runner(engine)
    assert first.speculator.drafts is not None and second.speculator.drafts is None
    step, drafted = first.step, 0

    def both(*given: Any) -> list[list[int]]:
        nonlocal drafted
        drafts = step(*given)
        assert second.step(*given) == drafts
        probs = [one.speculator.draft_token_confidence_probs[: len(drafts)] for one in (first, second)]
        assert torch.equal(*probs)
        drafted += int((probs[1] > 0).sum())
        return drafts

    first.step = both  # type: ignore[method-assign]
    requests = asked(engine.task)[:3]
    second._prompts = [one.prompt for one in requests]
    first.run(requests, rows=2)
    assert drafted > 50 and not sent
    engine.settings.parallel_config.prefill_context_parallel_size = 2
    with pytest.raises(InputError, match="prefill_context_parallel_size is 2"):
        Runner(engine)


def test_fields_reach_the_speculator(engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    file = engine.index.with_name("all.json")
    file.write_text(json.dumps({"indexes": [{"path": engine.index.name, "key": "A"}]}))
    monkeypatch.setenv("TASC_INDEX", str(file))
    requests = asked(engine.task)[:4]
    keys = iter([{"tasc_index": "A"}, {"tasc_index": "B"}, None, {"tasc_index": "A"}])
    runner = Runner(engine, extra=lambda: next(keys))
    runner.run(requests, rows=2)
    assert [counted(runner.speculator, name)["requests"] for name in ("task.tasc", "unknown", "none")] == [2, 1, 1]
    assert not runner.speculator.drafts.requests._states  # of requests that have ended nothing is kept


# --- hooks


def test_the_second_runner_takes_our_proposer_and_no_other(engine: SimpleNamespace) -> None:
    watch_second_runner()  # a second time changes nothing
    features = engine.config()._get_v2_model_runner_unsupported_features
    assert features() == ["rain"]
    other = SimpleNamespace(method="custom_class", model="their.Proposer")
    for spec in (other, None, SimpleNamespace(method="ngram", model="ngram")):
        other_config = engine.config()
        other_config.speculative_config = spec
        assert other_config._get_v2_model_runner_unsupported_features() == [UNSUPPORTED, "rain"]
        for module in (engine.spec_decode, engine.runner):
            assert module.init_speculator(other_config, None, None) == "vLLM's own"
    assert type(engine.make(States(4, 8, True))).__name__ == "TascSpeculator"
    assert engine.runner.init_speculator.__wrapped__(None, None, None) == "vLLM's own"


@pytest.mark.parametrize(("version", "wanted", "said"), [((0, 34, 0), True, True), ((0, 33, 0), None, False)])
def test_nothing_is_touched_in_an_unknown_version_or_unasked(
    vllm: SimpleNamespace, caplog: pytest.LogCaptureFixture, version: Any, wanted: Any, said: bool
) -> None:
    vllm.top.__version_tuple__ = version
    vllm.top.envs.VLLM_USE_V2_MODEL_RUNNER = wanted
    with caplog.at_level(logging.WARNING):
        watch_second_runner()
    assert vllm.config()._get_v2_model_runner_unsupported_features() == [UNSUPPORTED, "rain"]
    assert vllm.spec_decode.init_speculator(SimpleNamespace(speculative_config=OURS), None, None) == "vLLM's own"
    assert ("knows the second model runner of vLLM 0.32, 0.33" in caplog.text) == said


def test_without_vllm_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    watch_second_runner()
    assert vllm_v2.KNOWN
