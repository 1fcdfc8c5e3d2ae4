"""`tasc count`: count the n-grams of a task's outputs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasc.cli.console import end_token, out, print_facts, print_json, print_table, progress_bars
from tasc.cli.options import AsJson, Eos, OutputField, Split, Threads
from tasc.errors import InputError, TokenizerMismatchError
from tasc.files import scratch_folder

if TYPE_CHECKING:
    from tasc.data import NgramTable, TaskTokenizer, TokenStore

MAGIC = b"tasc\r\n\x1a\n"


def count(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Count past rows (of any file that is read as rows) or a token store; or show one table of n-grams, "
            "or add up several.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", writable=True, help="Write the table of n-grams to this file."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Use the model's tokenizer: its folder, a tokenizer.json, a hub name, or smollm2. For rows it "
            "is needed; otherwise it shows n-grams as text."
        ),
    ] = None,
    split: Split = None,
    output_field: OutputField = "auto",
    eos: Eos = None,
    max_length: Annotated[int, typer.Option(min=1, help="Count n-grams of 1 to this many tokens.")] = 4,
    memory_limit: Annotated[
        str, typer.Option(help="Take at most this much memory; the rest is spilled to disk beside the table.")
    ] = "512MB",
    threads: Threads = None,
    min_count: Annotated[int, typer.Option(min=1, help="Leave out n-grams that occur less often than this.")] = 1,
    min_documents: Annotated[int, typer.Option(min=1, help="Leave out n-grams that fewer outputs hold.")] = 1,
    top: Annotated[int, typer.Option(min=0, help="Print this many of the most frequent n-grams.")] = 0,
    length: Annotated[
        list[int] | None, typer.Option("--length", "-n", help="Print only this length with `--top`; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the n-grams of a task's outputs, exactly, in bounded memory.

    Each n-gram has its count (equal outputs count as often as they occurred) and the number of distinct outputs that
    hold it. Tables of shards counted elsewhere are added up by naming them all.
    """
    from tasc.data import NgramTable, load_tokenizer

    kinds = {_kind(path) for path in sources}
    task = None if tokenizer is None else load_tokenizer(tokenizer, eos=end_token(eos))
    cut: dict[str, Any] = {"num_threads": threads, "min_count": min_count, "min_documents": min_documents}
    if kinds == {"NGRM"} and len(sources) == 1 and output is None:
        table = NgramTable.open(sources[0])
    elif output is None:
        raise InputError("there is no place for the table: name it with -o FILE")
    else:
        with progress_bars() as bar, scratch_folder(output) as folder:
            if kinds == {"NGRM"}:
                table = NgramTable.merge(sources, output, progress=bar("merging"), **cut)
            else:
                table = NgramTable.count(
                    _store(sources, kinds, task, split, output_field, folder / "rows.store", bar),
                    output,
                    max_length=max_length,
                    memory_limit=memory_limit,
                    progress=bar("counting"),
                    **cut,
                )
    _show(table, task, top, length, as_json)


def _kind(path: Path) -> str:
    """The kind of a file of ours (docs/format.md); nothing for any other file."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[8:].decode("ascii", "replace") if head.startswith(MAGIC) else ""


def _store(
    sources: list[Path],
    kinds: set[str],
    task: "TaskTokenizer | None",
    split: str | None,
    output_field: str,
    path: Path,
    bar: Callable[[str], Any],
) -> "TokenStore":
    """Open the token store, or make one of rows at `path`."""
    from tasc.data import TokenStore

    if kinds == {"STOR"} and len(sources) == 1:
        return TokenStore.open(sources[0])
    if kinds != {""}:
        raise InputError("give either rows, or one token store, or tables of n-grams")
    if task is None:
        raise InputError("rows become token ids by a tokenizer: name the model's with --tokenizer")
    return TokenStore.build(
        sources, task, path, split=split, output_field=output_field, input_field=None, progress=bar("tokenising")
    )


def _as_text(best: dict[str, Any]) -> str:
    """An n-gram as text with its blanks and line ends visible, or as ids."""
    text = best["text"]
    return " ".join(map(str, best["ids"])) if text is None else json.dumps(text, ensure_ascii=False)


def _show(table: "NgramTable", task: "TaskTokenizer | None", top: int, length: list[int] | None, as_json: bool) -> None:
    if task is not None and task.fingerprint != table.fingerprint:
        raise TokenizerMismatchError(
            f"{table.path} was made with another tokenizer ({table.fingerprint[:12]}…) than {task.name} "
            f"({task.fingerprint[:12]}…)"
        )
    facts = table.info()
    best = [
        {
            "ids": ids.tolist(),
            "text": None if task is None else task.tokenizer.decode(ids.tolist(), skip_special_tokens=False),
            "count": count,
            "documents": documents,
        }
        for ids, count, documents in table.top(top, length)
    ]
    if as_json:
        print_json({**facts, "top": best})
        return
    lengths = [(f"{n} tokens", number) for n, number in enumerate(facts.pop("ngrams"), 1)]
    print_facts({**facts, "n-grams": lengths})
    if best:
        out.print()
        print_table(
            "The most frequent n-grams",
            ("n-gram", "tokens", "count", "outputs"),
            [(_as_text(b), len(b["ids"]), b["count"], b["documents"]) for b in best],
        )
