"""Part `drafts` of `paper.py`: TASC-spec as published, tuned on each set, beside its peers and tasc's drafter.

    python benches/python/paper.py drafts DATA_FOLDER --tokenizer T -o FILE.json [--sets a,b] [--limit 300]
    python benches/python/paper.py drafts DATA_FOLDER -o FILE.json --prompts 25 --model M --adapter A --system TEXT
    python benches/python/paper.py drafts -o FILE.json [--markdown] [--figure FIGURE.svg]
    python benches/python/paper.py drafts --smoke

DATA_FOLDER holds NAME.jsonl.gz files of rows {input, output, split}. `train` is counted and indexed, the first rows of
`test` are replayed; no model is needed. With --prompts a model decodes prompts of slu_atis end to end. Without DATA_FOLDER
the kept results are printed or drawn.

N-Grammys takes its bigrams from the model's weights. Here they are counted in the task's outputs, as those of TASC-spec.

How settings are chosen, at each cost of a drafted token:

- tasc-paper and N-Grammys: on 150 `train` rows that are left out of the counts, N-Grammys on 50 of them.
- tasc-paper-length, the paper's drafter with tasc's length rule: n_max and p_min are those of tasc-paper.
- prompt lookup and SuffixDecoding: on the replayed rows themselves, which favours them.
- tasc: nothing is chosen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from paper_results import KeptResults

from tasc.cli.console import err, out, print_table, progress_bars
from tasc.data import TaskTokenizer, load_tokenizer, read_rows
from tasc.data.ids import common_prefix_length
from tasc.drafting.defaults import MAX_DRAFT
from tasc.drafting.retokenizing import ngram_drafter
from tasc.errors import InputError
from tasc.evaluation.baselines import (
    PromptLookupDrafter,
    SuffixDecodingDrafter,
    suffix_decoding_installed,
    suffix_depth,
)
from tasc.evaluation.bootstrap import estimate, ratio
from tasc.evaluation.ngram_baselines import NGrammysDrafter, NgramSuccessors, TascPaperDrafter
from tasc.evaluation.replay import ReplayResult, ReplayRow, encode_rows, replay
from tasc.evaluation.replay_comparison import open_task

SETS = ("slu_atis", "t2s_atis", "loghub", "nl2bash", "gsm8k", "slurp", "medquad")
COSTS = (0.02, 0.2)
GAMMAS = (2, 4, 8, 16, 32)
N_MAX = (2, 3, 4, 6)
P_MIN = (1, 5)
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
SHARE = 0.75
HELD_OUT = 150
BATCHES = ((1, 2), (1, 4), (1, 10), (4, 4), (10, 10))
"""N-Grammys' number of chains and their length; (10, 10) is the authors' choice."""

SUFFIX_FACTORS = (1.0, 4.0, 16.0)
SUFFIX_LEAST = (0.1, 0.3, 0.6)

Rows = list[list[int]]
"""Tokens, steps and drafted tokens of each replayed row."""


@dataclass
class PaperTask:
    """One set: its rows, tokenised, and what is counted from them."""

    name: str
    train_texts: list[dict[str, Any]]
    test_texts: list[dict[str, Any]]
    tokenizer: TaskTokenizer
    eos: int
    _counted: tuple[tuple[int, int, bool], NgramSuccessors] | None = None

    @cached_property
    def train(self) -> list[ReplayRow]:
        return encode_rows(self.train_texts, self.tokenizer, eos=self.eos)

    @cached_property
    def test(self) -> list[ReplayRow]:
        return encode_rows(self.test_texts, self.tokenizer, eos=self.eos)

    @cached_property
    def held_out(self) -> int:
        """Number of `train` rows that settings are chosen on: the last ones, in an order that was drawn."""
        return min(HELD_OUT, len(self.train) // 4)

    @cached_property
    def prompt_suffix(self) -> list[int]:
        """Last tokens that all prompts share: the n-grams of outputs begin with them, so first tokens have a context."""
        return common_suffix([row.prompt for row in self.train])[-max(N_MAX) + 1 :]

    def counts(self, p_min: int, *, all_rows: bool) -> NgramSuccessors:
        """N-grams of the `train` outputs, or of those that nothing is chosen on."""
        return self._counts(max(N_MAX), p_min, all_rows)

    def bigrams(self, *, all_rows: bool) -> dict[int, list[int]]:
        """N-Grammys' bigrams: the most frequent successors of each token."""
        return self._counts(2, 1, all_rows).top_successors(10)

    def _counts(self, n_max: int, p_min: int, all_rows: bool) -> NgramSuccessors:
        if self._counted is None or self._counted[0] != (n_max, p_min, all_rows):  # one at a time: they are large
            rows = self.train if all_rows else self.train[: -self.held_out]
            suffix = np.array(self.prompt_suffix, np.uint32)  # empty where prompts share no last token
            outputs = [np.concatenate([suffix, row.output]) for row in rows]
            self._counted = None
            self._counted = (n_max, p_min, all_rows), NgramSuccessors(outputs, n_max, p_min)
        return self._counted[1]


