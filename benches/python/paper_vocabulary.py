"""TASC-ft as published (Algorithm 1, added tokens) and AdaptiVocab beside our merging, pruning and output-only ids.

    python benches/python/paper_vocabulary.py DATA/NAME.jsonl.gz … --tokenizer MODEL [-k 64 128 256 500] -o FILE
    python benches/python/paper_vocabulary.py DATA/NAME.jsonl.gz --tokenizer MODEL --tune FOLDER --system TEXT -o FILE
    python benches/python/paper_vocabulary.py --smoke

Vocabularies are learnt from the split `train`, at equal numbers of new tokens and equal floors (min_count, min_rows), and
measured on `test`. Selection and use of the tokens are crossed. The settings of Algorithm 1 that the paper leaves open are
chosen on train rows: half of them to learn from, the other half to measure on. `--settings N_MAX FILTER` names them instead.
FILE keeps each result as soon as it is there, and Ctrl-C leaves what is missing to the next run. `--show` prints what is
there.

With --tune, two models are tuned alike, one extended with our plan and one with Algorithm 1's added tokens, and answer
`--limit` test rows. FOLDER keeps the models; a stopped tuning goes on. A model that lies there already (`ours`, `added`) is
not tuned again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from paper_results import KeptResults
from paper_tokens import (
    Added,
    AddedOutputs,
    Gram,
    MergedOutputs,
    OutputOnly,
    Outputs,
    Patched,
    PrefixCollisions,
    Vocabulary,
    adaptivocab,
    algorithm_1,
)
from smoke_task import EOS, tiny_checkpoint

from tasc import TuneOptions
from tasc._core import MergePlan, Store
from tasc.cli.console import err, print_table, progress_bars
from tasc.data import Row, TaskTokenizer, TokenStore, load_tokenizer, read_rows
from tasc.errors import InputError
from tasc.evaluation.bootstrap import bootstrap_interval, estimate, ratio
from tasc.models import use_threads
from tasc.vocab.token_validity import TokenValidity

LENGTHS = (2, 3, 4)
"""n_max: the paper's range."""

FILTERS = (
    PrefixCollisions("places", 0.01),
    PrefixCollisions("places", 0.05),
    PrefixCollisions("places", 0.2),
    PrefixCollisions("tokens", 0.5),
)
"""Readings and values of α; the paper gives none."""

CHOSEN_AT = 256
"""The most new tokens for which the settings are chosen."""


@dataclass(frozen=True)
class Floors:
    """Fewest uses of a new token, and fewest rows that hold it: those of `vocab learn`, for every method."""

    min_count: int = 10
    min_rows: int = 5


@dataclass(frozen=True)
class Settings:
    """Settings of Algorithm 1."""

    longest: int
    refuse: PrefixCollisions | None = None


@dataclass(frozen=True)
class Task:
    """A set of rows and the tokenizer."""

    name: str
    data: Path
    tokenizer: TaskTokenizer
    floors: Floors

    def rows(self, split: str) -> list[Row]:
        return list(read_rows(self.data, split))


def counted(rows: Sequence[Row]) -> Counter[str]:
    return Counter(row["output"] for row in rows)


def selected(kind: type[Outputs], task: Task, rows: Sequence[Row], size: int, settings: Settings) -> Outputs:
    outputs = kind(task.tokenizer, counted(rows))
    floors = asdict(task.floors)
    return algorithm_1(outputs, size, settings.longest, refuse=settings.refuse, **floors)


def length(vocabulary: Vocabulary, texts: Sequence[str]) -> int:
    return sum(map(len, vocabulary.labels(texts)))


def choose(task: Task, sizes: Sequence[int]) -> dict[str, Any]:
    """The settings of Algorithm 1 that leave fewest tokens in train rows not learnt from, summed over the sizes.

    n_max is chosen without a filter, the filter with the best n_max.
    """
    rows = task.rows("train")
    fit, texts = rows[::2], [row["output"] for row in rows[1::2]]
    tried = sorted({min(size, CHOSEN_AT) for size in sizes})

    def tokens(settings: Settings) -> int:
        made = selected(AddedOutputs, task, fit, max(tried), settings).expansions
        found = sum(length(Added(task.tokenizer, made[:k]), texts) for k in tried)
        err.print(f"{task.name}: {settings}: {found} tokens")
        return found

    by_length = {longest: tokens(Settings(longest)) for longest in LENGTHS}
    best = min(by_length, key=lambda n: by_length[n])
    by_filter = [tokens(Settings(best, refuse)) for refuse in FILTERS]
    return {
        "sizes": tried,
        "tokens_by_length": by_length,
        "tokens_by_filter": by_filter,
        "longest": best,
        "filter": min(range(len(FILTERS)), key=lambda k: by_filter[k]),
    }


