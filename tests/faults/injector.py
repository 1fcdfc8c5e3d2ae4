"""Faults at a command's system calls, by strace: a kill, or an error of one call."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "write", "pwrite64", "writev", "copy_file_range", "sendfile", "fsync", "fdatasync", "ftruncate", "rename",
    "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "chmod", "fchmod",
    "fchmodat", "chown", "fchown", "flock",
)  # fmt: skip
"""System calls at which a command is killed: between two of them nothing changes on the disk."""

FAILING = {
    **dict.fromkeys(("write", "pwrite64", "writev", "copy_file_range"), "ENOSPC"),
    **dict.fromkeys(("fsync", "fdatasync"), "EIO"),
    **dict.fromkeys(("rename", "renameat", "renameat2", "link", "linkat", "mkdir", "mkdirat"), "ENOSPC"),
    "mmap": "ENOMEM",
}
"""System calls that fail, and their error."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; negative: the signal that killed it."""
    stderr: str
    injected: bool
    """Whether the fault came, and, if it was an error, at a file of the command's folder."""


class Commands:
    """Runs commands in forks of one process, with a fault or without."""

    def __init__(self, place: Path) -> None:
        """`place`: folder for the command's folder `run` and its notes."""
        self.place, self.run = place, place / "run"
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        environment |= {
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(place / "run"),
            "COLUMNS": "500",
        }
        here = Path(__file__).parent
        environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(here), str(here.parent / "unit")])
        self._zygote = subprocess.Popen(
            [sys.executable, here / "zygote.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def close(self) -> None:
        """End the process."""
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait()

    def reset(self, source: Path) -> None:
        """Make the command's folder a copy of `source`."""
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(source, self.run, symlinks=True)

    def __call__(self, command: list[str], *options: str, kill_after: float | None = None) -> Ended:
        """Run a command.

        Args:
            command: See `zygote.py`, without the folder.
            options: Options of strace; without any, strace is not used.
            kill_after: Seconds after which it is killed.
        """
        assert self._zygote.stdin is not None and self._zygote.stdout is not None
        print(json.dumps([command[0], str(self.run), *command[1:]]), file=self._zygote.stdin, flush=True)
        pid = int(self._zygote.stdout.readline())
        tracer = None
        trace = self.place / "trace"
        if options:
            tracer = subprocess.Popen(["strace", "-f", "-y", "-qqq", "-o", trace, *options, "-p", str(pid)])
            while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
                assert tracer.poll() is None, "strace cannot trace a process"
                time.sleep(0.002)
        os.kill(pid, signal.SIGCONT)
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(int(self._zygote.stdout.readline()))
        if tracer is not None:
            tracer.wait()
        stderr = (self.place / "stderr").read_text(errors="replace")
        lines = trace.read_text(errors="replace").splitlines() if options else []
        injected = any("(INJECTED)" in line and str(self.run) in line for line in lines)
        return Ended(code, stderr, injected or code == -signal.SIGKILL)

    def counts(self, command: list[str], calls: tuple[str, ...]) -> dict[str, int]:
        """Run a command; return how often each of the system calls occurs in the thread that makes most of them."""
        ended = self(command, "-e", f"trace={','.join(calls)}")
        assert ended.code == 0, ended.stderr
        found = Counter(re.findall(r"(?m)^(\d+) +(\w+)\(", (self.place / "trace").read_text(errors="replace")))
        return {call: max((n for (_, name), n in found.items() if name == call), default=0) for call in calls}


def listing(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a folder, hidden ones too, by name; those of folders are empty."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }
