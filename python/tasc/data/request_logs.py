"""Logged requests with their responses, as rows: OpenAI's API and batch files, and servers that speak it."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasc.errors import CorpusError
from tasc.printable import counted

_log = logging.getLogger(__name__)

_LITERAL = r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|None)"""
_VLLM_REQUEST = re.compile(rf"(?:Request|Received request) (\S+?)(?: details)?: prompt: {_LITERAL}, ")
_VLLM_RESPONSE = re.compile(
    rf"Generated response (\S+?)(?: \(streaming complete\))?: output: {_LITERAL}, (?:output_token_ids: [^:]*, )?"
    r"finish_reason: (stop|length|tool_calls|streaming_complete)\b"
)
_VLLM_STAND_IN = re.compile(r"\[tool_calls: .*\]|<streaming_complete: \d+ tokens>", re.DOTALL)  # in place of an output
_CUT = frozenset(("length", "content_filter"))  # why an answer ends that is not whole
_ENDED_EARLY = ("failed", "cancelled")  # status of a response of the Responses API that has no answer


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
    answered: tuple[str, Any] = ("", None)  # the request of the response before: several choices follow each other
    left_out: dict[str, tuple[int, str]] = {}  # number and first position by the reason
    for where, line in lines:
        if found := _VLLM_REQUEST.search(line):
            prompts[found[1]] = _literal(where, found[2])
        elif found := _VLLM_RESPONSE.search(line):
            output, why = _literal(where, found[2]), ""
            if found[1] != answered[0]:
                answered = found[1], prompts.pop(found[1], None)
            if found[3] in _CUT:
                why = "answers that were cut off"
            elif isinstance(output, str) and _VLLM_STAND_IN.fullmatch(output):
                why = "answers that the log does not hold as the model wrote them (calls of tools)"
            if why:
                number, first = left_out.get(why, (0, where))
                left_out[why] = number + 1, first
            else:
                yield where, {"prompt": answered[1], "output": output}
    for why, (number, first) in left_out.items():
        _log.warning("%d %s are left out, the first at %s", number, why, first)


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
        CorpusError: No request has a response, or two lines with one `custom_id` wait for the same.
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
        elif side in waiting:
            raise CorpusError(
                f"{where}: the custom_id {side[0]!r} is that of the {side[1]} at {waiting[side][0]} too, so it is not "
                "known which lines belong together; give the two files of each batch one after the other"
            )
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
        left_out = counted(len(requests), "request")
        _log.warning("left out: %s without a response, the first at %s", left_out, requests[0][0])
    if len(waiting) > len(requests) and needs_output:
        _log.warning("left out: %s without a request", counted(len(waiting) - len(requests), "response"))


