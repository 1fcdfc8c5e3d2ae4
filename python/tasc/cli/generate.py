"""`tasc generate`: outputs for a file of prompts."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from tasc.cli.console import err, progress_bars
from tasc.drafting.defaults import MAX_DRAFT
from tasc.errors import InputError
from tasc.files import atomic_path

if TYPE_CHECKING:
    from tasc.decoding.stats import Stats

WRITTEN_TOGETHER = 8
"""Least rows handed to the generator at a time: it fills a free place of the batch from those that wait."""


def generate(
    prompts: Annotated[
        Path,
        typer.Argument(
            metavar="PROMPTS",
            help="Rows with an `input` (goes through the chat template) or a `prompt` (goes as it is).",
        ),
    ],
    model: Annotated[str, typer.Option(help="A model's folder, a name on the model hub, or smollm2.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="JSONL to write: each row with its `output`.")
    ],
    index: Annotated[
        Path | None,
        typer.Option(help="The task's index. Without one, drafts come from the prompt and the text so far."),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            help="A draft model's folder. Drafts come from it, and with --index from both, each where it pays."
        ),
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A PEFT adapter's folder, merged into the model.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt of every request with an `input`.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens per output.")] = 256,
    max_draft: Annotated[int, typer.Option(min=0, help="Most tokens per draft; 0 for plain decoding.")] = MAX_DRAFT,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests decoded together.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Sample from the likeliest tokens of this mass.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Sample from so many likeliest tokens.")] = None,
    min_p: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Drop tokens below this share of the likeliest.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(min=0.0, help="Above 1, tokens seen before become less likely.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End an output at this text. May be repeated.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; a GPU where there is one.")] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the model's small parts: faster steps on a GPU.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Round the weights to int8: faster steps on a CPU, and other text than fp32.")
    ] = False,
) -> None:
    """Generate an output for every row of PROMPTS, the same text as plain decoding and faster.

    Rows appear in a temporary file beside FILE while they are made; FILE itself appears whole, at the end.
    """
    from tasc._core import TaskIndex
    from tasc.decoding.draft_model.drafter import ModelDrafter
    from tasc.decoding.generator import Generator
    from tasc.decoding.stats import Stats
    from tasc.models import load_checkpoint, load_draft

    rows, field = read_prompts(prompts)
    task_index = None if index is None else TaskIndex.open(index)
    loaded, tokenizer = load_checkpoint(model, adapter=adapter, dtype=dtype, device=device)
    drafts: dict[str, Any] = {"index": task_index}
    if draft is not None:
        small, its_tokenizer = load_draft(draft, loaded, dtype=dtype, device=device)
        drafter = ModelDrafter(small, tokenizer=its_tokenizer)
        drafts = {"drafter": drafter} if task_index is None else {"index": task_index, "draft": drafter}
    generator = Generator(
        loaded, tokenizer, **drafts, max_draft=max_draft, batch_size=batch_size, compile=compile,
        pack_weights="int8" if int8 else None,
    )  # fmt: skip
    options: dict[str, Any] = {
        "system": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": stop,
    }
    options = {name: value for name, value in options.items() if value is not None}
    total, begin = Stats(), time.perf_counter()
    with written_whole(output) as sink, progress_bars() as bar:
        move = bar("generating")
        size = max(batch_size, WRITTEN_TOGETHER)
        for at in range(0, len(rows), size):
            batch = rows[at : at + size]
            options[field] = [row[_COLUMN[field]] for row in batch]
            if seed is not None:
                options["seed"] = seed + at
            for row, made in zip(batch, generator.generate(**options), strict=True):
                total.add(made.stats)
                sink.write(json.dumps(_record(row, made), ensure_ascii=False) + "\n")
            sink.flush()
            move(at + len(batch), len(rows))
    err.print(_summary(total, time.perf_counter() - begin), highlight=False, soft_wrap=True)


def _summary(total: "Stats", seconds: float) -> str:
    """Speed and drafts of the whole run."""
    said = f"{total.requests} outputs, {total.tokens:,} tokens, {total.tokens / max(seconds, 1e-9):,.1f} tokens/s"
    if total.drafted == 0:
        return f"{said}, nothing drafted"
    return (
        f"{said}; {total.tokens / total.steps:.2f} tokens per step, {total.drafted / total.steps:.1f} drafted, "
        f"{total.accepted / total.drafted:.0%} of them accepted"
    )


def _record(row: dict[str, Any], made: Any) -> dict[str, Any]:
    """The row with its generated output; an output that it came with is kept as `reference`."""
    reference = {"reference": row["output"]} if "output" in row else {}
    return {**row, **reference, "output": made.text, "finish_reason": made.finish_reason}


_COLUMN = {"inputs": "input", "prompts": "prompt"}


def read_prompts(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows, and how the generator takes them: as `inputs` or as `prompts`."""
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as e:
                raise InputError(f"{path}:{number}: not JSON: {e.msg} at column {e.colno}") from e
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: a JSON {type(row).__name__}, where a row is an object")
            rows.append(row)
    for field, column in _COLUMN.items():
        if rows and all(isinstance(row.get(column), str) for row in rows):
            return rows, field
    raise InputError(f"{path}: every row needs an `input`, or every row a `prompt`, as text; {len(rows)} rows read")


@contextmanager
def written_whole(path: Path) -> Iterator[IO[str]]:
    """Open a text file for writing that gets its name only after all of it is written.

    Raises:
        InputError: The folder of `path` does not exist.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.absolute().parent} does not exist")
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as sink:
        yield sink
