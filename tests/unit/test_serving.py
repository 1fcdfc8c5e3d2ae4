"""Settings, metrics, step times, and a task whose index is replaced and which learns from what is served."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_served import NEW, ROWS, build, ids
from tokenizers import Tokenizer

from tasc import NullDrafter, TaskIndex
from tasc.data import TaskTokenizer, load_tokenizer
from tasc.drafting.costs import LearnedCosts
from tasc.drafting.protocol import SafeDrafter, served_log, served_logs
from tasc.errors import InputError, TokenizerMismatchError
from tasc.serving import Metrics, Settings, TaskDrafts, Tasks
from tasc.serving import reload as module


@pytest.fixture(scope="module")
def task(tokenizer: Tokenizer) -> TaskTokenizer:
    return load_tokenizer(tokenizer)


@pytest.fixture
def index(tmp_path: Path, task: TaskTokenizer) -> TaskIndex:
    return build(tmp_path / "task", task, ROWS)


def foreseen(drafts: TaskDrafts, task: TaskTokenizer, row: dict[str, str]) -> int:
    """Leading tokens of a row's output that the first draft has."""
    drafted = drafts.start(task.encode(row["input"]), row["input"]).request.draft(64, np.array([1.0, 1.001])).tokens
    output = ids(task, row)[: len(drafted)]
    wrong = np.flatnonzero(drafted[: len(output)] != output)
    return int(wrong[0]) if len(wrong) else len(output)


# --- settings


def test_an_index_alone_or_with_settings_beside_it(index: TaskIndex) -> None:
    assert Settings.from_environment({"TASC_INDEX": str(index.path)}).indexes[0].path == Path(index.path)
    Path(f"{index.path}.json").write_text('{"learn": true, "cost": 0.1, "metrics": "out.prom"}')
    found = Settings.from_environment({"TASC_INDEX": str(index.path)})
    assert (found.learn, found.cost, found.metrics) == (True, 0.1, Path(index.path).parent / "out.prom")
    assert found.indexes[0].path == Path(index.path)


def test_several_indexes(tmp_path: Path, index: TaskIndex) -> None:
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"indexes": [{"path": "task.tasc", "prompt_contains": "flights"}]}))
    found = Settings.from_environment({"TASC_INDEX": str(file)})
    assert [(one.path, one.prompt_contains) for one in found.indexes] == [(tmp_path / "task.tasc", "flights")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not JSON"),
        ("[]", "must be an object"),
        ("{}", "list at least one"),
        ('{"indexes": []}', "list at least one"),
        ('{"indexes": ["task.tasc"]}', r"indexes\[0\] is 'task.tasc'; it must be an object"),
        ('{"indexes": [{"path": "other.tasc"}]}', r"other\.tasc is no file"),
        ('{"indexes": [{}]}', "give the index's file"),
        ('{"indexes": [{"path": "task.tasc", "promt": "x"}]}', "'promt'; there are path, key, lora"),
        ('{"indexes": [{"path": "task.tasc"}, {"path": "task.tasc"}]}', "have the same conditions"),
        ('{"indexes": [{"path": "task.tasc"}], "lern": true}', "unknown setting 'lern'"),
        ('{"indexes": [{"path": "task.tasc"}], "learn": 1}', "learn is 1; it must be bool"),
        ('{"indexes": [{"path": "task.tasc"}], "cost": true}', "cost is True; it must be int or float or NoneType"),
        ('{"indexes": [{"path": "task.tasc"}], "cost": -1}', "cost is -1; give plain steps per token"),
        (f'{{"indexes": [{{"path": "task.tasc"}}], "cost": 1{"0" * 400}}}', "cost is 1000"),
        (f'{{"indexes": [{{"path": "task.tasc"}}], "log_bytes": {2**63}}}', f"log_bytes is {2**63}; it must be from 0"),
        ('{"indexes": [{"path": "task.tasc"}], "max_salts": 0}', "max_salts is 0; it must be at least 1"),
        ('{"indexes": [{"path": "task.tasc"}], "log_days": 0}', "log_days is 0; it must be from 1 to 4294967295"),
        ('{"indexes": [{"path": "task.tasc"}], "salt": "user"}', "salt is 'user'; it must be 'tasc_salt' or 'cache_sa"),
        ('{"indexes": [{"path": "task.tasc", "key": ""}]}', "key is empty; leave it out"),
        ("[" * 5000 + "]" * 5000, "not JSON"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "not JSON"),
        (
            '{"indexes": [{"path": "task.tasc", "prompt_contains": "x"}], "learn": true}',
            r"settings\.json: indexes\[0\]: `prompt_contains` is met by any user",
        ),
    ],
)  # fmt: skip
def test_settings_that_are_wrong(tmp_path: Path, index: TaskIndex, text: str, message: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        Settings.from_environment({"TASC_INDEX": str(file)})


def test_settings_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="TASC_INDEX is not set"):
        Settings.from_environment({})
    with pytest.raises(InputError, match="where there is no file"):
        Settings.from_environment({"TASC_INDEX": str(tmp_path / "none.tasc")})


