"""Borders of an engine's process: panics, threads that cannot be started, forks, files that change or are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from engines import Asked, Engine
from forks import exit_code_of_fork
from test_served import ROWS, build
from tiny_models import byte_tokenizer, peer_greedy, tiny_model
from tokenizers import Tokenizer

from tasc import Generator, NgramDrafter, TaskIndex
from tasc.adapters.llama_cpp import TascDraft
from tasc.adapters.sglang_corpus import TascCorpus
from tasc.adapters.transformers import TascGenerate
from tasc.adapters.vllm import TascProposer
from tasc.data import NgramTable, TaskTokenizer, TokenStore, load_tokenizer
from tasc.drafting.costs import LearnedCosts
from tasc.drafting.protocol import Drafter, NullDrafter, TokenDraft, salt_digest
from tasc.errors import FormatError, InputError, InternalError, TascError
from tasc.files import read_json
from tasc.serving import Metrics, RequestTracker, Settings, TaskDrafts
from tasc.serving import reload as module
from tasc.serving.backoff import Backoff

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits, forks and pipes as on Linux")


def run(code: str, *arguments: object) -> str:
    """Run Python code with the tests' modules, in a process of its own; return what it prints."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support"), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def task(tokenizer: Tokenizer) -> TaskTokenizer:
    return load_tokenizer(tokenizer)


@pytest.fixture
def index(tmp_path: Path, task: TaskTokenizer) -> TaskIndex:
    return build(tmp_path / "task", task, ROWS)


# --- panics


def test_a_panic_is_an_error_of_tasc(index: TaskIndex, task: TaskTokenizer) -> None:
    [panic] = InternalError.__subclasses__()

    class Panicking:
        """Raises the exception of a panic, with which pyo3 goes on to panic in the core."""

        def __init__(self) -> None:
            self.panics = True

        def spell(self, pieces: list[str]) -> list[list[int]]:
            if self.panics:
                raise panic("a bug")
            return task.spell(pieces)

    tokenizer = Panicking()
    drafter = NgramDrafter(index, tokenizer=tokenizer)
    with pytest.raises(TascError, match="a bug") as raised:
        drafter.start([1], "words that nobody has heard")
    assert isinstance(raised.value, Exception)
    tokenizer.panics = False
    assert drafter.start([1], "words that nobody has heard").draft(4) is not None


def test_a_panic_of_another_extension_in_the_tokenizer_is_an_error_of_tasc(index: TaskIndex) -> None:
    class PanicException(BaseException):
        pass

    def spell(pieces: list[str]) -> list[list[int]]:
        raise PanicException("no threads")

    with pytest.raises(InternalError, match="the tokenizer panicked: no threads"):
        NgramDrafter(index, tokenizer=SimpleNamespace(spell=spell)).start([1], "words that nobody has heard")


# --- threads

# Arguments of the scripts: a tokenizer's file, a folder, … None of them imports torch, which takes most of their time.

NO_THREADS = """
import os, resource, sys, threading
from pathlib import Path
import numpy as np
from test_served import ROWS, ids
from tasc import MergePlan, NgramDrafter, TaskIndex
from tasc.data import NgramTable, TokenStore, load_tokenizer
from tasc.serving import TaskDrafts
task, folder, what = load_tokenizer(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
store = TokenStore.build(ROWS * 4, task, folder / "rows")
index = TaskIndex.build(store, folder / "task.tasc", tokenizer=task)

def draft(path):
    drafter = NgramDrafter(index, tokenizer=task, num_threads=4)
    requests = [drafter.start(task.encode(row["input"]), row["input"]) for row in ROWS[:16]]
    return [draft.tokens.tolist() for draft in drafter.propose_batch(requests, 8)]

def count(path):
    NgramTable.count(store, path, num_threads=4, memory_limit="64MB")
    return path.read_bytes()

def merge(path):
    NgramTable.merge([NgramTable(folder / "first.ngrams")] * 2, path, num_threads=4)
    return path.read_bytes()

def fit(path):
    TaskIndex.build(store, path, tokenizer=task, num_threads=4)
    return path.read_bytes()

def serve(path):
    drafts = TaskDrafts(folder / "task.tasc", task, learn=True)
    drafts.finished(ROWS[0]["input"], ids(task, ROWS[0]))
    request = drafts.start(task.encode(ROWS[0]["input"]), ROWS[0]["input"]).request
    return request.failed, request.draft(8).tokens.tolist()

count(folder / "first.ngrams")
work = globals()[what]
expected = work(folder / "with")
if os.geteuid() == 0:
    for file in [folder, *folder.iterdir()]:
        os.chown(file, 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=print).start()
except RuntimeError:
    assert work(folder / "without") == expected
    print("right")
"""


