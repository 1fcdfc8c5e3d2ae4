"""SGLang's n-gram worker served from an index: driven by the calls of the engine's own worker.

The sequence is that of SGLang 0.5.23, `srt/speculative/ngram_worker.py`. A decoding step calls `synchronize`, then
`batch_get` with each request's name, its last `max_trie_depth` tokens and the number of all (`_prepare_draft_tokens`);
verifies the tree; calls `batch_put` with the same last tokens (`_update_ngram_corpus`), and `erase_match_state` with
the requests that were in the step before and are not in this one (`forward_batch_generation`). `clear_cache_pool`
calls `reset`. Shapes and types are those of `kernels/ops/speculative/ngram_corpus.py`. The first step comes when the
prefill has said one token; with overlap, the output that the engine has booked is one step behind the last tokens.
`tests/integration/test_sglang_engine.py` drives the worker itself where SGLang is installed.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from array import array
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasc.adapters.sglang_corpus import PAD, EndWatch, TascCorpus, request_fields
from tasc.drafting import protocol
from tasc.drafting.protocol import Drafter, TokenDraft
from tasc.errors import InputError
from tasc.serving import RequestFields, TaskDrafts

DEPTH = 18  # --speculative-ngram-max-trie-depth


class Told(Drafter):
    """Keeps every request's prompt and output; drafts what comes, but each fifth token wrong."""

    name = "told"

    def __init__(self, wrong: int = 5) -> None:
        self.requests: list[Any] = []
        self.rows: list[list[int]] = []
        self.wrong = wrong

    def serve(self, rows: Any) -> None:
        self.rows += [np.asarray(ids).tolist() for _, ids in rows]

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Any:
        self.requests.append(Told.Request(np.asarray(prompt_ids).tolist(), self.wrong))
        return self.requests[-1]

    class Request(protocol.Request):
        def __init__(self, prompt: list[int], wrong: int) -> None:
            self.prompt, self.output, self.wrong = prompt, list[int](), wrong

        def draft(self, max_tokens: int, costs: Any = None) -> TokenDraft:
            assert costs.tolist() == [1.0] * (max_tokens + 1)
            ahead = said(self.prompt)[len(self.output) :][:max_tokens]
            return TokenDraft.of([9 if token % self.wrong == 0 else token for token in ahead])

        def update(self, ids: Any) -> None:
            self.output += [int(token) for token in ids]


def said(prompt: list[int], length: int = 40) -> list[int]:
    """What the model answers."""
    return [100 + (7 * sum(prompt) + 3 * k) % 50 for k in range(length)]


@dataclass
class Req:
    """As much of the engine's request as its n-gram worker reads."""

    rid: str
    prompt: list[int]
    length: int = 30
    output_ids: array[int] = field(default_factory=lambda: array("q"))  # what the engine has booked
    emitted: list[int] = field(default_factory=list)
    finished_reason: Any = None
    finished_len: int | None = None

    @property
    def output_ids_through_stop(self) -> array[int]:
        return self.output_ids[: self.finished_len]

    @property
    def origin_input_ids_unpadded(self) -> array[int]:
        return array("q", self.prompt)

    @property
    def answer(self) -> list[int]:
        return said(self.prompt, self.length)


def last(req: Req, prev: list[int]) -> list[int]:
    """The worker's window: prompt, booked output and what is not booked yet."""
    return (list(req.origin_input_ids_unpadded[-DEPTH:]) + list(req.output_ids[-DEPTH:]) + prev)[-DEPTH:]


