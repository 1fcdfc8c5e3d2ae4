"""`examples/server.py` over loopback, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

for needed in ("torch", "transformers", "fastapi", "uvicorn", "openai"):
    pytest.importorskip(needed)

import openai  # noqa: E402
import uvicorn  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from tiny_models import byte_tokenizer, tiny_model  # noqa: E402

from tasc import Generator, Piece  # noqa: E402

TOKENIZER = byte_tokenizer()
TOKENIZER.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
SCRIPT = Path(__file__).parents[2] / "examples" / "server.py"


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def client(model: Any) -> Iterator[openai.OpenAI]:
    spec = importlib.util.spec_from_file_location("example_server", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules["example_server"] = example  # pydantic looks the fields' types up there
    spec.loader.exec_module(example)
    with Generator(model, TOKENIZER, batch_size=4, max_requests=4) as generator:
        app = example.build_app(generator, "tiny", wait_seconds=30.0)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def alone(model: Any) -> Generator:
    return Generator(model, TOKENIZER, max_draft=0)


def test_models(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["tiny"]


def test_completions_of_many_clients_at_once(client: openai.OpenAI, alone: Generator) -> None:
    prompts = [f"number {number}" for number in range(8)]

    def ask(number: int) -> str:
        seeded: dict[str, Any] = {"temperature": 0.8, "seed": number} if number % 2 else {"temperature": 0}
        made = client.completions.create(model="tiny", prompt=prompts[number], max_tokens=12, **seeded)
        expected = alone.generate(prompts=[prompts[number]], max_tokens=12, **seeded)[0]
        assert made.choices[0].text == expected.text
        assert made.choices[0].finish_reason == ("length" if expected.finish_reason == "length" else "stop")
        assert made.usage is not None
        assert made.usage.completion_tokens == len(expected.ids)
        assert made.usage.prompt_tokens == len(prompts[number])
        return made.id

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 8


@pytest.mark.parametrize("stop", [None, ["K"]])
def test_a_chat_whole_and_streamed(client: openai.OpenAI, alone: Generator, stop: Any) -> None:
    messages: list[Any] = [{"role": "system", "content": "be short"}, {"role": "user", "content": "hi"}]
    [expected] = alone.generate(prompts=[messages], max_tokens=40, stop=stop or ())
    options: dict[str, Any] = {"model": "tiny", "messages": messages, "temperature": 0, "stop": stop}
    whole = client.chat.completions.create(max_tokens=40, **options)
    assert whole.choices[0].message.content == expected.text
    chunks = list(
        client.chat.completions.create(
            max_completion_tokens=40, stream=True, stream_options={"include_usage": True}, **options
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == expected.text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage


def test_a_streamed_completion_that_the_client_leaves(client: openai.OpenAI, alone: Generator) -> None:
    for _ in range(6):  # more than there are places
        with client.completions.create(model="tiny", prompt="a", max_tokens=200, temperature=0, stream=True) as stream:
            next(iter(stream))
    chunks = client.completions.create(model="tiny", prompt=[5, 6], max_tokens=9, temperature=0, stream=True)
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text == alone.generate(prompts=[[5, 6]], max_tokens=9)[0].text


def test_a_whole_answer_that_the_client_leaves(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()

    async def endless(*_: Any, **__: Any) -> AsyncIterator[Piece]:
        try:
            while True:
                yield Piece(ids=[1], text="a")
                await asyncio.sleep(0.01)
        finally:
            left.set()

    monkeypatch.setattr(Generator, "stream", endless)
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(model="tiny", prompt="a", timeout=0.3)
    assert left.wait(30)


def test_bad_requests(client: openai.OpenAI) -> None:
    for options, said in (
        ({"prompt": [999]}, "vocabulary has 257 ids"),
        ({"prompt": "a", "top_p": 2}, "top_p is 2"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens is 0"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="tiny", **options)
        assert said in str(caught.value.response.text)
    with pytest.raises(openai.UnprocessableEntityError) as unknown:
        client.completions.create(model="tiny", prompt="a", logprobs=2)
    assert "logprobs: Extra inputs are not permitted" in str(unknown.value)  # which callers see