def answered(where: str, row: Mapping[str, Any], left_out: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield a row for each output of a logged request: `messages` or `prompt`, `tools`, `completion`, other fields.

    A request that has failed has none, and an answer that was cut off is none: it lacks the end that a model emits. A
    request without a response is a row without `completion`.

    Args:
        where: Position of the row.
        row: The request, with its response or without.
        left_out: Called with what is left out, in words.

    Raises:
        CorpusError: A response without its request, or a request that is not understood.
    """
    if _has_failed(row):
        left_out("requests that failed")
        return
    request, response = _request(row) or row, _response(row)
    rest = {k: v for k, v in row.items() if k not in ("request", "response", "body", "error", "messages", "prompt")}
    rest |= _chat_settings(row, request)
    prompts = _prompts(request)
    if prompts is None and isinstance((_mapping(row.get("request")) or row).get("prompt"), list):
        raise CorpusError(f"{where}: has a prompt of token ids; only text can be read")
    if prompts is None:
        raise CorpusError(f"{where}: is a response without its request; give the file of requests too")
    outputs = None if response is None else _outputs(response)
    if outputs is None:
        yield from ({**rest, **prompt} for prompt in prompts)
        return
    if not outputs:
        left_out("requests that failed")
    for output in outputs:
        if output.is_cut:
            left_out("answers that were cut off")
        else:
            yield {**rest, **prompts[output.number * len(prompts) // len(outputs)], "completion": output.content}


@dataclass(frozen=True, slots=True)
class _Output:
    """An output of a response.

    Args:
        content: Text or message.
        is_cut: Whether it was cut off, at the most tokens or by a filter.
        number: Its place among the outputs of all prompts of the request.
    """

    content: str | Mapping[str, Any]
    is_cut: bool
    number: int = 0


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
    return request if request is not None and _prompts(request) is not None else None


def _response(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    outer = _mapping(row.get("response"))
    body = None if outer is None else _mapping(outer.get("body"))
    return outer if body is None else body


def _has_failed(row: Mapping[str, Any]) -> bool:
    outer = _mapping(row.get("response")) or {}
    status = outer.get("status_code", 200)
    is_batch = isinstance(row.get("custom_id"), str) and "response" in row
    of_litellm = "response" in row and not outer and (row.get("status") == "failure" or bool(row.get("error_str")))
    answer = (_response(row) or {}) if _request(row) else {}
    has_error = bool(answer.get("error")) or answer.get("status") in _ENDED_EARLY
    return (is_batch and bool(row.get("error"))) or ("body" in outer and status != 200) or of_litellm or has_error


def _chat_settings(row: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that a chat template takes; LiteLLM logs them in `model_parameters`."""
    given = {**(_mapping(row.get("model_parameters")) or {}), **request}
    found = {name: given[name] for name in ("tools", "chat_template_kwargs") if given.get(name) is not None}
    if isinstance(given.get("functions"), list) and "tools" not in found:  # before there were tools
        found["tools"] = [{"type": "function", "function": one} for one in given["functions"]]
    if isinstance(found.get("tools"), list):
        found["tools"] = [_tool(one) for one in found["tools"]]
    return found


def _tool(tool: Any) -> Any:
    """Return a tool as chat completions name it; the Responses API names its function beside its type."""
    if isinstance(tool, Mapping) and tool.get("type") == "function" and "function" not in tool:
        return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
    return tool


def _prompts(request: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the `messages` or the `prompt` of each prompt of a request; None if it has neither."""
    messages, prompt = request.get("messages"), request.get("prompt")
    if isinstance(messages, str) and messages.lstrip()[:1] not in ("[", "{"):  # LiteLLM's text completions
        return [{"prompt": messages}]
    if isinstance(messages, str | list):
        return [{"messages": messages}]
    if isinstance(prompt, str):
        return [{"prompt": prompt}]
    if isinstance(prompt, list) and prompt and all(isinstance(one, str) for one in prompt):
        return [{"prompt": one} for one in prompt]
    given = request.get("input")  # the Responses API
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if isinstance(given, list) and "model" in request and all(isinstance(one, Mapping) for one in given):
        system = request.get("instructions")
        return [{"messages": [*([{"role": "system", "content": system}] if system else []), *_turns(given)]}]
    return None


def _outputs(response: Mapping[str, Any]) -> list[_Output] | None:
    """Return the outputs in a response; None if it is no response of the API."""
    choices, items = response.get("choices"), response.get("output")
    if isinstance(choices, list) and all(isinstance(choice, Mapping) for choice in choices):
        found = []
        for k, choice in enumerate(choices):
            content, number = choice.get("message", choice.get("text")), choice.get("index")
            if isinstance(content, str | Mapping):
                place = number if isinstance(number, int) and 0 <= number < len(choices) else k
                found.append(_Output(content, choice.get("finish_reason") in _CUT, place))
        return found
    if isinstance(items, list) and all(isinstance(item, Mapping) and "type" in item for item in items):  # Responses API
        message = next(iter(_turns([{"role": "assistant", **item} for item in items])), {"role": "assistant"})
        return [_Output({"content": "", **message}, response.get("status") == "incomplete")]
    return None


def _turns(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the items of the Responses API as turns of a chat.

    Reasoning, text and calls of tools that follow each other are one turn of the assistant: the model emits them in one
    go. Items that say nothing in a chat, such as searches of a hosted tool, are passed over.
    """
    turns: list[dict[str, Any]] = []
    for item in items:
        kind, content = item.get("type", "message"), item.get("content")
        if kind == "function_call_output":
            turns.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
        elif kind == "message" and item.get("role") != "assistant":
            turns.append({"role": item.get("role"), "content": content})
        elif kind in ("message", "reasoning", "function_call"):
            if not turns or turns[-1]["role"] != "assistant":
                turns.append({"role": "assistant", "content": ""})
            turn = turns[-1]
            if kind == "message":
                turn["content"] += _parts_text(content)
            elif kind == "reasoning" and (text := _parts_text(content)):
                turn["reasoning_content"] = turn.get("reasoning_content", "") + text
            elif kind == "function_call":
                function = {"name": item.get("name"), "arguments": item.get("arguments")}
                turn.setdefault("tool_calls", []).append({"type": "function", "function": function})
    return turns


def _parts_text(content: Any) -> str:
    """Return the text of the parts of an item."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text", part.get("refusal")) for part in parts if isinstance(part, Mapping))
    return "".join(str(text) for text in texts if text is not None)