def step(corpus: TascCorpus, batch: list[Req], left: set[str], width: int, histories: bool = True) -> None:
    """One decoding step of the batch, as the worker takes it."""
    if histories:
        corpus.take_histories({r.rid: (r.origin_input_ids_unpadded, r.output_ids) for r in batch})
    corpus.synchronize()
    pending = [r.emitted[len(r.output_ids) :] for r in batch]
    windows = [last(r, prev) for r, prev in zip(batch, pending, strict=True)]
    lengths = [len(r.prompt) + len(r.emitted) for r in batch]
    tokens, mask = corpus.batch_get([r.rid for r in batch], windows, lengths)
    assert tokens.dtype == mask.dtype == np.int64
    assert tokens.shape == (len(batch) * width,) and mask.shape == (len(batch) * width * width,)
    for r, row, tree in zip(batch, tokens.reshape(-1, width), mask.reshape(-1, width, width), strict=True):
        r.output_ids = array("q", r.emitted)
        accept(r, row.tolist(), tree)
    corpus.batch_put(windows)
    gone = left - {r.rid for r in batch}
    if gone:
        corpus.erase_match_state(list(gone))


def accept(req: Req, row: list[int], tree: Any) -> None:
    """Walk the tree from its root along what the model says; the token after it is the model's own."""
    assert row[0] == (req.emitted or req.prompt)[-1]
    ancestors = [np.flatnonzero(tree[i][:i]) for i in range(len(row))]
    parents = [int(a.max()) if len(a) else -1 for a in ancestors]
    node, ahead = 0, req.answer[len(req.emitted) :]
    for at, token in enumerate(ahead):
        req.emitted.append(token)
        child = [i for i, parent in enumerate(parents) if parent == node and row[i] == token]
        if not child or at == len(ahead) - 1:
            return
        node = child[0]


def serve(corpus: TascCorpus, requests: list[Req], width: int, at_once: int, overlap: bool = True) -> int:
    """Decode all requests, as many at once; returns the steps."""
    waiting, running, left, steps = list(requests), list[Req](), set[str](), 0
    while waiting or running:
        for r in waiting[: at_once - len(running)]:
            r.emitted.append(r.answer[0])  # of the prefill
            running.append(waiting.pop(0))
        for r in running:
            r.output_ids = r.output_ids if overlap else array("q", r.emitted)
        running = [r for r in running if len(r.emitted) < r.length]
        if running:
            step(corpus, running, left, width)
            left, steps = {r.rid for r in running}, steps + 1
    return steps


@given(
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6),
    width=st.integers(2, 20),
    at_once=st.integers(1, 4),
    overlap=st.booleans(),
)
@settings(deadline=None)
def test_requests_are_followed_to_the_token(
    lengths: list[tuple[int, int]], width: int, at_once: int, overlap: bool
) -> None:
    drafter = Told()
    requests = [Req(f"r{k}", list(range(1, n + 1)), length) for k, (n, length) in enumerate(lengths)]
    serve(corpus_of(drafter, width), requests, width, at_once, overlap)
    assert [r.emitted for r in requests] == [r.answer for r in requests]
    asked = [r for r in requests if r.length > 1]
    assert [r.prompt for r in drafter.requests] == [r.prompt for r in asked]
    for heard, r in zip(drafter.requests, asked, strict=True):
        assert heard.output == r.emitted[: len(heard.output)] and r.length - len(heard.output) <= width


def corpus_of(drafter: Any, width: int = 8, vocab_size: int | None = None) -> TascCorpus:
    drafts = TaskDrafts(drafter=drafter)
    return TascCorpus(lambda *_: drafts, width, vocab_size)


def test_drafts_save_steps() -> None:
    plain, drafted = Req("a", [1, 2, 3]), Req("b", [1, 2, 3])
    assert serve(corpus_of(Told(wrong=1)), [plain], 8, 1) == 29
    assert serve(corpus_of(Told()), [drafted], 8, 1) <= 10


def test_a_tree_is_a_chain_that_ends_in_padding() -> None:
    answer = said([1, 2])
    tokens, mask = corpus_of(Told(wrong=1000), width=6).batch_get(["a"], [[1, 2, answer[0]]], [3])
    assert tokens.tolist() == answer[:6]
    assert mask.reshape(6, 6).tolist() == np.tri(6).tolist()
    tokens, mask = corpus_of(Told(wrong=1000), width=60).batch_get(["b"], [[1, 2, answer[0]]], [3])
    assert tokens.tolist() == [*answer, *[PAD] * 20]
    assert mask.reshape(60, 60).tolist() == np.tri(60).tolist()


