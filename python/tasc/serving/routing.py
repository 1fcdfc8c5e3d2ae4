"""Which index and salt a request belongs to, by what the operator's side sets."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from tasc.data import TaskTokenizer, load_tokenizer
from tasc.data.ids import as_ids
from tasc.drafting.protocol import TokenIds
from tasc.errors import InputError
from tasc.serving.learner import OnlineLearner
from tasc.serving.settings import IndexSettings, Settings
from tasc.serving.tasks import TaskDrafts

_log = logging.getLogger(__name__)

_MORE_TOKENS = 16  # that the beginning of a prompt may have beyond the text's own: its last tokens may be others


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFields:
    """What came with a request beside its prompt.

    Attributes:
        key: Value of the field `tasc_index`.
        salt: Value of the field that holds the salt.
        lora: Name of the LoRA adapter.
    """

    key: str | None = None
    salt: str | None = None
    lora: str | None = None


class Beginnings:
    """Decodes the beginnings of prompts, special tokens included, without the token that begins every text.

    Args:
        tokenizer: The model's tokenizer.
        bos: Ids that begin a text and are not part of it.
    """

    def __init__(self, tokenizer: TaskTokenizer, bos: frozenset[int]) -> None:
        self._tokenizer, self._bos = tokenizer, bos
        self._most = 0

    def head(self, text: str) -> str:
        """Return a text as `of` gives it where a prompt begins with it.

        Raises:
            InputError: Nothing is left of it.
        """
        ids = self._tokenizer.encode(text).tolist()
        self._most = max(self._most, len(ids) + _MORE_TOKENS)
        found = self._decoded(ids)
        if not found:
            raise InputError(f"`prompt_starts_with` is {text!r}, with which every prompt begins; give more of it")
        return found

    def of(self, prompt: TokenIds) -> str:
        """Return the beginning of a prompt of (L,) ids, at least as long as the longest `head`."""
        return self._decoded(as_ids(prompt[: self._most]).tolist())

    def _decoded(self, ids: list[int]) -> str:
        first = next((at for at, token in enumerate(ids) if token not in self._bos), len(ids))
        text: str = self._tokenizer.tokenizer.decode(ids[first:], skip_special_tokens=False)
        return text


class Tasks:
    """The tasks of an engine's settings, one for each index and salt.

    Args:
        settings: Indexes and options.
        tokenizer: The model's tokenizer; see `TaskDrafts`.
        model: Name that the engine serves the model under; None: not known.

    Raises:
        InputError: An index is chosen by prompts, and there is no tokenizer to decode them; a text that one index's
            prompts begin with begins another's; or no index is for this model.
        TokenizerMismatchError: An index was made with another tokenizer.
        FormatError: An index is none, or damaged.
    """

    def __init__(self, settings: Settings, tokenizer: Any, model: str | None = None) -> None:
        self._task_tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        self._needs_fields = settings.needs_fields
        self._learner = OnlineLearner()
        listed = [one for one in settings.indexes if one.model is None or one.model == model]
        if not listed:
            names = ", ".join(repr(one.model) for one in settings.indexes)
            raise InputError(f"the model is served as {model!r}, and all indexes are for others: {names}")
        if self._task_tokenizer is None and any(one.prompt_contains or one.prompt_starts_with for one in listed):
            raise InputError(
                "`prompt_starts_with` and `prompt_contains` need the model's tokenizer, which is not known here"
            )
        made: dict[Any, TaskDrafts] = {}
        for one in listed:
            if one.path not in made:
                made[one.path] = TaskDrafts(
                    one.path, tokenizer, learn=settings.learn and settings.learn_unsalted, learn_salted=settings.learn,
                    max_salts=settings.max_salts, max_salt_logs=settings.max_salt_logs, learner=self._learner,
                    served_bytes=settings.served_bytes, log_bytes=settings.log_bytes, log_days=settings.log_days,
                    memory_bytes=settings.memory_bytes, verify=settings.verify,
                )  # fmt: skip
        listed.sort(key=lambda one: (one.prompt_starts_with is None, one.prompt_contains is None))  # the surest first
        self._beginnings: Beginnings | None = None
        if self._task_tokenizer is not None:
            self._beginnings = Beginnings(self._task_tokenizer, _bos_ids(tokenizer, self._task_tokenizer))
        self._routes = [(one, self._head(one), made[one.path]) for one in listed]
        _check_heads([(one, head) for one, head, _ in self._routes if head is not None])
        self._names_lora = any(one.lora for one in listed)
        self._none = TaskDrafts(None, tokenizer, name="none", max_salts=settings.max_salts)
        self._unknown = TaskDrafts(None, tokenizer, name="unknown", max_salts=settings.max_salts)

    def choose(self, prompt: TokenIds, fields: RequestFields | None = None) -> TaskDrafts:
        """Return the task of a request: of the first index whose conditions it meets, and of its salt.

        Where no index fits, drafts come from the request's own context: under the name "none", or "unknown" where the
        request's key or LoRA adapter is not in the settings, or where something fails here, which is logged.

        Args:
            prompt: (L,) ids.
            fields: What came with it; None: the engine does not show it.
        """
        try:
            return self._chosen(prompt, fields)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException:  # a panic of another extension is no Exception
            _log.warning("the index of a request cannot be used; it drafts from its own context", exc_info=True)
            return self._unknown

    def close(self) -> None:
        """Learn the outputs that wait, and stop learning."""
        self._learner.close()
        for _, _, drafts in self._routes:
            drafts.close()

    def _chosen(self, prompt: TokenIds, fields: RequestFields | None) -> TaskDrafts:
        if fields is None and self._needs_fields:
            return self._unknown
        fields = RequestFields() if fields is None else fields
        found = self._route(prompt, fields)
        return found if fields.salt is None else found.salted(fields.salt)

    def _route(self, prompt: TokenIds, fields: RequestFields) -> TaskDrafts:
        lora = fields.lora if self._names_lora else None
        begins = text = None
        for one, head, drafts in self._routes:
            if one.key != fields.key or one.lora != lora:
                continue
            if head is not None and self._beginnings is not None:
                begins = self._beginnings.of(prompt) if begins is None else begins
                if not begins.startswith(head):
                    continue
            if one.prompt_contains is not None and self._task_tokenizer is not None:
                text = self._task_tokenizer.decode(prompt) if text is None else text
                if one.prompt_contains not in text:
                    continue
            return drafts
        return self._none if fields.key is None and lora is None else self._unknown

    def _head(self, one: IndexSettings) -> str | None:
        if one.prompt_starts_with is None or self._beginnings is None:
            return None
        return self._beginnings.head(one.prompt_starts_with)


def _check_heads(heads: list[tuple[IndexSettings, str]]) -> None:
    """Refuse heads of which one begins another: who writes after the shorter one could complete the longer one."""
    for one, head in heads:
        for other, longer in heads:
            alike = (one.key, one.lora) == (other.key, other.lora)
            if alike and len(head) < len(longer) and longer.startswith(head):
                raise InputError(
                    f"`prompt_starts_with` {other.prompt_starts_with!r} begins with that of another index, "
                    f"{one.prompt_starts_with!r}, whose users could write the rest; let both end with what ends the "
                    "system message"
                )


def _bos_ids(tokenizer: Any, task: TaskTokenizer | None) -> frozenset[int]:
    """Return the ids that a tokenizer begins texts with."""
    added = [] if task is None else task.tokenizer.encode("").ids[:1]
    own = getattr(tokenizer, "bos_token_id", None)
    return frozenset([*added, *([] if own is None else [own])])
