"""Drafts from a task's index in TensorRT-LLM's PyTorch backend. Not run with it: see docs/how-to/tensorrt-llm.md."""

import numpy as np
from tensorrt_llm._torch.speculative.drafter import Drafter

from tasc.drafting.costs import LearnedCosts
from tasc.serving import Metrics, RequestTracker, TaskDrafts
from tasc.serving.backoff import Backoff


class TascDrafter(Drafter):
    _needs_padding_kv_extension = True  # as for every drafter that runs outside the model

    def __init__(self, index, tokenizer, *, max_draft_len, max_seq_len, vocab_size):
        super().__init__(max_draft_len=max_draft_len, max_total_draft_tokens=max_draft_len)
        self._index, self._tokenizer = index, tokenizer
        self._limits = {"max_draft": max_draft_len, "max_length": max_seq_len, "vocab_size": vocab_size}
        self._tracker = self._backoff = None

    def _start(self):
        """Open the index in the engine's process: this object is sent there, and an open index cannot be."""
        drafts = TaskDrafts(self._index, self._tokenizer)
        curve = LearnedCosts(0.02)  # of a drafted token, in plain steps
        self._backoff = Backoff()
        self._tracker = RequestTracker(
            lambda prompt, fields: drafts, eos=frozenset(), curve=curve, metrics=Metrics(), **self._limits
        )

    def prepare_draft_tokens(self, scheduled_requests, resource_manager=None):
        if self._tracker is None:
            self._start()
        requests = scheduled_requests.generation_requests
        drafts = self._backoff.run(lambda: self._propose(requests), lambda: None) if requests else None
        for request, draft in zip(requests, drafts or [[] for _ in requests], strict=True):
            request.py_draft_tokens = draft

    def _propose(self, requests):
        rows = [list(request.get_tokens(0)) for request in requests]
        known = [getattr(request, "py_tasc_known", request.py_orig_prompt_len) for request in requests]
        tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for at, (request, row) in enumerate(zip(requests, rows, strict=True)):
            tokens[at, : len(row)] = row
            request.py_tasc_known = len(row)
        emitted = [row[length:] for row, length in zip(rows, known, strict=True)]
        return self._tracker.propose(emitted, [len(row) for row in rows], tokens)