def test_without_histories_a_request_begins_at_its_window() -> None:
    drafter = Told()
    corpus = corpus_of(drafter)
    long = list(range(1, 30))
    corpus.batch_get(["a"], [[*long[-5:], 100]], [30])
    corpus.batch_get(["a"], [[*long[-3:], 100, 101, 102]], [32])
    [request] = drafter.requests
    assert (request.prompt, request.output) == (long[-5:], [100, 101, 102])
    corpus.batch_get(["a"], [[7, 8]], [60])  # more is new than is told
    assert (drafter.requests[1].prompt, drafter.requests[1].output) == ([7], [8])


def test_a_name_that_is_used_again_is_another_request() -> None:
    drafter = Told()
    corpus = corpus_of(drafter)
    for prompt in ([1, 2, 3], [1, 2], [1, 2, 3, 4, 5, 6]):
        corpus.take_histories({"a": (prompt, [])})
        for repeat in range(2):  # asked again for the same tokens
            corpus.batch_get(["a"], [[*prompt, 50]], [len(prompt) + 1])
            assert drafter.requests[-1].output == [50], repeat
    assert [r.prompt for r in drafter.requests] == [[1, 2, 3], [1, 2], [1, 2, 3, 4, 5, 6]]


def test_a_request_that_comes_back_knows_its_output() -> None:
    drafter = Told()
    corpus = corpus_of(drafter)
    request = Req("a", [5] * 40)
    request.emitted = request.answer[:21]
    request.output_ids = array("q", request.answer[:20])
    step(corpus, [request], set(), 8)
    corpus.reset()
    step(corpus, [request], set(), 8)
    first, again = drafter.requests
    assert first.prompt == again.prompt == request.prompt
    assert first.output == request.answer[:21] and again.output == request.answer[: len(again.output)]


def test_requests_that_left_are_forgotten() -> None:
    corpus = corpus_of(Told())
    requests = [Req(f"r{k}", [k + 1], length=5) for k in range(9)]
    serve(corpus, requests, 8, 2)
    assert len(corpus._running) <= 2  # of the last step
    corpus.erase_match_state([*corpus._running, "unknown"])
    assert not corpus._running


@pytest.mark.parametrize("where", ["start", "update", "draft", "propose_batch"])
def test_a_drafter_that_fails_costs_drafts_alone(where: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    requests = [Req("a", [1, 2], 9), Req("b", [3], 9)]
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Told if where in ("start", "propose_batch") else Told.Request, where, fail)
        assert serve(corpus_of(Told()), requests, 8, 2) == 8
    assert [r.emitted for r in requests] == [r.answer for r in requests]
    assert 1 <= len(caplog.records) <= 2 and "go on without drafts" in caplog.text and "broken" in caplog.text


def test_a_draft_ends_before_an_id_that_the_model_lacks() -> None:
    answer = said([1, 2])
    corpus = corpus_of(Told(wrong=1000), width=12, vocab_size=answer[5])
    tokens, _ = corpus.batch_get(["a"], [[1, 2, answer[0]]], [3])
    assert tokens.tolist() == [*answer[:5], *[PAD] * 7]


def test_a_chain_needs_two_nodes() -> None:
    with pytest.raises(InputError, match="width is 1"):
        corpus_of(Told(), width=1)


END = 2
REASONS = {  # class of `finished_reason` in the engine: what a request with this end has
    "FINISH_MATCHED_TOKEN": SimpleNamespace(matched=END),
    "FINISH_MATCHED_TOKEN of stop_token_ids or a grammar": SimpleNamespace(matched=7),
    "FINISH_MATCHED_STR": SimpleNamespace(matched="}"),
    "FINISH_LENGTH": SimpleNamespace(length=4),
    "FINISH_ABORT": SimpleNamespace(message="aborted"),
}


