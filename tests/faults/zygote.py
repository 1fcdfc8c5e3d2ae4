"""Server of commands: has tasc, torch and transformers loaded, and forks a stopped child for each command.

Standard input: one JSON list `[what, folder, argument, …]` a line. `what` is `tasc` (a command line) or a function of
`library.py`. Standard output: the child's process id, then, when it has ended, its status (`os.waitpid`). The child
stops itself before it begins; its output goes to `stdout` and `stderr` in `folder`'s parent.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import library
import torch

from tasc.cli import app

ANY_TRACER = ctypes.c_ulong(-1)
PR_SET_PTRACER = 0x59616D61


def main() -> None:
    """Serve until the end of the input."""
    library.preload()
    gc.freeze()  # a collection of what is loaded takes longer than a command
    for line in sys.stdin:
        what, folder, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(run(what, Path(folder), arguments))
        os.waitpid(pid, os.WUNTRACED)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


def run(what: str, folder: Path, arguments: list[str]) -> int:
    """Run a command in `folder`; return the exit code."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    torch.set_num_threads(1)  # torch makes its pool of threads anew after a fork, which its threads must not do at once
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY_TRACER, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    code: object = 0
    try:
        app(arguments) if what == "tasc" else getattr(library, what)(*arguments)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass
    return code if isinstance(code, int) else 1


if __name__ == "__main__":
    main()
