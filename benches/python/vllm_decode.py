"""Tokens per second inside vLLM: plain, its `ngram`, its `suffix` with a cache filled from the task, and tasc.

    python benches/python/vllm_decode.py DATA.jsonl.gz --model FOLDER \\
        --system "Extract the intent and the slots of the request as JSON." [--limit 50] [--concurrency 1 8] \\
        [--draft FOLDER …] [-o OUT.json]

To be run where vLLM is installed (`make vllm`: its CPU build). Every method is an engine in a process of its own; all are up
at once and take turns chunk by chunk, so that what disturbs the machine disturbs all of them. Greedy. With --draft, each
draft model or EAGLE head of `tasc distill` is one more method, named as its folder.

`suffix` knows the train outputs: they are put into its cache by hand, which vLLM offers no way to do; it needs
`arctic-inference`. At each load its settings are chosen first, for the requests of train rows that are left out of its
cache meanwhile: all of `SETTINGS` answer a few, the fastest quarter three times as many. OUT.json keeps them, and a later
run with the same file takes them from there. Served outputs leave its cache, as tasc learns none here either.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from ratios import Ratio, report

from tasc import TaskIndex
from tasc.cli.console import err, progress_bars
from tasc.data import TokenStore, load_tokenizer, read_rows

PLAIN, SUFFIX, PEERS = "plain", "suffix", ("plain", "ngram", "suffix")
LEAST = {1: 2.3, 8: 1.7, 32: 1.7}
"""Required gain of tasc over `suffix` at its best settings, by concurrency."""
SETTINGS = [
    {"longest": longest, "factor": factor, "least": least}
    for longest, factor, least in product((16, 32, 64), (1.0, 4.0, 16.0), (0.1, 0.3, 0.5, 0.7))
]
"""Settings of `suffix`: most drafted tokens, max_spec_factor and min_token_prob. The depth of its tree is `DEPTH`."""
DEPTH = 64
MOST_DRAFTING = {1: 0.01, 32: 0.05}
"""Share of the time that drafting may take, by concurrency."""


def speculation(method: str, longest: int, drafts: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """vLLM's `speculative_config` of a method."""
    if method == PLAIN:
        return None
    if method in drafts:
        return drafts[method]
    if method == "tasc":
        return {
            "method": "custom_class", "model": "tasc.adapters.vllm.TascProposer", "num_speculative_tokens": longest,
        }  # fmt: skip
    if method == "tasc as suffix":
        return {"method": "suffix", "num_speculative_tokens": longest}
    if method == "ngram":
        return {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
    return {"method": "suffix", "num_speculative_tokens": longest, "suffix_decoding_max_tree_depth": DEPTH}


class Engine:
    """A method's process."""

    def __init__(self, method: str, options: dict[str, Any], index: Path, threads: int) -> None:
        environment = {
            **os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads), "KMP_BLOCKTIME": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }  # fmt: skip
        environment.pop("TASC_INDEX", None)
        if method.startswith("tasc"):
            environment["TASC_INDEX"] = str(index)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child", json.dumps({**options, "method": method})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.ask({})

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line there, one back."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                answer: dict[str, Any] = json.loads(line.removeprefix("ANSWER "))
                return answer
        raise SystemExit(f"an engine ended: {self._process.wait()}")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()


def child(options: dict[str, Any]) -> None:
    """An engine that answers lines: {"prompts": [[id, …], …], "together": n} → seconds and ids.

    With `suffix`, {"settings": {…}, "hidden": n} sets it, with a new cache of all train outputs but the last n.
    """
    from vllm import LLM, SamplingParams

    config = speculation(options["method"], options["max_draft"], options["drafts"])
    llm = LLM(
        options["model"], dtype=options["dtype"], max_model_len=options["context"], max_num_seqs=options["together"],
        speculative_config=config, enforce_eager=True, disable_log_stats=True,
    )  # fmt: skip
    drafter: Any = getattr(llm.llm_engine.model_executor.driver_worker.worker.model_runner, "drafter", None)
    train = json.loads(Path(options["outputs"]).read_text())
    greedy = SamplingParams(temperature=0.0, max_tokens=options["max_tokens"])
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        if "prompts" in asked:
            prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
            size = 1 if asked["together"] == 1 else len(prompts)
            begin = time.perf_counter()
            outputs = [
                one
                for at in range(0, len(prompts), size)
                for one in llm.generate(prompts[at : at + size], greedy, use_tqdm=False)
            ]
            answer = {"seconds": time.perf_counter() - begin}
            answer["ids"] = [list(one.outputs[0].token_ids) for one in outputs]
        elif "settings" in asked:
            configure(drafter, train[: len(train) - asked["hidden"]], **asked["settings"])
        elif hasattr(drafter, "metrics"):
            answer = drafter.metrics.as_dict()
        print("ANSWER", json.dumps(answer), flush=True)


