"""Cost profile of an engine: seconds of its steps by requests at once and tokens per request.

    python benches/python/engine_steps.py ENGINE --model FOLDER [--gguf FILE] [--system TEXT] [--threads N] -o PROFILE.json

ENGINE is tasc, vllm (to be run where vLLM is installed) or llama.cpp (llama-cpp-python; FILE is the model). The engine
decodes with drafts of known lengths, which are wrong, so that each step computes a known number of tokens. The profile
is what `tasc check --device` reads. With `--clock cpu`, seconds are processor time of one thread, which other work on
the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tasc.adapters.vllm import TascProposer
from tasc.drafting.defaults import MAX_DRAFT
from tasc.evaluation.cost_profile import CostProfile, TimedNoise

LENGTHS = (1, 2, 3, 5, 9, 17, 33, MAX_DRAFT + 1)
MORE_LENGTHS = (4, 6, 7, 8, 12, 13, 16, 24, 25, 32, MAX_DRAFT)
"""Measured for one request alone: kernels for 4 or 8 tokens at a time make a step of one more token much slower."""
MOST_TOKENS = 600  # of a step
ROUNDS = 4
RIGHT = 8  # right tokens drafted
PLAIN_TOKENS = 12  # tokens that are timed where an engine cannot draft
INPUT = "what flights are there from boston to denver on monday morning"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Noise:
    """`TimedNoise` for an engine: drafts in the steps in which all requests take part, until its rounds are over."""

    def __init__(self, prompt: list[int], rows: int, clock: str) -> None:
        lengths = sorted(LENGTHS + MORE_LENGTHS) if rows == 1 else LENGTHS
        lengths = [n for n in lengths if n == 1 or n * rows <= MOST_TOKENS]
        self._noise = TimedNoise(prompt, rows, lengths, 1e9, CLOCKS[clock], rounds=ROUNDS)
        self.rows, self.tokens = rows, self._noise.num_steps + 8
        self._is_over = False

    def propose(self, running: int) -> list[list[int]]:
        """Return a draft for each running request."""
        if not self._is_over and running == self.rows:
            try:
                return [draft.tokens.tolist() for draft in self._noise.propose_batch([None] * running, MAX_DRAFT)]
            except SystemExit:  # all rounds
                self._is_over = True
        return [[] for _ in range(running)]

    def seconds(self) -> dict[int, float]:
        """Seconds of a step, by tokens per request."""
        return self._noise.medians()


class StepProposer(TascProposer):
    """tasc's proposer of vLLM, or noise while `noise` is set."""

    noise: Noise | None = None

    def propose(self, sampled_token_ids: Any, *args: Any, **options: Any) -> list[list[int]]:
        """Draft for the next step."""
        noise = StepProposer.noise
        if noise is None:
            return super().propose(sampled_token_ids, *args, **options)
        drafts = iter(noise.propose(sum(map(bool, sampled_token_ids))))
        return [next(drafts) if new else [] for new in sampled_token_ids]


