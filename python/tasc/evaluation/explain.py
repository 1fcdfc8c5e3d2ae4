"""Explanation of one row, step by step: every drafted token, the sources that proposed it, and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from tasc.data.ids import common_prefix_length
from tasc.drafting.defaults import DEFAULT_SLOPE, MAX_DRAFT
from tasc.errors import InputError
from tasc.evaluation.replay import ReplayRow
from tasc.printable import printable

if TYPE_CHECKING:
    from tasc._core import NgramDrafter
    from tasc.data import TaskTokenizer

ACCEPTED, REJECTED, AFTER, OWN = "accepted", "rejected", "after", "own"
"""Verdicts on a token: accepted; rejected; drafted after a rejected one; not drafted but emitted by the target."""

SURE = 0.98
"""Minimum probability of accepted tokens that are shown together."""

_PARTIAL = "\N{REPLACEMENT CHARACTER}"
_RIVALS = 3
_CONTEXT = 16  # preceding tokens that are decoded together with a token to find its text


class TokenFacts(TypedDict):
    """Token of a step.

    Attributes:
        token: Token id.
        text: Text of the token; the name of a special token.
        verdict: `ACCEPTED`, `REJECTED`, `AFTER` or `OWN`.
        prob: Probability in the draft; None for a token of the target.
        sources: Probability by source, for the sources that proposed it.
        candidates: (text, probability) of the most probable candidates at its place.
    """

    token: int
    text: str
    verdict: str
    prob: float | None
    sources: dict[str, float]
    candidates: list[tuple[str, float]]


class Explanation(TypedDict):
    """Decoding of a row.

    Attributes:
        row: Number among the held-out rows, from 1.
        input: Input of the row; None without one.
        output: Text of the output.
        tokens: Number of tokens of the output, with the end token.
        steps: Per step the drafted tokens, then the target's token.
    """

    row: int
    input: str | None
    output: str
    tokens: int
    steps: list[list[TokenFacts]]


def explain(
    drafter: NgramDrafter,
    rows: Sequence[ReplayRow],
    number: int,
    tokenizer: TaskTokenizer,
    *,
    max_tokens: int = MAX_DRAFT,
    cost: float = DEFAULT_SLOPE,
) -> Explanation:
    """Decode one row with a simulated target that generates exactly the row's output.

    Args:
        drafter: Drafter to explain.
        rows: Held-out rows.
        number: Number of the row, from 1.
        tokenizer: Tokenizer of the rows.
        max_tokens: Maximum number of tokens per draft.
        cost: Cost of verifying one drafted token, in plain steps.

    Raises:
        InputError: If there is no such row.
    """
    if not 1 <= number <= len(rows):
        raise InputError(f"there is no row {number}: {len(rows)} rows are held out, counted from 1")
    row = rows[number - 1]
    costs = 1.0 + cost * np.arange(max_tokens + 1, dtype=np.float64)
    request = drafter.start(row.prompt, row.input)
    output: list[int] = row.output.tolist()
    steps: list[list[TokenFacts]] = []
    at = 0
    while at < len(output):
        drafted = request.explain(max_tokens, costs)
        tokens = np.array([token["token"] for token in drafted], np.uint32)
        right = common_prefix_length(tokens, row.output[at:])
        step = []
        for k, token in enumerate(drafted):
            verdict = ACCEPTED if k < right else REJECTED if k == right else AFTER
            before = output[:at] + tokens[:k].tolist()
            step.append(_facts(tokenizer, before, token, verdict))
        if at + right < len(output):
            own: dict[str, Any] = {"token": output[at + right], "prob": None, "sources": {}, "candidates": []}
            step.append(_facts(tokenizer, output[: at + right], own, OWN))
        steps.append(step)
        request.update(output[at : at + right + 1])
        at += right + 1
    text = tokenizer.decode(output)
    return {"row": number, "input": row.input, "output": text, "tokens": len(output), "steps": steps}


def _facts(tokenizer: TaskTokenizer, before: list[int], token: dict[str, Any], verdict: str) -> TokenFacts:
    return {
        "token": token["token"],
        "text": token_text(tokenizer, before, token["token"]),
        "verdict": verdict,
        "prob": token["prob"],
        "sources": {name: p for name, p in token["sources"].items() if p > 0},
        "candidates": [(token_text(tokenizer, before, t), float(p)) for t, p in token["candidates"][:_RIVALS]],
    }


def token_text(tokenizer: TaskTokenizer, before: Sequence[int], token: int) -> str:
    """Return the text that a token adds, or the name of a token that adds nothing, such as a special token.

    If a character has several tokens, the last token adds it and the others add "".
    """
    near = list(before[-_CONTEXT:])
    text, longer = tokenizer.decode(near).rstrip(_PARTIAL), tokenizer.decode([*near, token])
    added = longer[len(text) :] if longer.startswith(text) else longer
    if _PARTIAL in added and tokenizer.tokenizer.id_to_token(token) is not None:
        return ""
    if len(longer) == len(text):
        return str(tokenizer.tokenizer.id_to_token(token) or f"<{token}>")
    return added


def spans(step: Sequence[TokenFacts]) -> list[TokenFacts]:
    """Join neighbouring tokens of a step: accepted tokens with high probability, and tokens after a rejected one.

    In a joined span, `prob` is the minimum, `sources` holds the mean of each source, and `candidates` is empty.
    """
    joined: list[list[TokenFacts]] = []
    for token in step:
        if joined and _kind(joined[-1][-1]) == _kind(token) is not None:
            joined[-1].append(token)
        else:
            joined.append([token])
    return [span[0] if len(span) == 1 else _span(span) for span in joined]


def _kind(token: TokenFacts) -> str | None:
    """Return the kind of tokens that a token may be joined with; None: none."""
    sure = token["verdict"] == ACCEPTED and (token["prob"] or 0.0) >= SURE
    return token["verdict"] if sure or token["verdict"] == AFTER else None


def _span(tokens: Sequence[TokenFacts]) -> TokenFacts:
    named = {name: None for token in tokens for name in token["sources"]}
    return {
        "token": tokens[0]["token"],
        "text": "".join(token["text"] for token in tokens),
        "verdict": tokens[0]["verdict"],
        "prob": min(token["prob"] or 0.0 for token in tokens),
        "sources": {name: sum(t["sources"].get(name, 0.0) for t in tokens) / len(tokens) for name in named},
        "candidates": [],
    }


def visible(text: str) -> str:
    """Return a token's text with visible line ends, tabs and control characters; an ellipsis for a part of one."""
    return printable(text.replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥")) or "…"
