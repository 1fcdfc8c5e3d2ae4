"""Atomic writes: all of a file or folder, or nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from toy_task import build_toy_task

from tasc import NgramDrafter, TaskIndex, TokenStore
from tasc.errors import InputError
from tasc.files import atomic_path, new_folder, read_json, remove_folder, scratch_folder, write_json, write_text


def test_a_stopped_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    write_json(target, {"ä": 1})
    assert target.read_text() == '{"\\u00e4": 1}\n'
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as living:
        dead = tmp_path / ".tasc-dead.tmp"
        dead.mkdir()
        (dead / "a").write_text("half")
        write_text(tmp_path / "b", "")
        assert not dead.exists()
        living.write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_second_writer_is_told(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "out"), scratch_folder(tmp_path / "other"):
        told = f"out is being written by process {os.getpid()}; wait until it ends, or name another output"
        with pytest.raises(InputError, match=told), scratch_folder(tmp_path / "out"):
            pass
        with pytest.raises(InputError, match=told), new_folder(tmp_path / "out"):
            pass
    with new_folder(tmp_path / "out"):
        pass


def test_a_temporary_file_is_nobody_elses(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("secret")
        assert mode(temporary.parent) == 0o700


def test_a_removed_folder_goes(tmp_path: Path) -> None:
    (tmp_path / "old" / "deep").mkdir(parents=True)
    remove_folder(tmp_path / "old")
    remove_folder(tmp_path / "old")
    assert list(tmp_path.iterdir()) == []


def test_two_writers_have_files_of_their_own(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1"


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_a_folder_with_files_is_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with new_folder(target) as folder:
        (folder / "a").write_text("x")
        assert not target.exists()
    assert (target / "a").read_text() == "x"
    with pytest.raises(InputError, match="is there already"), new_folder(target):
        pass
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(OSError, match="other"), new_folder(other) as folder:
        (folder / "b").write_text("y")
        (other / "c").write_text("z")  # another process fills it meanwhile
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "other"]
    assert [path.name for path in other.iterdir()] == ["c"]


def test_a_scratch_folder_is_beside_the_output_and_goes(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "out.tasc") as folder:
        assert folder.parent == tmp_path
        (folder / "x").write_text("")
    assert list(tmp_path.iterdir()) == []


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_keeps_mode_and_link(tmp_path: Path) -> None:
    private, link = tmp_path / "private" / "notes.txt", tmp_path / "link"
    write_text(private, "old").chmod(0o600)
    link.symlink_to(private)
    write_text(link, "new")
    assert link.is_symlink()
    assert (private.read_text(), mode(private)) == ("new", 0o600)


def test_indexes_and_logs_keep_mode_and_link(tmp_path: Path) -> None:
    task = build_toy_task(tmp_path)
    store, index, log = (tmp_path / name for name in ("task.store", "task.tasc", "task.tasc.served"))
    NgramDrafter(task["index"], served=log).serve([("secret", [1, 2])])
    assert mode(log) == 0o600  # it holds inputs and outputs as they are
    for path in (store, index, log):
        path.chmod(0o640)
    TokenStore.open(store).append([{"input": "x", "output": "y"}], task["tokenizer"])
    TaskIndex.open(index).compact(index, served=log, tokenizer=task["tokenizer"], fit=False)
    assert [mode(path) for path in (store, index, log)] == [0o640] * 3
    (tmp_path / "real").mkdir()
    log.rename(tmp_path / "real" / "log")
    log.symlink_to(tmp_path / "real" / "log")
    drafter = NgramDrafter(TaskIndex.open(index), served=log, log_bytes=1 << 16)
    for number in range(60):  # the log is written anew when it is full
        drafter.serve([(f"secret {number}" * 50, [1] * 300)])
    assert log.is_symlink()
    assert mode(tmp_path / "real" / "log") == 0o640
    assert log.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device: .*model"),
        (ValueError("I/O error: No space left on device (os error 28)"), "No space left on device: .*model"),
        (
            RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 64 vs 0"),
            "model: a file in it could",
        ),
        (RuntimeError("basic_ios::clear: iostream error"), "is the disk full"),
    ],
)
def test_other_libraries_errors_of_writing_are_os_errors(tmp_path: Path, error: Exception, said: str) -> None:
    with pytest.raises(OSError, match=said), new_folder(tmp_path / "model"):
        raise error
    with pytest.raises(RuntimeError, match="other"), new_folder(tmp_path / "model"):
        raise RuntimeError("other")
    assert list(tmp_path.iterdir()) == []