def test_outputs_that_ended_are_learnt_and_no_others() -> None:
    drafter = Told()
    drafts = TaskDrafts(drafter=drafter, learn=True)
    corpus, ends = TascCorpus(lambda *_: drafts, 4), EndWatch(frozenset({END, 3}))
    requests = [Req(name, [at + 1, 5], length=9) for at, name in enumerate(REASONS)]
    for r in requests:
        r.emitted = r.answer[:2]
    for _ in range(2):
        ends.look()
        step(corpus, requests, set(), 4)
        ends.watch({r.rid: r for r in requests}, corpus.followed)
    corpus.erase_match_state([r.rid for r in requests])  # with overlap, the end is booked a step later
    ends.watch({}, corpus.followed)
    ends.look()
    for r in requests:
        last = getattr(REASONS[r.rid], "matched", 7)
        r.output_ids = array("q", [*r.emitted, last if isinstance(last, int) else 7, 8, 9])  # 8, 9: accepted behind it
        r.finished_reason, r.finished_len = REASONS[r.rid], len(r.emitted) + 1
    for _ in range(2):
        ends.look()
    drafts.close()
    assert drafter.rows == [[*requests[0].emitted, END]]
    assert not ends._watched


def test_requests_whose_end_never_comes_are_forgotten() -> None:
    corpus, ends = corpus_of(Told()), EndWatch(frozenset({END}))
    for number in range(300):
        request = Req(f"r{number}", [number + 1], emitted=[5])
        step(corpus, [request], set(), 8)
        ends.watch({request.rid: request}, corpus.followed)
    assert len(ends._watched) == 257


def test_all_ranks_verify_the_drafts_of_the_first() -> None:
    """The second rank's drafter would draft something else, as after an index was replaced there first."""
    sent = list[Any]()
    drafts = TaskDrafts(drafter=Told())
    first = TascCorpus(lambda *_: drafts, 6, share=lambda tokens: sent.append(tokens.copy()))
    second = TascCorpus(None, 6, share=lambda tokens: np.copyto(tokens, sent.pop()))
    for emitted in range(1, 9):
        tokens = [1, 2, *said([1, 2])[:emitted]]
        made = [corpus.batch_get(["a"], [tokens], [len(tokens)]) for corpus in (first, second)]
        assert made[0][0].tolist() == made[1][0].tolist() and made[0][1].tolist() == made[1][1].tolist()
        assert made[0][0][1] != PAD
    assert second.followed("a") is None and first.followed("a") is not None


def test_without_the_engine_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['sglang'] = None\n"
        "import tasc.adapters, tasc.adapters.sglang_corpus\n"
        "from tasc.errors import MissingExtraError\n"
        "try:\n    import tasc.adapters.sglang\n"
        "except MissingExtraError as error:\n    assert 'tasc-lm[sglang]' in str(error)\n"
        "else:\n    raise AssertionError\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_keys_and_salts_of_requests_choose_their_task() -> None:
    sent = SimpleNamespace(custom_params={"tasc_index": "A", "tasc_salt": 7, "__req__": None})
    request = SimpleNamespace(sampling_params=sent, extra_key="S")
    assert request_fields(request, None) == RequestFields(key="A", salt="7")
    assert request_fields(request, "cache_salt") == RequestFields(key="A", salt="S")
    assert request_fields(SimpleNamespace(), "cache_salt") == request_fields(object(), None) == RequestFields()

    chosen = list[Any]()
    drafts = TaskDrafts(drafter=Told())

    def choose(prompt: Any, fields: RequestFields | None) -> TaskDrafts:
        chosen.append((np.asarray(prompt).tolist(), fields))
        return drafts

    corpus = TascCorpus(choose, 4)
    corpus.take_histories({"a": ([5, 6], [])}, {"a": RequestFields(key="A")})
    corpus.batch_get(["a"], [[5, 6, 7]], [3])
    corpus.batch_get(["b"], [[6, 7]], [9])  # what the user wrote last is not the beginning of the prompt
    assert chosen == [([5, 6], RequestFields(key="A")), ([], None)]
