"""A task's vocabulary: learnt so that a tokenizer can hold it, and put into that tokenizer.

New tokens are *output-only*: entries of the tokenizer's `model.vocab` and nothing else. Prompts are encoded as before,
labels are `plan.segment(ids)`, and what the model emits decodes to the exact text (TASC-ft, arXiv 2602.24174).
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tasc._core import MergePlan, Store
from tasc.data import Row, TaskTokenizer, TokenStore, load_tokenizer
from tasc.errors import InputError, TokenizerMismatchError
from tasc.progress import Progress, of_fraction
from tasc.vocab.token_validity import TokenValidity

logger = logging.getLogger(__name__)

ROUNDS = 8
"""How often a plan is learnt anew because the tokenizer could not hold some of its tokens."""


def learn_vocabulary(
    rows: str | Path | Sequence[str | Path] | Iterable[Row] | Store,
    tokenizer: Any,
    path: str | Path,
    *,
    size: int = 500,
    min_count: int = 10,
    min_documents: int = 5,
    max_length: int = 64,
    held_out: float = 0.1,
    barriers: Iterable[int] = (),
    split: str | None = None,
    output_field: str = "output",
    eos: str | int | None = "auto",
    progress: Progress | None = None,
) -> MergePlan:
    """The n-grams of a task's outputs that save the most tokens, all of which the tokenizer can hold.

    Special and added tokens are barriers. Where a plan holds an n-gram that cannot be a token (`TokenValidity`), it is
    learnt again without that n-gram, so that others take its place.

    Args:
        rows: Past rows of the task (see `TokenStore.build`), or a store of them.
        tokenizer: Whatever `load_tokenizer` takes; the model's own, without new tokens.
        path: Where the plan goes.
        size: Most new tokens.
        min_count: Fewest uses of a new token.
        min_documents: Fewest rows that use it: an n-gram is text of the rows that ships inside tokenizer.json.
        max_length: Most ids that a new token stands for.
        held_out: Share of the rows left out to find how many new tokens save more on rows never seen.
        barriers: Further ids that no new token holds.
        split: Only rows of this `split`.
        output_field: The field with the outputs.
        eos: The token that ends an output (see `load_tokenizer`).
        progress: Called with (fraction done, 1) during each round of learning; an exception stops it.

    Raises:
        InputError: A tokenizer that cannot be extended, with the reason; unusable options.
        CorpusError: A bad row, or no rows.
        TokenizerMismatchError: A store that another tokenizer made.

    Examples:
        >>> plan = learn_vocabulary("rows.jsonl", "path/to/model", "task.plan", size=256)  # doctest: +SKIP
        >>> len(plan), plan.curve[-1]  # doctest: +SKIP
    """
    task = load_tokenizer(tokenizer, eos=eos)
    admission = TokenValidity(task)
    barred = sorted({*admission.barriers, *barriers})
    forbidden: list[list[int]] = []
    with tempfile.TemporaryDirectory(prefix="tasc-vocabulary-") as folder:
        store = _stored(rows, task, Path(folder) / "outputs.store", split, output_field)
        for _ in range(ROUNDS):
            plan = MergePlan.learn(
                store,
                Path(folder) / "task.plan",
                size=size,
                min_count=min_count,
                min_documents=min_documents,
                max_length=max_length,
                barriers=barred,
                held_out=held_out,
                forbidden=forbidden,
                progress=of_fraction(progress),
            )
            faults = admission.faults(plan)
            if not faults:
                break
            forbidden += [plan.expansion(k).tolist() for k in faults]
            logger.info("%d of %d n-grams cannot be tokens; learning again without them", len(faults), len(plan))
        return plan.keep([k for k in range(len(plan)) if k not in faults], path)


def _stored(rows: Any, task: TaskTokenizer, path: Path, split: str | None, output_field: str) -> Store:
    if isinstance(rows, Store):
        _check_fingerprint(task, f"the store {rows.path}", rows.tokenizer, rows.fingerprint)
        return rows
    return TokenStore.build(rows, task, path, split=split, output_field=output_field, input_field=None)


def extend_tokenizer(tokenizer: Any, plan: MergePlan) -> TaskTokenizer:
    """The tokenizer with the new tokens of a plan, which only outputs use.

    `encode` gives the same ids as before, every base token keeps its id, and `decode` of `plan.segment(ids)` is that
    of `ids`, in streams too. New tokens are entries of `model.vocab` that no merge makes. Added tokens go there too,
    under the ids they have: a tokenizer that is loaded numbers those it does not find there anew.

    Args:
        tokenizer: Whatever `load_tokenizer` takes.
        plan: Learnt with this very tokenizer.

    Returns:
        An extended copy, its `plan` the one given.

    Raises:
        TokenizerMismatchError: The plan was learnt with another tokenizer.
        InputError: A tokenizer that cannot be extended, or an n-gram that cannot be a token, with the reason.
    """
    task = load_tokenizer(tokenizer)
    check_plan(task, plan)
    admission = TokenValidity(task)
    faults = admission.faults(plan)
    for k, why in faults.items():
        said = task.tokenizer.decode(plan.expansion(k).tolist(), skip_special_tokens=False)
        raise InputError(
            f"{len(faults)} of {len(plan)} n-grams of {plan.path} cannot be tokens of {task.name}, for example "
            f"{said!r}: {why}; learn the plan with tasc.learn_vocabulary, which leaves such n-grams out"
        )
    state = json.loads(task.tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for number, token in task.tokenizer.get_added_tokens_decoder().items():
        vocabulary.setdefault(token.content, number)
    for k in range(len(plan)):
        vocabulary[admission.string(plan.expansion(k).tolist())] = plan.base_vocab_size + k
    extended = TaskTokenizer(Tokenizer.from_str(json.dumps(state)), task.name, task.eos_id, plan)
    _check_extended(extended.tokenizer, task.tokenizer, plan)
    return extended


def _check_extended(extended: Tokenizer, base: Tokenizer, plan: MergePlan) -> None:
    """Compares an extended tokenizer with the one it was: base tokens have their ids, new ones decode as their n-grams.

    Raises:
        InputError: They differ, naming the token.
    """
    after = extended.get_vocab(with_added_tokens=True)
    for string, number in base.get_vocab(with_added_tokens=True).items():
        if after.get(string) != number:
            raise InputError(
                f"token {string!r} had the id {number} and has {after.get(string)} in the extended tokenizer"
            )
    flags = {i: str(token) for i, token in base.get_added_tokens_decoder().items()}
    if flags != {i: str(token) for i, token in extended.get_added_tokens_decoder().items()}:
        raise InputError("the extended tokenizer has other added tokens than the one it was")
    for k in range(len(plan)):
        new, old = [plan.base_vocab_size + k], plan.expansion(k).tolist()
        for before, behind in (([], []), (old[-1:], old[:1])):
            said, meant = (extended.decode([*before, *ids, *behind]) for ids in (new, old))
            if said != meant:
                raise InputError(f"new token {new[0]} decodes to {said!r}, its n-gram to {meant!r}")


def check_plan(task: TaskTokenizer, plan: MergePlan) -> None:
    """Raises TokenizerMismatchError, naming both, when a plan was learnt with another tokenizer."""
    _check_fingerprint(task, f"the plan {plan.path}", plan.tokenizer, plan.fingerprint)


def _check_fingerprint(task: TaskTokenizer, what: str, name: str, fingerprint: str) -> None:
    if task.fingerprint != fingerprint:
        raise TokenizerMismatchError(
            f"{what} was made by the tokenizer {name} ({fingerprint[:12]}…), not by {task.name} "
            f"({task.fingerprint[:12]}…); use the same tokenizer or learn it again"
        )
