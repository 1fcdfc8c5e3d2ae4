"""The compiled half of tasc."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

__version__: str

MIXTURE_SHAPE: tuple[int, tuple[int, ...]]
"""Features of a candidate, and number of states of each group that picks mixture weights."""

class Store:
    """Distinct outputs of a task with weights, and the inputs beside them; `tasc.data.TokenStore` builds it."""

    def __new__(cls, path: str | Path) -> Self:
        """Open a store in constant time.

        Raises:
            FormatError: Not a store, cut short, damaged header, or another major version.
            OSError: The file cannot be read.
        """

    @property
    def path(self) -> Path:
        """Where it was opened."""

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits: the tokenizer that made it."""

    @property
    def tokenizer(self) -> str:
        """That tokenizer's name, for people."""

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""

    @property
    def eos_id(self) -> int | None:
        """The token that ends every document, None when none was appended."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents, each counted once."""

    @property
    def num_inputs(self) -> int:
        """Number of distinct rows that have an input."""

    def __len__(self) -> int:
        """Number of documents: distinct outputs."""

    def document(self, index: int) -> NDArray[np.uint32]:
        """(T,) uint32 ids of a document, its end token included. Raises IndexError, FormatError."""

    def weight(self, index: int) -> int:
        """How often a document occurred. Raises IndexError."""

    def input(self, index: int) -> tuple[str, int, int]:
        """(text, document, how often) of a row with an input. Raises IndexError, FormatError."""

    def verify(self) -> None:
        """Read the whole file and compare checksums. Raises FormatError naming the damaged section."""

class StoreWriter:
    """Streams rows into a store file; `tasc.data.TokenStore.build` and `.append` use it."""

    @staticmethod
    def create(
        path: str | Path, *, fingerprint: str, tokenizer: str = "", vocab_size: int = 0, eos_id: int | None = None
    ) -> StoreWriter:
        """Begin a new store."""

    @staticmethod
    def append(path: str | Path, fingerprint: str) -> StoreWriter:
        """Begin a store that goes on where the one under this name ends. Raises TokenizerMismatchError."""

    def push(self, ids: NDArray[np.uint32], ends: NDArray[np.uint64], inputs: Sequence[str | None]) -> None:
        """Add rows: (T,) ids of all outputs one after the other, output k ending at `ends[k]`, and (R,) inputs.

        Raises:
            InputError: An id that the vocabulary does not hold.
        """

    def finish(self) -> None:
        """Write the rest and give the file its name. Raises CorpusError without rows."""

    def discard(self) -> None:
        """Give up: nothing is written."""

class NgramTable:
    """Exact weighted counts of n-grams, mapped from one file; `tasc.data.NgramTable` counts and merges them."""

    def __new__(cls, path: str | Path) -> Self:
        """Open a table in constant time.

        Raises:
            FormatError: Not a table, cut short, damaged header, or another major version.
            OSError: The file cannot be read.
        """

    @property
    def path(self) -> Path:
        """Where it was opened."""

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits: the tokenizer that made the ids."""

    @property
    def max_length(self) -> int:
        """Length of the longest n-grams, in tokens."""

    @property
    def sizes(self) -> list[int]:
        """Number of n-grams of each length, from 1 to `max_length`."""

    def info(self) -> dict[str, Any]:
        """What the file says of itself: path, format, writer, tokenizer, fingerprint, vocab_size, eos_id, documents,
        weight (documents by how often they occurred), tokens (each document's once), min_count and min_documents (of
        the n-grams that were kept), ngrams (number by length), bytes.
        """

    def lookup(self, ids: Sequence[int] | NDArray[Any]) -> tuple[int, int]:
        """(count, documents) of one n-gram of (n,) ids; zeros where the table does not have it. Raises FormatError."""

    def top(self, k: int, lengths: Sequence[int]) -> list[tuple[NDArray[np.uint32], int, int]]:
        """The k most frequent n-grams of some lengths: (ids (n,), count, documents); see `tasc.data.NgramTable.top`."""

    def batches(self, length: int, size: int) -> NgramBatches:
        """The n-grams of one length in batches; see `tasc.data.NgramTable.batches`."""

    def verify(self) -> None:
        """Read the whole file: checksums, order and number of the n-grams. Raises FormatError naming the section."""

class NgramBatches:
    """N-grams of one length, in ascending order of their ids, in batches."""

    def __iter__(self) -> Self:
        """Itself."""

    def __next__(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint64]]:
        """Ids (B, n), counts (B,), documents (B,). Raises FormatError."""

def count_ngrams(
    store: Store,
    path: str | Path,
    *,
    max_length: int,
    memory_limit: int,
    num_threads: int,
    min_count: int = 1,
    min_documents: int = 1,
    progress: Callable[[float], None] | None = None,
) -> int:
    """Count the n-grams of a store into a table; `tasc.data.NgramTable.count` says how. Returns the sorted runs."""

def merge_ngrams(
    tables: Sequence[NgramTable],
    path: str | Path,
    *,
    num_threads: int,
    min_count: int = 1,
    min_documents: int = 1,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Add up tables; `tasc.data.NgramTable.merge` says how."""

