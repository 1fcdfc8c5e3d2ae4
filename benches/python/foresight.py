"""Prediction against measurement: speed-up of every method, in tasc's loop, vLLM and llama-cpp-python.

    python benches/python/foresight.py DATA.jsonl.gz [--model M] [--adapter A] [--extended FOLDER] [--system TEXT] \\
        [--own N] [--engines tasc llama.cpp vllm] [--gguf FILE] [--vllm-python PYTHON] [--clock cpu] [-o OUT.json]
    python benches/python/foresight.py --summary OUT.json …

DATA has rows {input, output, split}: `train` is indexed, and some rows of `test` are answered by the model for the
prediction; it is written to OUT.json before anything is measured, on other rows. Both have outputs of all lengths.
`--extended` names a model that was tuned on the same rows with a task vocabulary. Its methods are predicted from the
answers of the plain model, as `tasc check` does, and measured with the extended one. Rows that the two models answer at
lengths that differ by more than a quarter, or that the extended one does not end, are left out and counted, in the
prediction too: a speed-up is forecast for one text, and no forecast can know what a model that was tuned too little
says in its place. `--own N` indexes the model's own outputs for N train inputs instead of the rows', for a model that
was not tuned. Costs are measured as in `engine_steps.py`. The methods take turns on the same rows. Cases that OUT.json
holds are not measured again.

A speed-up is the ratio of seconds per base token: the extended model writes other outputs than the plain one, which
may be longer or shorter. With `--clock cpu`, all clocks count processor time of one thread, for a machine that others
use.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from engine_steps import CLOCKS, Engine, profile_of
from on_model import model_arguments, parsed, subject
from smoke_task import extended_model

from tasc import Generator, NullDrafter, TaskIndex, TokenStore
from tasc.cli.console import print_table
from tasc.data import TaskTokenizer, load_tokenizer, read_rows
from tasc.data.endings import required_eos_ids
from tasc.decoding.prompts import prompt_ids
from tasc.drafting.defaults import MAX_DRAFT
from tasc.drafting.retokenizing import ngram_drafter
from tasc.errors import InputError
from tasc.evaluation.bootstrap import Measure, divided, estimate
from tasc.evaluation.check.with_model import adopted_plans
from tasc.evaluation.cost_profile import CostProfile, ProfileCosts, measure_profile
from tasc.evaluation.forecast import (
    BOTH,
    DRAFTS,
    PLAIN,
    VOCABULARY,
    Answers,
    Plan,
    agreement,
    evenly_by_length,
    forecast,
    method_plans,
    own_outputs,
    usual_request,
)
from tasc.evaluation.machine import device_name, machine
from tasc.evaluation.simulate import KnownRequest
from tasc.files import write_json
from tasc.models import checkpoint, load_checkpoint, use_threads

Run = Callable[[list[list[int]], list[str]], tuple[float, list[list[int]]]]
"""Decodes prompts, whose inputs are known; returns the seconds and the ids of the outputs."""

LENGTHS_DIFFER = 0.25  # most, as a share of the plain model's length
ENGINES = ("tasc", "llama.cpp", "vllm")
SETTINGS = (
    "model", "adapter", "system", "own", "longest", "predict", "alone", "together", "max_tokens", "clock", "dtype",
    "vllm_dtype",
)  # fmt: skip


@dataclass
class Side:
    """A model that methods decode with, and its checkpoint's folder."""

    model: Any
    tokenizer: Any
    task: TaskTokenizer
    folder: str
    gguf: str | None = None

    @property
    def eos(self) -> frozenset[int]:
        return required_eos_ids(self.model, self.tokenizer)

    def base_tokens(self, outputs: Sequence[Sequence[int]]) -> int:
        """Tokens of the plain model in outputs of this one."""
        plan = self.task.plan
        return sum(len(ids) if plan is None else len(plan.expand(np.array(ids, np.uint32))) for ids in outputs)


@dataclass
class Case:
    """Task and limits of a run; by method, the model that it decodes with."""

    sides: dict[str, Side]
    rows: list[dict[str, Any]]
    index: TaskIndex
    options: argparse.Namespace

    @property
    def plain(self) -> Side:
        return self.sides[PLAIN]

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return prompt_ids(self.plain.tokenizer, texts, None, self.options.system)