def our_plan(task: Task, size: int, folder: Path, refuse: PrefixCollisions | None = None) -> list[Gram]:
    """Expansions of our plan, as `learn_vocabulary` learns it; with `refuse`, without those that the filter refuses."""
    store = TokenStore.build(task.data, task.tokenizer, folder / f"{task.name}.store", split="train", input_field=None)
    validity = TokenValidity(task.tokenizer)
    forbidden: set[Gram] = set()
    for _ in range(8):
        plan = learnt(task, store, folder, size, validity, forbidden)
        expansions = [tuple(plan.expansion(k).tolist()) for k in range(len(plan))]
        bad = {expansions[k] for k in validity.invalid_tokens(plan)}
        if refuse is not None:
            bad |= refused(task, expansions, refuse)
        if not bad:
            break
        forbidden |= bad
    return [expansion for expansion in expansions if expansion not in bad]


def learnt(
    task: Task, store: Store, folder: Path, size: int, validity: TokenValidity, forbidden: set[Gram]
) -> MergePlan:
    return MergePlan.learn(
        store,
        folder / "task.plan",
        size=size,
        min_count=task.floors.min_count,
        min_documents=task.floors.min_rows,
        barriers=validity.barriers,
        held_out=0.0,
        forbidden=[list(gram) for gram in sorted(forbidden)],
    )


def refused(task: Task, expansions: list[Gram], refuse: PrefixCollisions) -> set[Gram]:
    """Of our new tokens those that the filter refuses, in the base ids of the training outputs."""
    outputs = MergedOutputs(task.tokenizer, counted(task.rows("train")))
    return {expansion for expansion in expansions if refuse.refuses(outputs, expansion)}


def figures(vocabulary: Vocabulary, task: Task, test: Sequence[Row], train: Counter[str]) -> dict[str, Any]:
    """What a vocabulary does to held-out rows, and the tokens that it saves on the rows learnt from."""
    texts, prompts = [row["output"] for row in test], [row.get("input") or "" for row in test]
    base, labels = task.tokenizer.encode_batch(texts), vocabulary.labels(texts)
    said = [vocabulary.decode(ids) for ids in labels]
    before, now = task.tokenizer.encode_batch(prompts), vocabulary.encode(prompts)
    uses: Counter[int] = Counter()
    for ids, rows in zip(vocabulary.labels(list(train)), train.values(), strict=True):
        for i in ids:
            uses[i] += rows
    in_train = sum(
        len(ids) * rows for ids, rows in zip(task.tokenizer.encode_batch(list(train)), train.values(), strict=True)
    )
    return {
        "new": len(vocabulary.expansions),
        "live": sum(
            uses[task.tokenizer.vocab_size + k] >= task.floors.min_count for k in range(len(vocabulary.expansions))
        ),
        "saved_train": 1 - uses.total() / in_train,
        "saved": 1 - sum(map(len, labels)) / sum(map(len, base)),
        "prompts_changed": share(a != b for a, b in zip(before, now, strict=True)),
        "text_back": share(a == b for a, b in zip(said, texts, strict=True)),
        "ids_back": share(a == b for a, b in zip(vocabulary.labels(said), labels, strict=True)),
        "encoded_back": share(a == b for a, b in zip(vocabulary.encode(said), labels, strict=True)),
        "base_kept": share(vocabulary.expand(ids) == a for ids, a in zip(labels, base, strict=True)),
        "tokens": list(map(len, labels)),
        "base_tokens": list(map(len, base)),
    }


def share(found: Any) -> float:
    held = list(found)
    return sum(held) / len(held)