class Speller(Protocol):
    """What knows how words are spelled in ids; `tasc.data.TaskTokenizer` is one."""

    def spell(self, pieces: Sequence[str], /) -> list[list[int]]:
        """Ids of each piece as it stands inside a text (see `tasc.data.TaskTokenizer.spell`)."""

class TaskIndex:
    """What a task's rows teach a draft, mapped from one file: n-grams of the outputs for contexts of any length, and
    what the inputs add (which rows are near, which words are copied), with mixture weights fitted to the task.

    Shared by processes through the page cache; safe to use from many threads. Source: arXiv 2602.24174 (the task's
    n-gram draft); the structure is described in docs/draft.md.
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
        progress: Callable[[float], None] | None = None,
    ) -> TaskIndex:
        """Index a store's rows and open the result.

        Args:
            store: The task's past rows.
            path: Where the index goes; it appears there when it is whole.
            tokenizer: The tokenizer that made the store; says how words of the inputs are spelled in outputs. None:
                inputs serve for retrieval alone, nothing is copied from them.
            inputs: Whether anything of the rows' inputs is stored (docs/format.md says what).
            fit: Whether mixture weights are fitted on rows left out for it; too few rows, or rows without inputs,
                are never fitted.
            num_threads: Threads that fit; None: one per core, at most 16. The index is the same for any number.
            progress: Called with the fraction done; may raise to stop.

        Raises:
            InputError: `num_threads` below 1.
            OSError: The file cannot be written, or the threads cannot be started.
            TaskIndexError: More than 2**31 - 1 tokens and documents, or too little memory (about 28 B per token).
        """

    @staticmethod
    def open(path: str | Path) -> TaskIndex:
        """Open an index in constant time; contents are not read (see `verify`).

        Raises:
            FormatError: Not an index, cut short, damaged header, or another major version.
            OSError: The file cannot be read.
        """

    @property
    def path(self) -> Path:
        """Where it was opened."""

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits: the tokenizer that made it."""

    def info(self) -> dict[str, Any]:
        """What the file says of itself: path, format, writer, tokenizer, fingerprint, vocab_size, eos_id, documents,
        weight, tokens, inputs (rows whose inputs are in it), distinct_tokens, bytes, sections [(name, bytes)], fit.

        `fit` is None when weights were not fitted, else what was measured on rows that the figures' weights had not
        seen: rows (left out), tokens, nats [general, fitted] per token, tau, speedup (s(0.02), at most 16 drafted),
        without [(source, the same without it)] ("inputs": without all that need one), reliability [(mean
        probability, share right, tokens)] by tenths, calibration_error (their mean distance).
        """

    def verify(self) -> None:
        """Read the whole file and compare checksums. Raises FormatError naming the damaged section."""

    def compact(
        self,
        path: str | Path,
        *,
        served: str | Path | Sequence[str | Path] | None = None,
        tokenizer: Speller | None = None,
        fit: bool = True,
        num_threads: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[TaskIndex, int]:
        """Build a new index of what this one holds and the rows of write-ahead logs that it does not hold yet.

        The new index notes which rows of which logs it holds, besides those that this one holds. A drafter that opens
        such a log, or goes over to the new index (`NgramDrafter.with_index`), passes over these rows, so that no row
        counts twice.

        Over this index's own path the logs are locked, and the merged rows leave them once the new index has its name.
        After a crash between the two the rows are in both, and still count once. Elsewhere the logs are only read,
        beside the drafters that write to them.

        Args:
            path: Where the new index goes; it appears there when it is whole.
            served: The log, or several; None: the index is built again from itself.
            tokenizer: As in `build`.
            fit: As in `build`.
            num_threads: As in `build`.
            progress: As in `build`.

        Returns:
            The new index, and the number of rows merged.

        Raises:
            BlockingIOError: A drafter or process writes to a log, and `path` is this index's own.
            FormatError: The index or a log is damaged.
            TokenizerMismatchError: A log was made with another tokenizer.
        """

    def to_store(self, path: str | Path) -> Store:
        """Write the store that this index could have been built from: its outputs by weight, and its rows' inputs.

        Raises:
            FormatError: The index is damaged.
            OSError: The store cannot be written.
        """

    def successors(
        self, context: Sequence[int] | NDArray[Any], limit: int = 8, *, from_start: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64], int, int]:
        """What followed the longest suffix of a context that the task's outputs hold.

        Args:
            context: (T,) ids of an output's beginning, or of any piece of one with `from_start=False`.
            limit: Most successors to return, the most frequent first. Contexts that occur more than 32 times keep
                their 12 best.
            from_start: Whether the context begins where an output begins.

        Returns:
            tokens (K,) int64 (-1: the output ends), counts (K,) uint64 (exact, by weight), the length of the suffix
            in tokens (the start of the output counts as one), and its weighted number of occurrences.
        """

