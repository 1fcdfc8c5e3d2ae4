"""Rows that were served: counted and retrieved at once, kept on disk, merged into the index."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from tasc import NgramDrafter, TaskIndex
from tasc.data import TaskTokenizer, TokenStore, load_tokenizer
from tasc.drafting.protocol import served_log, served_logs
from tasc.errors import FormatError, InputError, TokenizerMismatchError
from tasc.serving import reload
from tasc.serving.tasks import TaskDrafts

CITIES = ("boston", "san francisco", "denver", "dallas", "austin", "newark", "oakland", "miami")
ROWS = [
    {"input": f"flights from {a} to {b}", "output": f'{{"intent": "flight", "from": "{a}", "to": "{b}"}}'}
    for a in CITIES
    for b in CITIES
    if a != b
]
NEW = {"input": "book a table for two", "output": '{"intent": "restaurant", "seats": 2}'}


@pytest.fixture(scope="module")
def task(tokenizer: Tokenizer) -> TaskTokenizer:
    return load_tokenizer(tokenizer)


@pytest.fixture
def index(tmp_path: Path, task: TaskTokenizer) -> TaskIndex:
    return build(tmp_path / "task", task, ROWS)


def build(path: Path, task: TaskTokenizer, rows: list[dict[str, str]], **options: Any) -> TaskIndex:
    store = TokenStore.build(rows, task, path.with_suffix(".store"))
    return TaskIndex.build(store, path.with_suffix(".tasc"), tokenizer=task, **options)


def ids(task: TaskTokenizer, row: dict[str, str]) -> np.ndarray:
    assert task.eos_id is not None
    return np.append(task.encode(row["output"]), np.uint32(task.eos_id))


def right(drafter: NgramDrafter, task: TaskTokenizer, row: dict[str, str]) -> int:
    """How many tokens of the output the first draft foresees."""
    drafted = drafter.start(task.encode(row["input"]), row["input"]).draft(64, np.array([1.0, 1.001])).tokens
    output = ids(task, row)
    n = min(len(drafted), len(output))
    wrong = np.flatnonzero(drafted[:n] != output[:n])
    return int(wrong[0]) if len(wrong) else n


def test_a_served_row_is_drafted_from_at_once(index: TaskIndex, task: TaskTokenizer) -> None:
    drafter = NgramDrafter(index, tokenizer=task)
    before = right(drafter, task, NEW)
    drafter.serve([(NEW["input"], ids(task, NEW))] * 3)
    assert drafter.num_served == 3
    assert right(drafter, task, NEW) > before + 5


@pytest.mark.parametrize("num_threads", [1, 3, 64])
def test_a_batch_drafts_as_each_request_alone(index: TaskIndex, task: TaskTokenizer, num_threads: int) -> None:
    """… whatever the number of threads, step by step, while all of them teach the drafter."""
    alone, together = NgramDrafter(index, tokenizer=task), NgramDrafter(index, tokenizer=task, num_threads=num_threads)
    rows = ROWS[::3]
    outputs = [ids(task, row) for row in rows]
    each, batch = ([d.start(task.encode(r["input"]), r["input"]) for r in rows] for d in (alone, together))
    for at in range(0, 20, 4):
        expected = [request.draft(16) for request in each]
        made = together.propose_batch(batch, 16)
        assert any(len(draft) for draft in expected)
        for one, other in zip(expected, made, strict=True):
            assert one.tokens.tolist() == other.tokens.tolist()
            assert one.probs.tolist() == other.probs.tolist()
        for requests in (each, batch):
            for request, output in zip(requests, outputs, strict=True):
                request.update(output[at : at + 4])


def test_rows_outlive_the_process(index: TaskIndex, task: TaskTokenizer) -> None:
    log = served_log(index)
    drafter = NgramDrafter(index, tokenizer=task, served=log)
    drafter.serve([(NEW["input"], ids(task, NEW)), (None, ids(task, ROWS[0]))])
    foreseen = right(drafter, task, NEW)
    with pytest.raises(BlockingIOError, match=r"task\.tasc\.served"):
        NgramDrafter(index, served=log)
    del drafter
    again = NgramDrafter(index, tokenizer=task, served=log)
    assert again.num_served == 2
    assert right(again, task, NEW) == foreseen


def test_killed_while_serving_loses_nothing_that_was_acknowledged(index: TaskIndex, task: TaskTokenizer) -> None:
    log = served_log(index)
    script = (
        "import sys\n"
        "from tasc import NgramDrafter, TaskIndex\n"
        "drafter = NgramDrafter(TaskIndex.open(sys.argv[1]), served=sys.argv[2])\n"
        "while True:\n"
        "    drafter.serve([('some input', [5, 6, 7])])\n"
        "    print(drafter.num_served, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, index.path, log], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = 0
    while acknowledged < 20:
        acknowledged = int(child.stdout.readline())
    child.kill()
    acknowledged = max([acknowledged, *map(int, child.stdout.read().split("\n")[:-1])])
    child.wait()
    assert NgramDrafter(index, served=log).num_served in (acknowledged, acknowledged + 1)


def test_compacting_equals_building_with_all_rows(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    log = served_log(index)
    served = [NEW, NEW, ROWS[3]]
    NgramDrafter(index, served=log).serve([(r["input"], ids(task, r)) for r in served])
    new, taken = index.compact(index.path, served=log, tokenizer=task)
    whole = build(tmp_path / "whole", task, ROWS + served)
    assert taken == 3
    for name in ("documents", "weight", "tokens", "inputs"):
        assert new.info()[name] == whole.info()[name]
    new.verify()
    for row in (NEW, ROWS[3], ROWS[7]):
        context = ids(task, row)[:6]
        assert [x.tolist() for x in new.successors(context)[:2]] == [x.tolist() for x in whole.successors(context)[:2]]
    assert NgramDrafter(new, served=log).num_served == 0, "what was taken in has left the log"


def test_compacting_elsewhere_leaves_the_log(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    log = served_log(index)
    NgramDrafter(index, served=log).serve([(NEW["input"], ids(task, NEW))])
    before = log.read_bytes()
    new, taken = index.compact(tmp_path / "other.tasc", served=log, tokenizer=task, fit=False)
    assert (taken, log.read_bytes()) == (1, before)
    assert new.info()["documents"] == index.info()["documents"] + 1


# --- rows are counted once: in the index or in memory


def serve(drafter: NgramDrafter, start: int, stop: int, words: int = 1) -> None:
    """Serves the rows numbered `start` to `stop`, one at a time."""
    for k in range(start, stop):
        drafter.serve([(f"row {k} " * words, [5, k % 7, k // 7])])


def assert_counted_once(drafter: NgramDrafter, *, served: int, in_index: int) -> None:
    """Of `served` rows, `in_index` are in the drafter's index, and the others are in its memory."""
    assert drafter.index is not None
    assert drafter.index.info()["weight"] == len(ROWS) + in_index
    assert drafter.num_served == served - in_index


