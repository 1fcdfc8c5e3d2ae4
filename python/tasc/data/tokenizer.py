"""The target's tokenizer, and who it is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasc._core import MergePlan
from tasc.data.endings import FindFile, eos_hints, find_eos
from tasc.data.ids import as_ids
from tasc.errors import InputError, TokenizerMismatchError

RUNTIME_SETTINGS = ("truncation", "padding", "post_processor")
"""Parts of a tokenizer's JSON that do not change which ids a text has; transformers rewrites them as it pleases."""

CARRIERS = {True: ('is "', "is (", "is:\n", "is-"), False: ("is a", "is 1", "is I", "is _")}
"""What may stand before a piece that `TaskTokenizer.spell` tokenises, by whether it begins with a letter or digit."""

HUB_NAME = re.compile(r"(?!\.)[\w.-]+(/[\w.-]+)?(?<!\.json)")
"""What may be a model's name; anything else is a path."""

PLAN_FILE = "merge_plan.tasc"
"""The plan of a checkpoint's new tokens, beside its tokenizer.json."""


@dataclass(frozen=True)
class TaskTokenizer:
    """A fast tokenizer with what tasc needs to know of it; `load_tokenizer` makes it."""

    tokenizer: Tokenizer = field(repr=False)
    """Truncates and pads nothing."""
    name: str
    """For people; the fingerprint is what counts."""
    eos_id: int | None
    """The token that ends an output, None when there is none."""
    plan: MergePlan | None = None
    """The new tokens of an extended tokenizer, which only outputs use."""

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
        """The same for many texts, on the threads of the `tokenizers` package."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of outputs as the model is to say them: those of `encode_batch`, with the new tokens of `plan`.

        The same as `encode_batch` for a tokenizer without new tokens.
        """
        ids = self.encode_batch(texts)
        return ids if self.plan is None else [np.asarray(row).tolist() for row in self.plan.segment_batch(ids)]

    def spell(self, pieces: Sequence[str]) -> list[list[int]]:
        """Ids of pieces of text as they stand *inside* a text: a piece that begins with a letter or digit follows a
        punctuation mark there, any other follows a word.

        `boston` after a quotation mark and ` boston` after a word are different ids, and a tokenizer that marks the
        beginning of a text would give a third kind. So each piece is tokenised behind a carrier, and the carrier's
        ids are cut off. A piece that grows together with its carrier is tried behind the next one; one that grows
        together with all of them is tokenised alone.

        Examples:
            >>> tokenizer = load_tokenizer("path/to/model")  # doctest: +SKIP
            >>> [tokenizer.decode(ids) for ids in tokenizer.spell(["boston", " boston"])]  # doctest: +SKIP
            ['boston', ' boston']
        """
        spelled: list[list[int]] = [[] for _ in pieces]
        left = [k for k, piece in enumerate(pieces) if piece]
        for carriers in zip(*CARRIERS.values(), strict=True):
            if not left:
                return spelled
            behind = dict(zip(CARRIERS, carriers, strict=True))
            used = [behind[pieces[k][0].isalnum()] for k in left]
            grown = []
            for k, carrier, ids in zip(
                left, used, self.encode_batch([c + pieces[k] for c, k in zip(used, left, strict=True)]), strict=True
            ):
                size = len(self._carriers[carrier])
                if len(ids) > size and ids[:size] == self._carriers[carrier]:
                    spelled[k] = ids[size:]
                else:
                    grown.append(k)
            left = grown
        for k, ids in zip(left, self.encode_batch([pieces[k] for k in left]), strict=True):
            spelled[k] = ids
        return spelled

    @cached_property
    def _carriers(self) -> dict[str, list[int]]:
        texts = [text for texts in CARRIERS.values() for text in texts]
        return dict(zip(texts, self.encode_batch(texts), strict=True))

    def decode(self, ids: Any) -> str:
        """The text of (T,) ids, special tokens left out."""
        text: str = self.tokenizer.decode(as_ids(ids).tolist(), skip_special_tokens=True)
        return text


def load_tokenizer(source: Any, *, eos: str | int | None = "auto") -> TaskTokenizer:
    """A tokenizer from wherever it is.

    Args:
        source: A folder with `tokenizer.json`, that file itself, a name on the model hub, a `tokenizers.Tokenizer`,
            a fast transformers tokenizer, or a `TaskTokenizer`. A tokenizer object is copied; its truncation and
            padding are not. Where a `merge_plan.tasc` lies beside it, the tokenizer is an extended one.
        eos: The token that ends an output: a token's text or id; None: there is none; "auto": the first that the
            vocabulary holds of `eos_token_id` in generation_config.json (of several, one that ends a chat turn),
            `eos_token` in tokenizer_config.json and special_tokens_map.json, `eos_token_id` in config.json, a
            transformers tokenizer's own, `END_TOKENS`. When there is none of these, outputs have no end token.

    Raises:
        InputError: Nothing there, a slow tokenizer, or an end token that the vocabulary does not hold.
        TokenizerMismatchError: The plan beside the tokenizer is not that of its new tokens.
        FormatError: The plan beside the tokenizer is damaged.
    """
    if isinstance(source, TaskTokenizer):
        if eos == "auto":
            return source
        return replace(source, eos_id=find_eos(source.tokenizer, eos, ()))
    if isinstance(source, Tokenizer):
        return _task_tokenizer(_copied(source), "tokenizer", eos)
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
    find = _in_folder(Path(origin)) if Path(origin).is_dir() else _in_hub_cache(origin)
    name = Path(origin).resolve().name if Path(origin).is_dir() else origin
    return _task_tokenizer(_copied(backend), name or "tokenizer", eos, find, getattr(source, "eos_token_id", None))


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
    return TaskTokenizer(tokenizer, name, find_eos(tokenizer, eos, hints), plan)


def _check_plan(tokenizer: Tokenizer, plan: MergePlan) -> None:
    """New ids must be written as their n-grams are."""
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
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def find(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(name, file))
        except LocalEntryNotFoundError:  # the hub was not reached
            if file == PLAN_FILE:  # most models have none: those fetched before go on working
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


def _in_hub_cache(name: str) -> FindFile:
    def find(file: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, file) if name else None
        return Path(found) if isinstance(found, str) else None

    return find


def _in_folder(folder: Path) -> FindFile:
    return lambda file: folder / file if (folder / file).exists() else None