def merges(
    store: Store,
    number: int,
    *,
    min_count: int = 10,
    min_documents: int = 5,
    max_length: int = 64,
    barriers: Sequence[int] = (),
) -> list[tuple[NDArray[np.uint32], int]]:
    """The first merges of a store's outputs, before anything is pruned: (expansion (n,) uint32, tokens saved) of each.

    Options as in `MergePlan.learn`, which is what one wants; this shows what it begins with.
    """

class MergePlan:
    """A task vocabulary: new tokens `base_vocab_size + i`, each standing for two base ids or more, its *expansion*.

    Learnt by merging, again and again, the pair of neighbours that saves most tokens. *Segmentation* is defined by the
    set of expansions alone, so that any subset of a plan is a plan. Safe to use from many threads. Source: arXiv
    2602.24174 (TASC-ft).

    Example:
        >>> plan = MergePlan.learn(store, "task.plan", size=256)  # doctest: +SKIP
        >>> plan.expand(plan.segment(ids)) == ids  # doctest: +SKIP
    """

    @staticmethod
    def learn(
        store: Store,
        path: str | Path,
        *,
        size: int = 500,
        min_count: int = 10,
        min_documents: int = 5,
        max_length: int = 64,
        barriers: Sequence[int] = (),
        held_out: float = 0.1,
        forbidden: Sequence[Sequence[int]] = (),
        progress: Callable[[float], None] | None = None,
    ) -> MergePlan:
        """Learn a plan from a store's outputs, write it and open it.

        Args:
            store: The task's past rows.
            path: Where the plan goes; it appears there when it is whole.
            size: New tokens at most, all of them *live*: used by the segmentation of the store's outputs.
            min_count: Fewest uses of a new token, each as often as its document occurred.
            min_documents: In so many rows each must stand: an n-gram is text of the corpus and ships with the
                tokenizer. A document that occurred w times is w rows.
            max_length: Longest expansion in base ids.
            barriers: Ids that no expansion contains, besides the store's end token.
            held_out: Share of the rows left out to find how many new tokens save more on rows never seen (and for
                `curve`); the plan is then learnt from all rows. 0: as many as asked for.
            forbidden: Expansions that no new token may have.
            progress: Called with the fraction done; may raise to stop.

        Raises:
            InputError: No pair passes the thresholds, or an option out of range.
            FormatError: The store is damaged.
        """

    @staticmethod
    def open(path: str | Path) -> MergePlan:
        """Open a plan; all of it is checked but the checksums (see `verify`).

        Raises:
            FormatError: Not a plan, cut short, damaged, or another major version.
            OSError: The file cannot be read.
        """

    def verify(self) -> None:
        """Read the whole file and compare checksums. Raises FormatError naming the damaged section."""

    def keep(self, indices: Sequence[int], path: str | Path) -> MergePlan:
        """Write and open a plan of only these new tokens, in this order; `counts`, `documents` and `curve` stay those
        of the old one. Raises IndexError, InputError for an index that is there twice."""

    def __len__(self) -> int:
        """Number of new tokens."""

    @property
    def path(self) -> Path:
        """Where it was opened."""

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits: the base tokenizer."""

    @property
    def tokenizer(self) -> str:
        """That tokenizer's name, for people."""

    @property
    def base_vocab_size(self) -> int:
        """The first new id; base ids are below it."""

    def expansion(self, index: int) -> NDArray[np.uint32]:
        """(n,) uint32 base ids of a new token, n ≥ 2. Raises IndexError."""

    @property
    def counts(self) -> NDArray[np.uint64]:
        """(N,) uint64: uses of each new token in the store's outputs, each as often as its document occurred."""

    @property
    def documents(self) -> NDArray[np.uint64]:
        """(N,) uint64: rows that use each."""

    @property
    def curve(self) -> list[tuple[int, float, float]]:
        """(new tokens, share of tokens saved on the rows learnt from, the same on rows left out), ascending."""

    def info(self) -> dict[str, Any]:
        """Facts about the file: sizes, versions, `wanted` new tokens and what `stopped_by` fewer (`size`: nothing,
        `thresholds`, `held-out`), `tokens` of the outputs and `tokens_after` segmentation."""

    def segment(self, ids: Any) -> NDArray[np.uint32]:
        """(T,) base ids → (n,) uint32: the fewest tokens that expand to them, ties to the longest first token.
        Raises InputError for an id that is not a base id."""

    def segment_batch(self, ids: Sequence[Any], *, num_threads: int = 1) -> list[NDArray[np.uint32]]:
        """The same for many sequences; `num_threads` changes nothing but the time."""

    def expand(self, ids: Any) -> NDArray[np.uint32]:
        """(T,) base and new ids → (m,) uint32 base ids. Raises InputError for an id that is neither."""

    def expand_batch(self, ids: Sequence[Any]) -> list[NDArray[np.uint32]]:
        """The same for many sequences."""

    def stream(self) -> PlanStream:
        """A segmentation of ids as they come."""

