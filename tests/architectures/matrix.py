"""Checks the generator on one architecture: its output equals transformers' `generate`, or the model is refused."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from tiny import VOCAB, tiny_model
from tiny_models import Scripted, peer_greedy

from tasc import Generator, NullDrafter
from tasc.errors import InputError

MAX_TOKENS = 20
TIE = 1e-4
"""Logits this close, in standard deviations of the position's logits, are a tie: either id is right."""

EQUAL, REFUSED, DIFFERS, CRASHES, NOT_BUILT = "equal", "refused", "differs", "crashes", "not built"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the generator did with an architecture.

    Attributes:
        model_type: `model_type` of the configuration.
        name: Name of the configuration; "" where the type has one.
        state: "equal" (to `generate`, in all cases), "refused" (by one line at construction), "differs", "crashes" or
            "not built" (transformers cannot build the type or generate with it here).
        detail: The refusal, the error, or the cases that differ; "" where all are equal.
        mode: How the generator runs the model; None: not known.
        tau: Tokens per step with right drafts of 12 tokens, one prompt at a time; None where nothing was generated.
        reuses: Whether a prompt's shared head is taken from the cache.
    """

    model_type: str
    name: str
    state: str
    detail: str = ""
    mode: str | None = None
    tau: float | None = None
    reuses: bool | None = None


def check(model_type: str, name: str = "", batch_sizes: Sequence[int] = (1, 3)) -> Result:
    """Build an architecture tiny and compare the generator with `generate`."""
    result = partial(Result, model_type=model_type, name=name)
    try:
        model, texts = _wandering(model_type, name)
    except Exception as error:
        return result(state=NOT_BUILT, detail=_line(error))
    try:
        generators = [Generator(model, batch_size=size, costs=0.0) for size in batch_sizes]
    except InputError as error:
        return result(state=CRASHES if "\n" in str(error) else REFUSED, detail=str(error))
    except Exception as error:
        return result(state=CRASHES, detail=f"construction: {_line(error)}")
    cases = [_Cases(generator, texts) for generator in generators]
    crashed, wrong = [], []
    for size, of_size in zip(batch_sizes, cases, strict=True):
        of_size_wrong = []
        for case, is_right in of_size.all().items():
            try:
                if not is_right():
                    of_size_wrong.append(case)
            except Exception as error:
                crashed.append(f"{case}, batch {size}: {_line(error)}")
        if of_size_wrong:
            whole = len(of_size_wrong) == len(of_size.all())
            wrong.append(f"batch {size}: {'all cases' if whole else ', '.join(of_size_wrong)}")
    if crashed or wrong:
        return result(state=CRASHES if crashed else DIFFERS, detail="; ".join([*crashed[:1], *wrong]))
    return result(
        state=EQUAL,
        mode=getattr(generators[-1], "mode", None),
        tau=cases[0].tau,
        reuses=cases[0].reuses,
    )


def ids(count: int, seed: int) -> list[int]:
    """Random ids without the padding and the begin of a sequence."""
    rng = random.Random(seed)
    return [rng.randrange(2, VOCAB) for _ in range(count)]


PROMPTS = [ids(length, length) for length in (28, 3, 10, 27)]


class _Texts:
    """What a model outputs for each prompt, decoded alone by `generate`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._known: dict[tuple[int, ...], list[int]] = {}

    def of(self, prompt: list[int]) -> list[int]:
        if tuple(prompt) not in self._known:
            self._known[tuple(prompt)] = peer_greedy(self.model, prompt, MAX_TOKENS)
        return self._known[tuple(prompt)]

    @torch.no_grad()
    def equal(self, prompt: list[int], output: list[int], eos: int | None) -> bool:
        """Whether an output that `eos` ended is the model's, up to a tie of two ids."""
        wanted = _until(eos, self.of(prompt))
        at = next((n for n, (ours, theirs) in enumerate(zip(output, wanted, strict=False)) if ours != theirs), None)
        if at is None:
            return len(output) == len(wanted)
        logits = self.model(torch.tensor([prompt + wanted[:at]])).logits[0, -1].double()
        return bool((logits[wanted[at]] - logits[output[at]]).abs() < TIE * logits.std())


def _until(eos: int | None, output: list[int]) -> list[int]:
    """Return an output up to its end of sequence."""
    return output[: output.index(eos) + 1] if eos in output else output


