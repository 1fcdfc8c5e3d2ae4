"""vLLM 0.33's second model runner, on a CPU: its own plug-in loader, configuration, scheduler, runner and samplers.

vLLM 0.33 has no build for CPUs, so no model runs on these: the runner's model is an `Oracle`, which knows what each
request will say. Triton's interpreter runs the runner's kernels. vLLM's own `vllm.v1.worker.cpu` replaces streams,
events and pinned memory. Run by `make test-vllm-classes`.
"""

from __future__ import annotations

import copy
import json
import os
from collections import deque
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

pytestmark = pytest.mark.engine

try:
    FOUND = version("vllm")
except PackageNotFoundError:
    FOUND = "none"
if not FOUND.startswith("0.33."):
    pytest.skip(f"needs vLLM 0.33, found {FOUND} (make test-vllm-classes)", allow_module_level=True)

from vllm_engine import use_second_runner  # noqa: E402

os.environ.update(VLLM_TARGET_DEVICE="cpu", VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
use_second_runner()

import torch  # noqa: E402

from tasc import TaskIndex  # noqa: E402
from tasc.data import TokenStore, load_tokenizer  # noqa: E402

DRAFT = 12  # num_speculative_tokens
CITIES = ("boston", "denver", "dallas", "newark", "oakland", "san francisco")
ROWS = [
    {"input": f"flights from {a} to {b}", "output": f'{{"intent": "flight", "from": "{a}", "to": "{b}"}}'}
    for a in CITIES
    for b in CITIES
    if a != b
]
WRONG = 5
"""What the oracle says after a token that is not the request's, and after its end."""


@pytest.fixture(scope="module")
def config(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`VllmConfig` as `vllm serve` makes it: it loads the plug-ins first. The index is of half of the rows."""
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("model")
    LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=256, eos_token_id=1,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    task = load_tokenizer(tokenizer)
    index = folder / "task.tasc"
    TaskIndex.build(TokenStore.build(ROWS[::2], task, folder / "task.store"), index, tokenizer=task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASC_INDEX", str(index))
        from vllm.engine.arg_utils import EngineArgs

        yield EngineArgs(
            str(folder), dtype="float32", max_model_len=256, max_num_seqs=4, max_num_batched_tokens=64,
            enforce_eager=True, enable_prefix_caching=False, disable_log_stats=True,
            speculative_config={
                "method": "custom_class", "model": "tasc.adapters.vllm.TascProposer", "num_speculative_tokens": DRAFT,
            },
        ).create_engine_config()  # fmt: skip


class Oracle(torch.nn.Module):
    """Model that says what each request of the step will say; `texts` has the tokens of prompt and output by name."""

    def __init__(self, texts: dict[str, list[int]], vocab_size: int) -> None:
        super().__init__()
        self.texts, self.vocab_size = texts, vocab_size
        self.batch: Any = None  # `InputBatch` of the step

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor, **_: Any) -> torch.Tensor:
        logits = torch.zeros(len(positions), self.vocab_size)
        starts = self.batch.query_start_loc_np.tolist()
        for name, start, end in zip(self.batch.req_ids, starts, starts[1:], strict=False):
            text, right = self.texts[name], True
            for at in range(start, end):
                position = int(positions[at])
                right = right and position + 1 < len(text) and int(input_ids[at]) == text[position]
                logits[at, text[position + 1] if right else WRONG] = 1.0
        return logits

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states


@pytest.fixture
def runner(config: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """vLLM's runner with an oracle for its model, one rank, and no layer that has a cache."""
    import vllm.v1.worker.cpu.shm  # noqa: F401  # replaces what needs a device
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.worker.cpu.model_runner import CPUModelRunner

    vocab = config.model_config.get_vocab_size()
    config.cache_config.kv_cache_layout, config.cache_config.num_gpu_blocks = "LBNHC", 1  # any: there is no cache
    with set_current_vllm_config(config):
        if not parallel_state.model_parallel_is_initialized():
            store = Path(config.model_config.model) / "rendezvous"
            parallel_state.init_distributed_environment(1, 0, f"file://{store}", 0, "gloo")
            parallel_state.initialize_model_parallel()
        made = CPUModelRunner(config, torch.device("cpu"))
        made.load_model(model=Oracle({}, vocab))
        made.initialize_kv_cache(KVCacheConfig(num_blocks=1, kv_cache_tensors=[], kv_cache_groups=[]))
        prepare_inputs = made.prepare_inputs

        def shown(*given: Any) -> Any:
            made.model.batch = prepare_inputs(*given)
            return made.model.batch

        monkeypatch.setattr(made, "prepare_inputs", shown)
        yield made


def theirs(config: Any) -> Any:
    """A copy of the configuration that names another proposer."""
    other = copy.copy(config)
    other.speculative_config = copy.copy(config.speculative_config)
    other.speculative_config.model = "their.Proposer"
    return other


# --- hooks


def test_the_plug_in_lets_the_configuration_take_our_proposer_and_no_other(config: Any) -> None:
    refused = "speculative method 'custom_class'"
    unsupported = type(config)._get_v2_model_runner_unsupported_features
    assert unsupported.__wrapped__(config) == [refused]  # vLLM's own answer
    assert unsupported(config) == []
    assert config.use_v2_model_runner
    config._validate_v2_model_runner()
    with pytest.raises(ValueError, match=refused):
        theirs(config)._validate_v2_model_runner()


def test_init_speculator_makes_ours_and_no_other(runner: Any, config: Any) -> None:
    from vllm.v1.worker.gpu import model_runner, spec_decode
    from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator

    from tasc.adapters.vllm_speculator import TascSpeculator

    assert isinstance(runner.speculator, TascSpeculator) and isinstance(runner.speculator, BaseSpeculator)
    for module in (spec_decode, model_runner):
        with pytest.raises(NotImplementedError, match="custom_class is not supported yet"):
            module.init_speculator(theirs(config), torch.device("cpu"), runner.req_states)


# --- speculator


class Reference:
    """tasc's drafter on the tokens of the requests, without vLLM's state of them."""

    def __init__(self, config: Any, prompts: dict[str, list[int]]) -> None:
        from tasc.adapters.vllm import EngineDrafts
        from tasc.drafting.costs import LearnedCosts
        from tasc.serving import Settings

        self.drafts = EngineDrafts(config, Settings.from_environment(), LearnedCosts(0.0))
        self.prompts, self.said = prompts, {name: list[int]() for name in prompts}

    def step(self, names: list[str], emitted: list[list[int]], most: int) -> tuple[list[list[int]], list[list[float]]]:
        """Return drafts and probabilities of a step, by row."""
        for name, new in zip(names, emitted, strict=True):
            self.said[name] += new
        texts = [[*self.prompts[name], *self.said[name]] for name in names]
        lengths = np.array([len(text) for text in texts], np.int32)
        tokens = np.full((len(texts), lengths.max()), -9, np.int32)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = text
        states = {name: SimpleNamespace(num_prompt_tokens=len(self.prompts[name])) for name in names}
        self.drafts.requests.show(names, states)
        batch = self.drafts.batch
        return batch.propose(emitted, lengths, tokens, self.drafts.requests.of_step(), most), batch.probs


@pytest.mark.parametrize("ahead", [0, 1])
def test_the_runner_verifies_what_tascs_drafter_drafts(
    runner: Any, config: Any, tokenizer: Tokenizer, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six requests in four rows, prompts in chunks.

    `ahead`: steps that are scheduled before the output of a step is known; 1 is asynchronous scheduling.
    """
    from vllm import SamplingParams
    from vllm.v1.core.kv_cache_utils import resolve_kv_cache_block_sizes
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.request import Request
    from vllm.v1.structured_output import StructuredOutputManager

    monkeypatch.setattr(config.scheduler_config, "async_scheduling", bool(ahead))
    block_size, hash_block_size = resolve_kv_cache_block_sizes(runner.kv_cache_config, config)
    scheduler = (AsyncScheduler if ahead else Scheduler)(
        config, runner.kv_cache_config, StructuredOutputManager(config), block_size, hash_block_size
    )
    prompts, says = dict[str, list[int]](), dict[str, list[int]]()
    for number, row in enumerate(ROWS[3:9]):  # the index has every other one
        name = f"request-{number}"
        prompts[name] = tokenizer.encode(f"Say the slots. {row['input']}\n").ids
        says[name] = [*tokenizer.encode(row["output"]).ids, 1]
        runner.model.texts[name] = [*prompts[name], *says[name]]
        params = SamplingParams(temperature=0.0, max_tokens=len(says[name]))
        scheduler.add_request(Request(name, prompts[name], params, None))
    reference = Reference(config, prompts)
    running: deque[tuple[Any, Any]] = deque()
    steps = rejected = chunks = 0
    while scheduler.has_requests() or running:
        scheduled = scheduler.schedule()
        if scheduled.total_num_scheduled_tokens:
            assert runner.execute_model(scheduled) is None
            most = runner.execute_model_state.num_spec_tokens_to_schedule
            output = runner.sample_tokens(None).get_output()
            names, emitted = output.req_ids, output.sampled_token_ids
            drafts, probs = reference.step(names, emitted, most)
            slots = runner.model.batch.idx_mapping
            for row, (draft, likely) in enumerate(zip(drafts, probs, strict=True)):
                rest = [0] * (DRAFT - len(draft))
                expected = [token if at < most else -1 for at, token in enumerate([*draft, *rest])]
                assert runner.req_states.draft_tokens[slots[row]].tolist() == expected
                found = runner.speculator.draft_token_confidence_probs[row].tolist()
                assert found == pytest.approx([*likely, *rest])
            steps += 1
            chunks += sum(not new for new in emitted)
            for name, new in zip(names, emitted, strict=True):
                drafted = scheduled.scheduled_spec_decode_tokens.get(name)
                rejected += bool(drafted) and len(new) <= len(drafted)
            if not ahead:
                scheduler.update_draft_token_ids(runner.take_draft_token_ids())
            running.append((scheduled, output))
        if running and (len(running) > ahead or not scheduled.total_num_scheduled_tokens):
            scheduler.update_from_output(*running.popleft())
    for name, expected in says.items():
        assert reference.said[name][: len(expected)] == expected
    counted = runner.speculator.drafts.metrics.as_dict()
    assert counted["failed_steps"] == 0 and counted["indexes"]["task.tasc"]["failures"] == 0
    assert counted["indexes"]["task.tasc"]["requests"] == len(says)
    assert steps < sum(map(len, says.values())) / 4 and rejected > 5 and chunks > 0


def test_a_run_with_made_up_requests_drafts_nothing(runner: Any) -> None:
    runner.model.batch = SimpleNamespace(query_start_loc_np=np.zeros(0), req_ids=[])
    runner._dummy_run(8, skip_attn=True, is_profile=True)
    assert not runner.speculator.drafts.metrics.as_dict()["indexes"]
