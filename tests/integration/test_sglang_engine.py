"""SGLang's own n-gram worker, with a task's corpus, takes whole steps (tried with SGLang 0.5.23).

The worker is the engine's; the model, the verification and what needs a GPU are stood in for: the model says a fixed
answer, and a draft is accepted along the links that the engine derives from the mask. Where the engine's compiled
kernels do not load, an empty stand-in for their package lets the worker be imported.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from tasc import TaskIndex
from tasc.data import TokenStore, load_tokenizer
from tasc.errors import InputError

pytestmark = pytest.mark.engine
pytest.importorskip("sglang")
torch = pytest.importorskip("torch")

WIDTH = 8
OUTPUTS = ['{"intent": "flight", "to": "boston"}', '{"intent": "fare", "from": "san francisco", "to": "boston"}']


@pytest.fixture
def index(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of the outputs, which the environment names."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"output": text}) + "\n" for text in OUTPUTS * 2))
    task = load_tokenizer(tokenizer)
    store = TokenStore.build([tmp_path / "rows.jsonl"], task, tmp_path / "rows.store")
    monkeypatch.setenv("TASC_INDEX", str(tmp_path / "task.tasc"))
    return TaskIndex.build(store, tmp_path / "task.tasc", tokenizer=task).path


@pytest.fixture(scope="module")
def engine() -> Any:
    """The module of the n-gram worker."""
    try:
        importlib.import_module("sgl_kernel")
    except ImportError:
        sys.modules.update(dict.fromkeys(["sgl_kernel", "sgl_kernel.speculative"], MagicMock(__spec__=None)))
    return importlib.import_module("sglang.srt.speculative.ngram_worker")


def settled(**options: Any) -> list[Any]:
    """What the engine makes of its options: tokens verified, steps, branches, requests at once, no overlap."""
    from sglang.srt.arg_groups.overrides import resolving_view
    from sglang.srt.arg_groups.speculative_hook import handle_speculative_decoding
    from sglang.srt.server_args import ServerArgs

    args = ServerArgs(model_path="model", speculative_algorithm="TASC", **options)
    handle_speculative_decoding(args)
    view = resolving_view(args)
    return [
        view.speculative_num_draft_tokens, view.speculative_num_steps, view.speculative_eagle_topk,
        view.max_running_requests, view.disable_overlap_schedule,
    ]  # fmt: skip


def test_the_engine_knows_the_algorithm(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    from tasc.adapters.sglang import TascAlgorithm, register

    register()
    algorithm = SpeculativeAlgorithm.from_string("tasc")
    assert isinstance(algorithm, TascAlgorithm) and algorithm.name == copy.copy(algorithm).name == "TASC"
    builtin = SpeculativeAlgorithm.NGRAM
    for question in vars(SpeculativeAlgorithm):
        if question.startswith(("is_", "supports_", "has_", "carries_", "need_")):
            assert getattr(algorithm, question)() == getattr(builtin, question)(), question
    assert settled(device="cuda") == [16, 15, 1, 48, False]
    assert settled(device="cpu", speculative_num_draft_tokens=8, max_running_requests=4) == [8, 7, 1, 4, True]
    for options, message in (
        ({"device": "npu"}, "npu"),
        ({"device": "cuda", "speculative_num_draft_tokens": 1}, "at least 2"),
        ({"device": "cuda", "attn_dp_size": 2}, "attn-dp-size"),
        ({"device": "cuda", "speculative_ngram_external_corpus_path": "x"}, "external-corpus"),
    ):
        with pytest.raises(InputError, match=message):
            settled(**options)
    monkeypatch.delenv("TASC_INDEX")
    with pytest.raises(InputError, match="TASC_INDEX is not set"):
        settled(device="cuda")


class Request:
    """As much of the engine's request as the worker reads."""

    def __init__(self, rid: str, prompt: list[int], answer: list[int]) -> None:
        self.rid, self.prompt, self.answer = rid, prompt, answer
        self.origin_input_ids_unpadded, self.output_ids = array("q", prompt), array("q")
        self.emitted = answer[:1]  # of the prefill
        self.finished_reason: Any = None

    @property
    def output_ids_through_stop(self) -> array[int]:
        return self.output_ids


def rows(requests: list[Request], tokens: list[list[int]]) -> Any:
    """The engine's relay of a step's tokens: (B·WIDTH,) tokens, and how many count of each row."""
    padded = [row + [-1] * (WIDTH - len(row)) for row in tokens]
    return SimpleNamespace(
        accept_tokens=torch.tensor(padded).flatten(), accept_lens=torch.tensor([len(row) for row in tokens])
    )


