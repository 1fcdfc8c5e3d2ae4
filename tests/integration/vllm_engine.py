"""An engine of vLLM for tests: reads a JSON object from stdin, prints one. Run by test_vllm_engine.py."""

from __future__ import annotations

import json
import sys


def main() -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    asked = json.load(sys.stdin)
    llm = LLM(
        asked["model"], dtype="float32", max_model_len=256, max_num_seqs=4, max_num_batched_tokens=asked["chunk"],
        enable_chunked_prefill=True, enable_prefix_caching=False, speculative_config=asked["speculation"],
        enforce_eager=True, disable_log_stats=True, seed=0, enable_lora="adapters" in asked, max_lora_rank=8,
    )  # fmt: skip
    drafter = getattr(llm.llm_engine.model_executor.driver_worker.worker.model_runner, "drafter", None)
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
    cache = getattr(drafter, "suffix_cache", drafter)
    metrics = cache.metrics.as_dict() if hasattr(cache, "metrics") else None
    print("ANSWER", json.dumps({"said": said, "steps": steps, "metrics": metrics}), flush=True)


if __name__ == "__main__":
    main()
