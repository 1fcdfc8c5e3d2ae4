"""Counting keeps to its memory limit, and leaves nothing behind when it is stopped."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasc._core import StoreWriter
from tasc.data import NgramTable, TokenStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc, signals")

TOKENS, VOCABULARY = 1_200_000, 8_000

# Arguments: store, table, memory limit, threads. Says the number of runs, and by how many bytes the process grew: at
# most in memory that is no file's, sampled, and at most in all, by the system's own record.
MEASURED = """
import sys, threading
from tasc import _core
_, store, table, limit, threads = sys.argv
def kilobytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))
store, done, most = _core.Store(store), threading.Event(), 0
before, all_before = kilobytes("RssAnon"), kilobytes("VmRSS")
def sample():
    global most
    while not done.wait(0.001):
        most = max(most, kilobytes("RssAnon"))
sampler = threading.Thread(target=sample)
sampler.start()
runs = _core.count_ngrams(store, table, max_length=4, memory_limit=int(limit), num_threads=int(threads))
done.set()
sampler.join()
print(runs, 1024 * (most - before), 1024 * (kilobytes("VmHWM") - all_before))
"""

# Arguments: store, table. Says "ready" in the middle of the work, which would never end.
ENDLESS = """
import sys, time
from tasc.data import NgramTable, TokenStore
_, store, table = sys.argv
calls = 0
def progress(done, total):
    global calls
    calls += 1
    if calls == 4:
        print("ready", flush=True)
    if calls >= 4:
        time.sleep(0.01)
while True:
    NgramTable.count(TokenStore.open(store), table, memory_limit="2MiB", num_threads=2, progress=progress)
    print("it was never in the middle", flush=True)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Random documents: nearly every n-gram of two tokens and more occurs once, so the table is large."""
    path = tmp_path_factory.mktemp("store") / "rows.store"
    ids = np.random.default_rng(3).integers(0, VOCABULARY, TOKENS, np.uint32)
    made_by = hashlib.sha256(b"random").hexdigest()
    writer = StoreWriter.create(path, fingerprint=made_by, vocab_size=VOCABULARY)
    writer.push(ids, np.arange(40, TOKENS + 1, 40, np.uint64), [None] * (TOKENS // 40))
    writer.finish()
    return TokenStore.open(path)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        # a background job of a shell ignores Ctrl-C, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def measured(store: TokenStore, table: Path, limit: int, threads: int) -> tuple[int, int, int]:
    said, _ = start(MEASURED, store.path, table, limit, threads).communicate(timeout=120)
    runs, anonymous, everything = map(int, said.split())
    return runs, anonymous, everything


def test_memory_stays_below_a_tenth_of_the_table(store: TokenStore, tmp_path: Path) -> None:
    table = tmp_path / "t"
    runs, free, _ = measured(store, table, 1 << 30, 1)
    whole = table.read_bytes()
    assert runs == 1
    assert free > 16 * TOKENS, "with memory enough all tokens are sorted at once"
    margin = 1 << 20  # the interpreter's own, thread stacks, the allocator's
    for limit, threads in (len(whole) // 10, 1), (8 << 20, 2):
        runs, anonymous, everything = measured(store, table, limit, threads)
        assert table.read_bytes() == whole
        assert runs > 2
        assert limit / 2 < anonymous < limit + margin, (limit, anonymous)
        assert everything < limit + margin + store.path.stat().st_size, (limit, everything)
    assert len(whole) > 5 * TOKENS
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_count_leaves_nothing(store: TokenStore, tmp_path: Path, number: signal.Signals) -> None:
    try:
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_RDWR))
    except OSError:
        pytest.skip("this file system keeps no file without a name")
    process = start(ENDLESS, store.path, tmp_path / "t")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (-number, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(store: TokenStore, tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from tasc.data import NgramTable, TokenStore\n"
        "try: NgramTable.count(TokenStore.open(sys.argv[1]), sys.argv[2], memory_limit='4MiB', num_threads=1)\n"
        "except OSError as error: print(error)\n"
    )
    said, _ = start(script, store.path, tmp_path / "t").communicate(timeout=60)
    assert "File too large" in said
    assert list(tmp_path.iterdir()) == []


def test_a_fork_counts(store: TokenStore, tmp_path: Path) -> None:
    NgramTable.count(store, tmp_path / "parent", max_length=1, num_threads=2)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            NgramTable.count(store, tmp_path / "child", max_length=1, num_threads=2)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "child").read_bytes() == (tmp_path / "parent").read_bytes()