def in_loop(case: Case, load: int) -> dict[str, Run]:
    """Methods in tasc's loop, each with a cache of its own: the prompts of one would be cached for the next."""
    clock = CLOCKS[case.options.clock]

    def run(name: str, side: Side) -> Run:
        drafter: Any = ngram_drafter(case.index, side.task) if name in (DRAFTS, BOTH) else NullDrafter()
        generator = Generator(side.model, side.tokenizer, batch_size=load, drafter=drafter)

        def decode(prompts: list[list[int]], texts: list[str]) -> tuple[float, list[list[int]]]:
            began, limit = clock(), case.options.max_tokens
            made = generator.generate(texts, system=case.options.system, max_tokens=limit)
            return clock() - began, [one.ids for one in made]

        return decode

    return {name: run(name, side) for name, side in case.sides.items()}


def in_engine(case: Case, engines: dict[str, Engine], profile: CostProfile, load: int) -> dict[str, Run]:
    """Methods in an engine, each in a process of its own: the prompts of one would be cached for the next."""

    def run(method: str, engine: Engine) -> Run:
        def decode(prompts: list[list[int]], texts: list[str]) -> tuple[float, list[list[int]]]:
            if profile.engine == "llama.cpp":
                costs = ProfileCosts(profile).costs(MAX_DRAFT).tolist()
                engine.ask({"costs": costs if method in (DRAFTS, BOTH) else None})
            made = engine.ask({"prompts": prompts, "tokens": case.options.max_tokens, "load": load})
            return float(made["seconds"]), made["ids"]

        return decode

    return {method: run(method, engine) for method, engine in engines.items()}


def measured(case: Case, runs: dict[str, Run], load: int) -> dict[str, Any]:
    """Seconds and base tokens per output by method, and speed-ups, on the rows behind those of the prediction.

    Plain decoding takes about the same time per token for all rows, and most of the benchmark's. It decodes one batch of
    `plain_every`; in the others it counts with its mean and the tokens of the drafted output, which is the same text.
    """
    options, names = case.options, list(runs)
    rows = case.rows[options.predict : options.predict + (options.alone if load == 1 else options.together)]
    size = 1 if load == 1 else 4 * load
    parts: dict[str, list[tuple[float, int]]] = {name: [] for name in names}
    lengths: list[int] = []
    texts = [row["input"] for row in rows]
    prompts = case.prompts(texts)
    for run in runs.values():  # warm, and drafters have seen a prompt
        run(case.prompts([case.rows[0]["input"]]), [case.rows[0]["input"]])
    for turn, at in enumerate(range(0, len(rows), size)):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if name == PLAIN and turn % options.plain_every:
                continue
            seconds, ids = runs[name](prompts[at : at + size], texts[at : at + size])
            parts[name].append((seconds, case.sides[name].base_tokens(ids)))
            if name == DRAFTS:
                lengths.append(parts[name][-1][1])
    seconds, tokens = np.sum(parts[PLAIN], axis=0)
    parts[PLAIN] = [(seconds / tokens * length, length) for length in lengths]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "rows": len(rows),
        "methods": {name: _facts(parts[PLAIN], taken, len(rows)) for name, taken in parts.items()},
    }  # fmt: skip


def _facts(plain: list[tuple[float, int]], ours: list[tuple[float, int]], rows: int) -> dict[str, Any]:
    """Means of a method and its speed-up, in seconds per base token; one batch alone gives it no interval."""
    seconds, tokens = np.sum(ours, axis=0)
    pairs = np.concatenate([plain, ours], axis=-1, dtype=np.float64)
    speedup = estimate(Measure(pairs, lambda s: divided(s[..., 0] * s[..., 3], s[..., 1] * s[..., 2])))
    return {
        "seconds_per_output": float(seconds / rows),
        "base_tokens_per_output": float(tokens / rows),
        "speedup": speedup if len(pairs) > 1 else {**speedup, "low": None, "high": None},
    }


