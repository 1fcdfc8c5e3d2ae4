"""What every adapter begins a request with: an index, its drafter, and the input that a prompt holds."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasc.errors import InputError, TokenizerMismatchError
from tasc.spec.drafter import Drafter, Request, TokenIds
from tasc.spec.locate import InputLocator, chat_markers

if TYPE_CHECKING:
    from tasc._core import TaskIndex
    from tasc.data import TaskTokenizer


class TaskDrafts:
    """Begins requests of one task. It learns from each, so keep one per index and process.

    Args:
        index: The task's `TaskIndex`, or its path; None: each request's own context alone.
        tokenizer: The model's tokenizer: a fast transformers tokenizer, or whatever `tasc.data.load_tokenizer` takes.
            None: it works, but prompts are not looked into for their input, and drafts are shorter for that.
        drafter: A `Drafter` instead of an index.

    Raises:
        InputError: Both an index and a drafter, or a slow tokenizer.
        TokenizerMismatchError: The index was made with another tokenizer.
        FormatError: The index's file is none, or damaged.
    """

    def __init__(
        self,
        index: TaskIndex | str | PathLike[str] | None = None,
        tokenizer: Any = None,
        *,
        drafter: Drafter | None = None,
    ) -> None:
        from tasc.data import load_tokenizer
        from tasc.spec import TaskIndex

        if index is not None and drafter is not None:
            raise InputError("give index or drafter=, not both")
        task = None if tokenizer is None else load_tokenizer(tokenizer)
        opened = TaskIndex.open(Path(index)) if isinstance(index, str | PathLike) else index
        self.drafter = _over(opened, task) if drafter is None else drafter
        found: TaskIndex | None = getattr(self.drafter, "index", None)
        reads = task is not None and found is not None and found.info()["inputs"] > 0
        self._locator = InputLocator(task, markers=chat_markers(tokenizer)) if task is not None and reads else None

    def start(self, prompt_ids: TokenIds, input: str | None = None) -> Request:
        """Begin a request.

        Args:
            prompt_ids: (L,) ids of the whole prompt.
            input: The part of it that is the row's input, as text; None: found in the prompt where that is possible
                (see `tasc.spec.locate.InputLocator`).
        """
        if input is None and self._locator is not None:
            [input] = self._locator.find([[int(token) for token in prompt_ids]])
        request: Request = self.drafter.start(prompt_ids, input)
        return request


def _over(index: TaskIndex | None, tokenizer: TaskTokenizer | None) -> Drafter:
    """A drafter over an index of the model's tokens, or of its tokenizer's before it had new ones (`tasc.ft`)."""
    from tasc.spec import NgramDrafter
    from tasc.spec.segmenting import BaseSpeller, SegmentingDrafter

    if tokenizer is None:
        return NgramDrafter(index)
    plan = tokenizer.plan
    if index is None or index.fingerprint == tokenizer.fingerprint:
        return NgramDrafter(index, tokenizer=None if index is None else tokenizer)
    if plan is not None and index.fingerprint == plan.fingerprint:
        return SegmentingDrafter(NgramDrafter(index, tokenizer=BaseSpeller(tokenizer, plan.fingerprint)), plan)
    raise TokenizerMismatchError(
        f"the index was made with tokenizer {index.fingerprint[:16]}…, the model's is {tokenizer.fingerprint[:16]}…; "
        "build the index again with the model's tokenizer"
    )