class PlanStream:
    """Segments ids piece by piece, from `MergePlan.stream()`; what it gives out adds up to `segment` of everything.

    Example:
        >>> stream = plan.stream()  # doctest: +SKIP
        >>> tokens = [*stream.push(ids[:7]), *stream.push(ids[7:]), *stream.finish()]  # doctest: +SKIP
    """

    def push(self, ids: Any) -> NDArray[np.uint32]:
        """(T,) base ids → (n,) uint32: the tokens that are decided now, whatever comes next. Raises InputError."""

    def finish(self) -> NDArray[np.uint32]:
        """(n,) uint32: the rest; the stream is at the start of another document then."""

class Draft:
    """Tokens proposed for verification."""

    @property
    def tokens(self) -> NDArray[np.uint32]:
        """(K,) uint32, the chain."""

    @property
    def probs(self) -> NDArray[np.float32]:
        """(K,) float32, probability of each token given that those before it are right."""

    @property
    def sources(self) -> NDArray[np.uint8]:
        """(K,) uint8, which source spoke most for each token: an index into `tasc.drafting.protocol.SOURCES`."""

    def __len__(self) -> int:
        """Number of tokens."""

class NgramRequest:
    """One running request of an `NgramDrafter`; see `tasc.drafting.Request`."""

    def draft(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> Draft:
        """Propose what comes next; empty when drafting does not pay.

        Args:
            max_tokens: Most tokens to draft.
            costs: (≥ 1,) float64, `costs[k]` = cost of verifying k drafted tokens, in plain steps; goes on with its
                last slope. None: 1 + 0.02·k.

        Raises:
            InputError: Costs that are not positive and rising.
        """

    def explain(self, max_tokens: int, costs: NDArray[np.float64] | None = None) -> list[dict[str, Any]]:
        """Make the draft that `draft` would make, and say how it came about.

        Args:
            max_tokens: As in `draft`.
            costs: As in `draft`.

        Returns:
            Per drafted token: token, prob (calibrated), sources {name: its probability of the token, 0 where it does
            not name it}, candidates [(token, the mixture's probability)], best first.

        Raises:
            InputError: As `draft`.
        """

    def update(self, ids: Sequence[int] | NDArray[Any]) -> None:
        """Take the (T,) tokens that verification has emitted since the last draft, and learn from them."""

    def candidates(self) -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.uint8]]:
        """What the mixer sees here: tokens (K,), feature rows (K + 1, F) — the last one "something else" — and the
        states (G,) of the weights' groups.

        For fitting weights.
        """

