"""SGLang: the speculative algorithm `TASC`, which serves its n-gram worker from a task's index.

    TASC_INDEX=task.tasc sglang serve --model-path … --speculative-algorithm TASC

The engine finds `register` through the entry-point group `sglang.srt.plugins` and calls it in each of its processes.
To the engine, `TASC` is its own `NGRAM` with another corpus, whose trees are chains.
"""

from __future__ import annotations

from typing import Any

from tasc.adapters.sglang_corpus import EndWatch, Share, TascCorpus, request_fields
from tasc.data.endings import eos_ids_of
from tasc.errors import InputError, MissingExtraError
from tasc.serving import Settings, Tasks

try:
    from sglang.srt.speculative.spec_info import CustomSpecAlgo, SpeculativeAlgorithm
except ImportError as error:
    raise MissingExtraError("tasc.adapters.sglang", "sglang") from error

WIDTH = 16
"""Default of `--speculative-num-draft-tokens`: tokens verified per step, the last token included."""

MOST_RUNNING = 48
"""Default of `--max-running-requests`; the engine's own default for n-grams."""


def register() -> None:
    """Register `TASC`; the engine calls it once per process.

    Raises:
        ValueError: It is registered already.
    """
    SpeculativeAlgorithm.register(
        "TASC", supports_overlap=True, validate_server_args=lambda _: _settings(), spec_class=TascAlgorithm
    )(lambda _: worker_class())


class TascAlgorithm(CustomSpecAlgo):  # type: ignore[misc]
    """Algorithm that behaves like the engine's `NGRAM`."""

    def is_ngram(self) -> bool:
        """True: batches carry what n-gram workers read and write."""
        return True

    def has_draft_kv(self) -> bool:
        """False: there is no draft model."""
        return False

    def handle_server_args(self, server_args: Any) -> None:
        """Settle the options for a chain of drafted tokens.

        Raises:
            InputError: Options that do not go together with it.
        """
        if server_args.device not in ("cuda", "cpu", "xpu"):
            raise InputError(f"TASC verifies on cuda, cpu or xpu, but the device is {server_args.device}")
        if server_args.attn_dp_size > 1:
            raise InputError(f"n-gram drafts need --attn-dp-size 1, but it is {server_args.attn_dp_size}")
        if server_args.speculative_ngram_external_corpus_path is not None:
            raise InputError("TASC drafts from its index alone: leave --speculative-ngram-external-corpus-path out")
        width = WIDTH if server_args.speculative_num_draft_tokens is None else server_args.speculative_num_draft_tokens
        if width < 2:
            raise InputError(f"--speculative-num-draft-tokens is {width}; it must be at least 2")
        if server_args.device == "cpu":
            server_args.disable_overlap_schedule = True
        if server_args.max_running_requests is None:
            server_args.max_running_requests = MOST_RUNNING
        server_args.enable_mixed_chunk = False
        server_args.speculative_num_draft_tokens = width
        server_args.speculative_num_steps = width - 1
        server_args.speculative_eagle_topk = 1

    def __getattr__(self, name: str) -> Any:
        """Forward to the built-in algorithm what `CustomSpecAlgo` lacks."""
        if name.startswith("__"):  # Python's own: copying would give the builtin
            raise AttributeError(name)
        return getattr(SpeculativeAlgorithm.NGRAM, name)


def worker_class() -> Any:
    """The engine's `NGRAMWorker` with a `TascCorpus`; importing it needs the engine's kernels."""
    from sglang.srt.speculative import ngram_worker

    class TascWorker(ngram_worker.NGRAMWorker):  # type: ignore[misc]
        """Drafts from the index that `TASC_INDEX` names.

        Args:
            server_args: The engine's options.
            gpu_id: As `NGRAMWorker` takes it.
            nccl_port: As `NGRAMWorker` takes it.
            target_worker: The worker that has model and tokenizer.

        Raises:
            InputError: There is no index, or the tokenizer is a slow one.
            TokenizerMismatchError: The index was made with another tokenizer.
        """

        def __init__(self, server_args: Any, gpu_id: int, nccl_port: int, target_worker: Any) -> None:
            settings, model = _settings(), target_worker.model_runner.model_config
            is_first, share = _ranks()
            choose = None
            if is_first:
                served_name = getattr(server_args, "served_model_name", None)
                choose = Tasks(settings, target_worker.tokenizer, served_name).choose
            self._salt_field = settings.salt
            named = {"eos_token_id": sorted(getattr(model, "hf_eos_token_id", None) or ())}
            self._ends = EndWatch(eos_ids_of([named], target_worker.tokenizer))

            def corpus(*, draft_token_num: int, **_: Any) -> TascCorpus:
                return TascCorpus(choose, draft_token_num, model.vocab_size, share)

            own, ngram_worker.NgramCorpus = ngram_worker.NgramCorpus, corpus  # the engine's own would be compiled
            try:
                super().__init__(server_args, gpu_id, nccl_port, target_worker)
            finally:
                ngram_worker.NgramCorpus = own

        def forward_batch_generation(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
            """Run one step of `NGRAMWorker`, after passing whole prompts to the corpus: the worker passes ends."""
            self._ends.look()
            self.ngram_corpus.take_histories(
                {request.rid: (request.origin_input_ids_unpadded, request.output_ids) for request in batch.reqs},
                {request.rid: request_fields(request, self._salt_field) for request in batch.reqs},
            )
            decodes = batch.forward_mode.is_decode()
            result = super().forward_batch_generation(batch, *args, **kwargs)
            if decodes:
                self._ends.watch({request.rid: request for request in batch.reqs}, self.ngram_corpus.followed)
            return result

    return TascWorker


def _ranks() -> tuple[bool, Share | None]:
    """Whether this process is the first of its tensor-parallel group, and how its drafts reach the others."""
    import torch
    from sglang.srt.runtime_context import get_parallel

    group = get_parallel().tp_group
    if group.world_size == 1:
        return True, None

    def share(tokens: Any) -> None:
        torch.distributed.broadcast(torch.from_numpy(tokens), src=group.ranks[0], group=group.cpu_group)

    return group.rank_in_group == 0, share


def _settings() -> Settings:
    """Read the settings and open each index once, to fail early."""
    from tasc._core import TaskIndex

    settings = Settings.from_environment()
    for one in settings.indexes:
        TaskIndex.open(one.path)
    return settings
