"""The tokenizer of the target model, with its fingerprint and end token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasc._core import MergePlan
from tasc.data.chat import TEMPLATE_FILE, TOOL_TEMPLATE_FILE, ChatTemplate
from tasc.data.endings import END_TOKENS, FindFile, eos_hints, eos_ids_of, find_eos, read_settings
from tasc.data.ids import as_ids
from tasc.errors import InputError, TokenizerMismatchError
from tasc.models import EMBEDDED, HUB_NAME, check_name, smollm2

RUNTIME_SETTINGS = ("truncation", "padding", "post_processor")
"""Parts of a tokenizer's JSON that do not change the ids of a text; transformers rewrites them on load and save."""

AFTER_PUNCTUATION = ('is "', "is (", "is:\n", "is-")
"""Contexts in which `TaskTokenizer.spell` tokenises a piece that begins with a letter or digit, by preference."""

AFTER_WORD = ("is a", "is 1", "is I", "is _")
"""Contexts for any other piece, by preference."""

PLAN_FILE = "merge_plan.tasc"
"""File of a checkpoint's merge plan (its new tokens), beside tokenizer.json."""


@dataclass(frozen=True)
class TaskTokenizer:
    """A fast tokenizer with its end token and new tokens; `load_tokenizer` returns one."""

    tokenizer: Tokenizer = field(repr=False)
    """Truncation and padding are off."""
    name: str
    """Display name; tokenizers are compared by `fingerprint`."""
    eos_id: int | None
    """The token that ends an output, None when there is none."""
    plan: MergePlan | None = None
    """The new tokens of an extended tokenizer, which only outputs use."""
    chat_template: ChatTemplate | None = None
    """The template that makes prompts of conversations; None if there is none."""
    more_stop_ids: frozenset[int] = frozenset()
    """Ids at which the model stops besides `eos_id`, as its generation settings name them."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids at which the model stops, as far as they are known."""
        return self.more_stop_ids if self.eos_id is None else self.more_stop_ids | {self.eos_id}

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Ids with which a rendered answer may end: `stop_ids`, and those of `END_TOKENS` that the tokenizer holds."""
        known = map(self.tokenizer.token_to_id, END_TOKENS)
        return self.stop_ids | {token for token in known if token is not None}

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits: SHA-256 of the tokenizer's canonical JSON without `RUNTIME_SETTINGS`."""
        state = json.loads(self.tokenizer.to_str())
        kept = {key: value for key, value in state.items() if key not in RUNTIME_SETTINGS}
        canonical = json.dumps(kept, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(self, text: str) -> NDArray[np.uint32]:
        """(T,) uint32 ids of a text, without special tokens around it."""
        return np.asarray(self.tokenizer.encode(text, add_special_tokens=False).ids, np.uint32)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts as `encode` gives them, on the threads of the `tokenizers` package."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of outputs as the model should generate them: those of `encode_batch`, with the new tokens of `plan`."""
        return self.segment(self.encode_batch(texts))

    def segment(self, ids: list[list[int]]) -> list[list[int]]:
        """Put the new tokens of `plan` into (N,) outputs of base tokens."""
        return ids if self.plan is None else [np.asarray(row).tolist() for row in self.plan.segment_batch(ids)]

    def spell(self, pieces: Sequence[str]) -> list[list[int]]:
        """Ids of pieces of text as they stand *inside* a text; the compiled core calls this method.

        The ids of a piece depend on what stands before it: `boston` after a quotation mark and ` boston` after a word
        differ, and some tokenizers mark the beginning of a text. So each piece is tokenised after a context, whose ids
        are then cut off: `AFTER_PUNCTUATION` for a piece that begins with a letter or digit, `AFTER_WORD` otherwise.
        Where a token spans the border between context and piece, the next context is tried. A piece for which all
        contexts fail is tokenised alone.

        Examples:
            >>> tokenizer = load_tokenizer("path/to/model")  # doctest: +SKIP
            >>> [tokenizer.decode(ids) for ids in tokenizer.spell(["boston", " boston"])]  # doctest: +SKIP
            ['boston', ' boston']
        """
        found: list[list[int]] = [[] for _ in pieces]
        left = [k for k, piece in enumerate(pieces) if piece]
        for mark, word in zip(AFTER_PUNCTUATION, AFTER_WORD, strict=True):
            contexts = [mark if pieces[k][0].isalnum() else word for k in left]
            both = self.encode_batch([context + pieces[k] for context, k in zip(contexts, left, strict=True)])
            for k, context, ids in zip(left, contexts, both, strict=True):
                size = len(self._context_ids[context])
                if ids[:size] == self._context_ids[context]:
                    found[k] = ids[size:]
            left = [k for k in left if not found[k]]
        for k, ids in zip(left, self.encode_batch([pieces[k] for k in left]), strict=True):
            found[k] = ids
        return found

    @cached_property
    def _context_ids(self) -> dict[str, list[int]]:
        texts = [*AFTER_PUNCTUATION, *AFTER_WORD]
        return dict(zip(texts, self.encode_batch(texts), strict=True))

    def decode(self, ids: Any) -> str:
        """The text of (T,) ids, special tokens left out."""
        text: str = self.tokenizer.decode(as_ids(ids).tolist(), skip_special_tokens=True)
        return text


def load_tokenizer(source: Any, *, eos: str | int | None = "auto") -> TaskTokenizer:
    """Loads a tokenizer from a file, a folder, the model hub or another object.

    Args:
        source: A folder with `tokenizer.json`, that file itself, a name on the model hub, `smollm2`, a
            `tokenizers.Tokenizer`, a fast transformers tokenizer, or a `TaskTokenizer`. A tokenizer object is copied;
            its truncation and padding are not. Where a `merge_plan.tasc` lies beside it, the tokenizer is an extended
            one.
        eos: The token that ends an output: a token's text or id; None: there is none; "auto": the first that the
            vocabulary holds of `eos_token_id` in generation_config.json (of several, one that ends a chat turn),
            `eos_token` in tokenizer_config.json and special_tokens_map.json, `eos_token_id` in config.json, a
            transformers tokenizer's own, `END_TOKENS`. When there is none of these, outputs have no end token.

    Raises:
        InputError: There is no tokenizer, it is a slow one, or the vocabulary does not hold the end token.
        TokenizerMismatchError: The plan beside the tokenizer has other new tokens.
        FormatError: The plan beside the tokenizer is damaged.
    """
    if isinstance(source, TaskTokenizer):
        if eos == "auto":
            return source
        return replace(source, eos_id=find_eos(source.tokenizer, eos, ()))
    if isinstance(source, Tokenizer):
        return _task_tokenizer(_copied(source), "tokenizer", eos)
    if source == EMBEDDED:
        source = smollm2()
    if isinstance(source, str | Path):
        if not Path(source).exists():
            if not isinstance(source, str) or not HUB_NAME.fullmatch(source):
                raise InputError(f"there is no tokenizer at {source}; give a folder with tokenizer.json or that file")
            return _from_hub(source, eos)
        folder = Path(source) if Path(source).is_dir() else Path(source).parent
        file = folder / "tokenizer.json" if Path(source).is_dir() else Path(source)
        return _task_tokenizer(_from_file(file), folder.resolve().name, eos, _in_folder(folder))
    backend = getattr(source, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(f"{type(source).__name__} is no fast tokenizer; give a folder with tokenizer.json or its path")
    origin = str(getattr(source, "name_or_path", ""))
    find = model_files(origin)
    name = Path(origin).resolve().name if Path(origin).is_dir() else origin
    own = getattr(source, "eos_token_id", None)
    found = _task_tokenizer(_copied(backend), name or "tokenizer", eos, find, own)
    return replace(found, chat_template=ChatTemplate.of(source))


def _task_tokenizer(
    tokenizer: Tokenizer, name: str, eos: str | int | None, find: FindFile | None = None, own: int | None = None
) -> TaskTokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    hints = [*(eos_hints(tokenizer, find) if find and eos == "auto" else []), *([] if own is None else [own])]
    plan_file = find(PLAN_FILE) if find else None
    plan = None if plan_file is None else MergePlan.open(plan_file)
    if plan is not None:
        _check_plan(tokenizer, plan)
    template = ChatTemplate.find(find) if find else None
    stops = eos_ids_of([read_settings(find, "generation_config.json")]) if find else frozenset[int]()
    return TaskTokenizer(tokenizer, name, find_eos(tokenizer, eos, hints), plan, template, stops)


def _check_plan(tokenizer: Tokenizer, plan: MergePlan) -> None:
    """Checks that the text of each new token is the text of its n-gram."""
    for k in range(len(plan)):
        new = plan.base_vocab_size + k
        meant = "".join(tokenizer.id_to_token(i) or "\0" for i in plan.expansion(k).tolist())
        held = tokenizer.id_to_token(new)
        if held != meant:
            raise TokenizerMismatchError(
                f"{plan.path}, a plan for the tokenizer {plan.tokenizer} ({plan.fingerprint[:12]}…), is not that of "
                f"the tokenizer beside it: its token {new} is {meant!r} and {held!r} there; take the plan that the "
                "tokenizer was extended with, or remove it"
            )


def _copied(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer.from_str(tokenizer.to_str())


def _from_file(file: Path) -> Tokenizer:
    if not file.exists():
        raise InputError(f"{file.parent} holds no tokenizer.json; save a fast tokenizer there")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{file} is no tokenizer: {error}") from error


def _from_hub(name: str, eos: str | int | None) -> TaskTokenizer:
    check_name(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def find(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(name, file))
        except LocalEntryNotFoundError:  # the hub was not reached
            if file in (PLAN_FILE, TEMPLATE_FILE, TOOL_TEMPLATE_FILE):  # not every model has these
                return None
            raise
        except EntryNotFoundError:
            return None

    try:
        file = find("tokenizer.json")
        if file is None:
            raise InputError(f"the model {name!r} has no tokenizer.json on the hub: a fast tokenizer is needed")
        return _task_tokenizer(_from_file(file), name, eos, find)
    except InputError:
        raise
    except Exception as error:  # no network, no such model, a private one, a name that is none
        why = str(error).split("\n")[0]
        raise InputError(f"{name!r} is neither a path nor a model that the hub gives: {why}") from error


def model_files(model: str) -> FindFile:
    """Return the finder of a model's files, in its folder or in the hub's cache."""
    return _in_folder(Path(model)) if Path(model).is_dir() else _in_hub_cache(model)


def _in_hub_cache(name: str) -> FindFile:
    def find(file: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, file) if name else None
        return Path(found) if isinstance(found, str) else None

    return find


def _in_folder(folder: Path) -> FindFile:
    return lambda file: folder / file if (folder / file).exists() else None
