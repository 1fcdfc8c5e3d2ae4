"""Which index and salt a request belongs to, and that what one salt learns serves no other."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import Asked, Engine
from test_served import NEW, ROWS, build, ids
from test_serving import foreseen, until
from tokenizers import Tokenizer, processors

from tasc import TaskIndex
from tasc.data import TaskTokenizer, load_tokenizer
from tasc.data.ids import common_prefix_length
from tasc.drafting.costs import LearnedCosts
from tasc.drafting.protocol import salt_digest, served_log
from tasc.errors import InputError
from tasc.serving import Metrics, RequestFields, RequestTracker, Settings, TaskDrafts, Tasks
from tasc.serving import reload as reload_module
from tasc.serving.tasks import SaltedDrafts
from tasc.serving.tracker import BatchRequests

A, B = "You work for tenant A.<|im_end|>", "You work for tenant B.<|im_end|>"


@pytest.fixture(scope="module")
def task(tokenizer: Tokenizer) -> TaskTokenizer:
    return load_tokenizer(tokenizer)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, task: TaskTokenizer) -> Path:
    return Path(build(tmp_path_factory.mktemp("built") / "task", task, ROWS).path)


@pytest.fixture
def index(tmp_path: Path, built: Path) -> TaskIndex:
    return TaskIndex.open(shutil.copy(built, tmp_path))


@pytest.fixture
def made(tmp_path: Path, built: Path, task: TaskTokenizer) -> Iterator[Callable[..., Tasks]]:
    """Makes the tasks of settings over the indexes a.tasc, b.tasc and rest.tasc, equal ones, in a new folder."""
    opened: list[Tasks] = []

    def make(indexes: list[dict[str, str]], tokenizer: Any = task, model: str | None = None, **options: Any) -> Tasks:
        folder = tmp_path / str(len(opened))
        folder.mkdir(exist_ok=True)
        for name in ("a", "b", "rest"):
            shutil.copy(built, folder / f"{name}.tasc")
        listed = [{**one, "path": f"{one['path']}.tasc"} for one in indexes]
        (folder / "settings.json").write_text(json.dumps({"indexes": listed, **options}))
        opened.append(Tasks(Settings.read(folder / "settings.json"), tokenizer, model))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def run(tasks: Tasks, task: TaskTokenizer, prompt: str, output: str, fields: RequestFields | None = None) -> int:
    """Accepted drafted tokens of a request whose model writes `output`."""
    metrics = Metrics()
    tracker = RequestTracker(
        tasks.choose, max_draft=60, max_length=2000, vocab_size=1000, eos=frozenset([1]), curve=LearnedCosts(1e-3),
        metrics=metrics,
    )  # fmt: skip
    shown = BatchRequests(["it"], {"it"}, lambda _: fields)
    asked = Asked(task.encode(prompt).tolist(), ids(task, {"output": output}).tolist())
    Engine(lambda *step: tracker.propose(*step, shown)).run([asked])
    [counted] = metrics.as_dict()["indexes"].values()
    return sum(counted["accepted"].values())


# --- which index


def test_a_user_who_quotes_another_tenant_is_served_from_his_own_index(
    made: Callable[..., Tasks], task: TaskTokenizer, tmp_path: Path
) -> None:
    """A guess of another tenant's answer comes out as fast as it would be if it were wrong; nothing is learnt there."""
    guess, other = "the merger with Globex closes on 14 March", "the merger with Initech fails on 29 April"
    quoting = f"{B} What do they say behind '{A}'? Status of the merger?\n"
    accepted, inside = list[int](), list[int]()
    for number, answer in enumerate((guess, other)):
        tasks = made([{"path": "a", "prompt_starts_with": A}, {"path": "b", "prompt_starts_with": B}], learn=True)
        confidential, own = tasks.choose(task.encode(A)), tasks.choose(task.encode(B))
        run(tasks, task, f"{A} Status of the merger?\n", answer)
        until(lambda drafts=confidential: drafts.num_served == 1)
        assert tasks.choose(task.encode(quoting)) is own
        accepted.append(run(tasks, task, quoting, guess))
        until(lambda drafts=own: drafts.num_served == 1)
        assert confidential.num_served == 1
        assert b"they say behind" not in (tmp_path / str(number) / "a.tasc.served").read_bytes()
        inside.append(run(tasks, task, f"{A} Status of the merger?\n", guess))
    assert accepted[0] == accepted[1]
    assert inside[0] > inside[1] > accepted[0]  # tenant A itself gains from its rows


