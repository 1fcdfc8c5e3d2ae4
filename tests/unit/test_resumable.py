"""Files of outputs from which a run goes on, as others may have left them."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasc.cli.resumable import PartialOutputs, resumable
from tasc.errors import InputError

SETTINGS = {"model": "m"}
HEADER = json.dumps({"tasc generate": SETTINGS}).encode() + b"\n"
STRANGE = [
    b"5",
    b"[1, {}, 3]",
    b'{"a": 1, "b": 2}',
    b'["1", {}]',
    b"[-1, {}]",
    b"[1.5, {}]",
    b"[true, {}]",
    b"[[], {}]",
    b"[1, null]",
    b"[1, {]",
    b"[ 1, {}]",
    b"[1" + b"0" * 5000 + b", {}]",
    b"[" * 100_000,
    b'[1, {"\xff": 1}]',
]


@pytest.mark.parametrize("name", ["out.jsonl.partial", "out.jsonl"])
def test_a_full_disk_is_said_with_the_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as Python raises it: without a name

    class Full(io.FileIO):
        write = full  # type: ignore[assignment]

    if name.endswith(".partial"):
        monkeypatch.setattr(os, "fdopen", lambda descriptor, *_, **__: Full(descriptor, "r+"))
    else:
        monkeypatch.setattr(PartialOutputs, "ordered", full)
    with (
        pytest.raises(OSError, match="No space left") as caught,
        resumable(tmp_path / "out.jsonl", SETTINGS, rows=1) as sink,
    ):
        sink.write(0, b"{}")
    assert caught.value.filename == str(tmp_path / name)


@pytest.mark.parametrize("line", STRANGE)
def test_a_line_that_is_no_output_is_cut_off(tmp_path: Path, line: bytes) -> None:
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    partial.write_bytes(HEADER + b'[0, {"n": 0}]\n' + line + b'\n[1, {"n": "behind it"}]\n')
    with resumable(output, SETTINGS, rows=2) as sink:
        assert sink.done == {0}
        sink.write(1, b'{"n": 1}')
    assert output.read_text() == '{"n": 0}\n{"n": 1}\n'


def test_a_file_that_ends_within_its_settings_is_begun_again(tmp_path: Path) -> None:
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    for size in range(len(HEADER)):
        partial.write_bytes(HEADER[:size])
        with resumable(output, SETTINGS, rows=1) as sink:
            assert not sink.done
            sink.write(0, b"{}")
        assert output.read_text() == "{}\n" and not partial.exists()


@pytest.mark.parametrize("content", [b"[" * 100_000, b"5\n", b'{"tasc generate": 5'])
def test_what_is_no_such_file_stays(tmp_path: Path, content: bytes) -> None:
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(content)
    with pytest.raises(InputError, match="is in the way"), resumable(tmp_path / "out.jsonl", SETTINGS, rows=1):
        pass
    assert partial.read_bytes() == content


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.jsonl.partial")
    code = (
        "from pathlib import Path\nfrom tasc.cli.resumable import PartialOutputs, resumable\n"
        "with resumable(Path('out.jsonl'), {}, rows=1): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "out.jsonl.partial is a pipe or a device; rename it or remove it" in done.stderr


def test_outputs_of_another_user_are_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder where all may write, another user could read the outputs, or have written them."""
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    partial.write_bytes(HEADER + b"[0, {}]\n")
    monkeypatch.setattr(os, "geteuid", lambda: partial.stat().st_uid + 1)
    refused = pytest.raises(InputError, match="is another user's; rename it or remove it")
    with refused, resumable(output, SETTINGS, rows=1):
        pass
    output.write_text("old")  # whose owner the partial file has too
    with resumable(output, SETTINGS, rows=1) as sink:
        assert sink.done == {0}
