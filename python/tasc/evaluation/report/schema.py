"""Schema of a report: the JSON that `tasc bench` writes.

Only `methods` is required, with `tokens_per_second` in each method. The page omits other missing parts.
All times are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from tasc.errors import InputError


class MethodFacts(TypedDict):
    """Figures of one decoding method over all requests.

    Attributes:
        tokens_per_second: Generated tokens by seconds, prefill included.
        repeats: Tokens per second of each repetition of the whole run, where there were several.
        speedup: `tokens_per_second` over that of `plain`.
        speedup_interval: `value`, `low` and `high`: the speed-up and its bootstrap interval over the requests.
        requests: How many requests were answered.
        tokens: Tokens generated, ends of text not counted.
        seconds: Time over all requests.
        latency_p50: Median seconds per request; likewise `latency_p90`, `latency_p99`.
        identical: Requests whose text is that of plain decoding.
        exact: Requests whose text is that of the row.
        tau: Tokens per verification step.
        steps: Verification steps.
        drafted_per_step: Tokens drafted per step.
        accepted: Accepted by drafted tokens, 0 to 1.
        drafted_by_position: Drafted tokens by their position in the draft, from the first.
        accepted_by_position: Accepted tokens by position.
        accepted_by_source: Accepted tokens by the source that spoke loudest for them.
        time: Seconds of `prefill`, `draft`, `verify` and `rest`.
        divergences: Positions where a rounded tie was broken another way than in plain decoding.
    """

    tokens_per_second: float
    repeats: NotRequired[list[float]]
    speedup: NotRequired[float]
    speedup_interval: NotRequired[dict[str, float | None]]
    requests: NotRequired[int]
    tokens: NotRequired[int]
    seconds: NotRequired[float]
    latency_p50: NotRequired[float]
    latency_p90: NotRequired[float]
    latency_p99: NotRequired[float]
    identical: NotRequired[int]
    exact: NotRequired[int]
    tau: NotRequired[float]
    steps: NotRequired[int]
    drafted_per_step: NotRequired[float]
    accepted: NotRequired[float]
    drafted_by_position: NotRequired[list[int]]
    accepted_by_position: NotRequired[list[int]]
    accepted_by_source: NotRequired[dict[str, int]]
    time: NotRequired[dict[str, float]]
    divergences: NotRequired[int]


class RequestFacts(TypedDict):
    """One request: input, output of plain decoding, and seconds by method."""

    input: str
    output: str
    seconds: NotRequired[dict[str, float]]


class Results(TypedDict):
    """A whole run.

    Attributes:
        title: Heading of the page.
        settings: Model, data and options, shown as they are.
        machine: What it ran on, shown as it is.
        provenance: What it was made of: `held_out` and `indexed` (path, rows, sha256), `index`, `model` and `draft`
            (name, key of the files, dtype, device, adapter), `system`, `tasc` (version), `date`, `command`.
        methods: Facts by the method's name; `plain` is the one that speed-ups are against.
        requests: The requests in the order asked; the page shows the first few and all latencies.
    """

    title: NotRequired[str]
    settings: NotRequired[dict[str, Any]]
    machine: NotRequired[dict[str, Any]]
    provenance: NotRequired[dict[str, Any]]
    methods: dict[str, MethodFacts]
    requests: NotRequired[list[RequestFacts]]


def checked(results: Mapping[str, Any]) -> Results:
    """Check `results` and return them as `Results`.

    Raises:
        InputError: If there is no method, or one without its speed.
    """
    methods = results.get("methods")
    if not isinstance(methods, Mapping) or not methods:
        raise InputError("results hold no methods: pass the JSON that `tasc bench --output FILE` writes")
    for name, facts in methods.items():
        speed = facts.get("tokens_per_second") if isinstance(facts, Mapping) else None
        if not isinstance(speed, int | float) or isinstance(speed, bool):
            raise InputError(f"method {name!r} has tokens_per_second {speed!r}, a number is needed")
    return cast(Results, results)
