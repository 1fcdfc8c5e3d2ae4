"""Speculator for vLLM's second model runner (V2): `vllm_v2` puts it where vLLM makes its own.

A step of this runner verifies the same number of drafted tokens for every request: `num_speculative_tokens`, or the
number that vLLM's schedule by batch size gives. vLLM chooses it before tasc drafts, so a short draft saves nothing.
Each draft is therefore as long as the index has evidence. The rest of its row holds the token 0, which vLLM verifies
like a drafted token. With `enable_adaptive_verification`, vLLM verifies only the most likely drafted tokens, by the
probabilities in `draft_token_confidence_probs`. Written for vLLM 0.32 and 0.33; not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.distributed.parallel_state import get_tp_group
from vllm.utils.gpu_sync_debug import gpu_sync_allowed
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.gpu.model_runner import GPUModelRunner
from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator

from tasc.adapters.vllm import EngineDrafts
from tasc.adapters.vllm_requests import show_new_requests
from tasc.drafting.costs import LearnedCosts
from tasc.errors import InputError
from tasc.serving import Settings

_WARMUP = ("_warmup_", "_v2_mixed_warmup")  # names of the requests that vLLM makes up before it serves


class TascSpeculator(BaseSpeculator):  # type: ignore[misc]
    """Drafts from the index that TASC_INDEX names.

    With tensor parallelism, the first rank drafts and the others receive its drafts: all ranks must verify the same
    tokens, and what an index has learnt by a certain step differs between processes.

    Args:
        vllm_config: `vllm.config.VllmConfig`.
        device: Device of the model.
        req_states: `RequestState` of the model runner: tokens and lengths of the requests.

    Raises:
        InputError: The settings are missing or invalid, or prefill is parallel over the context. `EngineDrafts` has
            the other errors.
    """

    supports_mm_inputs = False
    draft_logits = None
    """No distribution over drafted tokens: a draft is a chain of fixed tokens."""

    def __init__(self, vllm_config: Any, device: torch.device, req_states: Any) -> None:
        speculation = vllm_config.speculative_config
        ranks = vllm_config.parallel_config.prefill_context_parallel_size
        if ranks > 1:  # their drafts would differ
            raise InputError(f"prefill_context_parallel_size is {ranks}, but tasc's drafts need 1")
        self._states = req_states
        self._group = get_tp_group()
        self.drafts: EngineDrafts | None = None
        """What drafts; None in every rank but the first."""
        if self._group.rank_in_group == 0:
            show_new_requests(GPUModelRunner)
            self.drafts = EngineDrafts(vllm_config, Settings.from_environment(), LearnedCosts(0.0))
        shape = (vllm_config.scheduler_config.max_num_seqs, speculation.num_speculative_tokens)
        self._tokens = torch.zeros(shape, dtype=torch.int64, device=device)
        self.draft_token_confidence_probs = torch.zeros(shape, dtype=torch.float32, device=device)
        """(max_num_seqs, K) float32: probability of each drafted token, given that those before it are right."""
        self.enable_adaptive_verification = bool(speculation.enable_adaptive_verification)

    def init_cudagraph_manager(self, cudagraph_mode: Any) -> None:
        """Do nothing: there is no draft model."""

    def capture(self) -> None:
        """Do nothing: there is no draft model."""

    def propose(
        self,
        input_batch: Any,
        attn_metadata: Any,
        slot_mappings: Any,
        last_hidden_states: Any,
        aux_hidden_states: Any,
        num_sampled: torch.Tensor,
        *_: Any,
        dummy_run: bool = False,
        num_speculative_tokens: int | None = None,
        **__: Any,
    ) -> torch.Tensor:
        """Draft for the next step. The parameters that are not listed here are not used.

        Args:
            input_batch: `InputBatch` of the step, with R requests.
            attn_metadata: Not used.
            slot_mappings: Not used.
            last_hidden_states: Not used.
            aux_hidden_states: Not used.
            num_sampled: (R,) number of tokens that the step emitted, by request.
            dummy_run: Whether the step has made-up requests, which nothing is drafted for.
            num_speculative_tokens: Most tokens of a draft in this step; None: K.

        Returns:
            (R, K) int64 drafted tokens. All 0 after a failure (`EngineDrafts.run`).
        """
        tokens = self._tokens[: input_batch.num_reqs]
        probs = self.draft_token_confidence_probs[: input_batch.num_reqs]
        if dummy_run:
            return tokens
        if self.drafts is not None:
            found = self.drafts.run(partial(self._draft, self.drafts, input_batch, num_sampled, num_speculative_tokens))
            new_tokens, new_probs = _padded(tokens.shape, [], []) if found is None else found
            async_tensor_h2d(new_tokens, out=tokens)
            async_tensor_h2d(new_probs, out=probs)
        self._group.broadcast(tokens)
        if self.enable_adaptive_verification:
            self._group.broadcast(probs)
        return tokens

    def _draft(
        self, drafts: EngineDrafts, input_batch: Any, num_sampled: torch.Tensor, most: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the step's (R, K) drafted tokens and their probabilities."""
        names = input_batch.req_ids
        emitted, lengths, tokens = self._emitted(input_batch, num_sampled)
        emitted = [[] if name.startswith(_WARMUP) else new for name, new in zip(names, emitted, strict=True)]
        drafts.requests.show(names)
        drafted = drafts.batch.propose(emitted, lengths, tokens, drafts.requests.of_step(), most)
        return _padded((len(names), self._tokens.shape[1]), drafted, drafts.batch.probs)

    def _emitted(
        self, input_batch: Any, num_sampled: torch.Tensor
    ) -> tuple[list[list[int]], NDArray[np.int32], NDArray[np.int32]]:
        """Wait for the step and return, by request, the emitted ids, (R,) lengths and (R, longest) tokens.

        The runner's kernels write the tokens into memory of the host where they can. Then the copy of the lengths is
        the only one, and the wait for it the only synchronisation.
        """
        states, slots = self._states, input_batch.idx_mapping
        with gpu_sync_allowed():
            lengths, counts = torch.stack([states.total_len.gpu[slots], num_sampled]).cpu().numpy()
            on_host = getattr(states.all_token_ids, "_uva_buf", None)
            if on_host is None:
                tokens = states.all_token_ids.gpu[slots, : lengths.max()].cpu().numpy()
            else:
                tokens = on_host.np[input_batch.idx_mapping_np, : lengths.max()]
        rows = zip(tokens, lengths.tolist(), counts.tolist(), strict=True)
        return [row[length - count : length].tolist() for row, length, count in rows], lengths, tokens


def _padded(
    shape: Sequence[int], tokens: Sequence[Sequence[int]], probs: Sequence[Sequence[float]]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return (R, K) arrays of at most R rows of at most K values; the rest is 0."""
    all_tokens, all_probs = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    for row, (drafted, likely) in enumerate(zip(tokens, probs, strict=True)):
        all_tokens[row, : len(drafted)] = drafted
        all_probs[row, : len(likely)] = likely
    return all_tokens, all_probs
