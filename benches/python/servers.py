"""Servers of other projects in processes of their own: started, asked with OpenAI's client by several threads, timed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

Answer = Callable[[], list[str]]
"""Answers all inputs."""
START_SECONDS = 120  # in which a server must be there


class ServerEnded(RuntimeError):
    """A server has ended before it could be asked."""


@contextmanager
def server(command: Sequence[str], **env: str) -> Iterator[tuple[str, int]]:
    """Run a server that takes `--host` and `--port` and answers at `/health`; yields its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], env={**os.environ, **env}, stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(START_SECONDS * 2):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise ServerEnded(" ".join(command)) from None
                time.sleep(0.5)
        else:
            raise ServerEnded(f"not there after {START_SECONDS} s: {' '.join(command)}")
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


def in_threads(ask: Callable[[str], str], inputs: list[str], callers: int) -> list[str]:
    """Ask for each input in one of several threads."""
    with ThreadPoolExecutor(callers) as threads:
        return list(threads.map(ask, inputs))


def served(
    url: str, folder: str, inputs: list[str], callers: int, *, system: str | None, max_tokens: int, **options: Any
) -> Answer:
    """Way to answer all inputs by a server, with OpenAI's client; `options` are of the server."""
    import openai

    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=600)
    head: list[Any] = [] if system is None else [{"role": "system", "content": system}]

    def ask(text: str) -> str:
        messages = [*head, {"role": "user", "content": text}]
        made = client.chat.completions.create(
            model=folder, messages=messages, temperature=0, max_tokens=max_tokens, extra_body=options
        )
        return made.choices[0].message.content or ""

    return lambda: in_threads(ask, inputs, callers)


def processor_seconds(process: int) -> float:
    """Processor time of another process, on Linux."""
    return time.clock_gettime(~process << 3 | 2)


def clocks(processes: list[int]) -> tuple[float, float]:
    """Wall time, and processor time of this process and of others on Linux, in seconds."""
    return time.perf_counter(), time.process_time() + sum(map(processor_seconds, processes))