def compacted(index: TaskIndex, path: Path, *logs: Path, task: TaskTokenizer) -> TaskIndex:
    return index.compact(path, served=logs, tokenizer=task, fit=False)[0]


def test_an_index_handed_over_counts_no_row_twice(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    log = served_log(index)
    drafter = NgramDrafter(index, served=log)
    serve(drafter, 0, 5)
    second = compacted(index, tmp_path / "second.tasc", log, task=task)
    serve(drafter, 5, 7)
    drafter = drafter.with_index(second)
    assert_counted_once(drafter, served=7, in_index=5)
    drafter = drafter.with_index(second)
    assert_counted_once(drafter, served=7, in_index=5)
    serve(drafter, 7, 9)
    third = compacted(second, tmp_path / "third.tasc", log, task=task)
    drafter = drafter.with_index(third)
    assert_counted_once(drafter, served=9, in_index=9)
    serve(drafter, 9, 10)
    assert_counted_once(drafter, served=10, in_index=9)
    assert NgramDrafter(second).with_index(third).num_served == 0


def test_an_index_renamed_over_a_served_one_counts_no_row_twice(
    index: TaskIndex, task: TaskTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "CHECK_SECONDS", 0.0)
    log = served_log(index)
    drafts = TaskDrafts(index.path, task, learn=True)
    drafter: Any = drafts.drafter
    serve(drafter, 0, 5)
    new = compacted(index, tmp_path / "new.tasc", log, task=task)
    serve(drafter, 5, 6)
    os.replace(new.path, index.path)
    drafts.start(task.encode(ROWS[0]["input"]))
    assert drafts.reloads == 1
    drafter = drafts.drafter
    assert_counted_once(drafter, served=6, in_index=5)
    drafts.close()


def test_an_index_opened_after_a_restart_counts_no_row_twice(
    index: TaskIndex, task: TaskTokenizer, tmp_path: Path
) -> None:
    log = served_log(index)
    drafter = NgramDrafter(index, served=log)
    serve(drafter, 0, 5)
    new = compacted(index, tmp_path / "new.tasc", log, task=task)
    serve(drafter, 5, 7)
    del drafter
    os.replace(new.path, index.path)
    again = NgramDrafter(TaskIndex.open(index.path), served=log)
    assert_counted_once(again, served=7, in_index=5)
    serve(again, 7, 8)
    assert_counted_once(again, served=8, in_index=5)
    del again
    assert_counted_once(NgramDrafter(TaskIndex.open(index.path), served=log), served=8, in_index=5)
    assert NgramDrafter(index, served=log).num_served == 8, "the index without them can still take them in"


def test_killed_between_the_index_and_the_emptied_log_counts_no_row_twice(
    index: TaskIndex, task: TaskTokenizer, tmp_path: Path
) -> None:
    log = served_log(index)
    serve(NgramDrafter(index, served=log), 0, 5)
    before = log.read_bytes()
    new = compacted(index, index.path, log, task=task)
    assert len(log.read_bytes()) < len(before)
    log.write_bytes(before)  # what a kill leaves: the new index has its name, the log still has its rows
    drafter = NgramDrafter(new, served=log)
    assert_counted_once(drafter, served=5, in_index=5)
    serve(drafter, 5, 7)
    del drafter
    again, taken = new.compact(index.path, served=log, tokenizer=task, fit=False)
    assert taken == 2
    assert_counted_once(NgramDrafter(again, served=log), served=7, in_index=7)


def test_several_logs_are_merged_into_one_index(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("first.served", "second.served")]
    drafters = [NgramDrafter(index, served=log) for log in logs]
    serve(drafters[0], 0, 3)
    serve(drafters[1], 3, 7)
    new, taken = index.compact(tmp_path / "new.tasc", served=[*logs, logs[0]], tokenizer=task, fit=False)
    assert taken == 7, "a log that is named twice is read once"
    serve(drafters[0], 7, 8)
    first, second = (drafter.with_index(new) for drafter in drafters)
    assert (first.num_served, second.num_served, new.info()["weight"]) == (1, 0, len(ROWS) + 7)
    newer = compacted(new, tmp_path / "newer.tasc", logs[0], task=task)
    assert newer.info()["weight"] == len(ROWS) + 8
    assert second.with_index(newer).num_served == 0, "an index knows what its predecessor had taken in"
    assert first.with_index(newer).num_served == 0


def test_a_log_of_another_place_is_not_taken_for_this_one(
    index: TaskIndex, task: TaskTokenizer, tmp_path: Path
) -> None:
    log, other = served_log(index), tmp_path / "other.served"
    serve(NgramDrafter(index, served=log), 0, 5)
    new = compacted(index, tmp_path / "new.tasc", log, task=task)
    serve(NgramDrafter(index, served=other), 5, 8)
    assert NgramDrafter(new, served=other).num_served == 3
    log.unlink()
    serve(NgramDrafter(new, served=log), 8, 10)
    assert NgramDrafter(new, served=log).num_served == 2, "a log begun anew under the same name"
    whole = build(tmp_path / "whole", task, ROWS)
    assert NgramDrafter(whole, served=log).num_served == 2, "an index built from rows has taken in no log"


def test_a_log_that_drops_its_oldest_rows_keeps_their_numbers(
    index: TaskIndex, task: TaskTokenizer, tmp_path: Path
) -> None:
    log, budget = served_log(index), 1 << 16
    drafter = NgramDrafter(index, served=log, log_bytes=budget)
    serve(drafter, 0, 100, words=100)
    new, taken = index.compact(tmp_path / "new.tasc", served=log, tokenizer=task, fit=False)
    assert 0 < taken < 100
    serve(drafter, 100, 400, words=100)  # the log drops all rows that the index has, and many others
    drafter = drafter.with_index(new)
    assert drafter.num_served == 300, "memory has them still"
    serve(drafter, 400, 410, words=100)
    assert drafter.num_served == 310
    newer, more = new.compact(tmp_path / "newer.tasc", served=log, tokenizer=task, fit=False)
    assert 0 < more < 310
    serve(drafter, 410, 415, words=100)
    assert drafter.with_index(newer).num_served == 5


def test_without_inputs_none_appear(task: TaskTokenizer, tmp_path: Path) -> None:
    index = build(tmp_path / "blind", task, ROWS, inputs=False)
    NgramDrafter(index, served=served_log(index)).serve([("secret words", ids(task, NEW))])
    new, _ = index.compact(index.path, served=served_log(index), tokenizer=task)
    assert new.info()["inputs"] == 0
    assert new.info()["documents"] == len(ROWS) + 1
    assert b"secret" not in index.path.read_bytes()


def test_budgets_bound_memory_and_log(index: TaskIndex, task: TaskTokenizer) -> None:
    log, budget = served_log(index), 1 << 17
    options: dict[str, Any] = {"served": log, "served_bytes": budget, "log_bytes": budget}
    drafter = NgramDrafter(index, **options)
    for k in range(60):
        drafter.serve([(f"input {k} {n}", [k, n] * 20) for n in range(30)])
        assert drafter.served_memory <= budget
        assert log.stat().st_size <= budget
    assert 0 < drafter.num_served < 1800
    kept = drafter.num_served
    del drafter
    again = NgramDrafter(index, **{**options, "served_bytes": 1 << 30})
    assert kept < again.num_served < 1800, "the log holds more of them than memory did"
    del again
    assert 0 < NgramDrafter(index, **options).num_served <= kept * 2
    assert NgramDrafter(index, served_bytes=budget).served_memory == 0


@pytest.mark.parametrize("name", ["served_bytes", "log_bytes", "num_threads"])
def test_a_number_out_of_range_is_refused(index: TaskIndex, name: str) -> None:
    beyond = {"num_threads": [0]}.get(name, [0, 65_535])
    for value in [-1, *beyond]:
        with pytest.raises(InputError, match=f"{name}={value} is out of range"):
            NgramDrafter(index, **{name: value})


def drafts(drafter: NgramDrafter, task: TaskTokenizer, row: dict[str, str]) -> list[tuple[list[int], list[float]]]:
    """What is drafted along an output."""
    request, output, seen = drafter.start(task.encode(row["input"]), row["input"]), ids(task, row), []
    for token in output:
        draft = request.draft(16)
        seen.append((draft.tokens.tolist(), draft.probs.tolist()))
        request.update([token])
    return seen


def test_the_index_is_replaced_while_requests_run(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    log = served_log(index)
    old = NgramDrafter(index, tokenizer=task, served=log, learn=False)
    served = [(r["input"], ids(task, r)) for r in (NEW, NEW, ROWS[3])]
    old.serve(served)
    with pytest.raises(BlockingIOError, match=r"compact beside it.*elsewhere"):
        index.compact(index.path, served=log, tokenizer=task)
    new, taken = index.compact(tmp_path / "new.tasc", served=log, tokenizer=task)
    assert taken == 3
    running = old.start(task.encode(NEW["input"]), NEW["input"])
    expected = drafts(old, task, NEW)[0][0]
    old.serve([("late", [5, 6])])
    next_one = old.with_index(new)
    assert next_one.index is new
    assert old.index is index
    assert running.draft(16).tokens.tolist() == expected, "it goes on over the old index"
    assert (old.num_served, next_one.num_served) == (4, 1)
    made = NgramDrafter(new, tokenizer=task, learn=False)
    made.serve([("late", [5, 6])])
    for row in (NEW, ROWS[3], ROWS[9]):
        assert drafts(next_one, task, row) == drafts(made, task, row)
    old.serve(served[:1])
    assert next_one.num_served == 2, "rows of requests that end later"
    del old, running
    with pytest.raises(BlockingIOError):
        NgramDrafter(new, served=log)
    del next_one
    assert NgramDrafter(new, served=log).num_served == 2


def test_what_was_learnt_goes_over(index: TaskIndex, task: TaskTokenizer) -> None:
    old = NgramDrafter(index, tokenizer=task)
    for row in ROWS[:20]:
        drafts(old, task, row)
    other = old.with_index(TaskIndex.open(index.path))
    assert other.learnt == old.learnt != NgramDrafter(index).learnt
    assert drafts(other, task, ROWS[30]) == drafts(old, task, ROWS[30])


def test_the_index_is_replaced_under_threads(index: TaskIndex, task: TaskTokenizer) -> None:
    current = [NgramDrafter(index, tokenizer=task, served=served_log(index), served_bytes=1 << 16)]
    again = TaskIndex.open(index.path)

    def work(thread: int) -> None:
        for k in range(30):
            drafter = current[0]
            drafts(drafter, task, ROWS[(7 * thread + k) % len(ROWS)])
            drafter.serve([(f"{thread} {k}", [thread, k])])

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(work, thread) for thread in range(4)]
        while not all(d.done() for d in done):
            current[0] = current[0].with_index(again)
        for d in done:
            d.result()
    assert current[0].num_served == 120


def test_no_other_drafter_without_index_tokenizer_or_rows(
    index: TaskIndex, task: TaskTokenizer, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="without an index"):
        NgramDrafter().with_index(index)
    foreign = build(tmp_path / "foreign", other_tokenizer(task), ROWS)
    drafter = NgramDrafter(index, served=served_log(index))
    drafter.serve([("a", [1])])
    with pytest.raises(TokenizerMismatchError, match="foreign"):
        drafter.with_index(foreign)
    assert drafter.num_served == 1


def other_tokenizer(task: TaskTokenizer) -> TaskTokenizer:
    """The same with a token more."""
    state = json.loads(task.tokenizer.to_str())
    state["model"]["vocab"].update({"zzz": max(state["model"]["vocab"].values()) + 1})
    return load_tokenizer(Tokenizer.from_str(json.dumps(state)))


def test_bad_input_gets_a_clear_error(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs an index"):
        NgramDrafter(served=tmp_path / "log")
    drafter = NgramDrafter(index, served=served_log(index))
    with pytest.raises(InputError, match="1 of 1 rows hold an id"):
        drafter.serve([("x", [2**32 - 1])])
    with pytest.raises(InputError, match="16777216"):
        drafter.serve([("x" * (17 << 20), [1])])
    assert drafter.num_served == 0
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"no log at all" * 9)
    with pytest.raises(FormatError, match="nonsense"):
        NgramDrafter(index, served=nonsense)
    assert nonsense.read_bytes() == b"no log at all" * 9


def test_another_tokenizer_is_refused(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    other = other_tokenizer(task)
    with pytest.raises(TokenizerMismatchError):
        NgramDrafter(index, tokenizer=other)
    with pytest.raises(TokenizerMismatchError):
        index.compact(tmp_path / "new.tasc", tokenizer=other)
    assert not (tmp_path / "new.tasc").exists()
    foreign = build(tmp_path / "foreign", other, ROWS)
    NgramDrafter(foreign, served=served_log(foreign))
    with pytest.raises(TokenizerMismatchError, match="served"):
        NgramDrafter(index, served=served_log(foreign))


def test_a_forked_child_can_build_and_fit(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    """The parent has built, and fitted with threads, before it forks: a child must not wait for those."""
    script = (
        "import os, sys\n"
        "from tasc.data import TokenStore, load_tokenizer\n"
        "from tasc import TaskIndex\n"
        "task = load_tokenizer(sys.argv[1])\n"
        "rows = [{'input': f'a {n}', 'output': f'say {n}'} for n in range(60)]\n"
        "store = TokenStore.build(rows, task, sys.argv[2])\n"
        "TaskIndex.build(store, sys.argv[3], tokenizer=task)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    TaskIndex.build(store, sys.argv[4], tokenizer=task)\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    paths = [tmp_path / name for name in ("tokenizer.json", "fork.store", "parent.tasc", "child.tasc")]
    task.tokenizer.save(str(paths[0]))
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run([sys.executable, "-c", script, *paths], check=True, timeout=60, env=environment)
    assert paths[2].read_bytes() == paths[3].read_bytes()


def test_a_row_with_an_id_that_the_index_lacks_does_not_keep_its_log_from_being_compacted(
    index: TaskIndex, task: TaskTokenizer, tmp_path: Path
) -> None:
    log = served_log(index)
    drafter = NgramDrafter(index, served=log)
    beyond = index.info()["vocab_size"]
    with pytest.raises(InputError, match=f"1 of 2 rows hold an id of {beyond} or above.*the others were added"):
        drafter.serve([("odd", [5, beyond]), (NEW["input"], ids(task, NEW))])
    assert drafter.num_served == 1
    del drafter
    _, merged = index.compact(tmp_path / "next.tasc", served=log, tokenizer=task)
    assert merged == 1


PROCESS = """
import sys
from tasc import TaskIndex, load_tokenizer
from tasc.drafting.protocol import served_log
from tasc.drafting.retokenizing import ngram_drafter
index, tokenizer, name = TaskIndex.open(sys.argv[1]), load_tokenizer(sys.argv[2]), sys.argv[3]
drafter = ngram_drafter(index, tokenizer, served=served_log(index))
for number in range(5):
    drafter.serve([(f"{name} {number}", [ord(name), number + 1])])
print("ready", flush=True)
sys.stdin.read()
"""


def test_several_processes_learn_at_once(index: TaskIndex, task: TaskTokenizer, tmp_path: Path) -> None:
    task.tokenizer.save(str(tmp_path / "tokenizer.json"))
    names, log, before = "abc", served_log(index), index.info()["documents"]

    def learn(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROCESS, str(index.path), str(tmp_path / "tokenizer.json"), name]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rows(logs: list[Path]) -> list[int]:
        return [NgramDrafter(index, served=each).num_served for each in logs]

    processes = [learn(name) for name in names]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 3
    logs = served_logs(log)
    assert [each.name for each in logs] == ["task.tasc.served", "task.tasc.served.1", "task.tasc.served.2"]
    processes[0].kill()
    for process in processes:
        process.communicate()
    again = learn("d")  # takes the log that is free, with its rows
    assert again.stdout is not None
    assert again.stdout.readline() == "ready\n"
    again.communicate()
    assert served_logs(log) == logs
    assert rows(logs) == [10, 5, 5]
    new, merged = index.compact(index.path, served=logs, tokenizer=task, fit=False)
    assert (merged, new.info()["documents"]) == (20, before + 20)
    assert new.compact(index.path, served=logs, tokenizer=task, fit=False)[1] == 0
    assert [NgramDrafter(new, served=each).num_served for each in logs] == [0, 0, 0]
