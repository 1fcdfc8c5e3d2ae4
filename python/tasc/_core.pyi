"""The compiled half of tasc."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, final, type_check_only

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

_Ids: TypeAlias = Sequence[int] | NDArray[Any]
"""Token ids: a sequence of integers, or a one-dimensional integer array. A uint32 array is not copied."""

_Progress: TypeAlias = Callable[[float], None]
"""Called with the fraction done, in [0, 1]. An exception that it raises stops the work and is propagated."""

__all__ = [
    "MIXTURE_SHAPE",
    "Calibration",
    "Draft",
    "MergePlan",
    "NgramBatches",
    "NgramDrafter",
    "NgramRequest",
    "NgramTable",
    "PlanStream",
    "ScratchFolder",
    "Store",
    "StoreWriter",
    "TaskIndex",
    "__version__",
    "activation_bytes",
    "count_ngrams",
    "merge_ngrams",
    "merges",
]

__version__: str

MIXTURE_SHAPE: tuple[int, tuple[int, ...]]
"""Number of features of a candidate, and number of buckets of each feature that selects mixture weights."""

def activation_bytes(rows: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round rows of activations to 16 bits, for a product with int8 weights. A row does not depend on the others.

    Args:
        rows: (M, K) contiguous float32.

    Returns:
        (max(2M, 4), K) uint8, the low bytes of all rows and then the high bytes, each with the zero point 128 (rows of
        zeros may follow); and (M, 1) float32, the peak of each row: its largest magnitude, or NaN where a value is not
        finite. An activation is 256 times its high byte plus its low byte, without their zero points, times the peak,
        over 32639.

    Raises:
        InputError: `rows` is not contiguous.

    Example:
        >>> import numpy as np
        >>> octets, peaks = activation_bytes(np.array([[2.0, 0.0]], np.float32))
        >>> octets[:2].tolist(), peaks.tolist()
        ([[255, 128], [255, 128]], [[2.0]])
    """

@final
class ScratchFolder:
    """A hidden folder beside `target` for a file or folder that is being written; `close` removes it.

    It is locked while its process lives. Creating one removes those that killed processes of the same user have left in
    the same place.
    """

    def __new__(cls, target: str | PathLike[str], *, exclusive: bool) -> Self:
        """Create a folder beside `target`.

        Args:
            target: The file or folder to write.
            exclusive: Refuse while another exclusive folder for `target` is open.

        Raises:
            InputError: There is one; the message names its process.
            OSError: The folder of `target` cannot be written.
        """

    @property
    def path(self) -> Path:
        """Where it is."""

    def close(self) -> None:
        """Remove the folder and what is in it."""

@disjoint_base
class Store:
    """Distinct outputs of a task with their weights, and the inputs, mapped from one file.

    `tasc.data.TokenStore` adds building and appending.

    Example:
        >>> store = Store("task.store")
        >>> len(store), store.num_inputs, store.vocab_size
        (6, 6, 291)
        >>> store.input(0)  # text, document, count
        ('1 tea', 0, 1)
    """

    def __new__(cls, path: str | Path) -> Self:
        """Open a store in constant time.

        Raises:
            FormatError: The file is not a store, is truncated, has a damaged header or another major version.
            OSError: The file cannot be read.
        """

    @property
    def path(self) -> Path:
        """Path that the store was opened from."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the tokenizer that made the ids: 64 hexadecimal digits."""

    @property
    def tokenizer(self) -> str:
        """Name of that tokenizer, for people."""

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary: all ids are smaller."""

    @property
    def eos_id(self) -> int | None:
        """Id of the end token of every document; None if no end token was appended."""

    @property
    def notes(self) -> dict[str, Any]:
        """What is known of the rows' prompts, as `StoreWriter.set_notes` was given it."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens in all documents; each document counts once."""

    @property
    def num_inputs(self) -> int:
        """Number of distinct rows that have an input."""

    def __len__(self) -> int:
        """Number of documents, that is, of distinct outputs."""

    def document(self, index: int) -> NDArray[np.uint32]:
        """Return the (T,) uint32 ids of a document with its end token.

        Raises:
            IndexError: There is no such document.
            FormatError: The file is damaged.
        """

    def weight(self, index: int) -> int:
        """Return how often a document occurred.

        Raises:
            IndexError: There is no such document.
        """

    def input(self, index: int) -> tuple[str, int, int]:
        """Return (text, document, count) of a distinct row that has an input.

        Raises:
            IndexError: There is no such row.
            FormatError: The file is damaged.
        """

    def verify(self) -> None:
        """Read the whole file, compare its checksums, and prove that documents and inputs do not overlap.

        Other threads go on meanwhile.

        Raises:
            FormatError: A section is damaged; the message names it.
        """

