"""Notices that an index drafts worse for the requests that are served than for the rows that it was built from."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.defaults import DEFAULT_SLOPE
from tasc.drafting.protocol import Drafter
from tasc.drafting.retokenizing import RetokenizingDrafter, ngram_drafter
from tasc.drafting.row_replay import replay_steps
from tasc.errors import InputError

if TYPE_CHECKING:
    from tasc._core import TaskIndex
    from tasc.data import TaskTokenizer

WINDOW = 1000
"""Number of finished requests that count as the last ones."""

FALL = 0.75
"""Share of the tokens per step at build time below which an index is worth building again."""

RECOVERY = 0.85
"""Share from which the index counts as recovered, so that another fall is logged again."""

FIT_MAX_DRAFT = 16
"""Longest draft in the figures that the fit of an index keeps; their cost of a drafted token is `DEFAULT_SLOPE`."""

_KEPT = 200  # finished outputs that a suspected fall is checked on

_log = logging.getLogger(__name__)

_Row: TypeAlias = tuple[str | None, NDArray[np.uint32]]


def built_tau(index: TaskIndex | None) -> float | None:
    """Return the tokens per step of an index on held-out rows when it was built; None if it was not fitted."""
    fit = None if index is None else index.info()["fit"]
    return None if fit is None or not fit["tau"] else float(fit["tau"])


class DriftWatch:
    """Compares the tokens per step of an index's last requests with its figure from build time. Thread-safe.

    Tokens per step in service also fall when the engine drafts less, because it is busy or allows short drafts. So a
    fall is checked before it is logged: the last outputs are replayed on the index alone, under the conditions of the
    figure from build time. That happens on a thread of its own.

    Args:
        window: Number of finished requests that count as the last ones.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._lock = threading.Lock()
        self._window = window
        self._counts: deque[tuple[int, int]] = deque(maxlen=window)  # (tokens, steps) of a request
        self._rows: deque[_Row] = deque(maxlen=min(_KEPT, window))
        self._index: TaskIndex | None = None
        self._until_look = window
        self._fallen = False
        self.built: float | None = None
        """Tokens per step of the index when it was built; None: not known."""
        self.falls = 0
        """Number of falls that were logged."""

    @property
    def tau(self) -> float | None:
        """Tokens per step of the last requests; None before the first has finished."""
        with self._lock:
            return self._tau()

    def finished(self, row: _Row, steps: int, index: TaskIndex, tokenizer: TaskTokenizer | None, name: str) -> None:
        """Count a finished request.

        Args:
            row: Its input, if known, and the (T,) ids of its output with the end token.
            steps: Number of steps that it took.
            index: Index that it was drafted from.
            tokenizer: Tokenizer of the model.
            name: Name of the index in the log.
        """
        try:
            row = (row[0], index_ids(index, tokenizer, row[1]))
        except InputError:  # an id of a padded matrix
            return
        with self._lock:
            if index is not self._index:
                self._begin(index)
            self._counts.append((len(row[1]), steps))
            self._rows.append(row)
            self._until_look -= 1
            if self._until_look > 0 or self.built is None:
                return
            self._until_look = max(1, self._window // 10)
            tau = self._tau() or 0.0
            self._fallen = self._fallen and tau < RECOVERY * self.built
            if self._fallen or tau >= FALL * self.built:
                return
            self._until_look = self._window
            rows = list(self._rows)
        work = partial(self._confirm, rows, tau, index, tokenizer, name)
        try:
            threading.Thread(target=work, name="tasc-drift", daemon=True).start()
        except RuntimeError as error:
            _log.debug("no thread can be started to replay on: %s", error)

    def _begin(self, index: TaskIndex) -> None:
        self._index, self.built = index, built_tau(index)
        self._counts.clear()
        self._rows.clear()
        self._until_look, self._fallen = self._window, False

    def _tau(self) -> float | None:
        steps = sum(steps for _, steps in self._counts)
        return sum(tokens for tokens, _ in self._counts) / steps if steps else None

    def _confirm(
        self, rows: Sequence[_Row], tau: float, index: TaskIndex, tokenizer: TaskTokenizer | None, name: str
    ) -> None:
        """Log the fall if a replay on the index alone shows it too."""
        try:
            replayed = index_tau(index, tokenizer, rows)
        except Exception:  # a damaged index; drafting from it has failed too
            _log.debug("%s cannot be replayed", name, exc_info=True)
            return
        with self._lock:
            if index is not self._index or self.built is None or replayed >= FALL * self.built:
                return
            self._fallen = True
            self.falls += 1
            built = self.built
        _log.warning(
            "%s drafts worse than when it was built: τ was %.1f, the last %d requests have %.1f, and the index alone "
            "has %.1f on their outputs; build it again, or merge its log (tasc index compact); for details run: "
            "tasc check --index %s",
            name, built, self._window, tau, replayed, index.path,
        )  # fmt: skip


def index_ids(index: TaskIndex, tokenizer: TaskTokenizer | None, ids: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the (T,) ids of an output in the tokens of an index: in base tokens, if it was made before the new ones.

    Raises:
        InputError: An id is no token.
    """
    plan = None if tokenizer is None else tokenizer.plan
    return plan.expand(ids) if plan is not None and plan.fingerprint == index.fingerprint else ids


def index_tau(index: TaskIndex, tokenizer: TaskTokenizer | None, rows: Iterable[_Row]) -> float:
    """Return the tokens per step of an index alone on outputs, under the conditions of the fit's figures.

    Args:
        index: The index.
        tokenizer: Tokenizer of the model; None: words of inputs that the index does not contain are not copied.
        rows: Input, if known, and (T,) ids of each output with the end token, in the tokens of the index.
    """
    drafter: Drafter = ngram_drafter(index, tokenizer)
    if isinstance(drafter, RetokenizingDrafter):
        drafter = drafter.drafter
    costs = 1.0 + DEFAULT_SLOPE * np.arange(FIT_MAX_DRAFT + 1, dtype=np.float64)
    tokens = steps = 0
    for text, ids in rows:
        context = "" if text is None else f"{text}\n"
        request = drafter.start([] if tokenizer is None else tokenizer.encode(context), text)
        for _, _, emitted in replay_steps(request, ids, FIT_MAX_DRAFT, costs):
            tokens, steps = tokens + emitted, steps + 1
    return tokens / max(1, steps)