def common_suffix(prompts: Sequence[Any]) -> list[int]:
    """Last ids that all prompts share."""
    shared = [int(token) for token in prompts[0]][::-1]
    for prompt in prompts:
        shared = shared[: common_prefix_length(shared, [int(token) for token in prompt[::-1]])]
    return shared[::-1]


def load_task(path: Path, tokenizer: TaskTokenizer, limit: int, train_rows: int | None = None) -> PaperTask:
    """Read a set; its `train` rows are put in an order that is drawn with a fixed seed."""
    name = path.name.split(".")[0]
    rows = list(read_rows([path]))
    train = [row for row in rows if row.get("split") == "train"]
    random.Random(5).shuffle(train)
    test = [row for row in rows if row.get("split") == "test"]
    if len(train) < 4 or not test:
        raise InputError(f"{path} has {len(train)} train rows and {len(test)} test rows; give at least 4 and 1")
    assert tokenizer.eos_id is not None
    return PaperTask(name, train[:train_rows], test[:limit], tokenizer, tokenizer.eos_id)


def speedup(rows: Rows, cost: float) -> float:
    """s(c) = tokens / Σ(1 + c·drafted)."""
    tokens, steps, drafted = np.array(rows, np.float64).sum(0)
    return float(tokens / (steps + cost * drafted))


def tau(rows: Rows) -> float:
    """Tokens per step."""
    tokens, steps, _ = np.array(rows, np.float64).sum(0)
    return float(tokens / steps)


def best_key(grid: dict[str, Rows], cost: float) -> str:
    """Key of the settings with the highest speed-up; of equals the first."""
    return max(grid, key=lambda key: speedup(grid[key], cost))


def by_row(result: ReplayResult) -> Rows:
    return [list(row) for row in result.by_row]


def replay_batches(drafter: NGrammysDrafter, rows: Sequence[ReplayRow], k: int, w: int) -> Rows:
    """Replay with all chains of each step: the best one is accepted, and every chain's tokens count as drafted."""
    found = []
    for row in rows:
        request, output = drafter.start(row.prompt), row.output.tolist()
        position = steps = drafted = 0
        while position < len(output):
            chains = request.chains(k, w)
            hits = max((common_prefix_length(chain, output[position : position + w]) for chain in chains), default=0)
            emitted = output[position : position + hits + 1]
            request.update(emitted)
            position, steps, drafted = position + len(emitted), steps + 1, drafted + sum(map(len, chains))
        found.append([len(output), steps, drafted])
    return found


def paper_grid(task: PaperTask) -> dict[str, Rows]:
    """Replays of the rows held out for the choice, by "n_max p_min γ"."""
    found = {}
    for p_min, n_max in product(P_MIN, N_MAX):
        drafter = paper_drafter(task, n_max, p_min, max(GAMMAS), all_rows=False)
        for gamma, rows in replay_gammas(drafter, task.train[-task.held_out :], GAMMAS).items():
            found[f"{n_max} {p_min} {gamma}"] = rows
    return found


