"""A task's past rows as token ids on disk."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, tee
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc._core import Store, StoreWriter
from tasc.checks import whole_number
from tasc.data.chat import ChatTemplate, Rendered, encode_outputs, render_rows, system_text
from tasc.data.rows import AUTO, Paths, Row, read_rows
from tasc.data.tokenizer import TaskTokenizer, load_tokenizer
from tasc.errors import TokenizerMismatchError
from tasc.progress import Progress, reporting

logger = logging.getLogger(__name__)

BATCH_ROWS = 4096
"""Largest number of rows that are tokenised at a time."""

BATCH_CHARACTERS = 1 << 20
"""Characters at which a batch is full."""


class TokenStore(Store):
    """Distinct outputs with weights, and the inputs beside them, mapped from one file.

    Equal outputs are one *document*; its weight is the number of times it occurred. Equal (input, output) rows are one
    *input*. Opening takes constant time. Processes share the file through the page cache. An open store keeps reading
    the file that it opened, even when another file takes its name.

    Examples:
        >>> store = TokenStore.build("rows.jsonl", "path/to/model", "rows.store")  # doctest: +SKIP
        >>> len(store), store.num_tokens, store.document(0)  # doctest: +SKIP
    """

    @classmethod
    def open(cls, path: str | Path) -> TokenStore:
        """Open a store in constant time; contents are checked where they are read (see `verify`).

        Raises:
            FormatError: Not a store, cut short, damaged header, or another major version.
            OSError: The file cannot be read.
        """
        return cls(Path(path))

    @classmethod
    def build(
        cls,
        rows: Paths | Iterable[Row],
        tokenizer: Any,
        path: str | Path,
        *,
        split: str | None = None,
        output_field: str = AUTO,
        input_field: str | None = AUTO,
        every_turn: bool = False,
        system: str | None = None,
        eos: str | int | None = "auto",
        num_threads: int | None = None,
        progress: Progress | bool | None = None,
    ) -> TokenStore:
        """Tokenise rows into a new store; it appears under its name when it is whole.

        Rows are streamed: memory holds a few batches of text and about 200 bytes per distinct row. The same rows give
        the same bytes for any `num_threads`.

        Args:
            rows: Files or objects that `read_rows` reads, such as rows `{output, input?}`. The output of a row with
                `messages` is what the tokenizer's chat template writes after the prompt (see `tasc.data.chat`).
            tokenizer: Any argument of `load_tokenizer`.
            path: Path of the store; a store that exists there is replaced.
            split: Only rows of this `split`.
            output_field: The field with the outputs; `auto` finds it.
            input_field: The field with the inputs; `auto` finds it, None leaves inputs out.
            every_turn: Whether each assistant turn of a chat is a row; otherwise the last one.
            system: System message of the prompts; `messages` may begin with another one. The store and its indexes keep
                it; None: they keep the one that all `messages` begin with.
            eos: The token that ends every output (see `load_tokenizer`); None appends none.
            num_threads: Threads that tokenise; None: the `tokenizers` package decides (all cores).
            progress: Called with (bytes read, bytes in all), for files; True shows a progress bar.

        Raises:
            CorpusError: A bad row (with file and line), or no rows.
            InputError: An unusable tokenizer or option.
        """
        task = load_tokenizer(tokenizer, eos=eos)
        if eos == "auto" and task.eos_id is None:
            logger.warning(
                "the tokenizer %s names no token that ends an output, so none is appended and drafts cannot foresee "
                "the end; give eos= as a token's text or id",
                task.name,
            )
        with reporting(progress, "tokenising") as tell:
            source = _Source(task.chat_template, system)
            texts = source.texts(rows, split, output_field, input_field, every_turn, tell)
            writer = StoreWriter.create(
                Path(path),
                fingerprint=task.fingerprint,
                tokenizer=task.name,
                vocab_size=task.vocab_size,
                eos_id=task.eos_id,
            )
            _fill(writer, task, texts, num_threads, source.notes)
        return cls(Path(path))

    def append(
        self,
        rows: Paths | Iterable[Row],
        tokenizer: Any,
        *,
        split: str | None = None,
        output_field: str = AUTO,
        input_field: str | None = AUTO,
        every_turn: bool = False,
        num_threads: int | None = None,
        progress: Progress | bool | None = None,
    ) -> TokenStore:
        """Add rows and return the new store; this object keeps reading the old file.

        The result equals a store that is built from all rows. The append is atomic: the file is written anew and
        replaces the old one. A second append to the same path, also from another process, waits until the first is
        done.

        Args:
            rows: As in `build`.
            tokenizer: The tokenizer that made the store.
            split: As in `build`.
            output_field: As in `build`.
            input_field: As in `build`.
            every_turn: As in `build`.
            num_threads: As in `build`.
            progress: As in `build`.

        Raises:
            TokenizerMismatchError: Another tokenizer made the store.
            CorpusError: A bad row; the store is unchanged then.
            FormatError: The store is damaged.
        """
        task = load_tokenizer(tokenizer, eos=self.eos_id)
        if task.fingerprint != self.fingerprint:
            raise TokenizerMismatchError(
                f"{self.path} was made by the tokenizer {self.tokenizer} ({self.fingerprint[:12]}…), not by "
                f"{task.name} ({task.fingerprint[:12]}…); use the same tokenizer or build it again"
            )
        with reporting(progress, "tokenising") as tell:
            source = _Source(task.chat_template, self.notes.get("system"))
            texts = source.texts(rows, split, output_field, input_field, every_turn, tell)
            _fill(StoreWriter.append(self.path, task.fingerprint), task, texts, num_threads)
        return type(self)(self.path)

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint32], int]]:
        """(ids (T,) uint32, weight) of each document."""
        return ((self.document(k), self.weight(k)) for k in range(len(self)))

    def __reduce__(self) -> tuple[type[TokenStore], tuple[Path]]:
        """Other processes open the same path."""
        return type(self), (self.path,)

    def __repr__(self) -> str:
        """Path and sizes."""
        return (
            f"TokenStore({str(self.path)!r}: {len(self)} documents, {self.num_tokens} tokens, {self.num_inputs} inputs)"
        )


Text: TypeAlias = tuple[str | Rendered, str | None]
"""(output, input)"""

Encoded: TypeAlias = tuple[NDArray[np.uint32], NDArray[np.uint64], list[str | None]]
"""(T,) ids of all outputs, (R,) end of each output, (R,) inputs."""


class _Source:
    """Source of the texts of rows. It notes what their prompts have in common.

    Args:
        template: Chat template of the tokenizer; None leaves `messages` aside.
        system: System message of conversations that begin with none.
    """

    def __init__(self, template: ChatTemplate | None, system: str | None) -> None:
        self._template, self._system = template, system
        self._systems: set[str | None] = set()  # of conversations; no more than two are kept

    def texts(
        self,
        rows: Paths | Iterable[Row],
        split: str | None,
        output_field: str,
        input_field: str | None,
        every_turn: bool,
        progress: Progress,
    ) -> Iterator[Text]:
        """Yield the output and the input of each row."""
        fields: dict[str, Any] = {"output_field": output_field, "input_field": input_field or AUTO}
        read, copies = tee(read_rows(rows, split, **fields, every_turn=every_turn, progress=progress))
        for row, output in zip(copies, render_rows(self._template, read, self._system), strict=True):
            if isinstance(output, Rendered) and len(self._systems) < 2:
                self._systems.add(system_text(row) or self._system)
            yield output, row.get("input") if input_field else None

    def notes(self) -> dict[str, Any]:
        """Return what is known of the prompts of the rows so far: `system` and `chat_template`."""
        common = next(iter(self._systems)) if len(self._systems) == 1 else None
        found = {
            "system": common if self._system is None else self._system,
            "chat_template": None if self._template is None else self._template.source,
        }
        return {name: value for name, value in found.items() if value is not None}


def _batched(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    characters = 0
    for output, given in texts:
        batch.append((output, given))
        text = output if isinstance(output, str) else output.prompt + output.output
        characters += len(text) + len(given or "")
        if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _fill(
    writer: StoreWriter,
    task: TaskTokenizer,
    texts: Iterable[Text],
    num_threads: int | None,
    notes: Callable[[], dict[str, Any]] | None = None,
) -> None:
    """Read rows on this thread, tokenise them on others, write them in order, and at last the notes."""
    workers = 1 if num_threads is None else whole_number("num_threads", num_threads, 1)
    waiting: deque[Future[Encoded]] = deque()
    try:
        with _threads(num_threads), ThreadPoolExecutor(workers, "tasc-tokenise") as pool:
            for batch in _batched(texts):
                waiting.append(pool.submit(_encode, task, batch))
                if len(waiting) > workers:
                    writer.push(*waiting.popleft().result())
            while waiting:
                writer.push(*waiting.popleft().result())
        if notes is not None:
            writer.set_notes(notes())
        writer.finish()
    except BaseException:  # also Ctrl-C: no half-written file is left
        writer.discard()
        raise


def _encode(task: TaskTokenizer, batch: Sequence[Text]) -> Encoded:
    outputs = task.segment(encode_outputs(task, [output for output, _ in batch]))
    ends = np.cumsum([len(ids) for ids in outputs], dtype=np.uint64)
    ids = np.fromiter(chain.from_iterable(outputs), np.uint32, int(ends[-1]))
    return ids, ends, [given for _, given in batch]


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Keep the `tokenizers` package from starting threads where a number is given."""
    if number is None:
        yield
        return
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