def measure(task: Task, sizes: Sequence[int], kept: KeptResults, *, filtered: bool = False) -> None:
    """Measure all methods but ours with the filter; with `filtered` that one, which learns again and again."""
    test, rows = task.rows("test"), task.rows("train")
    train, most = counted(rows), max(sizes)
    chosen = kept.get(f"{task.name}: choice", lambda: choose(task, sizes))
    longest, refuse = chosen["longest"], FILTERS[chosen["filter"]]

    def all_figures(made: Sequence[Vocabulary]) -> list[dict[str, Any]]:
        return [figures(vocabulary, task, test, train) for vocabulary in made]

    def sized(what: str, uses: Sequence[type[Vocabulary]], expansions: Any) -> None:
        """Keep the figures of a selection under each of its uses, at each size."""
        names = [f"{task.name}: {what}, {USES[use]}" for use in uses]
        if any(name not in kept.values for name in names):
            lists = expansions()
            for name, use in zip(names, uses, strict=True):
                made = [use(task.tokenizer, grams) for grams in lists]  # type: ignore[call-arg]
                kept.get(name, partial(all_figures, made))

    def greedy(kind: type[Outputs], settings: Settings) -> Any:
        def run() -> list[list[Gram]]:
            found = selected(kind, task, rows, most, settings).expansions
            return [found[:k] for k in sizes]

        return run

    def published() -> list[list[Gram]]:
        ids: Counter[Gram] = Counter()
        for text, n in train.items():
            ids[tuple(task.tokenizer.encode(text).tolist())] += n
        validity = TokenValidity(task.tokenizer)
        floors = asdict(task.floors)
        found = adaptivocab(ids, most, 4, admits=lambda gram: validity.reason(gram) is None, **floors)
        return [found[:k] for k in sizes]

    def ours(refuse: PrefixCollisions | None) -> Any:
        def run() -> list[list[Gram]]:
            with tempfile.TemporaryDirectory() as folder:
                return [our_plan(task, k, Path(folder), refuse) for k in sizes]

        return run

    if filtered:
        sized("ours with PCS", (OutputOnly,), ours(refuse))
        return
    sized("ours", (OutputOnly, Added), ours(None))
    sized("Algorithm 1 without PCS", (OutputOnly,), greedy(MergedOutputs, Settings(longest)))
    sized("Algorithm 1", (OutputOnly,), greedy(MergedOutputs, Settings(longest, refuse)))
    sized("AdaptiVocab", (Patched, OutputOnly), published)
    sized("Algorithm 1", (Added,), greedy(AddedOutputs, Settings(longest, refuse)))
    sized("Algorithm 1 without PCS", (Added,), greedy(AddedOutputs, Settings(longest)))


USES: dict[type[Vocabulary], str] = {Added: "added tokens", OutputOnly: "output-only ids", Patched: "patched"}
METHODS = (
    "ours, output-only ids",
    "ours, added tokens",
    "ours with PCS, output-only ids",
    "Algorithm 1, added tokens",
    "Algorithm 1 without PCS, added tokens",
    "Algorithm 1, output-only ids",
    "Algorithm 1 without PCS, output-only ids",
    "AdaptiVocab, patched",
    "AdaptiVocab, output-only ids",
)


COLUMNS = {
    "new": "new",
    "live": "live",
    "saved_train": "saved in train",
    "saved": "saved",
    "prompts_changed": "prompts changed",
    "text_back": "text back",
    "ids_back": "ids back",
    "encoded_back": "by encode",
    "base_kept": "base kept",
}
"""Headings of the figures."""


def show(name: str, sizes: Sequence[int], kept: KeptResults) -> None:
    if f"{name}: {METHODS[0]}" not in kept.values:
        raise InputError(f"no results of {name} to show: call without --show, with the same -o FILE")
    chosen = kept.values[f"{name}: choice"]
    err.print(f"{name}: Algorithm 1 with n_max = {chosen['longest']} and {FILTERS[chosen['filter']]}")
    for k, size in enumerate(sizes):
        found = {m: kept.values[f"{name}: {m}"][k] for m in METHODS if f"{name}: {m}" in kept.values}
        print_table(
            f"{name}, K = {size}",
            ("method", *COLUMNS.values(), "saved by ours − by it"),
            [(m, *map(one.get, COLUMNS), gain(found[METHODS[0]], one)) for m, one in found.items()],
        )


def gain(ours: dict[str, Any], other: dict[str, Any]) -> str:
    """Difference of the shares saved in points, with its paired 95 % interval over the test rows."""
    of_ours, of_it = (ratio(np.array(one["base_tokens"]) - one["tokens"], one["base_tokens"]) for one in (ours, other))
    interval = bootstrap_interval(of_ours, against=of_it)
    assert interval is not None
    return f"{100 * (ours['saved'] - other['saved']):+.2f} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"