@final
class StoreWriter:
    """Writes rows to a store file; `tasc.data.TokenStore.build` and `.append` use it."""

    @staticmethod
    def create(
        path: str | Path, *, fingerprint: str, tokenizer: str = "", vocab_size: int = 0, eos_id: int | None = None
    ) -> StoreWriter:
        """Start a new store.

        Args:
            path: Path of the store; the file appears when it is complete.
            fingerprint: Fingerprint of the tokenizer, 64 hexadecimal digits.
            tokenizer: Name of the tokenizer, for people.
            vocab_size: Size of the vocabulary.
            eos_id: Id of the end token of every document.

        Raises:
            ValueError: The fingerprint is not 64 hexadecimal digits.
        """

    @staticmethod
    def append(path: str | Path, fingerprint: str) -> StoreWriter:
        """Start a store that continues the store at this path and then replaces it.

        Raises:
            TokenizerMismatchError: Another tokenizer made the store.
            FormatError: The store is damaged.
        """

    def push(self, ids: NDArray[np.uint32], ends: NDArray[np.uint64], inputs: Sequence[str | None]) -> None:
        """Add R rows.

        Args:
            ids: (T,) uint32 ids of all outputs, concatenated.
            ends: (R,) uint64; output k ends before `ids[ends[k]]`.
            inputs: (R,) texts of the inputs; None: the row has no input.

        Raises:
            InputError: An id is not in the vocabulary.
            ValueError: `ends` and `inputs` differ in length, or the writer is finished.
        """

    def set_notes(self, notes: dict[str, Any]) -> None:
        """Replace the notes that the store will hold: a dictionary that JSON can hold.

        An index of the store holds them too.

        Raises:
            ValueError: JSON cannot hold a value, or the writer is finished.
        """

    def finish(self) -> None:
        """Write the rest and give the file its name.

        Raises:
            CorpusError: There are no rows.
            ValueError: The writer is finished.
        """

    def discard(self) -> None:
        """Discard the rows: no file is written."""

@disjoint_base
class NgramTable:
    """Exact weighted counts of n-grams, mapped from one file; `tasc.data.NgramTable` adds counting and merging.

    Example:
        >>> table = NgramTable("task.ngrams")
        >>> table.sizes
        [19, 27]
        >>> table.lookup(store.document(0)[:2])  # count, documents
        (6, 6)
    """

    def __new__(cls, path: str | Path) -> Self:
        """Open a table in constant time.

        Raises:
            FormatError: The file is not a table, is truncated, has a damaged header or another major version.
            OSError: The file cannot be read.
        """

    @property
    def path(self) -> Path:
        """Path that the table was opened from."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the tokenizer that made the ids: 64 hexadecimal digits."""

    @property
    def max_length(self) -> int:
        """Length of the longest n-grams, in tokens."""

    @property
    def sizes(self) -> list[int]:
        """Number of n-grams by length, from 1 to `max_length`."""

    def info(self) -> dict[str, Any]:
        """Return facts about the file.

        Returns:
            path, format, writer, tokenizer, fingerprint, vocab_size, eos_id, documents, weight (number of rows), tokens
            (each document counts once), min_count and min_documents (thresholds of the n-grams), ngrams (number by
            length), bytes.
        """

    def lookup(self, ids: _Ids) -> tuple[int, int]:
        """Return (count, documents) of an n-gram of (n,) ids; zeros if the table does not contain it.

        Raises:
            FormatError: The file is damaged.
        """

    def top(self, k: int, lengths: Sequence[int]) -> list[tuple[NDArray[np.uint32], int, int]]:
        """Return the k most frequent n-grams of some lengths: (ids (n,) uint32, count, documents) each."""

    def batches(self, length: int, size: int) -> NgramBatches:
        """Return an iterator over the n-grams of one length, `size` at a time."""

    def verify(self) -> None:
        """Read the whole file and check its checksums and the order and number of the n-grams.

        Raises:
            FormatError: A section is damaged; the message names it.
        """

@final
class NgramBatches:
    """Iterator over the n-grams of one length in batches, in ascending order of their ids."""

    def __iter__(self) -> Self:
        """Return the iterator itself."""

    def __next__(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint64]]:
        """Return ids (B, n) uint32, counts (B,) uint64 and documents (B,) uint64.

        Raises:
            FormatError: The file is damaged.
        """