def replay_gammas(drafter: TascPaperDrafter, rows: Sequence[ReplayRow], gammas: Sequence[int]) -> dict[int, Rows]:
    """Replay with several γ at once: a chain is followed up to its first wrong token only.

    Every rejected draft counts γ drafted tokens, even if it would have ended earlier, with a wrong end token.
    """
    found: dict[int, Rows] = {gamma: [] for gamma in gammas}
    for row in rows:
        request, output = drafter.start(row.prompt), row.output.tolist()
        at, steps, drafted = dict.fromkeys(gammas, 0), dict.fromkeys(gammas, 0), dict.fromkeys(gammas, 0)
        for position in range(len(output)):
            here = [gamma for gamma in gammas if at[gamma] == position]
            if here:
                expected = output[position : position + max(here)]
                pairs = zip(request.chain(), expected, strict=False)
                hits = sum(1 for _ in takewhile(lambda pair: pair[0][0] == pair[1], pairs))
                ends = position + hits == len(output)
                for gamma in here:
                    steps[gamma] += 1
                    drafted[gamma] += min(gamma, hits) if ends else gamma
                    at[gamma] += min(gamma, hits) + 1
            request.update(output[position : position + 1])
        for gamma in gammas:
            found[gamma].append([len(output), steps[gamma], drafted[gamma]])
    return found


def paper_drafter(
    task: PaperTask, n_max: int, p_min: int, gamma: int | None, *, share: float = SHARE, all_rows: bool
) -> TascPaperDrafter:
    """The paper's drafter of a set."""
    counts = task.counts(p_min, all_rows=all_rows)
    return TascPaperDrafter(counts, task.eos, n_max=n_max, gamma=gamma, share=share)


def share_grid(task: PaperTask, n_max: int, p_min: int, gamma: int) -> dict[str, Rows]:
    """Replays of the rows held out for the choice, by λ."""
    found = {}
    for share in SHARES:
        drafter = paper_drafter(task, n_max, p_min, gamma, share=share, all_rows=False)
        found[str(share)] = replay_gammas(drafter, task.train[-task.held_out :], (gamma,))[gamma]
    return found


def ngrammys_grid(task: PaperTask, queries: Sequence[int]) -> dict[str, Rows]:
    """Replays of the rows held out for the choice, by "query k w"."""
    rows, table, found = task.train[-task.held_out :][:50], task.bigrams(all_rows=False), {}
    for query, (k, w) in product(queries, BATCHES):
        found[f"{query} {k} {w}"] = replay_batches(NGrammysDrafter(table, task.eos, query=query), rows, k, w)
    return found


def lookup_grid(task: PaperTask) -> dict[str, Rows]:
    """Replays of the test rows through prompt lookup, by the most tokens drafted."""
    return {str(k): by_row(replay(PromptLookupDrafter(), task.test, max_tokens=k)) for k in (2, 4, 10, 32)}


def suffix_grid(task: PaperTask) -> dict[str, Rows]:
    """Replays of the test rows through SuffixDecoding, by "factor, least probability", at most 64 tokens drafted.

    The cache is filled once. Each replay changes it, so each runs in a process of its own that is forked from this one.
    """
    drafter = SuffixDecodingDrafter([row.output for row in task.train], depth=suffix_depth(MAX_DRAFT))

    def replayed(factor: float, least: float) -> Rows:
        drafter.factor, drafter.min_token_prob = factor, least
        return by_row(replay(drafter, task.test))

    settings = product(SUFFIX_FACTORS, SUFFIX_LEAST)
    return {f"{factor:g} {least:g}": forked(partial(replayed, factor, least)) for factor, least in settings}


def forked(compute: Callable[[], Rows]) -> Rows:
    """Return the result of a call that runs in a forked process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(compute()))
    process.start()
    theirs.close()
    try:
        found: Rows = ours.recv()
    finally:
        process.join()
    return found


def ours(task: PaperTask) -> dict[str, dict[str, Rows]]:
    """Replays of the test rows through tasc's drafter: by cost, and with fixed lengths, by γ."""
    with tempfile.TemporaryDirectory() as folder, progress_bars() as bar:
        data = Path(folder) / "rows.jsonl"
        texts = [*task.train_texts, *task.test_texts]
        data.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
        with open_task(data, task.tokenizer, progress=bar) as opened:

            def of(most: int, cost: float) -> Rows:
                drafter = ngram_drafter(opened.index, task.tokenizer)
                return by_row(replay(drafter, task.test, max_tokens=most, cost=cost))

            return {
                "rule": {str(cost): of(MAX_DRAFT, cost) for cost in COSTS},
                "fixed": {str(gamma): of(gamma, 0.0) for gamma in GAMMAS},
            }