def tune_both(
    task: Task,
    folder: Path,
    base: str,
    size: int,
    system: str | None,
    limit: int,
    max_tokens: int,
    options: TuneOptions,
    kept: KeptResults,
) -> None:
    """Tune both models, as far as they are not there yet, and keep what they answer."""
    from tasc import extend_checkpoint, learn_vocabulary, tune

    folder.mkdir(parents=True, exist_ok=True)
    ours, added, plan = folder / "ours", folder / "added", folder / "task.plan"
    if not added.exists():
        tune_added(task, folder, base, size, system, options, kept)
    if not ours.exists():
        if not plan.exists():
            learn_vocabulary(
                task.data, base, plan, size=size, split="train",
                min_count=task.floors.min_count, min_documents=task.floors.min_rows,
            )  # fmt: skip
        if not (extended := folder / "ours-extended").exists():
            extend_checkpoint(base, MergePlan.open(plan), extended)
        tune(extended, task.rows("train"), ours, options=options, system=system)
    for name in ("ours", "added"):
        answer = partial(answered, task, folder / name, system, limit, max_tokens)
        found = kept.get(f"{task.name}: tuned, {name}", answer)
        print_table(f"{task.name}, tuned: {name}", ("figure", "value"), list(found.items()))


def tune_added(
    task: Task, folder: Path, base: str, size: int, system: str | None, options: TuneOptions, kept: KeptResults
) -> None:
    """Tune the model with Algorithm 1's added tokens: the recipe, rows and batches are those of `tune`."""
    from transformers import AutoConfig, AutoTokenizer

    from tasc.training.examples import Example, make_examples, short_enough
    from tasc.training.finetune.run import Run
    from tasc.training.work_dir import WorkFolder

    chosen = kept.get(f"{task.name}: choice", lambda: choose(task, [size]))
    extended = folder / "added-extended"
    if not extended.exists():
        settings = Settings(chosen["longest"], FILTERS[chosen["filter"]])
        extend_with_added(base, selected(AddedOutputs, task, task.rows("train"), size, settings), extended)
    plain, tokenizer = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(extended)
    rows = task.rows("train")
    lengths = [len(e) for e in make_examples(rows, plain, task.tokenizer, system=system)]
    made = make_examples(rows, tokenizer, load_tokenizer(extended), system=system)
    # Lengths in base tokens: batches are those of the other model.
    examples = [Example(e.prompt, e.completion, n) for e, n in zip(made, lengths, strict=True)]
    examples, _ = short_enough(examples, options.max_tokens, AutoConfig.from_pretrained(base))
    new_ids = list(range(task.tokenizer.vocab_size, load_tokenizer(extended).vocab_size))
    work = WorkFolder(folder / "added.tuning")
    with progress_bars() as bar:
        run = Run(
            str(extended), folder / "added", work, options, examples, [], new_ids, tokenizer, bar("tuning (added)")
        )
        with work.claim(run.identity, True):
            run.publish({"new_tokens": len(new_ids), "rows": len(examples), **run.train()})