def configure(drafter: Any, outputs: list[list[int]], longest: int, factor: float, least: float) -> None:
    """Give vLLM's suffix drafter settings, and a new cache that keeps `outputs` alone."""
    from arctic_inference.suffix_decoding import SuffixDecodingCache

    cache = SuffixDecodingCache(max_tree_depth=DEPTH, max_cached_requests=len(outputs) + 1000)
    for number, ids in enumerate(outputs):
        name = f"train {number}"
        cache.start_request(name, [])
        cache.add_active_response(name, ids)
        cache.stop_request(name)
    speculate, stop = cache.speculate, cache.stop_request

    def shortened(*args: Any, max_spec_tokens: int, **options: Any) -> Any:
        return speculate(*args, max_spec_tokens=min(max_spec_tokens, longest), **options)

    def forgotten(name: str) -> None:
        stop(name)
        cache.evict_cached_response(name)

    cache.speculate, cache.stop_request = shortened, forgotten
    drafter.suffix_cache, drafter.max_spec_factor, drafter.min_token_prob = cache, factor, least


def tuned(engine: Engine, prompts: list[list[int]], together: int) -> dict[str, Any]:
    """The settings of `suffix` with which it answers prompts fastest."""
    size = max(8, 2 * together)

    def seconds_per_token(settings: dict[str, Any], part: list[list[int]]) -> float:
        engine.ask({"settings": settings, "hidden": len(prompts)})
        answer = engine.ask({"prompts": part, "together": together})
        seconds: float = answer["seconds"] / sum(map(len, answer["ids"]))
        return seconds

    engine.ask({"settings": SETTINGS[0], "hidden": len(prompts)})
    engine.ask({"prompts": prompts[:size], "together": together})  # warm
    with progress_bars() as bar:
        told = bar(f"settings of suffix, {together} at once")
        first = []
        for done, settings in enumerate(SETTINGS):
            first.append(seconds_per_token(settings, prompts[:size]))
            told(done, len(SETTINGS))
        best = sorted(range(len(SETTINGS)), key=first.__getitem__)[: len(SETTINGS) // 4]
        again = {k: seconds_per_token(SETTINGS[k], prompts[size : 4 * size]) for k in best}
    return SETTINGS[min(again, key=again.__getitem__)]


def measure(args: argparse.Namespace, folder: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield after each load, by concurrency and method: seconds, tokens, outputs that differ from the plain ones.

    Settings of `suffix` that are missing from `settings`, by concurrency, are chosen and added to it.
    """
    task = load_tokenizer(args.model)
    rows = list(read_rows(args.data))
    train = [row for row in rows if row["split"] == "train"]
    store = TokenStore.build(train, task, folder / "train.store")
    index = folder / "train.tasc"
    TaskIndex.build(store, index, tokenizer=task)
    outputs = folder / "outputs.json"
    encoded = task.encode_outputs([row["output"] for row in train])
    outputs.write_text(json.dumps([[*ids, task.eos_id] for ids in encoded]))
    prompts = chat_prompts(
        args.model, args.system, [row["input"] for row in rows if row["split"] == "test"][: args.limit]
    )
    known = chat_prompts(
        args.model, args.system, [row["input"] for row in train[-4 * max(8, 2 * max(args.concurrency)) :]]
    )
    options = {
        "model": args.model, "dtype": args.dtype, "context": args.context, "max_tokens": args.max_tokens,
        "max_draft": args.max_draft, "together": max(args.concurrency), "outputs": str(outputs),
        "drafts": {folder.name: draft_model(folder, args.drafted) for folder in args.draft},
    }  # fmt: skip
    engines = {method: Engine(method, options, index, args.threads) for method in args.methods}
    found: dict[str, Any] = {}
    try:
        with progress_bars() as bar:
            for together in args.concurrency:
                told = bar(f"{together} at once")
                size = 5 if together == 1 else 3 * together
                found[str(together)] = {m: {"seconds": 0.0, "tokens": 0, "differ": 0} for m in args.methods}
                if SUFFIX in engines:
                    if str(together) not in settings:
                        settings[str(together)] = tuned(engines[SUFFIX], known, together)
                    engines[SUFFIX].ask({"settings": settings[str(together)], "hidden": 0})
                for engine in engines.values():  # warm
                    engine.ask({"prompts": known[: 2 * together], "together": together})
                before = metrics(engines)
                for turn, at in enumerate(range(0, len(prompts), size)):
                    chunk, generated = prompts[at : at + size], {}
                    order = [*args.methods[turn % len(args.methods) :], *args.methods[: turn % len(args.methods)]]
                    for method in order:
                        answer = engines[method].ask({"prompts": chunk, "together": together})
                        generated[method] = answer["ids"]
                        found[str(together)][method]["seconds"] += answer["seconds"]
                        found[str(together)][method]["tokens"] += sum(map(len, answer["ids"]))
                    for method in args.methods:
                        pairs = zip(generated[method], generated[args.methods[0]], strict=True)
                        found[str(together)][method]["differ"] += sum(a != b for a, b in pairs)
                    told(min(at + size, len(prompts)), len(prompts))
                for method, after in metrics(engines).items():
                    found[str(together)][method]["draft_seconds"] = (
                        after["draft_seconds"] - before[method]["draft_seconds"]
                    )
                    found[str(together)][method]["metrics so far"] = after
                yield found
    finally:
        for engine in engines.values():
            engine.close()


def draft_model(folder: Path, drafted: int) -> dict[str, Any]:
    """vLLM's `speculative_config` of a folder of `tasc distill`."""
    is_head = "eagle_config" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {
        "method": "eagle3" if is_head else "draft_model", "model": str(folder), "num_speculative_tokens": drafted,
    }  # fmt: skip


def metrics(engines: dict[str, Engine]) -> dict[str, dict[str, Any]]:
    """Counters of the engines with `TascProposer`."""
    return {method: engines[method].ask({"metrics": True}) for method in ("tasc",) if method in engines}


def chat_prompts(model: str, system: str | None, inputs: list[str]) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    before = [] if system is None else [{"role": "system", "content": system}]
    ids: list[Any] = [
        tokenizer.apply_chat_template(
            [*before, {"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for text in inputs
    ]
    return ids


def figures(found: dict[str, Any]) -> list[Ratio]:
    ratios = []
    for together, methods in found.items():
        rates = {method: facts["tokens"] / facts["seconds"] for method, facts in methods.items()}
        for ours, peer in product(rates, rates):
            if ours not in PEERS and peer in PEERS:
                least = LEAST.get(int(together)) if (ours, peer) == ("tasc", SUFFIX) else None
                what = f"tokens/s, {together} at once, {ours}"
                ratios.append(Ratio(what, rates[ours], peer, rates[peer], least=least))
        if "tasc" in methods:
            share = methods["tasc"]["draft_seconds"] / methods["tasc"]["seconds"]
            limit = MOST_DRAFTING.get(int(together))
            ratios.append(Ratio(f"drafting, share of the time, {together} at once", share, lower=True, limit=limit))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--model", help="a folder, or a name on the hub")
    parser.add_argument("--system")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--methods", nargs="+", default=[PLAIN, "ngram", SUFFIX, "tasc"])
    parser.add_argument("--max-draft", type=int, default=64, help="num_speculative_tokens of suffix and tasc")
    parser.add_argument("--draft", type=Path, nargs="+", default=[], help="folders of draft models or EAGLE heads")
    parser.add_argument("--drafted", type=int, default=4, help="num_speculative_tokens of the draft model")
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(json.loads(args.child))
        return
    if args.data is None or args.model is None:
        parser.error("give DATA and --model")
    args.methods += [folder.name for folder in args.draft]
    if len({*args.methods}) < len(args.methods):
        parser.error("two methods have one name: rename a draft's folder")
    kept = json.loads(args.output.read_text(encoding="utf-8")) if args.output and args.output.exists() else {}
    settings = kept.get("suffix_settings", {})
    with tempfile.TemporaryDirectory() as name:
        for found in measure(args, Path(name), settings):
            together = list(found)[-1]
            for method, facts in found[together].items():
                if facts["differ"]:
                    err.print(f"{together} at once, {method}: {facts['differ']} outputs differ from {args.methods[0]}")
            if SUFFIX in args.methods:
                chosen = ", ".join(f"{key} {value}" for key, value in settings[together].items())
                err.print(f"{together} at once, suffix: {chosen}")
            report(
                "vLLM, greedy", figures(found), args.output,
                runs=found, threads=args.threads, dtype=args.dtype, suffix_settings=settings,
            )  # fmt: skip


if __name__ == "__main__":
    main()
