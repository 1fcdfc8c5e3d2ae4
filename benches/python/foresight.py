"""Prediction against measurement: seconds per output and speed-up, in tasc's loop, vLLM and llama-cpp-python.

    python benches/python/foresight.py DATA.jsonl.gz [--model M] [--adapter A] [--system TEXT] [--own N] \\
        [--engines tasc llama.cpp vllm] [--gguf FILE] [--vllm-python PYTHON] [--clock cpu] [-o OUT.json]

DATA has rows {input, output, split}: `train` is indexed, and of `test` the first rows are answered by the model for the
prediction; it is written down before anything is measured, on the rows after them. `--own N` indexes the model's own
outputs for N train inputs instead of the rows', for a model that was not tuned. Costs are measured as in
`engine_steps.py`. Plain decoding and drafts take turns. `--clock cpu` counts processor time of one thread, for a
machine that others use; the loop then gets the profile's costs instead of timing its own steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from engine_steps import CLOCKS, Engine, profile_of
from on_model import model_arguments, parsed, subject

from tasc import Generator, NgramDrafter, NullDrafter, TaskIndex, TokenStore
from tasc.cli.console import print_table
from tasc.data import TaskTokenizer, load_tokenizer, read_rows
from tasc.data.endings import required_eos_ids
from tasc.decoding.prompts import prompt_ids
from tasc.drafting.defaults import MAX_DRAFT
from tasc.evaluation.cost_profile import CostProfile, ProfileCosts, measure_profile
from tasc.evaluation.forecast import DRAFTS, PLAIN, agreement, forecast, method_plans, own_outputs, speedup
from tasc.evaluation.machine import device_name, machine
from tasc.files import write_json
from tasc.models import checkpoint, use_threads

Run = Callable[[list[list[int]], list[str]], float]
"""Decodes prompts, whose inputs are known; returns the seconds."""


@dataclass
class Case:
    """Model, task and limits of a run."""

    model: Any
    tokenizer: Any
    task: TaskTokenizer
    folder: str
    rows: list[dict[str, Any]]
    index: TaskIndex
    eos: frozenset[int]
    max_tokens: int
    options: argparse.Namespace

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return prompt_ids(self.tokenizer, texts, None, self.options.system)


def in_loop(case: Case, profile: CostProfile, load: int) -> dict[str, Run]:
    """Methods in tasc's loop."""
    given = ProfileCosts(profile) if case.options.clock == "cpu" else None
    generator = Generator(case.model, case.tokenizer, batch_size=load, costs=given, drafter=NullDrafter())
    clock = CLOCKS[case.options.clock]

    def run(drafter: Any) -> Run:
        def decode(prompts: list[list[int]], texts: list[str]) -> float:
            began = clock()
            generator.generate(texts, system=case.options.system, max_tokens=case.max_tokens, drafter=drafter)
            return clock() - began

        return decode

    return {PLAIN: run(NullDrafter()), DRAFTS: run(NgramDrafter(case.index, tokenizer=case.task))}


def in_engine(case: Case, engines: dict[str, Engine], profile: CostProfile, load: int) -> dict[str, Run]:
    """Methods in an engine: of one process where drafts can be switched off."""

    def run(method: str) -> Run:
        engine = engines.get(method, engines[DRAFTS])

        def decode(prompts: list[list[int]], texts: list[str]) -> float:
            if profile.engine == "llama.cpp":
                costs = ProfileCosts(profile).costs(MAX_DRAFT).tolist()
                engine.ask({"costs": costs if method == DRAFTS else None})
            return float(engine.ask({"prompts": prompts, "tokens": case.max_tokens, "load": load})["seconds"])

        return decode

    return {PLAIN: run(PLAIN), DRAFTS: run(DRAFTS)}


