"""Engines of vLLM for tests. Each line of stdin is a JSON object, which a process of its own answers with another.

vLLM takes half a minute to import, so one process imports it and forks. The second runner is asked for by an argument,
since Triton reads the environment when it is imported. Run by test_vllm_engine.py.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from types import SimpleNamespace
from typing import Any


def use_second_runner() -> None:
    """Make vLLM's second model runner run on a CPU: Triton's interpreter runs its kernels, as a backend for CPUs."""
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"
    from triton.backends import backends

    backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True))


def streamed(llm: Any, name: str, prompt: list[int], grammar: Any = None, **options: Any) -> dict[str, Any]:
    """Answer one request twice, whole and in parts."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    given = {"max_tokens": 60, "temperature": 0.0, "skip_special_tokens": False, **options}
    if "logit_bias" in given:  # JSON has no numbers as keys
        given["logit_bias"] = {int(token): bias for token, bias in given["logit_bias"].items()}

    def params(kind: RequestOutputKind) -> SamplingParams:
        constraint = StructuredOutputsParams(**grammar) if grammar else None
        return SamplingParams(**given, structured_outputs=constraint, output_kind=kind)

    whole = llm.generate([{"prompt_token_ids": prompt}], params(RequestOutputKind.FINAL_ONLY), use_tqdm=False)[0]
    final, parts = whole.outputs[0], []
    llm.llm_engine.add_request(name, {"prompt_token_ids": prompt}, params(RequestOutputKind.DELTA))
    while llm.llm_engine.has_unfinished_requests():
        parts += [one.outputs[0].text for one in llm.llm_engine.step()]
    likely = [
        {"id": token, "text": at[token].decoded_token, "rank": at[token].rank}
        for token, at in zip(final.token_ids, final.logprobs or [], strict=False)
    ]
    found = {"text": final.text, "ids": list(final.token_ids), "parts": parts, "logprobs": likely}
    return {**found, "reason": final.finish_reason, "stopped_by": final.stop_reason}


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Answer with an engine of its own."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    structured = {"structured_outputs_config": {"backend": asked["grammars"]}} if "grammars" in asked else {}
    llm = LLM(
        asked["model"], dtype="float32", max_model_len=256, max_num_seqs=4, max_num_batched_tokens=asked["chunk"],
        enable_chunked_prefill=True, enable_prefix_caching=False, speculative_config=asked["speculation"],
        enforce_eager=True, disable_log_stats=True, seed=0, enable_lora="adapters" in asked, max_lora_rank=8,
        **structured,
    )  # fmt: skip
    if "requests" in asked:
        return {"answers": [streamed(llm, str(number), **one) for number, one in enumerate(asked["requests"])]}
    runner = llm.llm_engine.model_executor.driver_worker.worker.model_runner
    drafter = getattr(runner, "drafter", None) or getattr(runner, "speculator", None)
    steps = 0
    if drafter is not None:
        propose = drafter.propose

        def counted(*args: object, **kwargs: object) -> object:
            nonlocal steps
            steps += 1
            return propose(*args, **kwargs)

        drafter.propose = counted
    prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
    params = [SamplingParams(max_tokens=60, **options) for options in asked["sampling"]]
    adapters = [LoRARequest(*one) if one else None for one in asked.get("adapters", [None] * len(prompts))]
    said = [
        [list(one.outputs[0].token_ids) for one in llm.generate(prompts, params, lora_request=adapters, use_tqdm=False)]
        for _ in range(asked.get("times", 1))
    ]
    cache = getattr(drafter, "suffix_cache", None) or getattr(drafter, "drafts", drafter)
    metrics = cache.metrics.as_dict() if hasattr(cache, "metrics") else None
    return {"said": said, "steps": steps, "metrics": metrics}


def main() -> None:
    """Answer each line, as `{"answer": …}` or `{"error": …}` with the traceback."""
    if "--second-runner" in sys.argv:
        use_second_runner()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines write to stdout too
    import vllm.lora.request
    import vllm.v1.worker.cpu_worker  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        if os.fork() == 0:
            signal.alarm(500)
            os.environ.update(asked["environment"])
            try:
                reply = {"answer": answer(asked)}
            except BaseException:
                reply = {"error": traceback.format_exc()}
            print(json.dumps(reply), file=replies, flush=True)
            os._exit(0)
        if os.wait()[1] != 0:
            print(json.dumps({"error": "the process died, or took over 500 seconds"}), file=replies, flush=True)


if __name__ == "__main__":
    main()
