"""Builds and appends that are stopped, and readers, writers and forks at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tasc.data import TokenStore

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, fork")

# Arguments: tokenizer, store, build | append. Says "ready" in the middle of the rows, and would never end.
ENDLESS = """
import sys, time
from tasc.data import TokenStore
_, tokenizer, path, what = sys.argv
def rows():
    for k in range(20_000):
        yield {"input": f"in {k}", "output": f"boston {k}"}
    print("ready", flush=True)
    time.sleep(600)
if what == "build":
    TokenStore.build(rows(), tokenizer, path)
else:
    TokenStore.open(path).append(rows(), tokenizer)
"""

# Opens the store anew until it holds so many documents; each time it must be whole.
READER = """
import sys
from tasc.data import TokenStore
_, path, wanted = sys.argv
first, seen = TokenStore.open(path), 0
print("ready", flush=True)
while seen < int(wanted):
    store = TokenStore.open(path)
    store.verify()
    assert len(store) >= seen and len(store) == store.num_inputs, (len(store), seen, store.num_inputs)
    seen = len(store)
    assert len(first) == 1 and first.weight(0) == 1
"""


def start(script: str, *arguments: object, wait: bool = True) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a background job of a shell ignores Ctrl-C, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    if wait and process.stdout is not None:
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def nameless_files(folder: Path) -> bool:
    """Whether the file system can keep a file without a name, which even SIGKILL cannot leave behind."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
    except (AttributeError, OSError):
        return False
    return True


@pytest.fixture
def store(tokenizer: Tokenizer, tmp_path: Path) -> TokenStore:
    return TokenStore.build([{"input": "a", "output": "a"}], tokenizer, tmp_path / "s")


def test_ctrl_c_during_a_build_leaves_nothing(tokenizer_file: Path, tmp_path: Path) -> None:
    process = start(ENDLESS, tokenizer_file, tmp_path / "s", "build")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("what", ["build", "append"])
def test_a_killed_process_leaves_nothing(
    tokenizer_file: Path, store: TokenStore, tmp_path: Path, number: signal.Signals, what: str
) -> None:
    if not nameless_files(tmp_path):
        pytest.skip("this file system keeps no file without a name")
    before = store.path.read_bytes()
    process = start(ENDLESS, tokenizer_file, store.path, what)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number
    assert list(tmp_path.iterdir()) == [store.path]
    assert store.path.read_bytes() == before
    TokenStore.open(store.path).verify()


def test_a_second_append_waits_and_can_be_stopped(
    tokenizer_file: Path, tokenizer: Tokenizer, store: TokenStore
) -> None:
    first = start(ENDLESS, tokenizer_file, store.path, "append")
    second = start(
        # The lock is taken before the first row is asked for: this never says "ready" while the first one lives.
        "import threading, os, signal, time\n"
        "threading.Timer(1.0, lambda: print('waiting', flush=True)).start()" + ENDLESS,
        *(tokenizer_file, store.path, "append"),
        wait=False,
    )
    assert second.stdout is not None
    assert second.stdout.readline() == "waiting\n"
    second.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in second.communicate(timeout=60)[1]
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert len(store.append([{"output": "b"}], tokenizer)) == 2


def test_readers_in_threads_and_processes_while_appends_replace_the_file(
    tokenizer: Tokenizer, store: TokenStore
) -> None:
    rounds = 25
    processes = [start(READER, store.path, rounds + 1) for _ in range(2)]
    failed: list[BaseException] = []

    def read() -> None:
        try:
            seen = 0
            while seen <= rounds and not failed:
                now = TokenStore.open(store.path)
                now.verify()
                assert len(now) >= seen
                seen = len(now)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for k in range(rounds):
            store.append([{"input": f"in {k}", "output": f"out {k}"}], tokenizer, num_threads=1)
    except BaseException as error:
        failed.append(error)
    for thread in threads:
        thread.join(60)
    assert not failed
    for process in processes:
        assert process.wait(60) == 0, process.communicate()[1]
    assert len(store) == 1


def test_a_fork_reads_and_builds(tokenizer: Tokenizer, store: TokenStore, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            again = TokenStore.build([{"output": "c"}] * 3, tokenizer, tmp_path / "of the child", num_threads=2)
            code = 0 if store.input(0) == ("a", 0, 1) and again.weight(0) == 3 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert TokenStore.open(tmp_path / "of the child").weight(0) == 3
    store.verify()


def test_a_fork_in_the_middle_of_a_build_takes_nothing_away(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for k in range(100):
            if k == 50 and (child := os.fork()) == 0:
                os._exit(0)
            if k == 51:
                os.waitpid(child, 0)
            yield {"output": f"{k}"}

    assert len(TokenStore.build(rows(), tokenizer, tmp_path / "s")) == 100