def count_ngrams(
    store: Store,
    path: str | Path,
    *,
    max_length: int,
    memory_limit: int,
    num_threads: int,
    min_count: int = 1,
    min_documents: int = 1,
    progress: _Progress | None = None,
) -> int:
    """Count the n-grams of a store and write a table; `tasc.data.NgramTable.count` describes the arguments.

    Returns:
        Number of sorted runs.
    """

def merge_ngrams(
    tables: Sequence[NgramTable],
    path: str | Path,
    *,
    num_threads: int,
    min_count: int = 1,
    min_documents: int = 1,
    progress: _Progress | None = None,
) -> None:
    """Add the counts of several tables; `tasc.data.NgramTable.merge` describes the arguments."""

@type_check_only
class Speller(Protocol):
    """Tokenizer of pieces of text inside a text; `tasc.data.TaskTokenizer` is one."""

    def spell(self, pieces: Sequence[str], /) -> list[list[int]]:
        """Return the ids of each piece as it is tokenised inside a text (see `tasc.data.TaskTokenizer.spell`)."""

@final
class TaskIndex:
    """Index of a task's past rows, mapped from one file or read into memory.

    It contains the n-grams of the outputs for contexts of any length, a retrieval index of the inputs, statistics of
    the words that outputs copy from inputs, and mixture weights fitted on the task. Processes share the file through
    the page cache. All methods are thread-safe. Source: arXiv 2602.24174 (the task's n-gram draft); docs/draft.md
    describes the structure.

    Example:
        >>> index = TaskIndex.build(store, "task.tasc", tokenizer=tokenizer)
        >>> index.info()["documents"], index.info()["inputs"]
        (6, 6)
        >>> tokens, counts, length, occurrences = index.successors(tokenizer.encode('{"item": "'))
        >>> [tokenizer.decode([token]) for token in tokens], counts.tolist()
        (['t', 'co'], [3, 3])
    """

    @staticmethod
    def build(
        store: Store,
        path: str | Path,
        *,
        tokenizer: Speller | None = None,
        inputs: bool = True,
        fit: bool = True,
        num_threads: int | None = None,
        progress: _Progress | None = None,
    ) -> TaskIndex:
        """Build an index of a store's rows and open it.

        Args:
            store: The task's past rows.
            path: Path of the index; the file appears when it is complete.
            tokenizer: The tokenizer that made the store; it tokenises the words of inputs as outputs contain them.
                None: inputs are used for retrieval only, and nothing is copied from them.
            inputs: Whether the index contains anything of the rows' inputs (docs/format.md lists it).
            fit: Whether mixture weights are fitted on held-out rows. A store with too few rows, or without inputs,
                gets the general weights.
            num_threads: Threads of the fit; None: one per core, at most 16. The index is the same for any number.
            progress: Called with the fraction done; an exception stops the build.

        Raises:
            InputError: `num_threads` is below 1.
            OSError: The file cannot be written.
            TaskIndexError: There are more than 2**31 − 1 tokens and documents, or too little memory (about 28 bytes
                per token).
            TokenizerMismatchError: Another tokenizer made the store.
        """

    @staticmethod
    def open(path: str | Path, *, memory_bytes: int = 0) -> TaskIndex:
        """Map an index in constant time, without reading its contents (see `verify`), or read it into memory.

        A mapped file must not be written over in place: the system ends a process that reads a part which is cut off.

        Args:
            path: The file.
            memory_bytes: Largest file that is read into memory; its checksums are compared.

        Raises:
            FormatError: The file is not an index, is truncated, has a damaged header or another major version; or it is
                read and does not match its checksums, as one that is being written.
            OSError: The file cannot be read.
        """

    @property
    def in_memory(self) -> bool:
        """Whether the bytes are in memory, where no change of the file reaches them."""

    @property
    def path(self) -> Path:
        """Path that the index was opened from."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the tokenizer that made the ids: 64 hexadecimal digits."""

    @property
    def input_template(self) -> dict[str, Any] | None:
        """What surrounds the input in whole prompts; None if the rows' inputs were no whole prompts.

        before: the text that prompts share at their start, or the label that stands before each input. after: the text
        that they share at their end. repeated: whether `before` is a label, which examples have too; the input follows
        the last one.
        """

    def find_input(self, prompt: str) -> str | None:
        """Return the input of a whole prompt; None if the prompt does not match the index's template of prompts.

        Drafters over the index do this themselves with every input text that they are given.

        Args:
            prompt: A prompt, such as the `input` of a row that the index was built from.
        """

    def info(self) -> dict[str, Any]:
        """Return facts about the index.

        Returns:
            path, format, writer, tokenizer, fingerprint, vocab_size, eos_id, documents, weight (number of rows),
            tokens, inputs (rows with an input), input_template, distinct_tokens, bytes, sections [(name, bytes)], fit,
            and notes (what is known of the rows' prompts, such as their `system` message).

            `fit` is None if no weights were fitted. Otherwise it holds figures on held-out rows: rows, tokens, nats
            [general weights, fitted weights] per token, tau, speedup (s(0.02) with at most 16 drafted tokens), without
            [(source, speedup without it)] ("inputs": without all sources that need an input), reliability [(mean
            probability, accuracy, tokens)] by tenths of the probability, and calibration_error (the mean difference
            between probability and accuracy).
        """

    def verify(self) -> None:
        """Read the whole file, compare its checksums, and prove that it is safe to use, whoever wrote it.

        Offsets, symbols and positions are in range, and every output is read to its end without a cycle. Counts are not
        compared: wrong ones make worse drafts. It takes about 0.2 s of CPU time per 10 million tokens. Other threads go
        on meanwhile.

        Raises:
            FormatError: A section is damaged; the message names it.
        """

    def compact(
        self,
        path: str | Path,
        *,
        served: str | Path | Sequence[str | Path] | None = None,
        tokenizer: Speller | None = None,
        fit: bool = True,
        num_threads: int | None = None,
        progress: _Progress | None = None,
    ) -> tuple[TaskIndex, int]:
        """Build a new index of the rows of this index and the rows of write-ahead logs that it does not hold yet.

        The new index notes which rows of which logs it holds, besides those that this one holds. A drafter that opens
        such a log, or changes to the new index (`NgramDrafter.with_index`), skips these rows, so no row counts twice.

        If `path` is this index's own path, the logs are locked, and the rows that were merged are removed from them
        afterwards. A crash between the two steps leaves the rows in both files, and they still count once. With any
        other path the logs are only read.

        Args:
            path: Path of the new index; the file appears when it is complete.
            served: Path of a log, or of several; None: the index is rebuilt from its own rows.
            tokenizer: As in `build`.
            fit: As in `build`.
            num_threads: As in `build`.
            progress: As in `build`.

        Returns:
            The new index, and the number of rows merged from the logs.

        Raises:
            BlockingIOError: A drafter or process writes to a log, and `path` is this index's own path.
            FormatError: The index or a log is damaged.
            TokenizerMismatchError: Another tokenizer made a log.
        """

    def remove(
        self,
        picks: Callable[[list[tuple[str | None, NDArray[np.uint32]]]], Sequence[bool]] | None = None,
        *,
        keys: Sequence[str] = ...,
        before: int | None = None,
        served: str | Path | Sequence[str | Path] | None = None,
        tokenizer: Speller | None = None,
        fit: bool = True,
        num_threads: int | None = None,
        progress: _Progress | None = None,
    ) -> tuple[int, int, int]:
        """Write this index and its logs anew without some rows; this object keeps the old file.

        What is written anew is the file that has this index's path now. A row is removed if `picks` says so, if it has
        one of the keys, or if it is older than `before`. Weights are fitted to the rows that are left. An index of
        which no row is removed stays as it is.

        Args:
            picks: Called with some rows, (input or None, (T,) output ids) each; returns for each whether it is removed,
                however often it occurred. None: no row is.
            keys: Keys that rows were served with.
            before: Seconds since 1970. Only rows that were served have a time; the others stay.
            served: Path of a log, or of several.
            tokenizer: As in `build`.
            fit: As in `build`.
            num_threads: As in `build`.
            progress: As in `build`.

        Returns:
            Numbers of rows, repeated ones counted: removed from the index, removed from the logs, left without a time.

        Raises:
            InputError: No row of the index would be left, or `picks` returns another number of answers.
            BlockingIOError: A drafter or process writes to a log.
            FormatError: The index or a log is damaged.
            TokenizerMismatchError: Another tokenizer made a log.
        """

    def read_log(self, path: str | Path) -> list[tuple[str | None, NDArray[np.uint32]]]:
        """Return the rows of a log in the order in which they were added: (input or None, (T,) uint32 output ids) each.

        The log is not locked, so one can read beside the process that writes.

        Raises:
            FormatError: It is no log, or its header is damaged.
            OSError: It cannot be read.
            TokenizerMismatchError: Another tokenizer made the log.
        """

    def delete_log(self, path: str | Path) -> None:
        """Delete a log that nobody writes to, if it exists.

        Raises:
            BlockingIOError: A drafter or process writes to it.
        """

    def to_store(self, path: str | Path) -> Store:
        """Write a store from which this index could be built: its outputs with weights, and its rows' inputs.

        Raises:
            FormatError: The index is damaged.
            OSError: The store cannot be written.
        """

    def successors(
        self, context: _Ids, limit: int = 8, *, from_start: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64], int, int]:
        """Return the tokens that follow the longest suffix of a context that occurs in the task's outputs.

        Args:
            context: (T,) ids of the start of an output, or of any part of one with `from_start=False`.
            limit: Most successors to return, the most frequent first. Contexts that occur more than 32 times keep their
                12 most frequent successors.
            from_start: Whether the context is the start of an output.

        Returns:
            tokens (K,) int64 (−1: the output ends), counts (K,) uint64 (exact, by weight), the length of the suffix in
            tokens (the start of the output counts as one), and its weighted number of occurrences.
        """

