"""What the fault tests run besides `tasc` itself: functions of the library, with texts as arguments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress

OUTPUT = [40, 41, 42, 0]


def preload() -> None:
    """Import what the commands need, so that a forked child does not."""
    import accelerate
    import jinja2
    import peft  # type: ignore[import-untyped]
    import tiny_models
    import torch

    import tasc.adapters.llama_lookup
    import tasc.cli
    import tasc.decoding.generator
    import tasc.evaluation.report
    import tasc.training.distill
    import tasc.training.finetune.tune
    import tasc.vocab.surgery

    del accelerate, jinja2, peft
    torch.set_num_threads(1)
    tiny_models.tiny_model("llama")
    tiny_models.byte_tokenizer()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), suppress(SystemExit):
        tasc.cli.app(["export", "llama-lookup", "no-index", "-o", "no-file"])  # typer loads more on first use


@contextmanager
def in_one_line() -> Iterator[None]:
    """Say an error in one line, as the command line does."""
    try:
        yield
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=os.sys.stderr)  # type: ignore[attr-defined]
        raise SystemExit(2) from None


def serve(calls: str, log_bytes: str, length: str) -> None:
    """Append two rows with each of `calls` calls to a log beside `task.tasc`, and note each acknowledged call.

    The first run is named `a`, the next one `b`; their rows and notes have that name.
    """
    from tasc import NgramDrafter, TaskIndex

    name = "b" if os.path.exists("../acknowledged-a") else "a"
    acknowledged = os.open(f"../acknowledged-{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with in_one_line():
        drafter = NgramDrafter(TaskIndex.open("task.tasc"), served="task.tasc.served", log_bytes=int(log_bytes))
        for call in range(int(calls)):
            drafter.serve([(f"{name} {call} {half}", OUTPUT * int(length)) for half in "ab"])
            os.write(acknowledged, b".")


def append() -> None:
    """Append rows to a store."""
    import tiny_models

    from tasc.data import TokenStore, load_tokenizer

    tokenizer = load_tokenizer(tiny_models.byte_tokenizer(), eos="<eos>")
    with in_one_line():
        TokenStore.open("task.store").append([{"input": "new", "output": "new;"}], tokenizer)