def test_the_head_is_compared_as_text_whatever_follows_it(made: Callable[..., Tasks], task: TaskTokenizer) -> None:
    tasks = made([{"path": "a", "prompt_starts_with": 'Fill "intent"'}, {"path": "rest"}])
    name = lambda text: tasks.choose(task.encode(text)).name  # noqa: E731
    head = task.encode('Fill "intent"').tolist()
    assert task.encode('Fill "intent": x').tolist()[: len(head)] != head  # its last token is another one here
    assert name('Fill "intent": x') == name('Fill "intent"') == "a.tasc"
    assert name('Fill "inten') == name(' Fill "intent"') == name('x Fill "intent"') == name("") == "rest.tasc"
    assert tasks.choose([]).name == "rest.tasc"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_token_that_begins_every_text_is_passed_over(
    made: Callable[..., Tasks], tokenizer: Tokenizer, wrapped: bool
) -> None:
    beginning: Any = Tokenizer.from_str(tokenizer.to_str())
    if wrapped:
        transformers = pytest.importorskip("transformers")
        beginning = transformers.PreTrainedTokenizerFast(tokenizer_object=beginning, bos_token="<|endoftext|>")
    else:
        beginning.post_processor = processors.TemplateProcessing("<|endoftext|> $A", None, [("<|endoftext|>", 0)])
    task = load_tokenizer(tokenizer)
    for head in (A, "<|endoftext|>" + A):
        tasks = made([{"path": "a", "prompt_starts_with": head}, {"path": "rest"}], tokenizer=beginning)
        for first in ([], [0], [0, 0]):
            assert tasks.choose([*first, *task.encode(A + "x").tolist()]).name == "a.tasc"
            assert tasks.choose([*first, *task.encode("x" + A).tolist()]).name == "rest.tasc"
    with pytest.raises(InputError, match="with which every prompt begins"):
        made([{"path": "a", "prompt_starts_with": "<|endoftext|>"}, {"path": "rest"}], tokenizer=beginning)


def test_special_tokens_of_a_head_are_compared(made: Callable[..., Tasks], task: TaskTokenizer) -> None:
    tasks = made([{"path": "a", "prompt_starts_with": A}, {"path": "rest"}])
    assert tasks.choose(task.encode(A.removesuffix("<|im_end|>") + " Go on.<|im_end|>")).name == "rest.tasc"


def test_a_head_that_a_user_could_complete_is_refused(made: Callable[..., Tasks]) -> None:
    long, short = {"path": "a", "prompt_starts_with": "You work for A"}, {"path": "b", "prompt_starts_with": "You work"}
    with pytest.raises(InputError, match="whose users could write the rest"):
        made([long, short])
    made([{**long, "key": "a"}, short])


def test_a_head_goes_before_a_text_anywhere(made: Callable[..., Tasks], task: TaskTokenizer) -> None:
    tasks = made([{"path": "rest"}, {"path": "a", "prompt_contains": "tenant"}, {"path": "b", "prompt_starts_with": B}])
    assert tasks.choose(task.encode(B + " tenant")).name == "b.tasc"
    assert tasks.choose(task.encode("a tenant")).name == "a.tasc"
    assert tasks.choose(task.encode("none")).name == "rest.tasc"


def test_a_text_anywhere_chooses_what_is_learnt_only_where_users_trust_each_other(
    made: Callable[..., Tasks],
) -> None:
    listed = [{"path": "a", "prompt_contains": "A"}, {"path": "rest"}]
    with pytest.raises(InputError, match='say "trusted": true'):
        made(listed, learn=True)
    made(listed, learn=True, trusted=True)
    made(listed, learn=False)


def test_keys_and_adapters_choose_an_index_and_unknown_ones_none(made: Callable[..., Tasks]) -> None:
    tasks = made([{"path": "a", "key": "A"}, {"path": "b", "lora": "B"}, {"path": "rest"}])
    name = lambda **fields: tasks.choose([5], RequestFields(**fields)).name  # noqa: E731
    assert name(key="A") == "a.tasc"
    assert name(lora="B") == "b.tasc"
    assert name() == "rest.tasc"
    assert name(key="b") == name(lora="C") == name(key="A", lora="B") == name(key="") == "unknown"
    assert tasks.choose([5], None).name == "unknown"  # the engine does not show fields: whose is it?
    assert tasks.choose([5], RequestFields(key="b")).index is None


