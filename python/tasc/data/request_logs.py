"""Logged requests with their responses, as rows: OpenAI's API and batch files, and servers that speak it."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasc.errors import CorpusError

_log = logging.getLogger(__name__)

_LITERAL = r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|None)"""
_VLLM_REQUEST = re.compile(rf"(?:Request|Received request) (\S+?)(?: details)?: prompt: {_LITERAL}, ")
_VLLM_RESPONSE = re.compile(
    rf"Generated response (\S+?)(?: \(streaming complete\))?: output: {_LITERAL}, (?:output_token_ids: [^:]*, )?"
    r"finish_reason: (?:stop|length|tool_calls)\b"
)
_KEPT = ("tools", "chat_template_kwargs")  # fields of a request that a chat template takes


def is_logged(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a request, a response, or both, of the API."""
    if "output" in row:
        return False
    response = _response(row)
    return bool(_request(row)) or bool(response and _outputs(response)) or _has_failed(row)


def vllm_rows(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the finished requests in a log of vLLM's server, each with the position of its response.

    The server writes outputs with `--enable-log-requests --enable-log-outputs`, and prompts at the log level DEBUG. The
    prompt is None if it is not in the log.
    """
    prompts: dict[str, Any] = {}  # of requests without a response so far
    for where, line in lines:
        if found := _VLLM_REQUEST.search(line):
            prompts[found[1]] = _literal(where, found[2])
        elif found := _VLLM_RESPONSE.search(line):
            yield where, {"prompt": prompts.pop(found[1], None), "output": _literal(where, found[2])}


def _literal(where: str, text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise CorpusError(f"{where}: {text[:40]!r} is no text as Python writes it; remove the line") from error


def batch_side(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the `custom_id` of a line of a batch file and its side, "request" or "response"; None for other rows."""
    number = row.get("custom_id")
    if not isinstance(number, str) or (_request(row) and "response" in row):
        return None
    if _request(row):
        return number, "request"
    outer = _mapping(row.get("response")) or {}
    return (number, "response") if row.get("error") or {"body", "status_code"} & outer.keys() else None


def joined(rows: Iterable[tuple[str, Any]], needs_output: bool) -> Iterator[tuple[str, Any]]:
    """Join the lines of batch files by their `custom_id`; other rows pass as they are.

    Lines are held in memory until their other side comes.

    Args:
        rows: Rows with their positions, of all files.
        needs_output: Whether requests without a response are left out, or rows of their own.

    Raises:
        CorpusError: No request has a response.
    """
    waiting: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
    found = False
    for where, row in rows:
        side = batch_side(row) if isinstance(row, Mapping) else None
        if side is None:
            found = True
            yield where, row
        elif other := waiting.pop((side[0], "response" if side[1] == "request" else "request"), None):
            found = True
            yield where, {**other[1], **row, **{k: v for k, v in other[1].items() if row.get(k) is None}}
        else:
            waiting[side] = (where, row)
    requests = [one for (_, side), one in waiting.items() if side == "request"]
    if not needs_output:
        yield from requests
        found, requests = found or bool(requests), []
    if waiting and not found:
        where = next(iter(waiting.values()))[0]
        raise CorpusError(f"{where}: no request has a response; give the file of requests and the file of responses")
    if requests:
        _log.warning("%d requests have no response and are left out, the first at %s", len(requests), requests[0][0])
    if len(waiting) > len(requests) and needs_output:
        _log.warning("%d responses have no request and are left out", len(waiting) - len(requests))


def answered(where: str, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each output of a logged request: `messages` or `prompt`, `tools`, `completion`, other fields.

    A request that has failed has none. A request without a response is a row without `completion`.

    Raises:
        CorpusError: A response without its request, or a request that is not understood.
    """
    if _has_failed(row):
        return
    request, response = _request(row) or row, _response(row)
    rest = {k: v for k, v in row.items() if k not in ("request", "response", "body", "error", "messages", "prompt")}
    rest |= {k: request[k] for k in _KEPT if request.get(k) is not None}
    prompt = _prompt(request)
    if prompt is None:
        raise CorpusError(f"{where}: is a response without its request; give the file of requests too")
    outputs = None if response is None else _outputs(response)
    if outputs is None:
        yield {**rest, **prompt}
    for output in outputs or []:
        yield {**rest, **prompt, "completion": output}


def _mapping(value: Any) -> Mapping[str, Any] | None:
    """Return an object, also one that a table holds as text; None for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Mapping) else None


def _request(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    outer = _mapping(row.get("request"))
    body = _mapping((row if outer is None else outer).get("body"))
    request = outer if body is None else body
    return request if request is not None and _prompt(request) is not None else None


def _response(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    outer = _mapping(row.get("response"))
    body = None if outer is None else _mapping(outer.get("body"))
    return outer if body is None else body


def _has_failed(row: Mapping[str, Any]) -> bool:
    outer = _mapping(row.get("response")) or {}
    status = outer.get("status_code", 200)
    is_batch = isinstance(row.get("custom_id"), str) and "response" in row
    return (is_batch and bool(row.get("error"))) or ("body" in outer and status != 200)


def _prompt(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the `messages` or the `prompt` of a request; None if it has neither."""
    if isinstance(request.get("messages"), str | list):
        return {"messages": request["messages"]}
    if isinstance(request.get("prompt"), str):
        return {"prompt": request["prompt"]}
    given = request.get("input")  # the Responses API
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if isinstance(given, list) and "model" in request:
        system = request.get("instructions")
        return {"messages": [*([{"role": "system", "content": system}] if system else []), *given]}
    return None


def _outputs(response: Mapping[str, Any]) -> list[Any] | None:
    """Return the outputs in a response, each text or messages; None if it is no response of the API."""
    choices, items = response.get("choices"), response.get("output")
    if isinstance(choices, list) and all(isinstance(choice, Mapping) for choice in choices):
        found = [choice.get("message", choice.get("text")) for choice in choices]
        return [output for output in found if isinstance(output, str | Mapping)]
    if isinstance(items, list) and all(isinstance(item, Mapping) and "type" in item for item in items):  # Responses API
        return [_message(items)]
    return None


def _message(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the items of a response as one message."""
    parts = [
        item["content"] for item in items if item.get("type") == "message" and isinstance(item.get("content"), list)
    ]
    text = "".join(
        str(part["text"]) for content in parts for part in content if isinstance(part, Mapping) and "text" in part
    )
    calls = [
        {"type": "function", "function": {"name": item.get("name"), "arguments": item.get("arguments")}}
        for item in items
        if item.get("type") == "function_call"
    ]
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