def test_all_ranks_get_the_tokens_of_the_first(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt import runtime_context

    from tasc.adapters.sglang import _ranks

    group = SimpleNamespace(world_size=2, rank_in_group=1, ranks=[4, 5], cpu_group="gloo")
    monkeypatch.setattr(runtime_context, "get_parallel", lambda: SimpleNamespace(tp_group=group))
    sent = MagicMock(side_effect=lambda tensor, **_: tensor.fill_(7))
    monkeypatch.setattr(torch.distributed, "broadcast", sent)
    is_first, share = _ranks()
    tokens = np.zeros(4, np.int64)
    assert share is not None and not is_first
    share(tokens)
    assert tokens.tolist() == [7] * 4
    assert sent.call_args.kwargs == {"src": 4, "group": "gloo"}


@pytest.mark.parametrize("overlap", [True, False])
def test_the_worker_serves_from_an_index(
    engine: Any, overlap: bool, tokenizer: Any, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang.srt import runtime_context
    from sglang.srt.managers.schedule_batch import FINISH_MATCHED_TOKEN
    from transformers import PreTrainedTokenizerFast

    from tasc.adapters.sglang import worker_class

    spec = SimpleNamespace(
        speculative_num_draft_tokens=WIDTH, speculative_ngram_max_trie_depth=18, speculative_eagle_topk=1,
        speculative_num_steps=WIDTH - 1, speculative_ngram_min_bfs_breadth=1, speculative_ngram_max_bfs_breadth=10,
        speculative_ngram_match_type="BFS", speculative_ngram_capacity=10, speculative_ngram_external_sam_budget=0,
        speculative_ngram_external_corpus_max_tokens=10, speculative_ngram_external_corpus_path=None,
    )  # fmt: skip
    Path(f"{index}.json").write_text('{"learn": true}')
    monkeypatch.setattr(engine, "get_spec", lambda: spec)
    alone = SimpleNamespace(tp_group=SimpleNamespace(world_size=1))
    monkeypatch.setattr(runtime_context, "get_parallel", lambda: alone)
    schedule = SimpleNamespace(disable_overlap_schedule=not overlap, page_size=1)
    monkeypatch.setattr(engine, "get_schedule", lambda: schedule)
    monkeypatch.setattr(engine, "get_device", lambda: SimpleNamespace(device="cpu"))
    for name in (
        "record_stream_for_v2_verify", "set_time_batch", "prepare_mamba_track_for_verify", "maybe_detect_nan",
        "maybe_detect_inf", "commit_mamba_states_after_verify", "move_accept_tokens_to_target_kvcache",
        "assign_extend_cache_locs_func", "reconstruct_indices_from_tree_mask_func",
    ):  # fmt: skip
        monkeypatch.setattr(engine, name, MagicMock())

    model = SimpleNamespace(max_running_requests=4, watermark_state=None)
    model.model_config = SimpleNamespace(vocab_size=tokenizer.get_vocab_size(), hf_eos_token_id={1})
    result = SimpleNamespace(logits_output=MagicMock(), can_run_cuda_graph=False)
    target = SimpleNamespace(
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer), model_runner=model,
        get_memory_pool=lambda: (None, None), forward_batch_generation=lambda *_, **__: result,
    )  # fmt: skip
    worker = worker_class()(SimpleNamespace(), 0, 0, target)
    worker.alloc_memory_pool()

    def verify(verify_input: Any, batch: Any, *_: Any, **__: Any) -> Any:
        """Greedy: from the root along the engine's own links, as far as the answer goes that way."""
        drafts = verify_input.draft_token.reshape(-1, WIDTH)
        square = torch.cat([m.reshape(WIDTH, -1)[:, -WIDTH:] for m in verify_input.custom_mask.split(
            [WIDTH * (int(n) + WIDTH) for n in batch.seq_lens_cpu])])  # fmt: skip
        child, sibling = engine._derive_tree_links(square.numpy(), len(batch.reqs), WIDTH)
        predict = torch.zeros(drafts.numel(), dtype=torch.int64)
        index = torch.full((len(batch.reqs), WIDTH), -1)
        accepted = []
        for b, request in enumerate(batch.reqs):
            assert int(drafts[b, 0]) == request.emitted[-1]
            node, path, ahead = 0, [0], request.answer[len(request.emitted) :]
            for at, token in enumerate(ahead):
                predict[b * WIDTH + node] = token
                found = int(child[b, node])
                while found >= 0 and int(drafts[b, found]) != token:
                    found = int(sibling[b, found])
                if found < 0 or at == len(ahead) - 1:
                    break
                node = found
                path.append(node)
            index[b, : len(path)] = b * WIDTH + torch.tensor(path)
            accepted.append(len(path))
        return predict, torch.tensor(accepted), index

    monkeypatch.setattr(engine, "eagle_sample", verify)
    answers = [[*load_tokenizer(tokenizer).encode(text).tolist(), 1] for text in reversed(OUTPUTS)]
    requests = [Request("a", list(range(5, 40)), answers[0]), Request("b", [7, 8], answers[1])]
    steps, relay = 0, rows(requests, [r.emitted for r in requests])
    while running := [r for r in requests if len(r.emitted) < len(r.answer)]:
        lengths = torch.tensor([len(r.prompt) + len(r.emitted) - 1 for r in running])
        if not overlap:
            for r in running:
                r.output_ids = array("q", r.emitted)
        batch = SimpleNamespace(
            reqs=running, forward_mode=engine.ForwardMode.DECODE, seq_lens=lengths, seq_lens_cpu=lengths,
            spec_info=relay, has_grammar=False, grammar_needs_sync=lambda: False, return_logprob=False,
            req_pool_indices=None, req_to_token_pool=MagicMock(),
        )  # fmt: skip
        done = worker.forward_batch_generation(batch)
        new = done.next_draft_input.accept_tokens.reshape(-1, WIDTH).tolist()
        told = [row[:n] for row, n in zip(new, done.accept_lens.tolist(), strict=True)]
        for r, row in zip(running, told, strict=True):
            r.output_ids = array("q", r.emitted)  # with overlap the engine books a step late
            r.emitted = r.emitted + row
        left = [r for r in running if len(r.emitted) < len(r.answer)]
        for r in running:
            if r not in left:
                r.output_ids, r.finished_reason = array("q", r.emitted), FINISH_MATCHED_TOKEN(matched=1)
        relay = rows(left, [row for r, row in zip(running, told, strict=True) if r in left])
        steps += 1
    assert [r.emitted for r in requests] == answers
    plain = max(map(len, answers)) - 1
    print(f"overlap {overlap}: {plain} steps without drafts, {steps} with them")
    assert steps < plain / 2
    worker._ends.look()
    tasks = worker.ngram_corpus._choose.__self__
    tasks.close()
    assert tasks.choose([]).drafter.num_served == 2
    worker.clear_cache_pool()
    assert not worker.ngram_corpus._running