def test_an_adapter_is_not_looked_at_where_no_index_names_one(made: Callable[..., Tasks]) -> None:
    tasks = made([{"path": "rest"}])
    assert tasks.choose([5], RequestFields(lora="C")).name == tasks.choose([5]).name == "rest.tasc"
    assert made([{"path": "a", "key": "A"}]).choose([5], RequestFields()).name == "none"


def test_indexes_of_other_served_models_are_left_out(made: Callable[..., Tasks]) -> None:
    listed = [{"path": "a", "model": "small"}, {"path": "b", "model": "large"}]
    assert made(listed, model="large").choose([5]).name == "b.tasc"
    with pytest.raises(InputError, match="served as None, and all indexes are for others: 'small', 'large'"):
        made(listed)


def test_one_file_under_several_conditions_is_one_task(made: Callable[..., Tasks]) -> None:
    tasks = made([{"path": "a", "key": "1"}, {"path": "a", "key": "2"}], learn=True)
    assert tasks.choose([5], RequestFields(key="1")) is tasks.choose([5], RequestFields(key="2"))


def test_what_fails_while_a_request_is_routed_leaves_its_own_context(
    made: Callable[..., Tasks], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = made([{"path": "rest"}])
    monkeypatch.setattr(TaskDrafts, "salted", _fails)
    assert tasks.choose([5], RequestFields(salt="S")).name == "unknown"
    assert "drafts from its own context" in caplog.text


def _fails(self: TaskDrafts, salt: str) -> TaskDrafts:
    raise MemoryError


# --- salts


def test_a_learnt_row_of_one_salt_serves_no_other(task: TaskTokenizer, index: TaskIndex) -> None:
    drafts = TaskDrafts(index.path, task, learn=True)
    one, other = drafts.salted("one"), drafts.salted("other")
    before = foreseen(drafts, task, NEW)
    assert foreseen(one, task, ROWS[0]) == foreseen(drafts, task, ROWS[0]) > 10  # the prepared index serves all
    one.finished(NEW["input"], ids(task, NEW))
    until(lambda: one.drafter.num_served == 1)
    assert foreseen(one, task, NEW) > before + 5
    assert foreseen(other, task, NEW) == foreseen(drafts, task, NEW) == before
    drafts.finished(NEW["input"], ids(task, NEW))
    until(lambda: drafts.drafter.num_served == 1)
    assert foreseen(drafts, task, NEW) > before + 5
    assert foreseen(other, task, NEW) == before
    assert drafts.salted("one") is one and drafts.num_salts == 2 and drafts.num_served == 2
    drafts.close()


@pytest.mark.parametrize("seed", range(5))
def test_drafts_of_a_salt_are_the_same_whatever_others_do(
    task: TaskTokenizer, built: Path, tmp_path: Path, seed: int
) -> None:
    """The drafts, their probabilities and their sources, over 12 requests that learn, alone and among others."""

    def drafted(others: int) -> list[Any]:
        folder = tmp_path / str(others)
        folder.mkdir()
        drafts, seen = TaskDrafts(shutil.copy(built, folder), task, learn=True), list[Any]()
        mine, theirs = random.Random(seed), random.Random(seed + 100)
        for number in range(12):
            for _ in range(theirs.randrange(4) * others):
                salt = theirs.choice(["one", "two", None])
                answer(drafts if salt is None else drafts.salted(salt), random_row(theirs))
            seen += answer(drafts.salted("mine"), random_row(mine))
            until(lambda count=number + 1: drafts.salted("mine").drafter.num_served == count)
        drafts.close()
        return seen

    def answer(drafts: TaskDrafts, row: dict[str, str]) -> list[Any]:
        request, output, at, seen = drafts.start(task.encode(row["input"])).request, ids(task, row), 0, list[Any]()
        while at < len(output):
            draft = request.draft(16)
            seen.append([np.asarray(one).tolist() for one in (draft.tokens, draft.probs, draft.sources)])
            new = output[at : at + 1 + common_prefix_length(np.asarray(draft.tokens), output[at:-1])]
            at += len(new)
            request.update(new)
        drafts.finished(row["input"], output)
        return seen

    def random_row(chosen: random.Random) -> dict[str, str]:
        number = chosen.randrange(5)
        return chosen.choice([ROWS[number], {"input": f"call {number}", "output": f'{{"call": "{number * 7919}"}}'}])

    assert drafted(0) == drafted(1)


def test_the_log_of_a_salt_is_its_own_and_is_read_again(task: TaskTokenizer, index: TaskIndex, tmp_path: Path) -> None:
    drafts = TaskDrafts(index.path, task, learn=True)
    log = served_log(index, salt_digest("customer 7"))
    salted = drafts.salted("customer 7")
    assert not log.exists()
    salted.finished(NEW["input"], ids(task, NEW))
    until(lambda: salted.drafter.num_served == 1)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert log.name == "task.tasc.served.a8564eeb8ba3b25fa1da9c7ca13a2c90"
    assert NEW["input"].encode() not in served_log(index).read_bytes()
    assert not any("customer" in file.name for file in tmp_path.iterdir())
    drafts.close()
    del drafts, salted
    gc.collect()
    again = TaskDrafts(index.path, task, learn=True)
    salted = again.salted("customer 7")
    until(lambda: salted.drafter.num_served == 1)
    assert again.drafter.num_served == 0
    again.close()


def test_a_salt_has_its_own_compacted_index(
    task: TaskTokenizer, index: TaskIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "CHECK_SECONDS", 0.0)
    drafts = TaskDrafts(index.path, task, learn=True)
    salted, before = drafts.salted("S"), foreseen(drafts, task, NEW)
    for _ in range(2):
        salted.finished(NEW["input"], ids(task, NEW))
    until(lambda: salted.drafter.num_served == 2)
    own = Path(f"{index.path}.{salt_digest('S')}")
    index.compact(own, served=[served_log(index, salt_digest("S"))], tokenizer=task, fit=False)
    assert foreseen(salted, task, NEW) > before + 5
    assert salted.index is not None and salted.index.path == own  # taken up while it serves
    assert salted.drafter.num_served == 0  # the index holds the rows: none counts twice
    assert salted.name == drafts.name == "task.tasc"
    assert foreseen(drafts, task, NEW) == foreseen(drafts.salted("T"), task, NEW) == before
    salted.finished(NEW["input"], ids(task, NEW))
    until(lambda: salted.drafter.num_served == 1)
    drafts.close()
    del drafts, salted
    gc.collect()
    salted = TaskDrafts(index.path, task, learn=True).salted("S")
    assert salted.index is not None and salted.index.path == own
    until(lambda: salted.drafter.num_served == 1)


def test_a_salts_own_index_that_cannot_be_used_leaves_the_shared_one(
    task: TaskTokenizer, index: TaskIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Path(f"{index.path}.{salt_digest('S')}")
    own.write_bytes(b"no index")
    drafts = TaskDrafts(index.path, task, learn=True)
    assert drafts.salted("S").index is drafts.index
    assert drafts.salted("S").index is drafts.index
    assert caplog.text.count("cannot be used") == 1
    drafts.close()


def test_the_least_recently_used_salt_is_closed_and_comes_back(task: TaskTokenizer, index: TaskIndex) -> None:
    drafts = TaskDrafts(index.path, task, learn=True, max_salts=2)
    for salt in "ab":
        drafts.salted(salt).finished(NEW["input"], ids(task, NEW))
    until(lambda: drafts.num_served == 2)
    drafts.salted("a")
    drafts.salted("c")
    until(lambda: gc.collect() >= 0 and drafts.num_salts == 2)  # the thread that learns lets go of it shortly
    assert drafts.num_served == 1
    drafts.salted("b")
    until(lambda: drafts.salted("b").drafter.num_served == 1)
    running = drafts.salted("d")
    for salt in "efg":
        drafts.salted(salt)
    assert drafts.salted("d") is running  # a request that runs keeps its drafter, and its log
    drafts.close()


def test_hostile_salts_fill_neither_memory_nor_disk(
    task: TaskTokenizer, index: TaskIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drafts = TaskDrafts(index.path, task, learn=True, max_salts=3, max_salt_logs=4)
    odd = ["", "../../etc/passwd", "\0", "\ud800", "x" * 10**6, "a/b"]
    for number in range(20):
        salted = drafts.salted(odd[number] if number < len(odd) else str(number))
        salted.finished(NEW["input"], ids(task, NEW))
    del salted
    drafts.salted("quiet")
    until(lambda: gc.collect() >= 0 and drafts.num_salts <= 3)
    logs = [file.name for file in tmp_path.iterdir() if file.name.startswith("task.tasc.served.")]
    assert len(logs) == 4
    assert caplog.text.count("kept in memory alone") == 1
    assert salt_digest("quiet") not in "".join(logs)
    drafts.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_logs_are_closed_while_many_salts_wait_to_learn(
    task: TaskTokenizer, index: TaskIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts, begun, held = TaskDrafts(index.path, task, learn=True, max_salts=2), threading.Event(), threading.Event()
    monkeypatch.setattr(drafts, "_learn", lambda rows: (begun.set(), held.wait(20)))
    drafts.finished(None, [5, 1])
    assert begun.wait(20)  # the thread has taken this row alone
    waiting = list[Path]()
    for number in range(30):
        drafts.salted(str(number)).finished(None, [5, 1])
        waiting.append(served_log(index, salt_digest(str(number))))
    assert drafts.num_salts == 30
    most = [0]
    opens = SaltedDrafts._open

    def counted(self: SaltedDrafts, log: Path) -> None:
        opens(self, log)
        links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        most[0] = max(most[0], sum(link.is_symlink() and os.readlink(link) in map(str, waiting) for link in links))

    monkeypatch.setattr(SaltedDrafts, "_open", counted)
    held.set()
    until(lambda: all(log.exists() for log in waiting) and drafts.num_salts <= 2)
    assert 0 < most[0] <= 3
    drafts.close()


def test_whether_unsalted_requests_learn_is_a_setting(
    made: Callable[..., Tasks], task: TaskTokenizer, tmp_path: Path
) -> None:
    tasks = made([{"path": "rest"}], learn=True, learn_unsalted=False)
    shared, salted = tasks.choose([5], RequestFields()), tasks.choose([5], RequestFields(salt="S"))
    for drafts in (shared, salted):
        drafts.finished(NEW["input"], ids(task, NEW))
    until(lambda: salted.drafter.num_served == 1)
    assert shared.drafter.num_served == 0
    assert not (tmp_path / "0" / "rest.tasc.served").exists()


def test_salts_count_with_their_index_in_the_metrics(task: TaskTokenizer, index: TaskIndex) -> None:
    drafts, metrics = TaskDrafts(index.path, task), Metrics()
    for number in range(100):
        metrics.count(drafts.salted(str(number)), "requests")
    gc.collect()
    counted = metrics.as_dict()["indexes"]
    assert counted["task.tasc"]["requests"] == 100 and list(counted) == ["task.tasc"]
    assert counted["task.tasc"]["salts"] == 64
    assert 'tasc_salts{index="task.tasc"} 64.0' in metrics.prometheus()


def test_an_output_is_dropped_where_no_thread_can_be_started(
    task: TaskTokenizer, index: TaskIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = TaskDrafts(index.path, task, learn=True)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_thread)
        drafts.finished(NEW["input"], ids(task, NEW))
    drafts.finished(NEW["input"], ids(task, NEW))
    until(lambda: drafts.drafter.num_served == 1)
    drafts.close()


def _no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# --- requests by name


def test_equal_requests_of_two_salts_are_told_apart(made: Callable[..., Tasks], task: TaskTokenizer) -> None:
    """Two tenants ask the same at once, and one is paused: by their tokens alone they could be mistaken."""
    tasks = made([{"path": "rest"}], learn=True)
    metrics = Metrics()
    tracker = RequestTracker(
        tasks.choose, max_draft=8, max_length=512, vocab_size=1000, eos=frozenset([1]), curve=LearnedCosts(1e-3),
        metrics=metrics,
    )  # fmt: skip
    prompt, output = task.encode("book").tolist(), ids(task, NEW).tolist()
    fields = {"x": RequestFields(salt="X"), "y": RequestFields(salt="Y")}

    def step(*rows: tuple[str, list[int]]) -> None:
        tokens = np.array([[*prompt, *output] for _ in rows], np.int32)
        lengths = np.array([len(prompt) + len(so_far) for _, so_far in rows])
        tracker.propose([so_far[-1:] for _, so_far in rows], lengths, tokens, shown([name for name, _ in rows]))

    def shown(names: list[str]) -> BatchRequests:
        return BatchRequests(names, known, fields.__getitem__)

    known = {"x", "y"}
    step(("x", output[:1]), ("y", output[:1]))
    of = {row.name: row.drafts for row in tracker._rows if row is not None}
    assert of["x"] is not of["y"]
    step()  # both are paused
    step(("x", output[:2]), ("y", output[:2]))
    assert [row.name for row in tracker._rows if row is not None] == ["x", "y"]
    step(("y", output[:3]))  # x is paused, y moves into its row
    step(("x", output[:3]), ("y", output[:4]))
    assert {row.name: row.drafts for row in tracker._rows if row is not None} == of
    assert metrics.as_dict()["indexes"]["rest.tasc"]["requests"] == 2
    step(("y", output[:5]))
    known.remove("x")  # aborted
    step(("y", output[:6]))
    assert not tracker._absent