def merges(
    store: Store,
    number: int,
    *,
    min_count: int = 10,
    min_documents: int = 5,
    max_length: int = 64,
    barriers: Sequence[int] = ...,
) -> list[tuple[NDArray[np.uint32], int]]:
    """Return the first merges of a store's outputs before pruning: (expansion (n,) uint32, tokens saved) each.

    The options are those of `MergePlan.learn`, which is the function to use; this one shows its first phase.
    """

@final
class MergePlan:
    """Task vocabulary: new tokens with ids from `base_vocab_size` on, each for an *expansion* of two or more base ids.

    A plan is learnt by repeatedly merging the pair of neighbouring tokens that saves most tokens. Segmentation depends
    on the set of expansions alone, so that any subset of a plan is a plan. All methods are thread-safe. Source: arXiv
    2602.24174 (TASC-ft).

    Example:
        >>> plan = MergePlan.learn(store, "task.plan", size=4, min_count=2, min_documents=2, held_out=0)
        >>> [tokenizer.decode(plan.expansion(k)) for k in range(len(plan))]
        ['{"item": "coffee", "count": ', '{"item": "tea", "count": ', '1}', '2}']
        >>> ids = tokenizer.encode('{"item": "tea", "count": 2}')
        >>> new = plan.segment(ids)
        >>> len(ids), len(new), plan.expand(new).tolist() == ids.tolist()
        (19, 2, True)
    """

    @staticmethod
    def learn(
        store: Store,
        path: str | Path,
        *,
        size: int = 256,
        min_count: int = 10,
        min_documents: int = 5,
        max_length: int = 64,
        barriers: Sequence[int] = ...,
        held_out: float = 0.1,
        forbidden: Sequence[_Ids] = ...,
        progress: _Progress | None = None,
    ) -> MergePlan:
        """Learn a plan from a store's outputs, write it and open it.

        Args:
            store: The task's past rows.
            path: Path of the plan; the file appears when it is complete.
            size: Most new tokens. All of them are *live*: the segmentation of the store's outputs uses them.
            min_count: Fewest uses of a new token, weighted by the documents' weights.
            min_documents: Fewest rows that use a new token. An n-gram is text of the corpus and is published with the
                tokenizer, so that a text of fewer rows stays private. A document of weight w is w rows.
            max_length: Longest expansion, in base ids.
            barriers: Ids that no expansion contains, besides the store's end token; default: none.
            held_out: Share of the rows held out to find the number of new tokens that saves most on unseen rows, and to
                measure `curve`. The plan is then learnt from all rows. 0: learn `size` new tokens.
            forbidden: Expansions that no new token may have; default: none.
            progress: Called with the fraction done; an exception stops the work.

        Raises:
            InputError: No pair passes the thresholds, or an option is out of range.
            FormatError: The store is damaged.
        """

    @staticmethod
    def open(path: str | Path) -> MergePlan:
        """Open a plan and check all of it except the checksums (see `verify`).

        Raises:
            FormatError: The file is not a plan, is truncated, damaged or of another major version.
            OSError: The file cannot be read.
        """

    def verify(self) -> None:
        """Read the whole file and compare its checksums.

        Raises:
            FormatError: A section is damaged; the message names it.
        """

    def keep(self, indices: Sequence[int], path: str | Path) -> MergePlan:
        """Write and open a plan of only these new tokens, in this order.

        `counts`, `documents` and `curve` keep the values of this plan.

        Raises:
            IndexError: There is no such new token.
            InputError: An index occurs twice.
        """

    def __len__(self) -> int:
        """Number of new tokens."""

    @property
    def path(self) -> Path:
        """Path that the plan was opened from."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the base tokenizer: 64 hexadecimal digits."""

    @property
    def tokenizer(self) -> str:
        """Name of the base tokenizer, for people."""

    @property
    def base_vocab_size(self) -> int:
        """Id of the first new token; all base ids are smaller."""

    def expansion(self, index: int) -> NDArray[np.uint32]:
        """Return the (n,) uint32 base ids of a new token, n ≥ 2.

        Raises:
            IndexError: There is no such new token.
        """

    @property
    def counts(self) -> NDArray[np.uint64]:
        """(N,) uint64: uses of each new token in the store's outputs, weighted by the documents' weights."""

    @property
    def documents(self) -> NDArray[np.uint64]:
        """(N,) uint64: rows that use each new token."""

    @property
    def curve(self) -> list[tuple[int, float, float]]:
        """(new tokens, share of tokens saved on the training rows, on the held-out rows), by ascending size."""

    def info(self) -> dict[str, Any]:
        """Return facts about the plan.

        Returns:
            path, format, writer, tokenizer, fingerprint, base_vocab_size, size, wanted (new tokens asked for),
            stopped_by (what limited the size: `size`, `thresholds` or `held-out`), tokens (of the outputs),
            tokens_after (after segmentation), bytes.
        """

    def segment(self, ids: _Ids) -> NDArray[np.uint32]:
        """Return the (n,) uint32 shortest sequence of tokens that expands to (T,) base ids.

        Of several shortest sequences, the one with the longest first token is returned.

        Raises:
            InputError: An id is not a base id.
        """

    def segment_batch(self, ids: Sequence[_Ids], *, num_threads: int = 1) -> list[NDArray[np.uint32]]:
        """Segment several sequences on `num_threads` threads; see `segment`."""

    def expand(self, ids: _Ids) -> NDArray[np.uint32]:
        """Return the (m,) uint32 base ids of (T,) base and new ids.

        Raises:
            InputError: An id is neither a base id nor a new token.
        """

    def expand_batch(self, ids: Sequence[_Ids]) -> list[NDArray[np.uint32]]:
        """Expand several sequences; see `expand`."""

    def stream(self) -> PlanStream:
        """Return an incremental segmenter."""