@pytest.mark.parametrize("what", ["draft", "count", "merge", "fit", "serve"])
def test_work_goes_on_where_no_thread_can_be_started(what: str, tokenizer_file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to the user that the script becomes
        Path(folder).chmod(0o777)
        assert run(NO_THREADS, tokenizer_file, folder, what) == "right\n"


# --- forks

FORKS = """
import multiprocessing, os, sys, threading
from pathlib import Path
from test_served import ROWS, build
from tasc import NgramDrafter
from tasc.data import load_tokenizer
task = load_tokenizer(sys.argv[1])
drafter = NgramDrafter(build(Path(sys.argv[2]) / "task", task, ROWS), tokenizer=task, num_threads=4, learn=False)
prompt = task.encode("a")

def drafts(name):
    return drafter.start(prompt, f"to an unknown {name}").draft(16).tokens.tolist()

def busy(thread):
    number = 0
    while True:
        number += 1
        request = drafter.start(prompt, f"to {number} and {number * 7} in {thread}")
        request.draft(16)
        request.update([1])
        drafter.num_served

def child():
    os._exit(0 if drafts("place") == expected else 1)

expected = drafts("place")
assert expected
for thread in range(4):
    threading.Thread(target=busy, args=(thread,), daemon=True).start()
for _ in range(20):
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    print(process.exitcode, end=" ", flush=True)
    process.kill()
os._exit(0)
"""


def test_children_draft_that_were_forked_while_threads_draft(tokenizer_file: Path, tmp_path: Path) -> None:
    assert run(FORKS, tokenizer_file, tmp_path).split() == ["0"] * 20


# --- files

WRITTEN_OVER = """
import shutil, sys
from pathlib import Path
from test_served import ROWS, build
from tasc.data import load_tokenizer
from tasc.serving import TaskDrafts
task, folder = load_tokenizer(sys.argv[1]), Path(sys.argv[2])
build(folder / "task", task, ROWS * 8)
drafts = TaskDrafts(folder / "task.tasc", task)
(folder / "task.tasc").write_bytes(b"")
for row in ROWS:
    found = drafts.start(task.encode(row["input"]), row["input"]).request
    assert not found.failed
    found.draft(8)
print("alive")
"""


def generate_while_written_over(folder: Path) -> None:
    """Generates with an index and a salt's; both files are written over, and it generates again."""
    tokenizer = byte_tokenizer()
    index = build(folder / "task", load_tokenizer(tokenizer, eos="<eos>"), ROWS * 8).path
    salted = Path(f"{index}.{salt_digest('somebody')}")
    salted.write_bytes(index.read_bytes())
    generator = Generator(tiny_model("llama"), tokenizer, index=index, costs=0.0)
    inputs = [row["input"] for row in ROWS[:8]]
    for _ in range(2):
        for salt in (None, "somebody"):
            assert generator.generate(inputs, max_tokens=4, salt=salt).stats.drafted > 0
        index.write_bytes(b"")
        salted.write_bytes(b"")


def test_a_generator_lives_where_its_index_is_written_over(tmp_path: Path) -> None:
    """In a child, which a read of a mapped file beyond its end would kill (SIGBUS)."""
    assert exit_code_of_fork(generate_while_written_over, tmp_path) == 0


def test_an_engine_lives_where_its_index_is_written_over(tokenizer_file: Path, tmp_path: Path) -> None:
    assert run(WRITTEN_OVER, tokenizer_file, tmp_path) == "alive\n"


def test_a_file_that_is_half_written_is_refused_until_it_is_whole(
    tmp_path: Path, index: TaskIndex, task: TaskTokenizer, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    drafts = TaskDrafts(index.path, task)
    old = drafts.index
    whole = build(tmp_path / "new", task, ROWS[5:]).path.read_bytes()
    for half in (b"", whole[: len(whole) // 2], whole[:4096] + bytes(len(whole) - 4096)):
        index.path.write_bytes(half)
        state = os.stat(index.path)
        for _ in range(2):
            drafts.start([1])
        assert drafts.index is old
    index.path.write_bytes(whole)
    os.utime(index.path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as where all is written in a tick of the clock
    drafts.start([1])
    assert drafts.index is not old
    assert drafts.reloads == 1
    assert drafts.faults["refused_files"] == 6
    assert caplog.text.count("cannot be used, the index before it stays") == 3


def test_large_indexes_stay_mapped_small_ones_are_shared(index: TaskIndex, task: TaskTokenizer, caplog: Any) -> None:
    first, second = TaskDrafts(index.path, task), TaskDrafts(index.path, task)
    assert first.index is second.index
    assert first.index is not None and first.index.in_memory
    assert "stays mapped" not in caplog.text
    mapped = TaskDrafts(index.path, task, memory_bytes=100).index
    assert mapped is not None and not mapped.in_memory
    assert "is larger than memory_bytes=100 and stays mapped" in caplog.text


@pytest.mark.parametrize("verify", ["always", "other_owner", "later"])
def test_a_damaged_index_is_refused_or_turned_off(
    index: TaskIndex, task: TaskTokenizer, monkeypatch: pytest.MonkeyPatch, verify: str
) -> None:
    damaged = bytearray(index.path.read_bytes())
    damaged[5000] ^= 1
    index.path.write_bytes(damaged)
    if verify == "other_owner":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    if verify != "later":
        with pytest.raises(FormatError, match="checksum"):
            TaskDrafts(index.path, task, verify=verify, memory_bytes=0)
        return
    drafts = TaskDrafts(index.path, task, verify=verify, memory_bytes=0)
    until = time.monotonic() + 30
    while not drafts.faults["damaged_files"] and time.monotonic() < until:
        time.sleep(0.01)
    assert isinstance(drafts.start([1]).drafter.drafter, NullDrafter)
    assert drafts.faults["plain_requests"] == 1


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path, index: TaskIndex, task: TaskTokenizer) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in (pipe, Path("/dev/zero"), tmp_path):
        for open_ in (TaskIndex.open, TokenStore.open, NgramTable, lambda f: TaskDrafts(f, task)):
            with pytest.raises(FormatError, match="no regular file"):
                open_(file)
        with pytest.raises((FormatError, IsADirectoryError)):
            NgramDrafter(index, served=file)
        with pytest.raises(InputError, match="give a file"):
            Settings.read(file)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"indexes": [], "log_bytes": 9223372036854775808}', "1" * 10_000, "\xff"],
    ids=["lists", "objects", "2**63", "digits", "no UTF-8"],
)
def test_settings_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(InputError) as raised:
        Settings.read(file)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
    with pytest.raises(InputError):
        read_json(tmp_path)


# --- failures

ONES, TYPES = np.ones(2, np.float32), np.zeros(2, np.uint8)
NONSENSE: dict[str, Any] = {
    "None": None,
    "a list": [5, 6],
    "floats": TokenDraft(np.array([5.5, 6.0]), ONES, TYPES),  # type: ignore[arg-type]
    "two dimensions": TokenDraft(np.array([[5, 6]], np.uint32), ONES, TYPES),
    "text": TokenDraft("abc", ONES, TYPES),  # type: ignore[arg-type]
    "negative": TokenDraft(np.array([-1, 3]), ONES, TYPES),  # type: ignore[arg-type]
    "above int64": TokenDraft(np.array([2**63 + 5, 3], np.uint64), ONES, TYPES),  # type: ignore[arg-type]
    "no probabilities": TokenDraft(np.array([5, 6], np.uint32), None, None),  # type: ignore[arg-type]
    "sources of text": TokenDraft(np.array([5, 6], np.uint32), ONES, np.array(["a", "b"])),  # type: ignore[arg-type]
    "too long": TokenDraft.of([5] * 5000),
}


class Nonsense(Drafter):
    """Drafts what is no draft."""

    name = "nonsense"

    def __init__(self, draft: Any) -> None:
        self.draft = draft

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Any:
        return SimpleNamespace(draft=lambda *_: self.draft, update=lambda ids: None, configure=lambda params: None)


@pytest.mark.parametrize("what", NONSENSE)
@pytest.mark.parametrize("where", ["generate", "transformers", "engine"])
def test_what_is_no_draft_means_plain_decoding_and_one_warning(what: str, where: str, caplog: Any) -> None:
    drafter, prompt = Nonsense(NONSENSE[what]), [5, 6, 7]
    expected: Any
    found: Any
    if where == "generate":
        model = tiny_model("llama")
        expected = Generator(model, byte_tokenizer()).generate(["abc"], max_tokens=12)[0].ids
        found = Generator(model, byte_tokenizer(), drafter=drafter, costs=0.0).generate(["abc"], max_tokens=12)[0].ids
    elif where == "transformers":
        model = tiny_model("llama")
        expected = peer_greedy(model, prompt, 12)
        found = peer_greedy(model, prompt, 12, custom_generate=TascGenerate(drafter=drafter, costs=0.0))
    else:
        asked = Asked(prompt, expected := [*range(10, 30), 2])
        tracker = RequestTracker(
            lambda *_: TaskDrafts(drafter=drafter), max_draft=8, max_length=100, vocab_size=500, eos=frozenset([2]),
            curve=LearnedCosts(1e-6), metrics=Metrics(),
        )  # fmt: skip
        Engine(tracker.propose).run([asked])
        found = asked.output
    assert found == expected
    drafts = what in ("above int64", "too long")  # integers, of which those beyond the vocabulary are cut
    assert drafts or caplog.text.count("go on without drafts") == 1


class Broken(Drafter):
    """Fails until it is mended."""

    name = "broken"

    def __init__(self) -> None:
        self.starts, self.fails = 0, True

    def start(self, prompt_ids: Any, input_text: str | None = None) -> Any:
        self.starts += 1
        if self.fails:
            raise RuntimeError("no")
        return SimpleNamespace(draft=lambda *_: TokenDraft.of([1]), update=lambda ids: None)


def test_a_failing_index_is_turned_off_for_a_while(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    drafter = Broken()
    drafts = TaskDrafts(drafter=drafter)

    def failures(seconds: int) -> int:
        before = drafter.starts
        for _ in range(seconds * 10):
            now[0] += 0.1
            drafts.start([1])
        return drafter.starts - before

    assert failures(60) == 6  # after 1, 2, 4, … seconds
    assert drafts.faults["turned_off"] == 6
    assert caplog.text.count("requests that start decode plainly") == 6
    drafter.fails = False
    assert failures(600) > 5000
    drafter.fails = True
    assert failures(2) == 2  # it is turned off for a second again


@pytest.mark.parametrize("adapter", ["sglang", "llama.cpp", "transformers"])
def test_every_adapter_turns_a_failing_index_off(adapter: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    drafter = Broken()
    if adapter == "sglang":
        drafts = TaskDrafts(drafter=drafter)
        corpus = TascCorpus(lambda *_: drafts, 4)
        names = map(str, range(100))
        request: Any = lambda: corpus.batch_get([next(names)], [[1, 2]], [2])  # noqa: E731
    elif adapter == "llama.cpp":
        draft = TascDraft(drafter=drafter)
        prompts = iter(range(3, 100))
        request = lambda: draft(np.array([next(prompts), 2], np.intc))  # noqa: E731
    else:
        model, generate = tiny_model("llama"), TascGenerate(drafter=drafter, costs=0.0)
        request = lambda: peer_greedy(model, [5, 6], 3, custom_generate=generate)  # noqa: E731
    for starts in (1, 2):
        for _ in range(4):
            request()
        assert drafter.starts == starts
        now[0] += 1.5
    assert caplog.text.count("requests that start decode plainly") == 2


@pytest.mark.parametrize("adapter", [TascCorpus, TascDraft])
def test_adapters_let_nothing_through_but_interrupts_and_exits(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    drafts = TaskDrafts()
    corpus, draft = TascCorpus(lambda *_: drafts, 2), TascDraft()

    def drafted() -> list[int]:
        if adapter is TascDraft:
            return draft(np.array([5, 6], np.intc)).tolist()
        return corpus.batch_get(["a"], [[5, 6]], [2])[0].tolist()

    plain = [] if adapter is TascDraft else [6, 0]

    def fail(raised: BaseException) -> None:
        monkeypatch.setattr(adapter, "_follow" if adapter is TascDraft else "_followed", Mock(side_effect=raised))

    for raised in (InternalError("no"), type("Panic", (BaseException,), {})()):
        fail(raised)
        assert drafted() == drafted() == plain
        monkeypatch.undo()
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        now[0] += 1000
        drafted()
    for passes in (KeyboardInterrupt, SystemExit):
        fail(passes())
        with pytest.raises(passes):
            drafted()


def test_a_proposer_lets_nothing_through_but_interrupts_and_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    now, raises = [1000.0], [BaseException]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def propose(*_: Any) -> list[list[int]]:
        raise raises[0]

    proposer = TascProposer.__new__(TascProposer)
    proposer.metrics, proposer._backoff, proposer._file = Metrics(), Backoff(), None
    proposer.requests = SimpleNamespace(of_step=lambda: None)  # type: ignore[assignment]
    proposer._new_batch = lambda: SimpleNamespace(propose=propose)  # type: ignore[assignment, return-value]
    proposer.batch = proposer._new_batch()
    for raised in (Panic, RuntimeError, MemoryError):
        raises[0] = raised
        for _ in range(3):
            assert proposer.propose([[1], [2]], np.zeros(2), np.zeros((2, 2))) == [[], []]
        now[0] += 1000
    assert proposer.metrics.as_dict()["failed_steps"] == 3
    for passes in (KeyboardInterrupt, SystemExit):
        raises[0] = passes
        with pytest.raises(passes):
            proposer.propose([[1]], np.zeros(2), np.zeros((2, 2)))


def test_a_pause_doubles_until_drafts_have_worked_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    backoff, pauses = Backoff(), []
    for _ in range(10):
        pauses.append(backoff.begin())
        assert backoff.is_on
        now[0] += pauses[-1]
        assert not backoff.is_on
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    now[0] += 601
    assert backoff.begin() == 1
    backoff.end()
    assert not backoff.is_on


def test_metrics_have_every_fault() -> None:
    drafts = TaskDrafts(drafter=NullDrafter())
    drafts.faults.update(turned_off=2, unlearnt_rows=3)
    metrics = Metrics()
    metrics.count(drafts, "requests")
    found = metrics.as_dict()["indexes"]["plain"]
    assert json.loads(json.dumps(found))["turned_off"] == 2
    assert found["unlearnt_rows"] == 3