# --- which index


def test_the_prompt_chooses_the_index(tmp_path: Path, task: TaskTokenizer, index: TaskIndex) -> None:
    build(tmp_path / "other", task, [NEW, *ROWS[:5]])
    file = tmp_path / "all.json"
    listed = [{"path": "other.tasc", "prompt_contains": "table"}, {"path": "task.tasc"}]
    file.write_text(json.dumps({"indexes": listed}))
    tasks = Tasks(Settings.read(file), task)
    assert tasks.choose(task.encode("book a table for two")).name == "other.tasc"
    assert tasks.choose(task.encode("flights from boston to denver")).name == "task.tasc"
    file.write_text(json.dumps({"indexes": listed[:1]}))
    assert Tasks(Settings.read(file), task).choose(task.encode("flights from boston")).index is None
    with pytest.raises(InputError, match="need the model's tokenizer"):
        Tasks(Settings.read(file), None)


# --- replacing


def test_a_replaced_index_is_taken_up_and_running_requests_keep_theirs(
    tmp_path: Path, task: TaskTokenizer, index: TaskIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    drafts = TaskDrafts(index.path, task)
    before = foreseen(drafts, task, NEW)
    running = drafts.start(task.encode(ROWS[0]["input"]), ROWS[0]["input"])
    os.replace(build(tmp_path / "new", task, [NEW, *ROWS]).path, index.path)
    assert foreseen(drafts, task, NEW) > before + 5
    assert drafts.reloads == 1
    costs = np.array([1.0, 1.001])
    [draft] = running.drafter.propose_batch([running.request], 64, costs)
    assert draft.tokens.tolist() == running.request.draft(64, costs).tokens.tolist()
    assert np.array_equal(draft.tokens[:5], ids(task, ROWS[0])[:5])
    assert drafts.drafter is not running.drafter


def test_a_bad_file_leaves_the_old_index(
    tmp_path: Path, task: TaskTokenizer, index: TaskIndex, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    drafts = TaskDrafts(index.path, task)
    before = foreseen(drafts, task, ROWS[0])
    bad = tmp_path / "bad"
    bad.write_bytes(b"no index")
    os.replace(bad, index.path)
    assert foreseen(drafts, task, ROWS[0]) == before
    assert foreseen(drafts, task, ROWS[0]) == before
    assert len([r for r in caplog.records if "the index before it stays" in r.message]) == 1
    os.unlink(index.path)
    assert foreseen(drafts, task, ROWS[0]) == before
    os.replace(build(tmp_path / "new", task, [NEW, *ROWS]).path, index.path)
    assert foreseen(drafts, task, ROWS[0]) > 0
    assert drafts.reloads == 1


def test_an_index_of_another_tokenizer_is_not_taken_up(
    tmp_path: Path, task: TaskTokenizer, index: TaskIndex, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    drafts = TaskDrafts(index.path, task)
    other = Tokenizer.from_str(task.tokenizer.to_str())
    other.add_tokens(["zzz"])
    os.replace(build(tmp_path / "new", load_tokenizer(other), ROWS).path, index.path)
    assert foreseen(drafts, task, ROWS[0]) > 0
    assert drafts.reloads == 0
    assert "the index before it stays" in caplog.text
    with pytest.raises(TokenizerMismatchError):
        TaskDrafts(index.path, task)


# --- learning


def test_finished_outputs_are_drafted_from_kept_and_carried_over(
    tmp_path: Path, task: TaskTokenizer, index: TaskIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    drafts = TaskDrafts(index.path, task, learn=True)
    before = foreseen(drafts, task, NEW)
    for _ in range(3):
        drafts.finished(NEW["input"], ids(task, NEW))
    until(lambda: drafts.drafter.num_served == 3)
    assert foreseen(drafts, task, NEW) > before + 5
    os.replace(build(tmp_path / "new", task, ROWS[3:]).path, index.path)
    assert foreseen(drafts, task, NEW) > before + 5
    assert drafts.reloads == 1
    drafts.finished(None, ids(task, NEW))
    drafts.close()
    drafter = drafts.drafter
    assert drafter.num_served == 4
    drafts.finished(None, ids(task, NEW))
    assert drafter.num_served == 4
    drafts.drafter, drafter = SafeDrafter(NullDrafter()), None
    again = TaskDrafts(index.path, task, learn=True)
    assert again.drafter.num_served == 4


def test_what_is_learnt_stays_inside_its_budget(tmp_path: Path, task: TaskTokenizer, index: TaskIndex) -> None:
    Path(f"{index.path}.json").write_text('{"learn": true, "served_bytes": 65536, "log_bytes": 65536, "log_days": 30}')
    tasks = Tasks(Settings.from_environment({"TASC_INDEX": str(index.path)}), task)
    drafts = tasks.choose(task.encode("any"))
    for _ in range(20):
        for row in ROWS:
            drafts.finished(row["input"], ids(task, row))
    tasks.close()
    assert 0 < drafts.drafter.num_served < 20 * len(ROWS)
    assert drafts.drafter.drafter.served_memory <= 65536
    assert served_log(index).stat().st_size <= 65536
    Path(f"{index.path}.json").write_text('{"served_bytes": 10}')
    with pytest.raises(InputError, match="65"):
        Tasks(Settings.from_environment({"TASC_INDEX": str(index.path)}), task)


def test_a_log_that_another_writes_to_is_left_alone(
    task: TaskTokenizer, index: TaskIndex, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasc.drafting.protocol.MAX_LEARNERS", 2)
    first, second, third = (TaskDrafts(index.path, task, learn=True) for _ in range(3))
    assert "kept in memory alone" in caplog.text
    for drafts in (second, third):
        drafts.finished(NEW["input"], ids(task, NEW))
    until(lambda: second.drafter.num_served == third.drafter.num_served == 1)
    assert first.drafter.num_served == 0
    sizes = [log.stat().st_size for log in served_logs(served_log(index))]
    assert len(sizes) == 2
    assert sizes[0] < 100 < sizes[1]


def test_threads_begin_and_finish_while_the_index_is_replaced(
    tmp_path: Path, task: TaskTokenizer, index: TaskIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    drafts = TaskDrafts(index.path, task, learn=True)
    wrong: list[BaseException] = []
    stop = threading.Event()

    def serve() -> None:
        try:
            while not stop.is_set():
                begun = drafts.start(task.encode(ROWS[0]["input"]), ROWS[0]["input"])
                begun.drafter.propose_batch([begun.request], 16)
                begun.request.update(ids(task, ROWS[0])[:3])
                drafts.finished(begun.input_text, ids(task, ROWS[0]))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(10):
        os.replace(build(tmp_path / f"new{number}", task, ROWS[number:]).path, index.path)
    stop.set()
    for thread in threads:
        thread.join()
    drafts.close()
    assert not wrong
    assert drafts.reloads >= 5
    assert drafts.drafter.num_served > 0


def until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- metrics


def test_metrics_as_numbers_and_as_text(tmp_path: Path, task: TaskTokenizer, index: TaskIndex) -> None:
    drafts, metrics = TaskDrafts(index.path, task), Metrics()
    metrics.count(drafts, "requests")
    metrics.step(drafts, 3, np.array([0, 0, 1, 99], np.uint8), 2)
    metrics.step(drafts, 1, np.empty(0, np.uint8), 0)
    found = metrics.as_dict()["indexes"]["task.tasc"]
    assert (found["requests"], found["steps"], found["tokens"], found["tau"], found["rate"]) == (1, 2, 4, 2.0, 0.5)
    assert found["drafted"] == {"task": 2, "context": 1, "other": 1}
    assert found["accepted"] == {"task": 2, "context": 0, "other": 0}
    file = tmp_path / "tasc.prom"
    metrics.write(file)
    text = file.read_text()
    assert text == metrics.prometheus()
    assert 'tasc_drafted_tokens_total{index="task.tasc",source="context"} 1.0\n' in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) tasc_\w+ .+|tasc_\w+(\{(\w+=\"[^\"]*\",?)+\})? \d+(\.\d+)?(e-\d+)?", line)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_indexes_of_one_file_name_are_counted_apart(tmp_path: Path, task: TaskTokenizer) -> None:
    metrics, paths = Metrics(), []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(str(build(tmp_path / folder / "task", task, ROWS).path))
        metrics.count(TaskDrafts(paths[-1], task), "requests")
    assert list(metrics.as_dict()["indexes"]) == paths
    assert metrics.prometheus().count("tasc_requests_total{") == 2


def test_a_metrics_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        Metrics().write(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


# --- step times


def test_step_times_are_learnt_from_steps() -> None:
    rng = np.random.default_rng(0)
    times = LearnedCosts()
    for _ in range(400):
        tokens = int(rng.integers(1, 130))
        slow = 20.0 if rng.random() < 0.05 else 1.0
        times.observe(tokens, slow * (0.05 + 0.002 * tokens) * rng.lognormal(0, 0.1))
    for tokens in (1, 10, 60, 120):
        assert times.seconds(np.array([float(tokens)]))[0] == pytest.approx(0.05 + 0.002 * tokens, rel=0.1)
    assert times.costs(4, 8)[4] == pytest.approx((0.05 + 0.08) / (0.05 + 0.016), rel=0.1)


def test_a_step_without_time_teaches_nothing() -> None:
    times = LearnedCosts()
    times.observe(1, 0.0)  # a coarse clock
    assert times.costs(3).tolist() == LearnedCosts().costs(3).tolist()


def test_a_bend_is_learnt_where_there_are_many_steps() -> None:
    times = LearnedCosts()
    truth = lambda tokens: 1.0 if tokens <= 32 else tokens / 32  # noqa: E731
    for k in range(512):
        tokens = 1 + 8 * (k % 16)
        times.observe(tokens, truth(tokens))
    assert times.costs(16, 1)[16] < 1.1
    assert times.costs(128, 1)[128] == pytest.approx(4.0, rel=0.15)


@pytest.mark.parametrize("seed", range(3))
def test_costs_rise_from_one_whatever_is_seen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = LearnedCosts()
    for k in range(200):
        times.observe(int(rng.integers(1, 1 + k)) if k else 1, float(rng.lognormal(0, 3)))
        for rows in (1, 32):
            found = times.costs(20, rows)
            assert found.shape == (21,) and found[0] == 1.0 and (np.diff(found) >= 0).all() and np.isfinite(found).all()


def test_a_given_cost_stays() -> None:
    times = LearnedCosts(0.5)
    for k in range(64):
        times.observe(1 + k, 1.0)
    assert times.costs(2, 1).tolist() == [1.0, 1.5, 2.0]


def test_one_odd_first_step_does_not_stay() -> None:
    times = LearnedCosts()
    times.observe(1, 30.0)  # compiling
    for k in range(64):
        times.observe(1 + k % 4, 0.01 * (1 + 0.1 * (k % 4)))
    assert times.seconds(np.array([1.0]))[0] == pytest.approx(0.01, rel=0.3)
