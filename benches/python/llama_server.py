"""llama.cpp's `llama-server`, greedy: plain, its n-gram cache filled by `tasc export llama-lookup`, and TASC-ft.

    python benches/python/llama_server.py DATA.jsonl.gz --server PROGRAM --model FOLDER --gguf FILE
        [--extended FOLDER --extended-gguf FILE] [--system TEXT] [--limit 32] [--threads 1] [--clock cpu] [-o OUT.json]

FOLDER is the checkpoint that FILE was converted from. DATA has rows {input, output, split}: `train` fills the n-gram
cache, `test` is asked, once one at a time and once by 8 threads at once. `--extended` was tuned on the same rows with a
task vocabulary. Each method has a server of its own, all with the same options, and the methods take turns. Tokens are
those of the plain model. `--clock cpu` counts the processor time of the servers, for a machine that others use.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from on_model import model_arguments, parsed
from ratios import Ratio, report
from servers import processor_seconds, served, server

from tasc import TaskIndex, TokenStore
from tasc.adapters.llama_lookup import export_lookup
from tasc.data import load_tokenizer, read_rows
from tasc.evaluation.machine import machine

PLAIN, CACHE, VOCABULARY = "plain", "n-gram cache", "TASC-ft"
LOADS = (1, 8)
CONTEXT = 1024  # of each request


def main() -> None:
    parser = model_arguments(__doc__, limit=32)
    parser.add_argument("--server", required=True, help="the program llama-server")
    parser.add_argument("--gguf", required=True, help="the model, converted")
    parser.add_argument("--extended", help="folder of a model that was tuned with a task vocabulary")
    parser.add_argument("--extended-gguf", help="that model, converted")
    parser.add_argument("--rounds", type=int, default=2, help="times that each method answers all inputs")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parsed(parser)
    if bool(options.extended) != bool(options.extended_gguf):
        parser.error("--extended and --extended-gguf go together")
    task = load_tokenizer(options.model)
    train, test = ([row for row in read_rows([options.data], split) if row.get("input")] for split in ("train", "test"))
    test = test[:: max(1, len(test) // options.limit)][: options.limit]
    inputs = [row["input"] for row in test]
    threads = str(options.threads or 1)
    common = [
        "-t", threads, "-tb", threads, "-np", str(max(LOADS)), "-c", str(CONTEXT * max(LOADS)), "--no-ui", "--log-disable",
    ]  # fmt: skip

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        store = TokenStore.build(train, task, folder / "rows.store")
        export_lookup(TaskIndex.build(store, folder / "task.tasc", tokenizer=task), folder / "static.bin")
        methods = {
            PLAIN: ["-m", options.gguf],
            CACHE: ["-m", options.gguf, "--spec-type", "ngram-cache", "-lcs", str(folder / "static.bin")],
        }
        if options.extended:
            methods[VOCABULARY] = ["-m", options.extended_gguf]
        started = {
            method: stack.enter_context(server([options.server, *own, *common])) for method, own in methods.items()
        }
        found: dict[int, dict[str, dict[str, Any]]] = {load: {} for load in LOADS}
        for load in LOADS:
            asked: dict[str, Any] = {"system": options.system, "max_tokens": options.max_tokens, "cache_prompt": False}
            for turn in range(options.rounds + 1):  # the first warms the servers
                for method, (url, process) in started.items():
                    begin = processor_seconds(process) if options.clock == "cpu" else time.perf_counter()
                    texts = served(f"{url}/v1", method, inputs, load, **asked)()
                    end = processor_seconds(process) if options.clock == "cpu" else time.perf_counter()
                    facts = found[load].setdefault(method, {"texts": texts, "seconds": 0.0, "tokens": 0})
                    if turn:
                        facts["seconds"] += end - begin
                        facts["tokens"] += sum(len(ids) + 1 for ids in task.encode_outputs(texts))
        ratios = []
        for load, by_method in found.items():
            plain = by_method[PLAIN]
            for method, facts in by_method.items():
                facts["equal_to_plain"] = sum(a == b for a, b in zip(facts["texts"], plain["texts"], strict=True))
                facts["exact"] = sum(text == row["output"] for text, row in zip(facts["texts"], test, strict=True))
                ratios.append(
                    Ratio(
                        f"{method}, {load} at once: tokens/s", facts["tokens"] / facts["seconds"], PLAIN,
                        plain["tokens"] / plain["seconds"],
                    )
                )  # fmt: skip
    title = f"llama-server, {len(test)} requests, {Path(options.gguf).name}"
    report(title, ratios, options.output, results=found, machine=machine())


if __name__ == "__main__":
    main()