def extend_with_added(base: str, outputs: Outputs, folder: Path) -> None:
    """Write a checkpoint with added tokens, whose rows are the means of their constituents' rows."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasc.files import new_folder

    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    texts = [outputs.task.tokenizer.decode(list(e), skip_special_tokens=False) for e in outputs.expansions]
    tokenizer.add_tokens(texts)
    assert [tokenizer.convert_tokens_to_ids(text) for text in texts] == [outputs.first + k for k in range(len(texts))]
    model.resize_token_embeddings(outputs.first + len(texts), mean_resizing=False)
    ends: tuple[Any, Any] = model.get_input_embeddings(), model.get_output_embeddings()
    tables = {id(end.weight): end.weight for end in ends}.values()
    with torch.no_grad():
        for table in tables:
            for k, gram in enumerate(outputs.pieces):
                table[outputs.first + k] = table[list(gram)].float().mean(0).to(table.dtype)
    with new_folder(folder) as written:
        model.save_pretrained(written)
        tokenizer.save_pretrained(written)


def answered(task: Task, model: Path, system: str | None, limit: int, max_tokens: int) -> dict[str, Any]:
    """Figures of plain greedy decoding; our loop, which is lossless, makes it fast."""
    from tasc import Generator, TaskIndex
    from tasc.evaluation.decoder import Decoder
    from tasc.evaluation.task_eval import EvalOptions, Prediction, assess
    from tasc.models import load_checkpoint

    loaded, tokenizer = load_checkpoint(str(model), dtype="float32")
    own = load_tokenizer(tokenizer)
    rows = task.rows("test")[:limit]
    with tempfile.TemporaryDirectory() as folder:
        store = TokenStore.build(task.data, str(model), Path(folder) / "store", split="train")
        index = TaskIndex.build(store, Path(folder) / "index", tokenizer=load_tokenizer(str(model)))
        generator = Generator(loaded, tokenizer, index=index, batch_size=1)
        answers = generator.generate([row["input"] for row in rows], system=system, max_tokens=max_tokens)
    side = Decoder(loaded, tokenizer, own, system)
    said = [
        Prediction(row["input"], row["output"], *side.read(answer.ids))
        for row, answer in zip(rows, answers, strict=True)
    ]
    found = assess(said, own, options=EvalOptions()).to_dict()
    return {**found, "tokens_per_output": estimate(ratio([len(answer.ids) for answer in answers]))}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--tokenizer", help="folder or hub name; with --tune the model's")
    parser.add_argument("-k", type=int, nargs="*", default=[64, 128, 256, 500])
    parser.add_argument(
        "--settings", type=int, nargs=2, metavar=("N_MAX", "FILTER"), help="of Algorithm 1; FILTER from 0"
    )
    parser.add_argument("--show", action="store_true", help="print what FILE holds; measure nothing")
    parser.add_argument("--tune", type=Path, metavar="FOLDER", help="tune both models there, with --size new tokens")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--system")
    parser.add_argument("--steps", type=int, default=332)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--min-count", type=int, default=Floors.min_count, help="fewest uses of a new token")
    parser.add_argument("--min-rows", type=int, default=Floors.min_rows, help="fewest rows that hold a new token")
    parser.add_argument("--rows-rate", type=float, help="peak rate of the new tokens' rows; default: as tasc tune")
    parser.add_argument("--limit", type=int, default=150, help="test rows answered")
    parser.add_argument("--max-tokens", type=int, default=400, help="most tokens of an answer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny generated task")
    options = parser.parse_args(arguments)
    if not options.smoke and not (options.data and options.tokenizer):
        parser.error("give DATA … and --tokenizer, or --smoke")
    if not options.k or min(options.k) < 1:
        parser.error("-k takes one or more sizes, each at least 1")
    if options.show and not (options.output and options.output.exists()):
        parser.error("--show prints the results that -o FILE holds: name such a file")
    if options.show and options.tune:
        parser.error("--show prints the figures of vocabularies: leave --tune out")
    if options.tune and len(options.data) > 1:
        parser.error("--tune takes one DATA: its FOLDER holds the models of one")
    if options.settings and not (options.settings[0] >= 2 and 0 <= options.settings[1] < len(FILTERS)):
        parser.error(f"--settings takes an N_MAX of at least 2 and a FILTER of 0 to {len(FILTERS) - 1}")
    kept = KeptResults(options.output, write=not options.show)
    if options.smoke:
        smoke(kept)
        return
    tokenizer = load_tokenizer(options.tokenizer)
    floors = Floors(options.min_count, options.min_rows)
    named = {"tokenizer": options.tokenizer, "floors": asdict(floors)}
    tasks = [Task(data.name.split(".")[0], data, tokenizer, floors) for data in options.data]
    for task in tasks if options.settings else ():
        kept.require(f"{task.name}: choice", dict(zip(("longest", "filter"), options.settings, strict=True)))
    if options.tune is None:
        for task in tasks:
            kept.require(f"{task.name}: settings", {**named, "sizes": options.k})
        for task in [] if options.show else tasks:
            measure(task, options.k, kept)
        for task in tasks:
            if not options.show:
                measure(task, options.k, kept, filtered=True)
            show(task.name, options.k, kept)
        return
    for task in tasks:
        use_threads(options.threads)
        recipe = TuneOptions(
            max_steps=options.steps, batch_size=options.batch, max_tokens=520, rows_rate=options.rows_rate
        )
        base = str(smollm2_folder(options.tokenizer))
        asked = {
            "size": options.size,
            "system": options.system,
            "limit": options.limit,
            "max_tokens": options.max_tokens,
        }
        kept.require(f"{task.name}: tuned, settings", {**named, **asked, "recipe": asdict(recipe)})
        limits = options.limit, options.max_tokens
        tune_both(task, options.tune, base, options.size, options.system, *limits, recipe, kept)


def smollm2_folder(name: str) -> str | Path:
    from tasc.models import EMBEDDED, smollm2

    return smollm2() if name == EMBEDDED else name


def smoke(kept: KeptResults) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, base = tiny_checkpoint(folder)
        task = Task("generated", data, load_tokenizer(base, eos=EOS), Floors(3, 3))
        measure(task, [8, 24], kept)
        measure(task, [8, 24], kept, filtered=True)
        show("generated", [8, 24], kept)
        use_threads(1)
        tuning = TuneOptions(max_steps=2, batch_size=4, precision="fp32", rank=2)
        tune_both(task, folder / "tuned", base, 8, None, 2, 400, tuning, kept)


if __name__ == "__main__":
    main()
