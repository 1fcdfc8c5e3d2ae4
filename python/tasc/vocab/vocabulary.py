"""Task vocabularies: learned from a task's outputs and added to a tokenizer.

New tokens are *output-only*: they are entries of the tokenizer's `model.vocab` and nothing else. Prompts are encoded as
before. Labels are `plan.segment(ids)`. The ids that the model emits decode to the exact text (TASC-ft,
arXiv 2602.24174).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tasc._core import MergePlan, Store
from tasc.checks import whole_number, wrong
from tasc.data import Row, TaskTokenizer, TokenStore, load_tokenizer
from tasc.data.rows import AUTO
from tasc.errors import InputError, TokenizerMismatchError
from tasc.files import scratch_folder
from tasc.progress import Progress, of_fraction
from tasc.vocab.token_validity import TokenValidity

logger = logging.getLogger(__name__)

ROUNDS = 8
"""Maximum number of times that a plan is learned because some n-grams cannot be tokens of the tokenizer."""


def learn_vocabulary(
    rows: str | Path | Sequence[str | Path] | Iterable[Row] | Store,
    tokenizer: Any,
    path: str | Path,
    *,
    size: int = 256,
    min_count: int = 10,
    min_documents: int = 5,
    max_length: int = 64,
    held_out: float = 0.1,
    barriers: Iterable[int] = (),
    split: str | None = None,
    output_field: str = AUTO,
    eos: str | int | None = "auto",
    progress: Progress | None = None,
) -> MergePlan:
    """Learns the n-grams of a task's outputs that save the most tokens and that can be tokens of the tokenizer.

    Special and added tokens are barriers. If a plan contains an n-gram that cannot be a token (`TokenValidity`), the
    plan is learned again without that n-gram, so that others take its place.

    Args:
        rows: Past rows of the task (see `TokenStore.build`), or a store of them.
        tokenizer: Tokenizer of the model, without new tokens, in any form that `load_tokenizer` accepts.
        path: File to write the plan to.
        size: Maximum number of new tokens.
        min_count: Minimum uses of a new token.
        min_documents: Minimum number of rows that use it. An n-gram is text of the rows and ships in tokenizer.json.
        max_length: Maximum number of base ids that a new token stands for.
        held_out: Share of the rows held out to find the number of new tokens that saves most on unseen rows.
        barriers: Further ids that no expansion may contain.
        split: Use only rows of this `split`.
        output_field: Field with the outputs; `auto` finds it.
        eos: The token that ends an output (see `load_tokenizer`).
        progress: Called with (fraction done, 1) during each round of learning; an exception stops it.

    Returns:
        The plan, opened from `path`.

    Raises:
        InputError: The tokenizer cannot be extended (the message names the reason), or an option is out of range.
        CorpusError: A row is malformed, or there are no rows.
        TokenizerMismatchError: `rows` is a store that another tokenizer made.

    Examples:
        >>> import tempfile
        >>> from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        >>> letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        >>> base = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
        >>> base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        >>> base.decoder = decoders.ByteLevel()
        >>> _ = base.add_special_tokens(["<end>"])
        >>> rows = [{"output": f"{count} cups of tea"} for count in range(9)] * 2
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = f"{folder.name}/task.plan"
        >>> plan = learn_vocabulary(rows, base, path, size=8, held_out=0.0, eos="<end>")
        >>> base.decode(plan.expansion(0).tolist())
        ' cups of tea'
        >>> folder.cleanup()
    """
    limits = {"size": size, "min_count": min_count, "min_documents": min_documents, "max_length": max_length}
    limits = {name: whole_number(name, value, 1) for name, value in limits.items()}
    task = load_tokenizer(tokenizer, eos=eos)
    validity = TokenValidity(task)
    forbidden: list[list[int]] = []
    with scratch_folder(path) as folder:
        store = _stored(rows, task, folder / "outputs.store", split, output_field)
        for _ in range(ROUNDS):
            plan = MergePlan.learn(
                store,
                folder / "task.plan",
                **limits,
                barriers=sorted({*validity.barriers, *barriers}),
                held_out=held_out,
                forbidden=forbidden,
                progress=of_fraction(progress),
            )
            invalid = validity.invalid_tokens(plan)
            if not invalid:
                break
            forbidden += [plan.expansion(k).tolist() for k in invalid]
            logger.info("%d of %d n-grams cannot be tokens; learning again without them", len(invalid), len(plan))
        return plan.keep([k for k in range(len(plan)) if k not in invalid], path)


def _stored(rows: Any, task: TaskTokenizer, path: Path, split: str | None, output_field: str) -> Store:
    if isinstance(rows, Store):
        check_tokenizer(task, "store", rows)
        return rows
    return TokenStore.build(rows, task, path, split=split, output_field=output_field, input_field=None)


def extend_tokenizer(tokenizer: Any, plan: MergePlan) -> TaskTokenizer:
    """Adds the new tokens of a plan to a copy of a tokenizer; only outputs use them.

    `encode` gives the same ids as before, and every base token keeps its id. `decode` gives the same text for
    `plan.segment(ids)` and `ids`, in streams too. New tokens are entries of `model.vocab` that no merge produces. Added
    tokens become entries there too, with their ids, because a loaded tokenizer renumbers added tokens that are missing
    there.

    Args:
        tokenizer: Tokenizer in any form that `load_tokenizer` accepts.
        plan: Plan learned with this tokenizer.

    Returns:
        An extended copy whose `plan` is the given one.

    Raises:
        TokenizerMismatchError: The plan was learned with another tokenizer.
        InputError: The tokenizer cannot be extended, or an n-gram cannot be a token. The message names the reason.

    Examples:
        >>> import tempfile
        >>> from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        >>> letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        >>> base = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
        >>> base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        >>> base.decoder = decoders.ByteLevel()
        >>> _ = base.add_special_tokens(["<end>"])
        >>> rows = [{"output": f"{count} cups of tea"} for count in range(9)] * 2
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = f"{folder.name}/task.plan"
        >>> plan = learn_vocabulary(rows, base, path, size=8, held_out=0.0, eos="<end>")
        >>> extended = extend_tokenizer(base, plan)
        >>> ids = extended.encode("7 cups of tea")
        >>> len(ids), len(plan.segment(ids)), extended.decode(plan.segment(ids))
        (13, 2, '7 cups of tea')
        >>> folder.cleanup()
    """
    task = load_tokenizer(tokenizer)
    if not isinstance(plan, MergePlan):
        raise wrong("plan", plan, "a MergePlan, as MergePlan.open opens it")
    check_tokenizer(task, "plan", plan)
    validity = TokenValidity(task)
    invalid = validity.invalid_tokens(plan)
    for k, reason in invalid.items():
        text = task.tokenizer.decode(plan.expansion(k).tolist(), skip_special_tokens=False)
        raise InputError(
            f"{len(invalid)} of {len(plan)} n-grams of {plan.path} cannot be tokens of {task.name}, for example "
            f"{text!r}: {reason}; learn the plan with tasc.learn_vocabulary, which excludes such n-grams"
        )
    state = json.loads(task.tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for number, token in task.tokenizer.get_added_tokens_decoder().items():
        vocabulary.setdefault(token.content, number)
    for k in range(len(plan)):
        vocabulary[validity.string(plan.expansion(k).tolist())] = plan.base_vocab_size + k
    extended = replace(task, tokenizer=Tokenizer.from_str(json.dumps(state)), plan=plan)
    _check_extended(extended.tokenizer, task.tokenizer, plan)
    return extended


def _check_extended(extended: Tokenizer, base: Tokenizer, plan: MergePlan) -> None:
    """Check that base tokens keep their ids and added tokens, and that new tokens decode like their expansions.

    Raises:
        InputError: A token differs. The message names it.
    """
    after = extended.get_vocab(with_added_tokens=True)
    for string, number in base.get_vocab(with_added_tokens=True).items():
        if after.get(string) != number:
            raise InputError(
                f"token {string!r} has id {number} in the base tokenizer and {after.get(string)} in the extended one"
            )
    flags = {i: str(token) for i, token in base.get_added_tokens_decoder().items()}
    if flags != {i: str(token) for i, token in extended.get_added_tokens_decoder().items()}:
        raise InputError("the added tokens of the extended tokenizer differ from those of the base tokenizer")
    for k in range(len(plan)):
        new, old = [plan.base_vocab_size + k], plan.expansion(k).tolist()
        for before, behind in (([], []), (old[-1:], old[:1])):
            text, expected = (extended.decode([*before, *ids, *behind]) for ids in (new, old))
            if text != expected:
                raise InputError(f"new token {new[0]} decodes to {text!r}, its n-gram to {expected!r}")


def check_tokenizer(task: TaskTokenizer, kind: str, file: MergePlan | Store) -> None:
    """Raise TokenizerMismatchError if a plan or a store was made with another tokenizer; the message names both."""
    if task.fingerprint != file.fingerprint:
        raise TokenizerMismatchError(
            f"the {kind} {file.path} was made by the tokenizer {file.tokenizer} ({file.fingerprint[:12]}…), not by "
            f"{task.name} ({task.fingerprint[:12]}…); use that tokenizer or make the file again"
        )
