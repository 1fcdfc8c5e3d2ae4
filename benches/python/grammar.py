"""Outputs constrained by a JSON schema: plain decoding, drafts of forced text, drafts of an index, and both.

    python benches/python/grammar.py DATA.jsonl.gz --system TEXT [--adapter FOLDER] [--limit 8] [--threads 1] \\
        [--clock cpu] [-o OUT.json]
    python benches/python/grammar.py --smoke

DATA has rows {input, output, split} whose outputs are JSON: `train` is indexed, `test` asked. The schema is that of the
training outputs (`schema_of`). The ways take turns prompt by prompt, after one prompt that is not measured. `--clock
cpu` counts processor time, for a machine that others use.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from on_model import model_arguments, parsed, subject
from ratios import Ratio, report

from tasc import Generation, Generator, Grammar, NullDrafter, read_rows
from tasc.cli.console import print_table, progress_bars
from tasc.data import load_tokenizer
from tasc.decoding.grammar import GrammarState
from tasc.drafting.protocol import Drafter
from tasc.drafting.retokenizing import ngram_drafter
from tasc.evaluation.machine import machine
from tasc.evaluation.replay_comparison import open_task

MAX_ENUM = 100  # different strings of a field that are taken for all that it may have
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
Timer = list[float]


def schema_of(values: Sequence[Any]) -> dict[str, Any]:
    """A JSON schema that values of one place have: objects of fixed fields, lists, and strings, perhaps of a few."""
    if all(isinstance(value, dict) for value in values):
        fields = {name: [value[name] for value in values if name in value] for value in values for name in value}
        return {
            "type": "object",
            "properties": {name: schema_of(found) for name, found in fields.items()},
            "required": [name for name, found in fields.items() if len(found) == len(values)],
            "additionalProperties": False,
        }
    if all(isinstance(value, list) for value in values):
        items = [item for value in values for item in value]
        return {"type": "array", "items": schema_of(items)} if items else {"type": "array"}
    if all(isinstance(value, str) for value in values):
        known = sorted(set(values))
        return {"enum": known} if len(known) <= MAX_ENUM and 2 * len(known) < len(values) else {"type": "string"}
    return {}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value has a schema of `schema_of`; fields of an object in their order."""
    if "enum" in schema:
        return value in schema["enum"]
    if schema.get("type") == "object":
        names = [name for name in schema["properties"] if isinstance(value, dict) and name in value]
        return (
            isinstance(value, dict)
            and list(value) == names
            and set(schema["required"]) <= set(names)
            and all(fits(value[name], schema["properties"][name]) for name in names)
        )
    if schema.get("type") == "array":
        return isinstance(value, list) and all(fits(item, schema.get("items", {})) for item in value)
    return isinstance(value, str) if schema.get("type") == "string" else True


def breaks(made: Generation, schema: dict[str, Any]) -> bool:
    """Whether an output that is not cut short is no JSON of the schema."""
    try:
        return made.finish_reason == "eos" and not fits(json.loads(made.text), schema)
    except ValueError:
        return True


@contextmanager
def grammar_timer(clock: Callable[[], float]) -> Iterator[Timer]:
    """Time of all work on grammars: masks, constrained drafts, forced text."""
    spent = [0.0]
    names = ("constrain", "end", "_take", "_masked")
    originals = {name: getattr(GrammarState, name) for name in names}

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            begin = clock()
            try:
                return call(*args)
            finally:
                spent[0] += clock() - begin

        return run

    for name, call in originals.items():
        setattr(GrammarState, name, timed(call))
    try:
        yield spent
    finally:
        for name, call in originals.items():
            setattr(GrammarState, name, call)


