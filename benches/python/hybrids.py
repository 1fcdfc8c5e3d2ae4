"""Recurrent and hybrid models of about 100 million parameters in tasc's loop, drafted against plain, beside an attention
model of that size with the same drafts. Weights are random; a drafter knows the text and errs at a given rate.

python benches/python/hybrids.py [--kinds llama lfm2 …] [--tokens 96] [--wrong 0.15] [-o FILE]
python benches/python/hybrids.py --smoke
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from ratios import Ratio, report

from tasc import Generator
from tasc.drafting.protocol import Costs, Draft, Drafter, Request, TokenDraft, TokenIds

_DRAFTED, _PROMPT, _VOCAB = 16, 96, 16_384
_IDS = {"eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}


def configurations(small: bool) -> dict[str, Callable[[], Any]]:
    """Configurations of about 100 million parameters, by kind; `small`: tiny ones."""
    width, layers, vocab = (64, 2, 256) if small else (640, 16, _VOCAB)
    heads = width // 64
    sizes: dict[str, Any] = {
        "vocab_size": vocab, "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": max(1, heads // 5), **_IDS,
    }  # fmt: skip
    every_fourth = ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * (layers // 4)
    gated: dict[str, Any] = {
        "head_dim": 64, "linear_num_key_heads": heads, "linear_num_value_heads": heads, "linear_key_head_dim": 64,
        "linear_value_head_dim": 64, "layer_types": every_fourth or ["linear_attention", "full_attention"],
    }  # fmt: skip
    mamba: dict[str, Any] = {"mamba_n_heads": 2 * heads, "mamba_d_head": 64, "mamba_n_groups": 1, "mamba_d_state": 64}
    convs = ["conv", "conv", "full_attention", "conv"] * (layers // 4) or ["conv", "full_attention"]
    return {
        "llama": lambda: transformers.LlamaConfig(**sizes),
        "lfm2": lambda: transformers.Lfm2Config(**sizes, layer_types=convs),
        "qwen3_5": lambda: transformers.Qwen3_5TextConfig(**sizes, **gated),
        "falcon_h1": lambda: transformers.FalconH1Config(
            **{**sizes, "intermediate_size": 2 * width}, **mamba, mamba_d_ssm=2 * width, mamba_chunk_size=32
        ),
    }


class KnownText(Drafter):
    """Drafts the next tokens of known outputs, each token wrong with a given probability."""

    name = "known text"

    def __init__(self, outputs: dict[tuple[int, ...], list[int]], wrong: float) -> None:
        self.outputs, self.wrong = outputs, wrong

    def start(self, prompt_ids: TokenIds, input_text: str | None = None) -> _KnownRequest:
        """Start a request whose prompt is known."""
        prompt = tuple(map(int, prompt_ids))
        return _KnownRequest(self.outputs[prompt], self.wrong, random.Random(sum(prompt)))


class _KnownRequest(Request):
    def __init__(self, output: list[int], wrong: float, rng: random.Random) -> None:
        self._output, self._wrong, self._rng, self._seen = output, wrong, rng, 0

    def draft(self, max_tokens: int, costs: Costs | None = None) -> Draft:
        tokens = self._output[self._seen : self._seen + min(_DRAFTED, max_tokens)]
        return TokenDraft.of([token ^ (self._rng.random() < self._wrong) for token in tokens])

    def update(self, ids: TokenIds) -> None:
        self._seen += len(ids)


def measured(config: Any, num_tokens: int, wrong: float, num_prompts: int) -> dict[str, Any]:
    """Tokens per second drafted and plain, the median over prompts of the ratio, and whether the texts are equal."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.0 / weight.shape[-1] ** 0.5)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    rng = random.Random(0)
    prompts = [[rng.randrange(1, config.vocab_size) for _ in range(_PROMPT)] for _ in range(num_prompts + 1)]
    plain = Generator(model, max_draft=0)
    options: dict[str, Any] = {"max_tokens": num_tokens, "eos": ()}
    outputs = {tuple(prompt): plain.generate(prompts=[prompt], **options)[0].ids for prompt in prompts}
    drafted = Generator(model, drafter=KnownText(outputs, wrong))
    drafted.generate(prompts=prompts[:1], **options)  # the cost of verification is measured here
    ratios, seconds, differ = [], {"plain": 0.0, "drafted": 0.0}, 0
    tau: list[float] = []
    for prompt in prompts[1:]:
        times = {}
        for name, generator in (("plain", plain), ("drafted", drafted)):
            begin = time.perf_counter()
            made = generator.generate(prompts=[prompt], **options)
            times[name] = time.perf_counter() - begin
            seconds[name] += times[name]
            differ += made[0].ids != outputs[tuple(prompt)]
        assert made.stats.tau is not None
        tau.append(made.stats.tau)
        ratios.append(times["plain"] / times["drafted"])
    count = num_tokens * num_prompts
    return {
        "mode": plain.mode, "parameters": sum(weight.numel() for weight in model.parameters()), "differ": differ,
        "plain": count / seconds["plain"], "drafted": count / seconds["drafted"],
        "ratio": statistics.median(ratios), "tau": statistics.mean(tau),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="llama, lfm2, qwen3_5, falcon_h1; default: all")
    parser.add_argument("--tokens", type=int, default=96, help="output tokens per prompt")
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--wrong", type=float, default=0.05, help="share of drafted tokens that are wrong")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="tiny models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = configurations(options.smoke)
    tokens, prompts = (24, 2) if options.smoke else (options.tokens, options.prompts)
    found = {kind: measured(known[kind](), tokens, options.wrong, prompts) for kind in options.kinds or known}
    ratios = [
        Ratio(
            f"{kind}: tokens/s, {one['tau']:.1f} tokens per step, mode {one['mode']}",
            one["drafted"],
            "plain",
            one["plain"],
        )
        for kind, one in found.items()
    ]
    report("Drafts on recurrent and hybrid models, CPU fp32, one at a time", ratios, options.output, kinds=found)
    assert not any(one["differ"] for one in found.values()), "drafted texts differ from plain ones"


if __name__ == "__main__":
    main()