@final
class PlanStream:
    """Incremental segmenter, from `MergePlan.stream()`: its outputs, concatenated, equal `segment` of all ids.

    Example:
        >>> plan = MergePlan.open("task.plan")
        >>> stream, ids = plan.stream(), store.document(0)
        >>> tokens = [*stream.push(ids[:7]), *stream.push(ids[7:]), *stream.finish()]
        >>> tokens == plan.segment(ids).tolist()
        True
    """

    def push(self, ids: _Ids) -> NDArray[np.uint32]:
        """Add (T,) base ids; return the (n,) uint32 tokens that no later id can change.

        Raises:
            InputError: An id is not a base id.
        """

    def finish(self) -> NDArray[np.uint32]:
        """Return the (n,) uint32 remaining tokens; the stream is then ready for another document."""

@final
class Calibration:
    """Online calibration of probabilities: p' = σ(a·logit p + b); every verified token moves a and b.

    Example:
        >>> calibration = Calibration()
        >>> for _ in range(100):
        ...     calibration.learn(0.9, right=False)
        >>> calibration(0.9) < 0.2
        True
    """

    def __new__(cls) -> Self:
        """Start with a = 1 and b = 0."""

    def __call__(self, p: float) -> float:
        """Return the calibrated probability."""

    def learn(self, p: float, right: bool) -> None:
        """Take a verified token of probability `p`."""