def measured(case: Case, runs: dict[str, Run], load: int) -> dict[str, Any]:
    """Seconds per output by method, and the speed-up, on the rows behind those of the prediction."""
    options = case.options
    rows = case.rows[options.predict : options.predict + (options.alone if load == 1 else options.together)]
    size = 1 if load == 1 else 4 * load
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    texts = [row["input"] for row in rows]
    prompts = case.prompts(texts)
    for run in runs.values():  # warm, and drafters have seen a prompt
        run(case.prompts([case.rows[0]["input"]]), [case.rows[0]["input"]])
    for turn, at in enumerate(range(0, len(rows), size)):
        for name in list(runs) if turn % 2 == 0 else list(runs)[::-1]:
            seconds[name].append(runs[name](prompts[at : at + size], texts[at : at + size]))
    sums = {name: float(np.sum(taken)) / len(rows) for name, taken in seconds.items()}
    return {
        "rows": len(rows), "seconds_per_output": sums,
        "speedup": speedup(np.array(seconds[PLAIN]), np.array(seconds[DRAFTS])),
    }  # fmt: skip


@contextmanager
def opened(case: Case, name: str) -> Iterator[tuple[CostProfile, Callable[[CostProfile, int], dict[str, Run]]]]:
    """Start an engine; yield its profile, and what gives its methods at a load."""
    options = case.options
    [prompt] = case.prompts([case.rows[0]["input"]])
    if name == "tasc":
        clock = CLOCKS[options.clock]
        yield (
            measure_profile(case.model, case.tokenizer, prompt, name="model", clock=clock),
            lambda *at: in_loop(case, *at),
        )
        return
    python = options.vllm_python if name == "vllm" else options.python
    about = {
        "engine": name, "model": case.folder, "gguf": options.gguf, "clock": options.clock,
        "threads": options.threads or 1, "index": str(case.index.path), "tokenizer": case.folder,
        "eos": sorted(case.eos),
    }  # fmt: skip
    methods = (PLAIN, DRAFTS) if name == "vllm" else (DRAFTS,)
    engines = {method: Engine(python, {**about, "drafts": method == DRAFTS}) for method in methods}
    try:
        words = {"device": device_name(case.model.device), "model": "model", "dtype": ""}
        profile = profile_of(engines[DRAFTS], name, prompt, words)
        yield profile, lambda profile, load: in_engine(case, engines, profile, load)
    finally:
        for engine in engines.values():
            engine.close()


def of_engine(case: Case, name: str, requests: Any) -> list[dict[str, Any]]:
    """Predict, write it down, and measure."""
    found = []
    with opened(case, name) as (profile, methods):
        plans = method_plans(requests, case.index, case.task)
        loads = [load for load in case.options.loads if name != "llama.cpp" or load == 1]
        predicted = forecast(profile, plans, eos=case.eos, loads=loads)
        if case.options.output is not None:  # before anything is measured
            write_json(case.options.output.with_suffix(f".{name}.predicted.json"), predicted, indent=1)
        for load in loads:
            result = measured(case, methods(profile, load), load)
            theirs = predicted["loads"][str(load)]
            found.append({"engine": name, "load": load, "predicted": theirs, "measured": result})
            show(f"{name}, {load} at once", found[-1:])
    return [{**one, "profile": profile.as_dict(), "time": predicted["time"]} for one in found]