class NgramDrafter:
    """Drafts from a task's index, a request's input and its running context, mixed log-linearly. Safe to use from many
    threads.

    What it learns from verified tokens (calibration, tokens per cost) is shared by its requests and lives as long as
    it does. A draft is a deterministic function of index, request, options and what was learnt.
    """

    def __new__(
        cls,
        index: TaskIndex | None = None,
        *,
        tokenizer: Speller | None = None,
        served: str | Path | None = None,
        served_bytes: int = 67_108_864,
        log_bytes: int = 268_435_456,
        weights: NDArray[np.float32] | None = None,
        without: Sequence[str] | None = None,
        learn: bool = True,
        num_threads: int | None = None,
    ) -> Self:
        """A drafter over an index, or over each request's own context alone.

        Args:
            index: The task's rows.
            tokenizer: The tokenizer that made the index, for words of inputs that it does not know. None: they are
                not copied.
            served: A log of served rows: its latest rows are taken in, as many as memory may hold, and `serve` writes
                to it. Made when it is not there; locked as long as this drafter, one made from it by `over`, or a
                request of theirs lives. None: served rows are kept in memory alone.
            served_bytes: Most bytes of served rows in memory, ≥ 65,536. Past them the older half of the rows is
                forgotten. For the moment in which tables have grown and the newer half is copied there are more, up to
                three times as many; a single row that does not fit takes what it takes.
            log_bytes: Most bytes of the log, ≥ 65,536. Past them its oldest rows are dropped until half of it is left:
                a new file takes its place whole. `serve` takes as long as writing that.
            weights: (F + states · F,) float32 mixture weights; None: those of the index, else the general ones.
            without: Sources to switch off: task, context, retrieved, coverage, copy.
            learn: Whether verified tokens recalibrate it.
            num_threads: Most threads of `propose_batch`, ≥ 1; None: one per core, at most 16.

        Raises:
            InputError: Weights of the wrong length, an unknown source, bytes or threads out of range, or
                a log without an index.
            BlockingIOError: The log is open for writing already, here or in another process.
            FormatError: The log is none, or damaged in its header.
            TokenizerMismatchError: The log was made with another tokenizer than the index.
        """

    @property
    def name(self) -> str:
        """ "tasc"."""

    @property
    def is_cheap(self) -> bool:
        """True: see `tasc.drafting.protocol.Drafter`."""

    @property
    def index(self) -> TaskIndex | None:
        """The index it drafts from."""

    @property
    def learnt(self) -> tuple[float, float, float]:
        """(calibration scale, calibration shift, tokens per unit of cost)."""

    def start(self, prompt_ids: Sequence[int] | NDArray[Any], input: str | None = None) -> NgramRequest:
        """Begin a request whose output follows (L,) `prompt_ids`. O(L + characters of the input), one look-up of rows.

        Args:
            prompt_ids: The whole prompt.
            input: The part of it that is the row's input, as text; None: not known.

        Raises:
            Exception: Whatever the tokenizer raises.
        """

    def serve(self, rows: Sequence[tuple[str | None, Sequence[int] | NDArray[Any]]]) -> None:
        """Add served rows: requests that begin afterwards count and retrieve them. The latest are kept in memory; where
        there is a log, they are on disk when this returns (one `fdatasync` per call).

        Args:
            rows: (input or None, (T,) output ids with the end token) each.

        Raises:
            InputError: A row of more than 16 MiB or `log_bytes`, or an id out of range; no row is added then.
            FormatError: The log is full, and damaged where rows are to be dropped; no row is added then.
            OSError: The log cannot be written; no row is added then.
        """

    @property
    def num_served(self) -> int:
        """Served rows in memory."""

    @property
    def served_memory(self) -> int:
        """Bytes that they take, room to grow included; at most `served_bytes`."""

    def with_index(self, index: TaskIndex) -> NgramDrafter:
        """Make a drafter over another index of the same tokenizer, while this one goes on.

        It has the same options, a copy of the served rows, and their log. Rows that were merged into `index`
        (`TaskIndex.compact`) leave the log and are not in the copy, so that no row counts twice. Requests that this
        drafter has begun go on over its index and its rows until they end; whichever drafter is served a row, the log
        and the newest drafter take it in. The calibration, the rate and the weights learnt so far go over, the weights
        in place of those fitted with the index; from here on each drafter learns by itself.

        O(served rows), whose memory is taken twice until this drafter and its requests are gone, and O(log) where
        rows of it were merged. Others draft meanwhile; who calls `serve` waits.

        Args:
            index: What to draft from.

        Raises:
            InputError: This drafter has no index.
            TokenizerMismatchError: Another tokenizer made `index`.
            FormatError: Rows of the log were merged, and the log was damaged since it was opened.
            OSError: Rows of the log were merged, and the log cannot be written. After any error this drafter is what
                it was.

        Example:
            >>> new, _ = drafter.index.compact("next.tasc", served="task.tasc.served")  # doctest: +SKIP
            >>> drafter = drafter.with_index(new)  # doctest: +SKIP
        """

    def propose_batch(
        self, requests: Sequence[NgramRequest], max_tokens: int, costs: NDArray[np.float64] | None = None
    ) -> list[Draft]:
        """Draft for many requests in one call with the interpreter released."""
