"""A fall of the drafts in service is noticed, checked on the index alone, and logged once."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from test_served import NEW, ROWS, build, ids
from tokenizers import Tokenizer

from tasc import NgramDrafter, NullDrafter, TaskIndex, extend_tokenizer, learn_vocabulary
from tasc.data import TaskTokenizer, load_tokenizer
from tasc.evaluation.replay import encode_rows, replay
from tasc.serving import Metrics, TaskDrafts
from tasc.serving.drift import FIT_MAX_DRAFT, DriftWatch, built_tau, index_tau

WINDOW = 20


@pytest.fixture(scope="module")
def task(tokenizer: Tokenizer) -> TaskTokenizer:
    return load_tokenizer(tokenizer)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, task: TaskTokenizer) -> TaskIndex:
    return build(tmp_path_factory.mktemp("drift") / "task", task, ROWS)


def join() -> None:
    for thread in threading.enumerate():
        if thread.name == "tasc-drift":
            thread.join()


def finish(
    watch: DriftWatch, index: TaskIndex, task: TaskTokenizer, row: dict[str, str], tau: float, number: int
) -> None:
    """Finish requests of one row whose outputs took so many tokens per step, and wait for the replays."""
    output = ids(task, row)
    for _ in range(number):
        watch.finished((row["input"], output), max(1, round(len(output) / tau)), index, task, "task.tasc")
        join()


def test_the_figure_of_the_index_is_that_of_its_fit(index: TaskIndex) -> None:
    assert built_tau(index) == index.info()["fit"]["tau"] > 3
    assert built_tau(None) is None


def test_the_index_alone_has_the_tau_of_a_replay(index: TaskIndex, task: TaskTokenizer) -> None:
    rows = [ROWS[0], NEW, ROWS[9]]
    expected = replay(
        NgramDrafter(index, tokenizer=task), encode_rows(rows, task, eos=task.eos_id or 0), max_tokens=FIT_MAX_DRAFT
    )
    assert index_tau(index, task, [(row["input"], ids(task, row)) for row in rows]) == expected.tau


def test_a_fall_is_logged_once_and_again_after_a_recovery(
    index: TaskIndex, task: TaskTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    watch = DriftWatch(WINDOW)
    finish(watch, index, task, ROWS[0], 20, WINDOW)
    assert watch.falls == 0
    finish(watch, index, task, NEW, 1, 2 * WINDOW)
    assert watch.falls == 1
    finish(watch, index, task, NEW, 1, 2 * WINDOW)
    assert watch.falls == 1
    finish(watch, index, task, ROWS[0], 20, WINDOW)
    finish(watch, index, task, NEW, 1, 2 * WINDOW)
    assert watch.falls == 2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert f"τ was {built_tau(index):.1f}, the last {WINDOW} requests have" in said[0]
    assert watch.tau == pytest.approx(1, abs=0.1)


def test_an_engine_that_drafts_less_is_no_fall(
    index: TaskIndex, task: TaskTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    """The outputs are those of the index: only the engine takes more steps."""
    watch = DriftWatch(WINDOW)
    finish(watch, index, task, ROWS[0], 1, 3 * WINDOW)
    assert watch.tau == pytest.approx(1)
    assert (watch.falls, caplog.records) == (0, [])


def test_nothing_is_judged_before_the_window_is_full(index: TaskIndex, task: TaskTokenizer) -> None:
    watch = DriftWatch(WINDOW)
    finish(watch, index, task, NEW, 1, WINDOW - 1)
    assert watch.falls == 0
    finish(watch, index, task, NEW, 1, 1)
    assert watch.falls == 1


def test_another_index_begins_anew(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    watch = DriftWatch(WINDOW)
    finish(watch, index, task, NEW, 1, WINDOW)
    other = build(tmp_path / "unfitted", task, ROWS, fit=False)
    finish(watch, other, task, NEW, 1, 3 * WINDOW)
    assert (watch.built, watch.falls) == (None, 1)


def test_a_task_counts_its_requests(index: TaskIndex, task: TaskTokenizer) -> None:
    drafts, metrics = TaskDrafts(index.path, task), Metrics()
    metrics.count(drafts, "requests")
    assert "tasc_recent_tau{" not in metrics.prometheus()
    output = ids(task, ROWS[0])
    drafts.finished(ROWS[0]["input"], output, steps=2)
    drafts.salted("other").finished(ROWS[0]["input"], output, steps=4)
    drafts.finished(ROWS[0]["input"], output)  # steps are not known
    found = metrics.as_dict()["indexes"]["task.tasc"]
    assert found["recent_tau"] == pytest.approx(2 * len(output) / 6)
    assert (found["built_tau"], found["falls"]) == (built_tau(index), 0)
    assert f'tasc_built_tau{{index="task.tasc"}} {built_tau(index)}' in metrics.prometheus()


def test_a_drafter_without_an_index_is_not_watched() -> None:
    drafts = TaskDrafts(drafter=NullDrafter())
    drafts.finished(None, np.array([1, 2], np.uint32), steps=2)
    assert drafts.drift.tau is None


def test_outputs_in_new_tokens_count_in_the_tokens_of_the_index(
    index: TaskIndex, task: TaskTokenizer, tmp_path: Path
) -> None:
    plan = learn_vocabulary(ROWS, task, tmp_path / "task.plan", size=16, held_out=0.0)
    extended = extend_tokenizer(task, plan)
    watch, base = DriftWatch(WINDOW), ids(task, ROWS[0])
    new = plan.segment(base)
    assert len(new) < len(base)
    watch.finished((ROWS[0]["input"], new), 2, index, extended, "task.tasc")
    assert watch.tau == len(base) / 2
    watch.finished((None, np.array([plan.base_vocab_size + len(plan)], np.uint32)), 2, index, extended, "task.tasc")
    assert watch.tau == len(base) / 2  # an id that is no token counts nothing
    row = (ROWS[0]["input"], base)
    assert index_tau(index, extended, [row]) == index_tau(index, task, [row])
