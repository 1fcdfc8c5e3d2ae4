"""`tasc index`: build, look at and check the index of a task."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tasc.cli.console import end_token, err, out, print_facts, print_json, progress_bars

app = typer.Typer(no_args_is_help=True, help="Build, look at and check the index of a task.")

IndexFile = Annotated[Path, typer.Argument(metavar="FILE", help="An index file, as `tasc index build` writes it.")]


@app.command()
def build(
    rows: Annotated[
        list[Path],
        typer.Argument(metavar="ROWS...", help="Past rows: JSONL (.gz, .zst), Parquet or text, one output per line."),
    ],
    tokenizer: Annotated[
        str, typer.Option(help="The model's tokenizer: its folder, a tokenizer.json, or a name on the model hub.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The index file to write.")],
    split: Annotated[
        str | None, typer.Option(help="Take only the rows whose `split` is this, for example train.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that tokenise; by default one per core.")] = None,
    eos: Annotated[
        str | None, typer.Option(help="The token that ends an output, as text or id, if not the tokenizer's.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Keep the tokenised rows in this file; later appends and builds can start there."),
    ] = None,
) -> None:
    """Index a task's past outputs, for `tasc generate` and the library.

    Rows have an `output` and, where known, an `input`. The file belongs to one tokenizer and says so: a model with
    another tokenizer is refused.
    """
    from tasc.data import TokenStore, load_tokenizer
    from tasc.spec import TaskIndex
    from tasc.spec.compare import ending

    if threads is not None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)  # read by tokenizers when its first batch comes
    task_tokenizer = load_tokenizer(tokenizer, eos=end_token(eos))
    ending(task_tokenizer)
    begin = time.perf_counter()
    with _store_path(store, output) as path, progress_bars() as bar:
        tokens = TokenStore.build(rows, task_tokenizer, path, split=split, progress=bar("tokenising"))
        TaskIndex.build(tokens, output, tokenizer=task_tokenizer, progress=bar("indexing"))
        documents, count = len(tokens), tokens.num_tokens
    seconds, size = time.perf_counter() - begin, output.stat().st_size
    out.print(
        f"{output}: {documents:,} documents, {count:,} tokens, {size / 1e6:,.1f} MB "
        f"({size / max(1, count):.1f} bytes per token), {seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def info(
    file: IndexFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what an index holds: tokenizer, documents, tokens, sections. Opens in constant time, reads no contents."""
    from tasc.spec import TaskIndex

    facts = TaskIndex.open(file).info()
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


@app.command()
def verify(file: IndexFile) -> None:
    """Read the whole file and check every checksum; exit code 2 if anything is wrong."""
    from tasc.spec import TaskIndex

    TaskIndex.open(file).verify()
    err.print(f"{file}: all checksums hold", highlight=False)


@contextmanager
def _store_path(kept: Path | None, output: Path) -> Iterator[Path]:
    if kept is not None:
        yield kept
    else:
        with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=f".{output.name}.") as folder:
            yield Path(folder) / "rows.store"