class Vllm:
    """vLLM with tasc's proposer, or plain."""

    batches = (1, 8)

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM, SamplingParams

        self._params, self._clock, self._drafts = SamplingParams, options["clock"], options["drafts"]
        config = {"method": "custom_class", "model": "engine_steps.StepProposer", "num_speculative_tokens": MAX_DRAFT}
        self._llm = LLM(
            options["model"], dtype=options["dtype"], max_model_len=1024, max_num_seqs=max(self.batches), enforce_eager=True,
            disable_log_stats=True, speculative_config=config if self._drafts else None,
        )  # fmt: skip

    def run(self, prompts: list[list[int]], tokens: int, load: int, ends: bool = True) -> dict[str, Any]:
        """Decode greedily, `load` at once."""
        params = self._params(temperature=0.0, max_tokens=tokens, ignore_eos=not ends)
        given = [{"prompt_token_ids": ids} for ids in prompts]
        size = 1 if load == 1 else len(given)
        began = CLOCKS[self._clock]()
        made = [
            one
            for at in range(0, len(given), size)
            for one in self._llm.generate(given[at : at + size], params, use_tqdm=False)
        ]
        seconds = CLOCKS[self._clock]() - began
        return {"seconds": seconds, "ids": [list(one.outputs[0].token_ids) for one in made]}

    def steps(self, prompt: list[int], rows: int) -> dict[int, float]:
        """Seconds of steps of `rows` requests, by tokens per request."""
        if not self._drafts:
            long, short = (self.run([prompt] * rows, n, rows, False)["seconds"] for n in (PLAIN_TOKENS + 1, 1))
            return {1: (long - short) / PLAIN_TOKENS}
        StepProposer.noise = Noise(prompt, rows, self._clock)
        self.run([prompt] * rows, StepProposer.noise.tokens, rows, False)
        found, StepProposer.noise = StepProposer.noise.seconds(), None
        return found

    def facts(self, prompt: list[int], steps: dict[int, dict[int, float]]) -> dict[str, Any]:
        """How prompts are computed: what the prefix cache keeps together, and a token's cost beside a drafted one's."""
        rows = max(self.batches)
        lengths, seconds = zip(*sorted(steps[rows].items()), strict=True)
        foreign = [[number + 1, *prompt[1:]] for number in range(4 * rows)]  # the cache has none of their blocks
        step = self.run(foreign, 1, rows, False)["seconds"] * rows / len(foreign)
        share = float(np.interp(step, seconds, lengths)) / len(prompt)
        block = self._llm.llm_engine.vllm_config.cache_config.block_size
        return {"cache_block": block, "prompt_share": min(1.0, share)}


class LlamaCpp:
    """llama-cpp-python, one request at a time."""

    batches = (1,)

    def __init__(self, options: dict[str, Any]) -> None:
        import llama_cpp

        self._clock, self._eos, self._options = options["clock"], frozenset(options["eos"]), options
        threads = {"n_threads": options["threads"], "n_threads_batch": options["threads"]}
        self._llm = llama_cpp.Llama(options["gguf"], n_ctx=1024, logits_all=True, verbose=False, **threads)
        self._draft: Any = None
        self._drafts: Any = None  # kept: it learns from request to request

    def run(self, prompts: list[list[int]], tokens: int, load: int, ends: bool = True) -> dict[str, Any]:
        """Decode greedily."""
        self._llm.draft_model = self._draft
        made, began = [], CLOCKS[self._clock]()
        for prompt in prompts:
            ids: list[int] = []
            for token in self._llm.generate(prompt, temp=0.0):
                ids.append(token)
                if len(ids) == tokens or (ends and token in self._eos):
                    break
            made.append(ids)
        return {"seconds": CLOCKS[self._clock]() - began, "ids": made}

    def use_drafts(self, costs: list[float] | None) -> None:
        """Draft from the index at these costs; None: decode plainly."""
        from tasc.adapters.llama_cpp import TascDraft

        if self._drafts is None and costs is not None:
            self._drafts = TascDraft(self._options["index"], self._options["tokenizer"], costs=costs)
        self._draft = None if costs is None else self._drafts

    def steps(self, prompt: list[int], rows: int) -> dict[int, float]:
        """Seconds of steps, by tokens."""
        noise = Noise(prompt, rows, self._clock)
        self._draft = lambda ids: np.array(noise.propose(1)[0], np.intc)
        self.run([prompt], noise.tokens, 1, False)
        self._draft = None
        return noise.seconds()

    def facts(self, prompt: list[int], steps: dict[int, dict[int, float]]) -> dict[str, Any]:
        """Seconds that each accepted token adds, since it is sampled alone. Drafts are right here."""
        ids = self.run([prompt], PLAIN_TOKENS * 4, 1, False)["ids"][0]
        computed = [1]  # the prompt is cached but for a token

        def right(known: Any) -> Any:
            draft = ids[len(known) - len(prompt) :][:RIGHT]
            computed.append(1 + len(draft))
            return np.array(draft, np.intc)

        self._draft = right
        seconds = self.run([prompt], len(ids), 1, False)["seconds"]
        self._draft = None
        passes = np.interp(computed, list(steps[1]), list(steps[1].values())).sum()
        return {"token_seconds": float(max(0.0, seconds - passes) / (len(ids) - len(computed)))}


