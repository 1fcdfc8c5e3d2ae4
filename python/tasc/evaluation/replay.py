"""Replay of known outputs through a drafter, without a model, to measure its drafts on a task.

A target that generates exactly the row's output accepts the draft up to its first wrong token and adds one token. The
row alone therefore determines the number of steps, and a few hundred rows are replayed in a second.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasc.data.chat import encode_outputs, encode_prompts, render_rows
from tasc.drafting.defaults import DEFAULT_SLOPE, MAX_DRAFT
from tasc.drafting.row_replay import replay_steps
from tasc.errors import InputError
from tasc.evaluation.bootstrap import estimate, ratio
from tasc.progress import Progress

if TYPE_CHECKING:
    from tasc.data import TaskTokenizer
    from tasc.drafting.protocol import Drafter, Request

STANDARD_COSTS = (0.0, 0.02, 0.05)
"""Costs of one drafted token, in plain steps, for which every replay reports its speed-up."""


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """Held-out row: `prompt` (L,) uint32, `output` (T,) uint32, which ends with the EOS, and the input's text."""

    prompt: NDArray[np.uint32]
    output: NDArray[np.uint32]
    input: str | None = None


@dataclass(slots=True)
class ReplayResult:
    """Counts of a replay.

    Attributes:
        name: Name of the drafter.
        cost: Cost of verifying one drafted token, in plain steps.
        rows: Number of rows replayed.
        tokens: Number of tokens emitted, with the EOS of each row.
        steps: Number of target steps; each emits the accepted tokens and one more.
        drafted: Number of tokens drafted.
        hits: Number of drafted tokens accepted.
        tested_at: By position, number of drafts whose earlier tokens were all accepted.
        hits_at: By position, number of drafts whose token was accepted.
        by_row: (tokens, steps, drafted) of each row.
    """

    name: str
    cost: float
    rows: int = 0
    tokens: int = 0
    steps: int = 0
    drafted: int = 0
    hits: int = 0
    tested_at: list[int] = field(default_factory=list)
    hits_at: list[int] = field(default_factory=list)
    by_row: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def tau(self) -> float:
        """Tokens per target step; 1 without any accepted draft."""
        return self.tokens / max(1, self.steps)

    @property
    def drafted_per_step(self) -> float:
        """Mean draft length, with empty drafts."""
        return self.drafted / max(1, self.steps)

    @property
    def accepted(self) -> float:
        """Share of the drafted tokens that were accepted."""
        return self.hits / max(1, self.drafted)

    @property
    def speedup(self) -> float:
        """`speedup_at` the cost that the replay was run with."""
        return self.speedup_at(self.cost)

    def speedup_at(self, cost: float) -> float:
        """s(c) = tokens / Σ(1 + c·drafted): the speed-up if verifying k drafted tokens costs 1 + c·k plain steps."""
        return self.tokens / max(1.0, self.steps + cost * self.drafted)

    def speedup_interval(self) -> dict[str, float | None]:
        """Return `value`, `low` and `high`: `speedup` and its bootstrap interval of 95 % over the rows."""
        tokens, steps, drafted = np.array(self.by_row, np.float64).reshape(-1, 3).T
        return estimate(ratio(tokens, steps + self.cost * drafted))

    def count(self, drafted: int, hits: int, emitted: int) -> None:
        """Add one step that drafted `drafted` tokens, accepted `hits` of them and emitted `emitted`."""
        self.steps += 1
        self.tokens += emitted
        self.drafted += drafted
        self.hits += hits
        for position in range(hits):
            self.hits_at[position] += 1
        for position in range(min(hits + 1, drafted)):
            self.tested_at[position] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return every count and ratio as JSON values."""
        ratios = {
            "tau": self.tau,
            "drafted_per_step": self.drafted_per_step,
            "accepted": self.accepted,
            "speedup": self.speedup,
            "speedup_at": {str(c): self.speedup_at(c) for c in STANDARD_COSTS},
        }
        counts = {name: value for name, value in asdict(self).items() if name != "by_row"}
        return {**ratios, "speedup_interval": self.speedup_interval(), **counts}


def encode_rows(rows: Iterable[dict[str, Any]], tokenizer: "TaskTokenizer", *, eos: int) -> list[ReplayRow]:
    """Tokenize held-out rows: the context is the input followed by a newline, and the output ends with `eos`.

    Args:
        rows: Rows with `output` and optionally `input`; a row without an input has an empty context. A row with
            `messages` has the prompt and the output that the tokenizer's chat template writes.
        tokenizer: Tokenizer of the target.
        eos: Id that ends an output.

    Raises:
        InputError: If there is no row at all.
    """
    kept = list(rows)
    if not kept:
        raise InputError("no rows to replay: give at least one held-out row")
    tokenizer = tokenizer if eos == tokenizer.eos_id else replace(tokenizer, eos_id=eos)
    rendered = list(render_rows(tokenizer.chat_template, kept))
    prompts = encode_prompts(tokenizer, rendered)
    inputs = tokenizer.encode_batch([f"{r['input']}\n" if r.get("input") else "" for r in kept])
    outputs = tokenizer.segment(encode_outputs(tokenizer, rendered))
    return [
        ReplayRow(np.asarray(i if p is None else p, np.uint32), np.asarray(o, np.uint32), r.get("input"))
        for p, i, o, r in zip(prompts, inputs, outputs, kept, strict=True)
    ]


def replay(
    drafter: "Drafter",
    rows: Sequence[ReplayRow],
    *,
    max_tokens: int = MAX_DRAFT,
    cost: float = DEFAULT_SLOPE,
    progress: Progress | None = None,
) -> ReplayResult:
    """Replay `rows` through `drafter` and count steps and accepted tokens.

    Args:
        drafter: Drafter to measure. It learns from the rows as from live requests.
        rows: Held-out rows.
        max_tokens: Maximum number of tokens per draft.
        cost: Cost of verifying one drafted token, in plain steps. The drafter receives `costs[k] = 1 + cost * k`.
        progress: Called with (rows done, rows).

    Raises:
        InputError: If `max_tokens` or `cost` is negative, or a draft is longer than `max_tokens`.

    Examples:
        >>> import numpy as np
        >>> from tasc.evaluation.baselines import PromptLookupDrafter
        >>> row = ReplayRow(np.array([1, 2, 3, 4], np.uint32), np.array([1, 2, 3, 9], np.uint32))
        >>> replay(PromptLookupDrafter(), [row]).steps
        2
    """
    if max_tokens < 0 or cost < 0:
        raise InputError(f"max_tokens ({max_tokens}) and cost ({cost}) must not be negative")
    costs = 1.0 + cost * np.arange(max_tokens + 1, dtype=np.float64)
    result = ReplayResult(drafter.name, cost, tested_at=[0] * max_tokens, hits_at=[0] * max_tokens)
    for done, row in enumerate(rows, start=1):
        before = (result.tokens, result.steps, result.drafted)
        _replay_row(drafter.start(row.prompt, row.input), row.output, max_tokens, costs, result)
        result.rows = done
        tokens, steps, drafted = (
            now - then for now, then in zip((result.tokens, result.steps, result.drafted), before, strict=True)
        )
        result.by_row.append((tokens, steps, drafted))
        if progress is not None:
            progress(done, len(rows))
    return result


def _replay_row(
    request: "Request", output: NDArray[np.uint32], max_tokens: int, costs: NDArray[np.float64], result: ReplayResult
) -> None:
    for drafted, hits, emitted in replay_steps(request, output, max_tokens, costs):
        if drafted > max_tokens:
            raise InputError(f"drafter {result.name!r} drafted {drafted} tokens; the limit was {max_tokens}")
        result.count(drafted, hits, emitted)