@final
class Draft:
    """A chain of drafted tokens with their probabilities and sources.

    Example:
        >>> draft = NgramDrafter(index).start(tokenizer.encode("4 tea\\n"), "4 tea").draft(4)
        >>> tokenizer.decode(draft.tokens), len(draft)
        ('{"ite', 4)
        >>> bool((draft.probs <= 1).all())
        True
    """

    @property
    def tokens(self) -> NDArray[np.uint32]:
        """(K,) uint32 drafted token ids."""

    @property
    def probs(self) -> NDArray[np.float32]:
        """(K,) float32 probability that each token is accepted, given that all tokens before it are."""

    @property
    def sources(self) -> NDArray[np.uint8]:
        """(K,) uint8 main source of each token, an index into `tasc.drafting.protocol.SOURCES`."""

    @property
    def dists(self) -> tuple[()]:
        """Empty: every token is a point mass."""

    def __len__(self) -> int:
        """Number of drafted tokens."""

@final
class NgramRequest:
    """One running request of an `NgramDrafter`; see `tasc.drafting.protocol.Request`.

    Example:
        >>> request = NgramDrafter(index).start(tokenizer.encode("4 tea\\n"), "4 tea")
        >>> request.update(tokenizer.encode('{"item": "'))
        >>> tokenizer.decode(request.draft(2).tokens)
        'te'
    """

    def configure(self, params: Any) -> None:
        """Ignore the request's parameters: an n-gram draft needs none of them."""

    def draft(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> Draft:
        """Draft the next tokens; the draft is empty if drafting costs more than it saves.

        Args:
            max_tokens: Most tokens to draft.
            costs: (≥ 1,) float64; `costs[k]` is the cost of a step that verifies k drafted tokens, in plain steps. The
                last slope continues beyond the array. None: 1 + 0.02·k.

        Raises:
            InputError: The costs are not positive and rising.
        """

    def explain(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> list[dict[str, Any]]:
        """Make the draft that `draft` would make, with the evidence for each token.

        Args:
            max_tokens: As in `draft`.
            costs: As in `draft`.

        Returns:
            One dictionary per drafted token: token, prob (calibrated), sources {name: the source's probability of the
            token, 0 if the source does not propose it}, candidates [(token, probability in the mixture)], best first.

        Raises:
            InputError: The costs are not positive and rising.
        """

    def update(self, ids: _Ids) -> None:
        """Append the (T,) tokens that verification has emitted since the last draft, and learn from them."""

    def candidates(self) -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.uint8]]:
        """Return the mixer's input at this position, for fitting weights.

        Returns:
            tokens (K,) uint32, features (K + 1, F) float32 (the last row stands for all other tokens), and buckets (G,)
            uint8, which select the weights of each group.
        """

