"""Ways to make one tuned model fast, in one table: a part of `paper_quality.py` (`--ways`)."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasc import Generator, ModelDrafter, NullDrafter
from tasc.cli.console import err, out, print_table
from tasc.data import load_tokenizer
from tasc.errors import InputError
from tasc.evaluation.bootstrap import estimate
from tasc.models import load_checkpoint, use_threads

if TYPE_CHECKING:
    from paper_quality import Arm, Task


@dataclass(frozen=True)
class Way:
    """One way to make the plain model fast: a model of its own, or drafts for it, or int8 weights.

    Attributes:
        name: The way.
        model: Folder of the model in the work folder.
        index: Whether drafts come from the index, in base tokens.
        draft: Folder of the draft model in the work folder.
        pack: As for `Generator(pack_weights=)`.
    """

    name: str
    model: str
    index: bool = False
    draft: str | None = None
    pack: Any = None

    def is_there(self, task: Task) -> bool:
        """Whether its models have been made."""
        return all(task.tuned(name).exists() for name in (self.model, self.draft) if name is not None)

    def generator(self, task: Task, model: Any, tokenizer: Any) -> Generator:
        """Make the loop of this way."""
        drafting: dict[str, Any] = {"index": task.index()} if self.index else {"drafter": NullDrafter()}
        if self.draft is not None:
            draft = ModelDrafter(load_checkpoint(str(task.tuned(self.draft)), dtype="float32")[0])
            drafting = {**drafting, "draft": draft} if self.index else {"drafter": draft}
        return Generator(model, tokenizer, pack_weights=self.pack, **drafting)


def ways(plain: str, extended: str) -> list[Way]:
    """All ways; those whose models are not there are left out of the table. There may be no extended model (`plain`)."""
    with_new_tokens = [Way("new tokens", extended), Way("new tokens and tasc's drafts", extended, index=True)]
    return [
        Way("plain", plain),
        Way("int8 weights", plain, pack="int8"),
        Way("half the layers, distilled", "half"),
        Way("draft model", plain, draft="draft"),
        Way("tasc's drafts", plain, index=True),
        Way("tasc's drafts and draft model", plain, index=True, draft="draft"),
        *(with_new_tokens if extended != plain else []),
    ]


def compare_ways(task: Task, plain: Arm, extended: Arm, count: int, rounds: int, *, memory: bool) -> dict[str, Any]:
    """Quality, speed and memory of each way whose model is there; the table, and its figures by way."""
    from paper_quality import RESAMPLES, measures, shown

    known: dict[Way, dict[str, Any]] = {}
    for way in ways(plain.name, extended.name):
        try:
            answers = task.answers(way.model, way.pack) if way.is_there(task) else None
        except InputError as error:  # int8 weights need a CPU with int8 dot products
            err.print(f"{way.name}: {error}", highlight=False)
            continue
        if answers is not None:
            known[way] = measures(task, answers)
    speed = tokens_per_second(task, list(known), count, rounds)
    found: dict[str, Any] = {}
    for way, figures in known.items():
        base = known.get(Way("plain", plain.name))
        found[way.name] = {
            **{name: estimate(figures[name], resamples=RESAMPLES) for name in ("exact_match", "slot_f1")},
            **{f"{name}_difference": estimate(figures[name], against=base[name], resamples=RESAMPLES)
               for name in ("exact_match", "slot_f1") if base is not None},
            "base_tokens_per_second": speed[way],
            "megabytes": resident(way, task) if memory else None,
        }  # fmt: skip
    first = next(iter(speed.values()), 1.0)
    print_table(
        f"Ways to make the model fast, {len(task.test)} rows, batch 1",
        ("way", "exact match, %", "slot F1, %", "base tokens/s (CPU)", "of plain", "resident MB"),
        [
            (name, shown(f["exact_match"], "exact_match"), shown(f["slot_f1"], "slot_f1"),
             f["base_tokens_per_second"], f["base_tokens_per_second"] / first, f["megabytes"])
            for name, f in found.items()
        ],
    )  # fmt: skip
    missing = [way.name for way in ways(plain.name, extended.name) if way not in known]
    out.print(f"not run: {'; '.join(missing)}", highlight=False)
    return {"found": found, "not_run": missing, "rows_timed": min(count, len(task.test))}


def tokens_per_second(task: Task, chosen: list[Way], count: int, rounds: int) -> dict[Way, float]:
    """Base tokens per second of CPU time, prompts included, ways in turns row by row; the best of the rounds counts.

    Drafted texts must be those of plain decoding with the same model.
    """
    loaded = {name: load_checkpoint(str(task.tuned(name)), dtype="float32") for name in {way.model for way in chosen}}
    generators = {way: way.generator(task, *loaded[way.model]) for way in chosen}
    base, rows = load_tokenizer(task.base), task.test[:count]
    count = len(rows)
    seconds = {way: [float("inf")] * count for way in chosen}
    texts: dict[Way, list[str]] = {way: [""] * count for way in chosen}
    for turn in range(rounds + 1):  # the first warms up, with the last row
        for number in range(count) if turn else [count - 1]:
            for way in chosen[:: 1 if (turn + number) % 2 else -1]:
                began = time.process_time()
                answer = generators[way].generate(
                    [rows[number]["input"]], system=task.system, max_tokens=task.max_tokens
                )[0]
                if turn:
                    seconds[way][number] = min(seconds[way][number], time.process_time() - began)
                    texts[way][number] = answer.text
    for way in chosen:
        plain = next(other for other in chosen if other.model == way.model and other.pack == way.pack)
        same = sum(a == b for a, b in zip(texts[way], texts[plain], strict=True))
        assert same == count, f"{way.name}: only {same} of {count} texts are those of {plain.name}"
    tokens = {way: sum(len(ids) + 1 for ids in base.encode_batch(texts[way])) for way in chosen}
    return {way: tokens[way] / sum(seconds[way]) for way in chosen}


def resident(way: Way, task: Task) -> float | None:
    """Resident memory that models, copies of weights, cache and index add to a fresh process, in MB; None if unknown."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_resident, way, task).result()


def _resident(way: Way, task: Task) -> float | None:
    use_threads(1)
    before = _pages()
    generator = way.generator(task, *load_checkpoint(str(task.tuned(way.model)), dtype="float32"))
    generator.generate(["a short request"], max_tokens=8)
    after = _pages()
    return None if before is None or after is None else (after - before) * 4096 / 1e6


def _pages() -> int | None:
    """Resident pages of this process; None where there is no /proc."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) if file.exists() else None