def measure(task: PaperTask, kept: KeptResults) -> None:
    """Everything that is missing of one set."""

    def get(key: str, compute: Callable[[], Any]) -> Any:
        return kept.get(f"{task.name}: {key}", compute)

    rows = {
        "train": len(task.train),
        "held out": task.held_out,
        "test": len(task.test),
        "output tokens": sum(len(row.output) for row in task.test),
        "prompt suffix": task.prompt_suffix,
    }
    kept.require(f"{task.name}: rows", rows)  # a set of the same name may hold others
    get("prompt-lookup", partial(lookup_grid, task))
    grid = get("tasc-paper, choice", partial(paper_grid, task))
    n_max, p_min, gamma = map(int, best_key(grid, COSTS[0]).split())
    get("tasc-paper, λ", partial(share_grid, task, n_max, p_min, gamma))
    for cost in COSTS:
        get(f"tasc-paper at {cost}", partial(chosen_paper, task, best_key(grid, cost), cost, fixed=True))
        get(f"tasc-paper-length at {cost}", partial(chosen_paper, task, best_key(grid, cost), cost, fixed=False))
    get("tasc", partial(ours, task))
    for method, queries in (("ngrammys-bigram", (0,)), ("ngrammys-mixed", (1, 2))):
        grid = get(f"{method}, choice", partial(ngrammys_grid, task, queries))
        for cost in COSTS:
            get(f"{method} at {cost}", partial(chosen_ngrammys, task, best_key(grid, cost)))
    if suffix_decoding_installed():
        get("suffix", partial(suffix_grid, task))
    elif f"{task.name}: suffix" not in kept.values:
        err.print(f"{task.name}: SuffixDecoding is not installed, so it is left out; a later call can add it")


def chosen_paper(task: PaperTask, key: str, cost: float, *, fixed: bool) -> Rows:
    """Replay of the test rows with the settings "n_max p_min γ", or with tasc's length rule instead of γ."""
    n_max, p_min, gamma = map(int, key.split())
    drafter = paper_drafter(task, n_max, p_min, gamma if fixed else None, all_rows=True)
    return by_row(replay(drafter, task.test, max_tokens=gamma if fixed else MAX_DRAFT, cost=cost))


def chosen_ngrammys(task: PaperTask, key: str) -> Rows:
    """Replay of the test rows with the settings "query k w"."""
    query, k, w = map(int, key.split())
    return replay_batches(NGrammysDrafter(task.bigrams(all_rows=True), task.eos, query=query), task.test, k, w)


FIXED = "tasc, best γ"
"""tasc's drafter with a fixed length, the best one for the test rows."""

METHODS = (
    "prompt-lookup",
    "ngrammys-bigram",
    "ngrammys-mixed",
    "suffix",
    "tasc-paper",
    "tasc-paper-length",
    FIXED,
    "tasc",
)


def test_rows(kept: KeptResults, name: str, cost: float) -> Iterator[tuple[str, str, Rows]]:
    """Yield method, its settings and the replayed rows of a set that are kept."""
    values = kept.values
    for method in METHODS:
        if method.startswith("tasc-paper"):
            key = best_key(values[f"{name}: tasc-paper, choice"], cost)
            settings = key if method == "tasc-paper" else key.rpartition(" ")[0]
            yield method, settings, values[f"{name}: {method} at {cost}"]
        elif method.startswith("tasc"):
            found = values[f"{name}: tasc"]
            key = str(cost) if method == "tasc" else best_key(found["fixed"], cost)
            yield method, "" if method == "tasc" else key, found["rule" if method == "tasc" else "fixed"][key]
        elif f"{name}: {method}" in values:  # chosen on the test rows
            grid = values[f"{name}: {method}"]
            yield method, best_key(grid, cost), grid[best_key(grid, cost)]
        elif f"{name}: {method} at {cost}" in values:
            yield method, best_key(values[f"{name}: {method}, choice"], cost), values[f"{name}: {method} at {cost}"]


PAIRS = (
    ("paper's mixture: length rule over γ", "tasc-paper-length", "tasc-paper"),
    ("tasc's mixture: length rule over γ", "tasc", FIXED),
    ("γ: tasc's mixture over the paper's", FIXED, "tasc-paper"),
    ("length rule: tasc's mixture over the paper's", "tasc", "tasc-paper-length"),
    ("both", "tasc", "tasc-paper"),
)
"""Ratios that tell mixture and length apart: what it says, the faster method, the other one."""