def errors(found: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Rows of the table: engine, load, predicted and measured speed-up, and relative errors."""
    rows = []
    for one in found:
        ours, theirs = one["predicted"], one["measured"]
        seconds = [
            ours[name]["seconds_per_output"] / theirs["seconds_per_output"][name] - 1.0 for name in (PLAIN, DRAFTS)
        ]
        gain, real = ours[DRAFTS]["speedup"], theirs["speedup"]
        rows.append(
            (one["engine"], one["load"], theirs["rows"], gain, real, gain["value"] / real["value"] - 1, *seconds)
        )
    return rows


def show(title: str, found: Sequence[dict[str, Any]]) -> None:
    """Print the table, and the median and the worst error of the speed-up."""
    rows = errors(found)

    def interval(one: dict[str, Any]) -> str:
        return f"{one['value']:.2f}" + ("" if one["low"] is None else f" ({one['low']:.2f}–{one['high']:.2f})")

    columns = ("engine", "at once", "rows", "predicted", "measured", "error", "s plain", "s drafts")
    print_table(title, columns, [
        (engine, load, count, interval(gain), interval(real), *(f"{100 * e:+.0f} %" for e in off))
        for engine, load, count, gain, real, *off in rows
    ])  # fmt: skip
    off = np.abs([row[5] for row in rows])
    print(f"error of the speed-up: median {100 * np.median(off):.0f} %, worst {100 * off.max():.0f} %")


def indexed(rows: list[dict[str, Any]], task: TaskTokenizer, folder: Path) -> TaskIndex:
    store = TokenStore.build(rows, task, folder / "rows.store")
    return TaskIndex.build(store, folder / "task.tasc", tokenizer=task)


def main() -> None:
    parser = model_arguments(__doc__, limit=400, max_tokens=192)
    parser.add_argument("--engines", nargs="+", default=["tasc"], choices=("tasc", "llama.cpp", "vllm"))
    parser.add_argument("--loads", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--predict", type=int, default=48, help="rows answered for the prediction")
    parser.add_argument("--alone", type=int, default=16, help="rows measured one at a time")
    parser.add_argument("--together", type=int, default=64, help="rows measured at higher loads")
    parser.add_argument("--own", type=int, help="index the model's own outputs for so many train inputs")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--gguf", help="the model, for llama-cpp-python")
    parser.add_argument("--python", default=sys.executable, help="interpreter with llama-cpp-python")
    parser.add_argument("--vllm-python", default=sys.executable, help="interpreter with vLLM")
    options = parsed(parser)
    if options.clock == "cpu":
        use_threads(1)
    if options.smoke:
        options.limit, options.predict, options.alone, options.together, options.loads = 9, 4, 2, 4, [1, 2]
    with subject(options) as (model, tokenizer, data), tempfile.TemporaryDirectory() as name:
        task = load_tokenizer(tokenizer)
        rows = [row for row in read_rows([data]) if row.get("input")]
        train, test = ([row for row in rows if row["split"] == part] for part in ("train", "test"))
        assert task.eos_id is not None
        longest = options.max_tokens
        plain = Generator(model, tokenizer, batch_size=8)
        if options.own:
            answered = own_outputs(
                plain, tokenizer, task, train[: options.own],
                eos=task.eos_id, system=options.system, max_tokens=longest, budget=1e9,
            )  # fmt: skip
            train = [
                {"input": one.input, "output": task.decode(one.output[:-1] if ended else one.output)}
                for one, ended in zip(answered.requests, answered.finished, strict=True)
            ]
        index = indexed(train, task, Path(name))
        with Generator(model, tokenizer, index=index, batch_size=8) as quick:
            answers = own_outputs(
                quick, tokenizer, task, test[: options.predict],
                eos=task.eos_id, system=options.system, max_tokens=longest, budget=1e9,
            )  # fmt: skip
        case = Case(
            model, tokenizer, task, checkpoint(options.model, options.adapter), test[: options.limit], index,
            required_eos_ids(model, tokenizer), longest, options,
        )  # fmt: skip
        says = agreement(answers)
        print(says["sentence"])
        found: list[dict[str, Any]] = []
        for engine in options.engines:
            found += of_engine(case, engine, answers.requests)
            if options.output is not None:
                result = {"says": says, "cases": found, "machine": machine(), "clock": options.clock}
                options.output.write_text(json.dumps(result, indent=1) + "\n")
    show(f"{data.name.split('.')[0]}: speed-up of drafts, predicted and measured, {options.clock} time", found)


if __name__ == "__main__":
    main()
