"""Counts drafted and accepted tokens of an engine by index and source, as numbers and as Prometheus text."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasc.drafting.protocol import SOURCES
from tasc.errors import import_optional
from tasc.files import atomic_path
from tasc.serving.tasks import TaskDrafts


@dataclass(slots=True)
class _Counts:
    """Counts of one index: events by name, and tokens by source."""

    events: Counter[str] = field(default_factory=Counter)
    drafted: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)


_COUNTERS = {
    "requests": "Requests begun.",
    "steps": "Steps of requests after their prompt.",
    "tokens": "Tokens emitted in those steps.",
    "paused": "Steps without a draft because the last ones did not pay.",
    "failures": "Requests that go on without drafts because the drafter failed.",
    "reloads": "Times that a replaced index file was taken up.",
    "refused_files": "Looks at a replaced index file that could not be used.",
    "damaged_files": "Index files that proved to be damaged while they were in use.",
    "turned_off": "Times that an index was turned off for a while because its drafter failed.",
    "plain_requests": "Requests begun while the index was turned off.",
    "unlearnt_rows": "Finished outputs that could not be learnt from.",
    "falls": "Times that drafts proved worse than when the index was built.",
}

_GAUGES = {
    "served_rows": "Online rows in memory.",
    "salts": "Salts whose drafters are in memory.",
    "recent_tau": "Tokens per step of the last 1,000 requests that ended with an end token.",
    "built_tau": "Tokens per step of the index on held-out rows when it was built.",
}


class Metrics:
    """Counts the drafted and accepted tokens of an engine's requests. Thread-safe.

    Examples:
        >>> metrics.as_dict()["indexes"]["task.tasc"]["tau"]  # doctest: +SKIP
        6.9
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: defaultdict[TaskDrafts, _Counts] = defaultdict(_Counts)
        self._times: dict[str, float] = {
            "draft_seconds": 0.0, "step_seconds": 0.0, "timed_steps": 0, "failed_steps": 0,
        }  # fmt: skip

    def count(self, drafts: TaskDrafts, event: Literal["requests", "paused", "failures"]) -> None:
        """Count a request of a task that began, a step without a draft, or a request whose drafter raised."""
        with self._lock:
            self._indexes[drafts.unsalted].events[event] += 1

    def step(self, drafts: TaskDrafts, tokens: int, sources: NDArray[np.uint8], accepted: int) -> None:
        """Count a step of one request.

        Args:
            drafts: The task of the request.
            tokens: Tokens emitted.
            sources: (K,) source of each drafted token: codes of `tasc.drafting.protocol.SOURCES`.
            accepted: Number of accepted drafted tokens.
        """
        names = [SOURCES[code] for code in np.minimum(sources, len(SOURCES) - 1).tolist()]
        with self._lock:
            counts = self._indexes[drafts.unsalted]
            counts.events.update(steps=1, tokens=tokens)
            counts.drafted.update(names)
            counts.accepted.update(names[:accepted])

    def engine_failed(self) -> None:
        """Count a step whose drafting failed as a whole."""
        with self._lock:
            self._times["failed_steps"] += 1

    def drafting(self, seconds: float) -> None:
        """Add time spent on drafts, of all requests of a step."""
        with self._lock:
            self._times["draft_seconds"] += seconds

    def stepped(self, seconds: float) -> None:
        """Add the rest of a step's time, of a step without a prompt."""
        with self._lock:
            self._times["step_seconds"] += seconds
            self._times["timed_steps"] += 1

    def as_dict(self) -> dict[str, Any]:
        """`indexes`: by file name (by path, where two have the same name), counts, `drafted` and `accepted` by source,
        acceptance `rate` and τ as `tau` (None before there is anything), `served_rows`, `salts`, `recent_tau` and
        `built_tau` (see `tasc.serving.drift`; None if not known); `draft_seconds`; `step_seconds` of the `timed_steps`,
        which held no prompt; `failed_steps`. Requests with a salt count with their index.
        """
        with self._lock:
            return {"indexes": {name: _facts(*found) for name, found in self._named()}, **self._times}

    def collect(self) -> Iterator[Any]:
        """Yield the counts as metric families: a `Metrics` is a collector for a registry of `prometheus_client`."""
        core = import_optional("prometheus_client.core", "serve")
        found = self.as_dict()
        indexes: dict[str, Any] = found["indexes"]
        kinds = [(core.CounterMetricFamily, key, says) for key, says in _COUNTERS.items()]
        gauges = [(core.GaugeMetricFamily, key, says) for key, says in _GAUGES.items()]
        for kind, key, says in [*kinds, *gauges]:
            family = kind(f"tasc_{key}", says, labels=["index"])
            for name, one in indexes.items():
                if one[key] is not None:
                    family.add_metric([name], one[key])
            yield family
        for key in ("drafted", "accepted"):
            family = core.CounterMetricFamily(
                f"tasc_{key}_tokens", f"Tokens {key}, by the source with the most evidence.", labels=["index", "source"]
            )
            for name, one in indexes.items():
                for source, number in one[key].items():
                    family.add_metric([name, source], number)
            yield family
        times = {
            "draft_seconds": "Time spent on drafts.",
            "step_seconds": "Time of steps without prompts.",
            "failed_steps": "Steps whose drafting failed as a whole.",
        }
        for key, says in times.items():
            yield core.CounterMetricFamily(f"tasc_{key}", says, value=found[key])

    def prometheus(self) -> str:
        """Return the counts in Prometheus' text format; τ is `rate(tasc_tokens_total) / rate(tasc_steps_total)`.

        Raises:
            MissingExtraError: `prometheus_client` is not installed.
        """
        client = import_optional("prometheus_client", "serve")
        registry = client.CollectorRegistry()
        registry.register(self)
        text: bytes = client.generate_latest(registry)
        return text.decode()

    def write(self, path: str | PathLike[str]) -> None:
        """Write `prometheus()` to a file, for the textfile collector of Prometheus' node exporter; it appears whole.

        Raises:
            OSError: It cannot be written.
        """
        with atomic_path(path, durable=False) as temporary:
            temporary.write_text(self.prometheus(), encoding="utf-8")
            temporary.chmod(0o644)  # the exporter is another user

    def _named(self) -> Iterator[tuple[str, tuple[TaskDrafts, _Counts]]]:
        shared = Counter(drafts.name for drafts in self._indexes)
        for drafts, counts in self._indexes.items():
            name, index = drafts.name, drafts.index
            yield str(index.path) if shared[name] > 1 and index is not None else name, (drafts, counts)


def _facts(drafts: TaskDrafts, counts: _Counts) -> dict[str, Any]:
    drafted = counts.drafted.total()
    return {
        **{name: counts.events[name] + drafts.faults[name] for name in _COUNTERS},
        "reloads": drafts.reloads,
        "falls": drafts.drift.falls,
        "recent_tau": drafts.drift.tau,
        "built_tau": drafts.drift.built,
        "drafted": dict(counts.drafted),
        "accepted": {name: counts.accepted[name] for name in counts.drafted},
        "rate": counts.accepted.total() / drafted if drafted else None,
        "tau": counts.events["tokens"] / counts.events["steps"] if counts.events["steps"] else None,
        "served_rows": drafts.num_served,
        "salts": drafts.num_salts,
    }