@dataclass(frozen=True)
class Replayed:
    """Replayed test rows of one method with its chosen settings."""

    settings: str
    rows: Rows
    cost: float

    @property
    def counts(self) -> Any:
        """(3, N) float64: tokens, steps and drafted tokens of each row."""
        return np.array(self.rows, np.float64).T

    def speedup(self) -> str:
        """s(c) and its interval."""
        tokens, steps, drafted = self.counts
        return _interval(estimate(ratio(tokens, steps + self.cost * drafted)))

    def over(self, other: Replayed) -> str:
        """How many times faster than another method on the same rows, and the paired interval."""
        (_, steps, drafted), (_, others, their_drafted) = self.counts, other.counts
        return _interval(estimate(ratio(others + self.cost * their_drafted, steps + self.cost * drafted)))

    def facts(self) -> str:
        """Settings, τ and mean draft length."""
        tokens, steps, drafted = self.counts.sum(1)
        return f"{self.settings or '-'} ({tokens / steps:.2f}, {drafted / steps:.1f})"


def measured_sets(kept: KeptResults) -> list[str]:
    """Names of the sets whose comparison is kept."""
    names = [key.removesuffix(": tasc") for key in kept.values if key.endswith(": tasc")]
    return [*(name for name in SETS if name in names), *(name for name in names if name not in SETS)]


def report(kept: KeptResults, *, markdown: bool) -> None:
    """Print a table for each cost, the effect of λ, and the end-to-end run if there is one."""
    show = print_markdown if markdown else print_table
    for cost in COSTS:
        table = {
            name: {m: Replayed(settings, rows, cost) for m, settings, rows in test_rows(kept, name, cost)}
            for name in measured_sets(kept)
        }
        methods = [m for m in METHODS if any(m in found for found in table.values())]

        def lines(
            columns: Sequence[Any], cell: Callable[[dict[str, Replayed], Any], str], table: Any = table
        ) -> list[list[str]]:
            return [[name, *(cell(found, column) for column in columns)] for name, found in table.items()]

        cells = lines(methods, lambda f, m: f[m].speedup() if m in f else "")
        for line, found in zip(cells, table.values(), strict=True):
            line.append(found["tasc"].over(found["tasc-paper"]))
        show(f"s({cost:g})", ("set", *methods, "tasc over tasc-paper"), cells)
        others = methods[:-1]
        cells = lines(others, lambda f, m: f["tasc"].over(f[m]) if m in f else "")
        show(f"tasc over each, at {cost:g}", ("set", *others), cells)
        shares = lines(PAIRS, lambda f, pair: f[pair[1]].over(f[pair[2]]))
        show(f"mixture and length, at {cost:g}", ("set", *(what for what, _, _ in PAIRS)), shares)
        cells = lines(methods, lambda f, m: f[m].facts() if m in f else "")
        show(f"settings (τ, drafted per step) at {cost:g}", ("set", *methods), cells)
    by_share = [
        [name, *(f"{speedup(rows, COSTS[0]):.2f}" for rows in kept.values[f"{name}: tasc-paper, λ"].values())]
        for name in measured_sets(kept)
        if f"{name}: tasc-paper, λ" in kept.values
    ]
    show("s(0.02) of tasc-paper by λ, on the rows of the choice", ("set", *map(str, SHARES)), by_share)
    if "end to end" in kept.values:
        from paper_end_to_end import lines as end_to_end_lines

        show("End to end", *end_to_end_lines(kept.values["end to end"]))