@final
class NgramDrafter:
    """Drafts from a task's index, the request's input and its running context, combined in a log-linear mixture.

    What it learns from verified tokens (calibration, tokens per cost) is shared by its requests and lasts as long as
    the drafter. A draft is a deterministic function of the index, the request, the options and what was learnt. All
    methods are thread-safe.

    Example:
        >>> drafter = NgramDrafter(index, tokenizer=tokenizer)
        >>> request = drafter.start(tokenizer.encode("4 tea\\n"), "4 tea")
        >>> draft = request.draft(max_tokens=16)
        >>> tokenizer.decode(draft.tokens)
        '{"item": "tea", "count":'
        >>> request.update([*draft.tokens, *tokenizer.encode(" 4")])  # all accepted, and the target's tokens after them
        >>> drafter.serve([("4 tea", store.document(0))])  # a finished request: later requests draft from it
        >>> drafter.num_served
        1
    """

    def __new__(
        cls,
        index: TaskIndex | None = None,
        *,
        tokenizer: Speller | None = None,
        served: str | Path | None = None,
        served_bytes: int = ...,
        log_bytes: int = ...,
        log_days: int | None = None,
        weights: NDArray[np.float32] | None = None,
        without: Sequence[str] | None = None,
        learn: bool = True,
        num_threads: int | None = None,
    ) -> Self:
        """Create a drafter over an index, or over each request's own context alone.

        Args:
            index: Index of the task's rows.
            tokenizer: The tokenizer that made the index; it tokenises words of inputs that the index does not contain.
                None: such words are not copied.
            served: Path of a log of online rows. Its latest rows are loaded into memory, and `serve` appends to it. The
                log is created if it does not exist. It is locked as long as this drafter, a drafter made from it by
                `with_index`, or a request of either lives. None: online rows are kept in memory only.
            served_bytes: Most bytes of online rows in memory, ≥ 65,536; default: 64 MiB. Beyond them the older half of
                the rows is dropped. While tables grow and the newer half is copied, up to three times as much is in
                use. A single row that does not fit takes what it needs.
            log_bytes: Most bytes of the log, ≥ 65,536; default: 256 MiB. Beyond them the oldest rows are dropped until
                half of it is left: a new file replaces the log, and `serve` takes as long as writing it.
            log_days: Days after which rows are dropped from the log, ≥ 1: when it is opened, and when a row is added,
                at most an hour late. None: they stay.
            weights: (F + Σ buckets · F,) float32 mixture weights; None: those of the index, else the general ones.
            without: Sources to switch off: task, context, retrieved, coverage, copy.
            learn: Whether verified tokens change the calibration.
            num_threads: Most threads of `propose_batch`, ≥ 1; None: one per core, at most 16.

        Raises:
            InputError: The weights have the wrong length, a source is unknown, a number is out of range, or a log is
                given without an index.
            BlockingIOError: The log is open for writing, in this or another process.
            FormatError: The file is not a log, or its header is damaged.
            TokenizerMismatchError: The log or the tokenizer does not belong to the index.
        """

    name: str
    """Name in reports: "tasc"."""

    fixed_length: bool
    """False: drafts are as long as they pay."""

    negligible_cost: bool
    """True: drafting takes almost no time; see `tasc.drafting.protocol.Drafter`."""

    index: TaskIndex | None
    """Index that it drafts from."""

    @property
    def learnt(self) -> tuple[float, float, float]:
        """(calibration scale, calibration shift, tokens per unit of cost)."""

    def check_vocabulary(self, vocab_size: int, tokenizer: Any = None) -> None:
        """Accept any vocabulary: ids that the target lacks are cut from drafts."""

    def start(self, prompt_ids: _Ids, input_text: str | None = None) -> NgramRequest:
        """Start a request whose output follows the prompt.

        Complexity: O(L + characters of the input), and one retrieval of similar rows.

        Args:
            prompt_ids: (L,) ids of the whole prompt.
            input_text: The part of the prompt that is the row's input, as text; None: not known.

        Raises:
            Exception: Any exception of the tokenizer.
        """

    def serve(self, rows: Sequence[tuple[str | None, _Ids] | tuple[str | None, _Ids, str | None]]) -> None:
        """Add online rows: requests that start afterwards count and retrieve them.

        The latest rows are kept in memory. With a log, the rows are on disk when the call returns (one `fdatasync`).

        Args:
            rows: (input or None, (T,) output ids with the end token) of each row. A third item is the row's key, such
                as the name of a user, by which `TaskIndex.remove` finds the row; None: it has none.

        Raises:
            InputError: A row has more than 16 MiB or `log_bytes`; no row is added. A row holds an id that the index's
                vocabulary lacks; the other rows are added.
            FormatError: The log is full and is damaged in the rows to be dropped; no row is added.
            OSError: The log cannot be written; no row is added.
        """

    @property
    def num_served(self) -> int:
        """Number of online rows in memory."""

    @property
    def served_memory(self) -> int:
        """Bytes of the online rows in memory, with their spare capacity; at most `served_bytes`."""

    def with_index(self, index: TaskIndex) -> NgramDrafter:
        """Create a drafter over another index of the same tokenizer; this drafter stays usable.

        The new drafter has the same options, a copy of the online rows, and the same log. Rows that the index holds
        already (`TaskIndex.compact`) are removed from the log and are not in the copy, so no row counts twice.
        Requests of this drafter continue with its index and rows until they end. A row that is served to either
        drafter is added to the log and to the newest drafter. The new drafter takes over the calibration, the rate
        and the weights learnt so far, which replace the weights fitted with the new index. From then on each drafter
        learns by itself.

        Complexity: O(online rows), whose memory is used twice until this drafter and its requests are gone; O(log)
        where rows of it were merged. Other threads can draft meanwhile; calls of `serve` wait.

        Args:
            index: The new index.

        Raises:
            InputError: This drafter has no index.
            TokenizerMismatchError: Another tokenizer made `index`.
            FormatError: Rows of the log were merged, and the log was damaged since it was opened.
            OSError: Rows of the log were merged, and the log cannot be written. After any error this drafter is
                unchanged.

        Example:
            >>> new, _ = drafter.index.compact("next.tasc", served="task.tasc.served")  # doctest: +SKIP
            >>> drafter = drafter.with_index(new)  # doctest: +SKIP
        """

    def propose_batch(
        self, requests: Sequence[NgramRequest], max_tokens: int, costs: NDArray[np.float64] | None = None
    ) -> list[Draft]:
        """Draft for several requests in one call, on several threads; see `NgramRequest.draft`.

        Args:
            requests: (n,) requests of this drafter.
            max_tokens: Most tokens of each draft.
            costs: As in `NgramRequest.draft`.

        Returns:
            (n,) drafts; element i belongs to `requests[i]`.

        Raises:
            InputError: The costs are not positive and rising.
        """
