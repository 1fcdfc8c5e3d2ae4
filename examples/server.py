"""An HTTP server with OpenAI's routes over `Generator.stream`: completions and chats, whole or streamed.

    pip install fastapi uvicorn
    python examples/server.py MODEL [--index task.tasc] [--batch-size 8] [--port 8000]

An example to start from: it has no keys, no TLS and no tools. A field of a request that it does not know is an error.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from tasc import Generator
from tasc.errors import InputError, QueueFullError
from tasc.models import load_checkpoint

MAX_TOKENS = 256
"""Most tokens of an answer whose request names no number."""


class Options(BaseModel, extra="forbid"):
    """Fields of both routes."""

    model: str = ""
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict[str, bool] | None = None
    n: Literal[1] = 1
    user: str | None = None


class Completion(Options):
    """Body of /v1/completions."""

    prompt: str | list[int]


class Chat(Options):
    """Body of /v1/chat/completions."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None


def build_app(generator: Generator, name: str, *, wait_seconds: float = 60.0) -> FastAPI:
    """Return the application; `name` is the model's name, and a request waits at most so long for a place."""
    app = FastAPI()

    @app.exception_handler(RequestValidationError)
    def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        said = (f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return JSONResponse({"error": {"message": "; ".join(said), "type": "InputError"}}, 422)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "tasc"}]}

    @app.post("/v1/completions")
    async def completions(body: Completion, request: Request) -> Any:
        return await answer(request, body, body.prompt, body.max_tokens, "text_completion")

    @app.post("/v1/chat/completions")
    async def chats(body: Chat, request: Request) -> Any:
        most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        return await answer(request, body, body.messages, most, "chat.completion")

    async def answer(request: Request, body: Options, prompt: Any, most: int | None, kind: str) -> Any:
        most = MAX_TOKENS if most is None else most
        head = {"id": f"{kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        pieces = generator.stream(
            prompt=prompt, max_tokens=most, temperature=body.temperature, top_p=body.top_p, seed=body.seed,
            stop=body.stop or (), timeout=wait_seconds,
        )  # fmt: skip
        try:
            first = await anext(pieces)  # errors come before the answer begins
        except (InputError, QueueFullError) as error:
            status = 400 if isinstance(error, InputError) else 503
            return JSONResponse({"error": {"message": str(error), "type": type(error).__name__}}, status)
        if body.stream:
            usage = bool((body.stream_options or {}).get("include_usage"))
            return StreamingResponse(events(head, kind, first, pieces, usage), media_type="text/event-stream")
        text, last = first.text, first
        async for last in pieces:
            text += last.text
            if await request.is_disconnected():
                await pieces.aclose()
                return Response()  # which nobody reads
        message = {"message": {"role": "assistant", "content": text}} if kind == "chat.completion" else {"text": text}
        return {**head, "object": kind, "choices": [choice(message, last)], "usage": usage_of(last)}

    async def events(head: Any, kind: str, piece: Any, pieces: AsyncIterator[Any], usage: bool) -> AsyncIterator[str]:
        is_chat, role = kind == "chat.completion", {"role": "assistant"}
        head = {**head, "object": f"{kind}.chunk" if is_chat else kind}
        while True:
            delta = {"delta": {**role, "content": piece.text}} if is_chat else {"text": piece.text}
            yield event({**head, "choices": [choice(delta, piece)]})
            if piece.generation is not None:
                break
            piece, role = await anext(pieces), {}
        if usage:
            yield event({**head, "choices": [], "usage": usage_of(piece)})
        yield "data: [DONE]\n\n"

    return app


def choice(content: dict[str, Any], piece: Any) -> dict[str, Any]:
    """Return a choice; the last piece says why the output ended."""
    reason = None if piece.generation is None else piece.generation.finish_reason
    return {"index": 0, "finish_reason": "stop" if reason == "eos" else reason, **content}


def usage_of(piece: Any) -> dict[str, int]:
    """Return the token counts of a request from its last piece."""
    asked, made = piece.generation.stats.prompt_tokens, len(piece.generation.ids)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


def event(data: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {json.dumps(data)}\n\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or hub name")
    parser.add_argument("--index", help="index of the task")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    model, tokenizer = load_checkpoint(options.model)
    with Generator(model, tokenizer, index=options.index, batch_size=options.batch_size) as generator:
        uvicorn.run(build_app(generator, options.model), host="127.0.0.1", port=options.port)