def _interval(found: dict[str, float | None]) -> str:
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def print_markdown(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table as Markdown."""
    texts = [f"\n{title}\n", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    texts += ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    out.print("\n".join(texts), highlight=False, markup=False, soft_wrap=True)


def draw(kept: KeptResults, path: Path) -> None:
    """Draw s(0.02) over λ, relative to λ = 0.75, one line per set."""
    from paper_figures import COLORS, save_svg

    def lines(axes: Any) -> None:
        for name, color in zip(measured_sets(kept), COLORS, strict=False):
            grid = kept.values[f"{name}: tasc-paper, λ"]
            speeds = [speedup(grid[str(share)], COSTS[0]) for share in SHARES]
            axes.plot(SHARES, [s / speeds[SHARES.index(SHARE)] for s in speeds], "o-", color=color, label=name)
        axes.set_xlabel("λ, share of the task's n-grams")
        axes.set_ylabel("s(0.02), relative to λ = 0.75")
        axes.set_xticks(SHARES)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)

    save_svg(path, lines, "Speed-up of the paper's drafter by λ for each set, relative to λ = 0.75")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="paper.py drafts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="folder of NAME.jsonl.gz files")
    parser.add_argument("--tokenizer", help="folder, tokenizer.json or hub name")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--limit", type=int, default=300, help="test rows per set")
    parser.add_argument("--train-rows", type=int, help="most train rows per set, drawn; by default all")
    parser.add_argument("--prompts", type=int, default=0, help="prompts of slu_atis that a model decodes")
    parser.add_argument("--model", default="smollm2", help="folder, hub name or smollm2")
    parser.add_argument("--adapter", type=Path, help="PEFT adapter, merged")
    parser.add_argument("--system", help="system prompt of every request")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument("--figure", type=Path, help="SVG of the speed-up over λ")
    parser.add_argument("-o", "--output", type=Path, help="JSON that keeps the results")
    parser.add_argument("--smoke", action="store_true", help="a tiny generated task")
    options = parser.parse_args(arguments)
    if options.smoke:
        smoke(options.output)
        return
    if options.output is None:
        parser.error("name the file that keeps the results with -o")
    if options.data is not None and options.tokenizer is None and not options.prompts:
        parser.error("DATA is measured with --tokenizer, with --prompts, or both")
    if options.train_rows is not None and options.train_rows < 4:
        parser.error("--train-rows is at least 4")
    kept = KeptResults(options.output)
    if options.data is not None and options.tokenizer is not None:
        named = {"tokenizer": str(options.tokenizer), "limit": options.limit, "train rows": options.train_rows}
        tokenizer = load_tokenizer(options.tokenizer)  # before anything is kept
        kept.require("settings", named)
        for name in options.sets.split(","):
            measure(load_task(options.data / f"{name}.jsonl.gz", tokenizer, options.limit, options.train_rows), kept)
            err.print(f"{name}: measured")
    if options.data is not None and options.prompts:
        asked = {"model": options.model, "adapter": options.adapter and str(options.adapter)}
        asked |= {"prompts": options.prompts, "system": options.system}
        if "end to end" not in kept.values:
            made = decoded(options)  # an error leaves no settings behind
            kept.require("end to end, settings", asked)
            kept.get("end to end", lambda: made)
        elif "end to end, settings" in kept.values:  # older files lack them
            kept.require("end to end, settings", asked)
    if not kept.values:
        raise InputError(f"{options.output} holds no results; give DATA and --tokenizer")
    report(kept, markdown=options.markdown)
    if options.figure is not None:
        draw(kept, options.figure)


def decoded(options: argparse.Namespace) -> dict[str, Any]:
    """End-to-end run of slu_atis on the model that the options name."""
    import paper_end_to_end

    from tasc.models import load_checkpoint

    model, tokenizer = load_checkpoint(options.model, adapter=options.adapter)
    data = options.data / "slu_atis.jsonl.gz"
    return paper_end_to_end.measure(data, model, tokenizer, prompts=options.prompts, system=options.system)


def check_replay_gammas(task: PaperTask) -> None:
    """Assert that the replay of several γ at once takes the steps of one replay for each."""
    rows = task.train[:5]
    found = replay_gammas(paper_drafter(task, 4, 1, max(GAMMAS), all_rows=True), rows, GAMMAS)
    for gamma in GAMMAS:
        each = by_row(replay(paper_drafter(task, 4, 1, gamma, all_rows=True), rows, max_tokens=gamma))
        assert [row[:2] for row in found[gamma]] == [row[:2] for row in each], f"γ = {gamma}"
        assert all(drafted >= row[2] for (_, _, drafted), row in zip(found[gamma], each, strict=True)), f"γ = {gamma}"


def smoke(output: Path | None) -> None:
    """The whole path on a tiny task, and a random model of two layers."""
    import paper_end_to_end
    from smoke_task import tiny_model, write_rows, write_tokenizer

    kept = KeptResults(output)
    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(Path(folder))
        tokenizer = write_tokenizer(Path(folder), data)
        task = load_task(data, load_tokenizer(tokenizer), 10)
        measure(task, kept)
        check_replay_gammas(task)
        model = tiny_model(tokenizer)
        kept.get("end to end", lambda: paper_end_to_end.measure(data, *model, prompts=2, max_tokens=16))
    report(kept, markdown=False)
