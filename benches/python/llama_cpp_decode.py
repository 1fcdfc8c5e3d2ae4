"""llama-cpp-python, one request at a time, greedy: plain, its prompt lookup, TASC-spec, TASC-ft, and both.

    python benches/python/llama_cpp_decode.py DATA.jsonl.gz --model FOLDER --gguf FILE [--extended FOLDER
        --extended-gguf FILE] [--system TEXT] [--limit 50] [--threads 1] [--clock cpu] [-o OUT.json]

FOLDER is the checkpoint that FILE was converted from. DATA has rows {input, output, split}: `train` is indexed, `test` is
answered. `--extended` was tuned on the same rows with a task vocabulary. Methods take turns row by row, each in a `Llama`
of its own that keeps nothing from one request to the next. Tokens are those of the plain model. `whole` counts the whole
request, `behind` what follows the first token. TascDraft learns the cost of a drafted token while it runs.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from engine_steps import CLOCKS
from llama_cpp_rounding import prompt_of
from on_model import model_arguments, parsed

from tasc import TaskIndex, TokenStore
from tasc.cli.console import print_table
from tasc.data import TaskTokenizer, load_tokenizer, read_rows
from tasc.evaluation.bootstrap import Measure, divided, estimate
from tasc.evaluation.machine import machine
from tasc.files import write_json

PLAIN = "plain"


@dataclass
class Method:
    """A way to decode, and what it took on each row."""

    llm: Any
    task: TaskTokenizer
    outputs: list[list[int]] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    passes: int = 0

    def __post_init__(self) -> None:
        """Count the passes of the model."""
        run = self.llm.eval

        def counted(tokens: Any) -> None:
            self.passes += 1
            run(tokens)

        self.llm.eval = counted

    def decode(self, prompt: list[int], limit: int, clock: Any) -> None:
        """Answer a prompt; at most `limit` tokens of the plain model."""
        self.llm.reset()
        ids: list[int] = []
        ends: list[float] = []
        begin = clock()
        for token in self.llm.generate(prompt, temp=0.0):
            ends.append(clock() - begin)
            ids.append(token)
            if token == self.llm.token_eos() or self.base_tokens(ids) >= limit:
                break
        self.outputs.append(ids)
        self.first.append(ends[0])
        self.whole.append(ends[-1])

    def base_tokens(self, ids: list[int]) -> int:
        """Tokens of the plain model in an output."""
        return len(ids if self.task.plan is None else self.task.plan.expand(np.array(ids, np.uint32)))

    def texts(self) -> list[str]:
        """Outputs without their end token."""
        eos = self.llm.token_eos()
        return [self.task.decode(np.array(ids[:-1] if ids[-1] == eos else ids, np.uint32)) for ids in self.outputs]


def speedups(plain: Method, ours: Method) -> dict[str, Any]:
    """Speed-up over plain decoding per token of the plain model, whole and behind the first token."""
    tokens = [[one.base_tokens(ids) for ids in one.outputs] for one in (plain, ours)]

    def ratio(before: list[float], after: list[float], less: int) -> dict[str, float | None]:
        pairs = np.stack([before, np.array(tokens[0]) - less, after, np.array(tokens[1]) - less], axis=-1)
        return estimate(Measure(pairs, lambda s: divided(s[..., 0] * s[..., 3], s[..., 1] * s[..., 2])))

    behind = [[w - f for w, f in zip(one.whole, one.first, strict=True)] for one in (plain, ours)]
    return {
        "whole": ratio(plain.whole, ours.whole, 0),
        "behind": ratio(behind[0], behind[1], 1),
    }


def methods(options: Any, folder: Path) -> dict[str, Method]:
    """What is compared."""
    from llama_cpp import Llama
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    from tasc.adapters.llama_cpp import TascDraft  # takes the clock

    threads = options.threads or 1
    rows = [row for row in read_rows([options.data], "train") if row.get("input")]

    def opened(gguf: Path, draft: Any = None) -> Any:
        some = {"n_threads": threads, "n_threads_batch": threads, "n_ctx": 2048, "verbose": False}
        return Llama(str(gguf), logits_all=draft is not None, draft_model=draft, **some)

    def drafts(task: TaskTokenizer, model: str) -> Any:
        store = TokenStore.build(rows, task, folder / f"{len(list(folder.iterdir()))}.store")
        index = TaskIndex.build(store, folder / f"{len(list(folder.iterdir()))}.tasc", tokenizer=task)
        return TascDraft(index, model)

    task = load_tokenizer(options.model)
    found = {
        PLAIN: Method(opened(options.gguf), task),
        "prompt lookup": Method(opened(options.gguf, LlamaPromptLookupDecoding(num_pred_tokens=10)), task),
        "TASC-spec": Method(opened(options.gguf, drafts(task, options.model)), task),
    }
    if options.extended:
        other = load_tokenizer(options.extended)
        found["TASC-ft"] = Method(opened(options.extended_gguf), other)
        found["both"] = Method(opened(options.extended_gguf, drafts(other, options.extended)), other)
    return found


def main() -> None:
    parser = model_arguments(__doc__, limit=50)
    parser.add_argument("--gguf", type=Path, required=True, help="the model, converted")
    parser.add_argument("--extended", help="folder of a model that was tuned with a task vocabulary")
    parser.add_argument("--extended-gguf", type=Path, help="that model, converted")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parsed(parser)
    if bool(options.extended) != bool(options.extended_gguf):
        parser.error("--extended and --extended-gguf go together")
    if options.clock == "cpu":
        time.perf_counter = time.process_time  # TascDraft learns costs by it
    test = [row for row in read_rows([options.data], "test") if row.get("input")]
    test = test[:: max(1, len(test) // options.limit)][: options.limit]
    with tempfile.TemporaryDirectory() as folder:
        found = methods(options, Path(folder))
        prompts = [prompt_of(found[PLAIN].llm, row["input"], options.system) for row in test]
        names = list(found)
        for name in names:  # warm; costs begin to be learnt
            found[name].decode(prompts[-1], options.max_tokens, CLOCKS[options.clock])
            found[name] = Method(found[name].llm, found[name].task)
        for turn, prompt in enumerate(prompts):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                found[name].decode(prompt, options.max_tokens, CLOCKS[options.clock])
    plain, rows = found[PLAIN], []
    for name, one in found.items():
        texts, tokens = one.texts(), sum(map(one.base_tokens, one.outputs))
        rows.append({
            "method": name, "tokens_per_second": tokens / sum(one.whole), "tokens_per_pass": tokens / one.passes,
            "first_token_seconds": float(np.median(one.first)), **speedups(plain, one),
            "exact": sum(text == row["output"] for text, row in zip(texts, test, strict=True)),
            "like_plain": sum(a == b for a, b in zip(texts, plain.texts(), strict=True)),
        })  # fmt: skip

    def interval(one: dict[str, float]) -> str:
        return f"{one['value']:.2f} ({one['low']:.2f}–{one['high']:.2f})"

    print_table(
        f"{options.gguf.name}, {len(test)} rows of {options.data.name}",
        ("method", "tokens/s", "per pass", "whole", "behind", "first token, s", "exact", "like plain"),
        [(row["method"], row["tokens_per_second"], row["tokens_per_pass"], interval(row["whole"]), interval(row["behind"]),
          row["first_token_seconds"], row["exact"], row["like_plain"]) for row in rows],
    )  # fmt: skip
    if options.output is not None:
        write_json(options.output, {"rows": len(test), "methods": rows, "machine": machine()}, indent=1)


if __name__ == "__main__":
    main()
