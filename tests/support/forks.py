"""Children that are forks of the tests' process: torch and transformers, imported there, take a new process long."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import torch


def fork(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start `work` in a fork; return the process."""
    child = multiprocessing.get_context("fork").Process(target=_in_one_thread, args=(work, *arguments))
    child.start()
    return child


def exit_code_of_fork(work: Callable[..., object], *arguments: object) -> int | None:
    """Return how `work` ends in a fork: 0, 1 after an exception, or the negative signal, SIGKILL after two minutes."""
    child = fork(work, *arguments)
    child.join(120)
    child.kill()
    child.join()
    return child.exitcode


def _in_one_thread(work: Callable[..., object], *arguments: object) -> None:
    """Do work in a fork, which lacks the threads of torch's and tokenizers' pools and would wait for them."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    work(*arguments)
