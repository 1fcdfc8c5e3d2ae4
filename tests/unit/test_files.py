"""Atomic writes: all of a file or folder, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasc.errors import InputError
from tasc.files import atomic_path, new_folder, remove_partial, scratch_folder, write_json, write_text


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


def test_two_writers_have_files_of_their_own(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1"


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


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".model.0123abcd.part").mkdir()
    (tmp_path / ".model2.0123abcd.part").mkdir()
    (tmp_path / ".model.json.0123abcd.part").mkdir()  # of a write of model.json
    remove_partial(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.json.0123abcd.part", ".model2.0123abcd.part"]
    remove_partial(tmp_path / "no" / "such")


def test_a_scratch_folder_is_beside_the_output_and_goes(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "out.tasc") as folder:
        assert folder.parent == tmp_path
        (folder / "x").write_text("")
    assert list(tmp_path.iterdir()) == []