def child(options: dict[str, Any]) -> None:
    """Answer lines: {"steps": prompt}, {"prompts": …, "tokens": …, "load": …}, {"costs": …}."""
    engine: Any = Vllm(options) if options["engine"] == "vllm" else LlamaCpp(options)
    for line in sys.stdin:
        asked = json.loads(line)
        answer: Any = {}
        if "steps" in asked:
            by_rows = {rows: engine.steps(asked["steps"], rows) for rows in engine.batches}
            steps = [[rows, n, seconds] for rows, found in by_rows.items() for n, seconds in found.items()]
            answer = {"steps": steps, **engine.facts(asked["steps"], by_rows)}
        elif "prompts" in asked:
            answer = engine.run(asked["prompts"], asked["tokens"], asked["load"])
        elif "costs" in asked:
            engine.use_drafts(asked["costs"])
        print("ANSWER", json.dumps(answer), flush=True)


class Engine:
    """An engine in a process of its own.

    Args:
        python: Interpreter where the engine is installed.
        options: `engine`, `model`, `clock`, `threads`, `index`, and what the engine needs.
    """

    def __init__(self, python: str, options: dict[str, Any]) -> None:
        folder, threads = str(Path(__file__).parent), str(options["threads"])
        environment = {
            **os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": threads, "KMP_BLOCKTIME": "0",
            "VLLM_LOGGING_LEVEL": "ERROR", "TASC_INDEX": options["index"],
            "PYTHONPATH": os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])]),
        }  # fmt: skip
        start = "import sys, json, engine_steps; engine_steps.child(json.loads(sys.argv[1]))"
        self._process = subprocess.Popen(
            [python, "-c", start, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.ask({})

    def ask(self, question: dict[str, Any]) -> Any:
        """One line there, one back."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise SystemExit(f"an engine ended: {self._process.wait()}")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()


def profile_of(engine: Engine, name: str, prompt: list[int], about: dict[str, Any]) -> CostProfile:
    """Measure the profile of a running engine."""
    found = engine.ask({"steps": prompt})
    return CostProfile(engine=name, measured=date.today().isoformat(), **found, **about)  # type: ignore[arg-type]


def main() -> None:
    from tasc import TaskIndex
    from tasc.data import TokenStore, load_tokenizer
    from tasc.data.endings import eos_ids_of
    from tasc.decoding.prompts import prompt_ids
    from tasc.evaluation.cost_profile import measure_profile, num_parameters
    from tasc.evaluation.machine import device_name
    from tasc.models import checkpoint, load_checkpoint, use_threads

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=("tasc", "vllm", "llama.cpp"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--name", default="SmolLM2-135M")
    parser.add_argument("--gguf")
    parser.add_argument("--vllm-dtype", default="bfloat16", help="float32 where the CPU has no AVX-512")
    parser.add_argument("--system")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    use_threads(args.threads)
    if args.engine == "tasc":
        model, tokenizer = load_checkpoint(args.model)
        [prompt] = prompt_ids(tokenizer, [INPUT], None, args.system)
        made = measure_profile(model, tokenizer, prompt, name=args.name, clock=CLOCKS[args.clock])
        replace(made, note=f"{args.clock} time").save(args.output)
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = checkpoint(args.model)
    with torch.device("meta"):
        parameters = num_parameters(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    [prompt] = prompt_ids(tokenizer, [INPUT], None, args.system)
    with tempfile.TemporaryDirectory() as name:
        task = load_tokenizer(tokenizer)
        store = TokenStore.build([{"input": "a", "output": "b"}], task, Path(name) / "rows.store")
        index = Path(name) / "task.tasc"
        TaskIndex.build(store, index, tokenizer=task)
        options = {
            "engine": args.engine, "model": folder, "gguf": args.gguf, "clock": args.clock, "threads": args.threads,
            "index": str(index), "tokenizer": folder, "drafts": True, "eos": sorted(eos_ids_of([], tokenizer)),
            "dtype": args.vllm_dtype,
        }  # fmt: skip
        engine = Engine(sys.executable, options)
        dtype = args.vllm_dtype if args.engine == "vllm" else Path(args.gguf).stem
        about = {
            "device": device_name(torch.device("cpu")), "model": args.name, "dtype": dtype, "parameters": parameters,
            "note": f"{args.clock} time",
        }  # fmt: skip
        profile_of(engine, args.engine, prompt, about).save(args.output)
        engine.close()


if __name__ == "__main__":
    main()