@dataclass
class Way:
    """One way to decode, and what it took."""

    drafter: Drafter
    grammar: Grammar
    made: list[Generation] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    in_grammar: list[float] = field(default_factory=list)

    def answer(self, generator: Generator, text: str, clock: Callable[[], float], timer: Timer, **options: Any) -> None:
        spent, begin = timer[0], clock()
        [made] = generator.generate([text], drafter=self.drafter, grammar=self.grammar, **options)
        self.seconds.append(clock() - begin)
        self.in_grammar.append(timer[0] - spent)
        self.made.append(made)

    def facts(self, plain: Way, schema: dict[str, Any]) -> dict[str, Any]:
        """Figures, without the first output."""
        made, seconds = self.made[1:], sum(self.seconds[1:])
        tokens = sum(one.stats.tokens for one in made)
        return {
            "tokens_per_second": tokens / seconds,
            "tokens": tokens,
            "steps_per_output": statistics.mean(one.stats.steps for one in made),
            "accepted_by": dict(sum((one.stats.accepted_by for one in made), Counter[str]())),
            "drafted_by": dict(sum((one.stats.drafted_by for one in made), Counter[str]())),
            "grammar_share": sum(self.in_grammar[1:]) / seconds,
            "identical": sum(a.ids == b.ids for a, b in zip(made, plain.made[1:], strict=True)),
            "cut_short": sum(one.finish_reason != "eos" for one in made),
            "broken": sum(breaks(one, schema) for one in made),
            "outputs": len(made),
        }


def figures(found: dict[str, Any], goals: bool) -> list[Ratio]:
    """Each way beside plain decoding with the same grammar; the index with forced text beside the index alone."""
    speed = {name: facts["tokens_per_second"] for name, facts in found.items()}
    pairs = [("forced", "plain", 1.3), ("context + forced", "plain", 1.3), ("index + forced", "plain", None),
             ("index + forced", "index", 1.0)]  # fmt: skip
    made = [Ratio(f"{a}: tokens/s", speed[a], b, speed[b], least=least if goals else None) for a, b, least in pairs]
    share = max(facts["grammar_share"] for facts in found.values())
    broken = sum(facts["broken"] for facts in found.values())
    made.append(
        Ratio("largest share of the grammar in the time, %", 100 * share, lower=True, limit=5 if goals else None)
    )
    return [*made, Ratio("outputs that break the schema", broken, lower=True, limit=0)]


def main() -> None:
    parser = model_arguments(__doc__, limit=8, max_tokens=128)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--costs", type=float, help="cost of a drafted token, in steps; measured by default")
    options = parsed(parser)
    clock = CLOCKS[options.clock]
    with subject(options) as (model, tokenizer, data), progress_bars() as bar:
        schema = schema_of([json.loads(row["output"]) for row in read_rows(data, "train")])
        forced = Grammar.json_schema(schema)
        unforced = replace(forced, drafts=False)
        ours = load_tokenizer(tokenizer)
        with open_task(data, ours, limit=options.limit, progress=bar) as task:
            inputs = [row["input"] for row in task.held_out]
            ways = {
                "plain": Way(NullDrafter(), unforced),
                "forced": Way(NullDrafter(), forced),
                "context + forced": Way(ngram_drafter(None, ours), forced),
                "index": Way(ngram_drafter(task.index, ours), unforced),
                "index + forced": Way(ngram_drafter(task.index, ours), forced),
            }
            asked = {"system": options.system, "max_tokens": options.max_tokens}
            with Generator(model, tokenizer, costs=options.costs) as generator, grammar_timer(clock) as timer:
                move = bar("decoding")
                for turn, text in enumerate([inputs[0], *inputs]):
                    for way in list(ways.values())[:: 1 if turn % 2 else -1]:
                        way.answer(generator, text, clock, timer, **asked)
                    move(turn, len(inputs))
    found = {name: way.facts(ways["plain"], schema) for name, way in ways.items()}
    for name, facts in found.items():
        assert facts["identical"] == facts["outputs"], f"{name} differs from plain decoding with the grammar"
        assert not facts["broken"], f"{name} breaks the schema"
    print_table(
        f"{len(inputs)} outputs in the schema, greedy, batch 1, {options.clock} time",
        ("way", "tokens/s", "of plain", "steps/output", "grammar, %", "cut short"),
        [
            (name, f["tokens_per_second"], f["tokens_per_second"] / found["plain"]["tokens_per_second"],
             f["steps_per_output"], 100 * f["grammar_share"], f["cut_short"])
            for name, f in found.items()
        ],
    )  # fmt: skip
    report("Grammar", figures(found, not options.smoke), options.output, results=found, machine=machine())


if __name__ == "__main__":
    main()