def _wandering(model_type: str, name: str) -> tuple[Any, _Texts]:
    """Build a model whose first text has many different ids, with the texts that it outputs."""
    best: tuple[int, Any, _Texts] | None = None
    for seed in range(6):
        model = tiny_model(model_type, name, seed=seed)
        with torch.no_grad():
            model(torch.tensor([PROMPTS[0]]))
        texts = _Texts(model)
        different = len(set(texts.of(PROMPTS[0])))
        if best is None or different > best[0]:
            best = different, model, texts
        if different >= MAX_TOKENS // 2:
            break
    assert best is not None
    return best[1:]


class _Cases:
    """Runs a generator in all ways that must not change a text.

    Attributes:
        tau: Tokens per step with right drafts.
        reuses: Whether a prompt's shared head was taken from the cache.
    """

    def __init__(self, generator: Generator, texts: _Texts) -> None:
        self.generator, self.texts = generator, texts
        self.tau: float | None = None
        self.reuses = False

    def all(self) -> dict[str, Callable[[], bool]]:
        """Return cases by name; each returns whether every output is right."""
        return {
            "undrafted": lambda: self._run(PROMPTS, NullDrafter()),
            "right drafts": self._right,
            "mixed drafts": lambda: self._run(PROMPTS[::-1], self._drafts(PROMPTS, miss=0.3, length=12)),
            "long drafts": lambda: self._run(PROMPTS, self._drafts(PROMPTS, length=40)),
            "end of sequence": self._ends,
            "n-gram drafts": lambda: self._run([head * 3 for head in (ids(7, 1), ids(4, 2), ids(9, 3))], None),
            "prefix reuse": self._reuse,
            "sampling": self._sampling,
        }

    def _ends(self) -> bool:
        """An id of the first text ends outputs, so that rows move, and a later prompt continues that text."""
        first = self.texts.of(PROMPTS[0])
        eos = first[MAX_TOKENS // 3]
        longer = [PROMPTS[0] + first[: first.index(eos) + 1] + [7]]
        return (
            self._are_right(PROMPTS, self._made(PROMPTS, self._drafts(PROMPTS, length=40), eos), eos)
            and self._run(longer, NullDrafter())
            and self._are_right(PROMPTS, self._made(PROMPTS, NullDrafter(), eos), eos)
        )

    def _drafts(self, prompts: list[list[int]], **options: Any) -> Scripted:
        return Scripted({tuple(prompt): self.texts.of(prompt) for prompt in prompts}, **options)

    def _run(self, prompts: list[list[int]], drafter: Any) -> bool:
        return self._are_right(prompts, self._made(prompts, drafter))

    def _made(self, prompts: list[list[int]], drafter: Any, eos: int | None = None) -> Any:
        ends = () if eos is None else eos
        return self.generator.generate(prompts=prompts, max_tokens=MAX_TOKENS, eos=ends, drafter=drafter)

    def _are_right(self, prompts: list[list[int]], made: Any, eos: int | None = None) -> bool:
        return all(self.texts.equal(prompt, item.ids, eos) for prompt, item in zip(prompts, made, strict=True))

    def _right(self) -> bool:
        made = self._made(PROMPTS, self._drafts(PROMPTS, length=12))
        self.tau = round(made.stats.tau, 1)
        return self._are_right(PROMPTS, made)

    def _reuse(self) -> bool:
        """A short prompt after a long one of the same head, the head alone, and a prompt that an output continues."""
        head = ids(20, 20)
        short = head + ids(5, 5)
        for prompt in (head + ids(40, 40), short, head, [*short, *self.texts.of(short), 7]):
            for drafter in (self._drafts([prompt]), NullDrafter()):
                made = self._made([prompt], drafter)
                self.reuses |= made.stats.reused_tokens > 0
                if not self._are_right([prompt], made):
                    return False
        return True

    def _sampling(self) -> bool:
        """Drafted samples equal undrafted ones with the same seed."""
        options: dict[str, Any] = {"max_tokens": MAX_TOKENS, "eos": (), "temperature": 0.9, "top_k": 40, "seed": 3}
        plain = [item.ids for item in self.generator.generate(prompts=PROMPTS, drafter=NullDrafter(), **options)]
        known = {tuple(prompt): output for prompt, output in zip(PROMPTS, plain, strict=True)}
        drafter = Scripted(known, miss=0.3, length=12)
        made = self.generator.generate(prompts=PROMPTS, drafter=drafter, **options)
        return [item.ids for item in made] == plain


def _line(error: BaseException) -> str:
    """The error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