@contextmanager
def opened(case: Case, name: str, usual: KnownRequest) -> Iterator[tuple[CostProfile, Callable[[int], dict[str, Run]]]]:
    """Start an engine; yield its profile behind a usual request, and what gives its methods at a load."""
    options, plain = case.options, case.plain
    if name == "tasc":
        profile = measure_profile(
            plain.model, plain.tokenizer, usual.prompt, usual.output, name="model", batches=sorted({1, *options.loads}),
            clock=CLOCKS[options.clock],
        )  # fmt: skip
        yield profile, lambda load: in_loop(case, load)
        return
    with ExitStack() as stack:
        engines: dict[str, Engine] = {}
        for method, side in case.sides.items():
            if name == "llama.cpp" and side.gguf is None:
                continue
            about = {
                "engine": name, "model": side.folder, "gguf": side.gguf, "clock": options.clock,
                "threads": options.threads or 1, "index": str(case.index.path), "tokenizer": side.folder,
                "eos": sorted(side.eos), "drafts": method in (DRAFTS, BOTH), "dtype": options.vllm_dtype,
            }  # fmt: skip
            engines[method] = Engine(options.vllm_python if name == "vllm" else options.python, about)
            stack.callback(engines[method].close)
        words = {"device": device_name(plain.model.device), "model": "model", "dtype": ""}
        context = [*usual.prompt, *usual.output[: len(usual.output) // 2]]
        profile = profile_of(engines[DRAFTS], name, context, words)
        yield profile, lambda load: in_engine(case, engines, profile, load)


def run_cases(case: Case, plans: dict[str, Plan], result: dict[str, Any], keep: Callable[[], None]) -> None:
    """Predict, write it down, and measure each case that is not there yet."""
    for name in case.options.engines:
        loads = [load for load in case.options.loads if name != "llama.cpp" or load == 1]
        done = {one["load"] for one in result["cases"] if one["engine"] == name and is_done(one, case)}
        loads = [load for load in loads if load not in done]
        if not loads:
            continue
        with opened(case, name, usual_request(plans[PLAIN].requests)) as (profile, methods):
            predicted = forecast(profile, plans, eos=case.plain.eos, loads=loads)
            for load in loads:
                result["cases"] = [one for one in result["cases"] if (one["engine"], one["load"]) != (name, load)]
                one = {"engine": name, "load": load, "predicted": predicted["loads"][str(load)], "measured": None}
                result["cases"].append({**one, "profile": profile.as_dict(), "time": predicted["time"]})
            keep()  # before anything is measured
            for load in loads:
                [one] = [one for one in result["cases"] if (one["engine"], one["load"]) == (name, load)]
                one["measured"] = measured(case, methods(load), load)
                keep()
                show([{"set": result["set"], **one}])


def is_done(one: dict[str, Any], case: Case) -> bool:
    """Whether a case of the file has been measured for all methods that can be measured now."""
    able = [m for m, side in case.sides.items() if one["engine"] != "llama.cpp" or side.gguf is not None]
    return one["measured"] is not None and set(able) <= set(one["measured"]["methods"])


def compared(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per case and method: what was predicted and measured, relative errors, and the outputs' lengths."""
    rows = []
    for one in cases:
        methods = one["measured"]["methods"]
        for name, real in methods.items():
            if name != PLAIN:
                said = one["predicted"][name]
                length = real["base_tokens_per_output"] / methods[PLAIN]["base_tokens_per_output"]
                rows.append({
                    "set": one["set"], "engine": one["engine"], "load": one["load"], "rows": one["measured"]["rows"],
                    "method": name, "predicted": said["speedup"], "measured": real["speedup"], "length": length,
                    "error": said["speedup"]["value"] / real["speedup"]["value"] - 1,
                    "seconds": said["seconds_per_output"] * length / real["seconds_per_output"] - 1,
                })  # fmt: skip
    return rows


def is_right(one: dict[str, Any]) -> bool:
    """Whether the method predicted to be the fastest is the fastest measured, or lies within its interval."""
    methods = one["measured"]["methods"]
    chosen = min(methods, key=lambda name: one["predicted"][name]["seconds_per_output"])
    best = max((real["speedup"] for real in methods.values()), key=lambda s: s["value"])
    low = best["value"] if best["low"] is None else best["low"]
    return bool(methods[chosen]["speedup"]["value"] >= low)


def show(cases: Sequence[dict[str, Any]]) -> None:
    """Print the table of cases, the errors, and how often the recommended method was the right one."""
    rows = compared(cases)

    def interval(one: dict[str, Any]) -> str:
        return f"{one['value']:.2f}" + ("" if one["low"] is None else f" ({one['low']:.2f}–{one['high']:.2f})")

    columns = ("set", "engine", "at once", "rows", "method", "predicted", "measured", "error", "seconds", "length")
    print_table("Speed-up over plain decoding: predicted and measured", columns, [
        (row["set"], row["engine"], row["load"], row["rows"], row["method"], interval(row["predicted"]),
         interval(row["measured"]), f"{100 * row['error']:+.0f} %", f"{100 * row['seconds']:+.0f} %",
         f"{row['length']:.2f}")
        for row in rows
    ])  # fmt: skip
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for key in ("all", row["engine"], row["method"], f"{row['load']} at once"):
            groups[key].append(100 * abs(row["error"]))
    for key, off in groups.items() if len(rows) > 3 else [("all", groups["all"])]:
        print(f"{key}: {len(off)} speed-ups, error: median {np.median(off):.0f} %, worst {max(off):.0f} %")
    right = sum(map(is_right, cases))
    print(f"recommended method the fastest, or within its interval: {right} of {len(cases)} cases")


def read_cases(path: Path) -> list[dict[str, Any]]:
    """Measured cases of a file, each with the name of its set."""
    found = json.loads(path.read_text())
    return [{"set": found["set"], **one} for one in found["cases"] if one["measured"] is not None]


class Summary(argparse.Action):
    """Prints the table of files and ends."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Print it."""
        show([one for path in values for one in read_cases(Path(path))])
        parser.exit()


def indexed(rows: list[dict[str, Any]], task: TaskTokenizer, folder: Path) -> TaskIndex:
    store = TokenStore.build(rows, task, folder / "rows.store")
    return TaskIndex.build(store, folder / "task.tasc", tokenizer=task)


def begun(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """What the output file holds, or the start of it."""
    settings = {key: getattr(options, key) for key in SETTINGS}
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    if options.output is None or not options.output.exists():
        return {"set": name, "settings": settings, "own": None, "answers": None, "cases": [], "machine": machine()}
    found: dict[str, Any] = json.loads(options.output.read_text())
    other = sorted(key for key in settings if settings[key] != found["settings"].get(key))
    if other or found["set"] != name:
        raise InputError(f"{options.output} holds other settings ({', '.join(other) or 'set'}): name another file")
    return found


def answered(side: Side, index: TaskIndex | None, rows: list[dict[str, Any]], options: argparse.Namespace) -> Answers:
    """The model's answers to rows."""
    assert side.task.eos_id is not None
    with Generator(side.model, side.tokenizer, index=index, batch_size=8) as generator:
        return own_outputs(
            generator, side.tokenizer, side.task, rows,
            eos=side.task.eos_id, system=options.system, max_tokens=options.max_tokens, budget=1e9,
        )  # fmt: skip


def comparable(
    sides: dict[str, Side], index: TaskIndex, rows: list[dict[str, Any]], options: argparse.Namespace
) -> tuple[list[dict[str, Any]], int]:
    """Rows that the extended model answers at about the plain one's length, and the number of others before the last."""
    wanted = options.predict + max(options.alone, options.together)
    kept: list[dict[str, Any]] = []
    end = 0
    while len(kept) < wanted and (part := rows[end : end + wanted - len(kept)]):
        plain, extended = answered(sides[PLAIN], index, part, options), answered(sides[BOTH], None, part, options)
        for row, one, other, ended in zip(part, plain.requests, extended.requests, extended.finished, strict=True):
            length = len(one.output)
            if ended and abs(sides[BOTH].base_tokens([other.output]) - length) <= LENGTHS_DIFFER * length:
                kept.append(row)
        end += len(part)
    if len(kept) <= options.predict:
        sys.exit(
            f"the two models answer {len(kept)} of {end} rows at about the same length: tune the extended one longer"
        )
    return kept, end - len(kept)


def own_rows(side: Side, answers: Answers) -> list[dict[str, Any]]:
    """Rows of the model's own outputs."""
    return [
        {"input": one.input, "output": side.task.decode(one.output[:-1] if ended else one.output)}
        for one, ended in zip(answers.requests, answers.finished, strict=True)
    ]


def arguments() -> argparse.ArgumentParser:
    parser = model_arguments(__doc__, limit=400, max_tokens=192)
    parser.add_argument("--extended", help="folder of a model that was tuned with a task vocabulary")
    parser.add_argument("--engines", nargs="+", default=["tasc"], choices=ENGINES)
    parser.add_argument("--loads", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--predict", type=int, default=48, help="rows answered for the prediction")
    parser.add_argument("--alone", type=int, default=16, help="rows measured one at a time")
    parser.add_argument("--together", type=int, default=64, help="rows measured at higher loads")
    parser.add_argument("--plain-every", type=int, default=1, help="decode plainly in one batch of so many")
    parser.add_argument("--own", type=int, help="index the model's own outputs for so many train inputs")
    parser.add_argument("--longest", type=int, help="leave out rows whose outputs have more tokens than this")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--gguf", help="the model, for llama-cpp-python")
    parser.add_argument("--extended-gguf", help="the extended model, for llama-cpp-python")
    parser.add_argument("--python", default=sys.executable, help="interpreter with llama-cpp-python")
    parser.add_argument("--vllm-python", default=sys.executable, help="interpreter with vLLM")
    parser.add_argument("--vllm-dtype", default="bfloat16", help="float32 where the CPU has no AVX-512")
    parser.add_argument("--summary", nargs="+", action=Summary, metavar="OUT", help="print the table over these files")
    return parser


def main() -> None:
    parser = arguments()
    options = parsed(parser)
    if "llama.cpp" in options.engines and options.gguf is None:
        parser.error("llama.cpp needs the model as --gguf FILE")
    if options.clock == "cpu":
        use_threads(1)
        time.perf_counter = time.process_time  # the loop and the simulation time drafters too
    if options.smoke:
        options.limit, options.predict, options.alone, options.together, options.loads = 9, 4, 2, 4, [1, 2]
    with subject(options) as (model, tokenizer, data), tempfile.TemporaryDirectory() as name:
        result = begun(options, data.name.split(".")[0])

        def keep() -> None:
            if options.output is not None:
                write_json(options.output, result, indent=1)

        plain = Side(model, tokenizer, load_tokenizer(tokenizer), checkpoint(options.model, options.adapter))
        plain.gguf = options.gguf
        sides = {PLAIN: plain, DRAFTS: plain}
        extended = extended_model(model, tokenizer, data, Path(name)) if options.smoke else options.extended
        if extended is not None:
            other = Side(*load_checkpoint(str(extended), dtype=options.dtype), load_tokenizer(extended), str(extended))
            other.gguf = options.extended_gguf
            sides |= {VOCABULARY: other, BOTH: other}
        rows = [row for row in read_rows([data]) if row.get("input")]
        if options.longest is not None:
            rows = [row for row in rows if len(plain.task.encode(row["output"])) <= options.longest]
        train, test = ([row for row in rows if row["split"] == part] for part in ("train", "test"))
        test = [dict(row) for row in evenly_by_length(test)]
        if options.own:
            if result["own"] is None:
                result["own"] = own_rows(plain, answered(plain, None, train[: options.own], options))
                keep()
            train = result["own"]
        index = indexed(train, plain.task, Path(name))
        if extended is not None and not options.smoke:  # whose random model never ends
            test, result["left_out"] = comparable(sides, index, test, options)
            print(f"rows that the extended model answers at another length, left out: {result['left_out']}")
        case = Case(sides, test[: options.limit], index, options)
        if result["answers"] is None:
            answers = answered(plain, case.index, test[: options.predict], options)
            result |= {"answers": asdict(answers), "says": agreement(answers)}
            keep()
        print(result["says"]["sentence"])
        requests = [KnownRequest(**one) for one in result["answers"]["requests"]]
        vocabulary = None if extended is None else sides[BOTH].task.plan
        plans = method_plans(requests, case.index, plain.task, vocabulary)
        run_cases(case, plans | adopted_plans(plans, requests, vocabulary), result, keep)
    show([{"set": result["set"], **one} for one in result["cases"] if one["measured"] is not None])


if __name__ == "__main__":
    main()
