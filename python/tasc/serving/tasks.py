"""Which index drafts for a request, where an engine serves several."""

from __future__ import annotations

from typing import Any

from tasc.data import load_tokenizer
from tasc.drafting.protocol import TokenIds
from tasc.errors import InputError
from tasc.serving.settings import Settings
from tasc.serving.task_drafts import TaskDrafts


class Tasks:
    """The indexes of some settings.

    Args:
        settings: What to draft from.
        tokenizer: The model's; see `TaskDrafts`.

    Raises:
        InputError: An index is chosen by what a prompt contains, and there is no tokenizer to read prompts with.
        TokenizerMismatchError: An index was made with another tokenizer.
        FormatError: An index is none, or damaged.
    """

    def __init__(self, settings: Settings, tokenizer: Any) -> None:
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        self._marked: list[tuple[str, TaskDrafts]] = []
        self._rest: TaskDrafts | None = None
        for one in settings.indexes:
            drafts = TaskDrafts(
                one.path, tokenizer, learn=settings.learn, served_bytes=settings.served_bytes,
                log_bytes=settings.log_bytes,
            )  # fmt: skip
            if one.prompt_contains:
                self._marked.append((one.prompt_contains, drafts))
            else:
                self._rest = drafts
        if self._marked and self._tokenizer is None:
            raise InputError("`prompt_contains` needs the model's tokenizer, which is not known here")
        if self._rest is None:
            self._rest = TaskDrafts(None, tokenizer)

    def choose(self, prompt: TokenIds) -> TaskDrafts:
        """The first task whose text stands in a prompt of (L,) ids, else the one without a text; where there is none,
        drafts from the request's own context.
        """
        if self._marked and self._tokenizer is not None:
            said = self._tokenizer.decode(prompt)
            for text, drafts in self._marked:
                if text in said:
                    return drafts
        assert self._rest is not None
        return self._rest

    def close(self) -> None:
        """Learn what is waiting, and stop learning."""
        for drafts in (self._rest, *(drafts for _, drafts in self._marked)):
            assert drafts is not None
            drafts.close()
