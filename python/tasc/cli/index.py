"""`tasc index`: build, look at, compact and check the index of a task, and remove rows from it."""

import os
import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasc.cli.console import end_token, err, out, print_facts, print_json, print_table, progress_bars
from tasc.cli.options import (
    AsJson,
    Eos,
    EveryTurn,
    InputField,
    NoFit,
    OutputField,
    OutputFile,
    PastRows,
    Split,
    System,
    Threads,
    TokenizerName,
)
from tasc.cli.outputs import Commands
from tasc.files import scratch_folder
from tasc.printable import counted
from tasc.progress import of_fraction

if TYPE_CHECKING:
    from tasc._core import TaskIndex

app = Commands(
    no_args_is_help=True, help="Build, look at, compact and check the index of a task, and remove rows from it."
)

IndexFile = Annotated[Path, typer.Argument(metavar="FILE", help="Read this index file of `tasc index build`.")]


@app.command()
def build(
    rows: PastRows,
    tokenizer: TokenizerName,
    output: OutputFile,
    split: Split = None,
    input_field: InputField = "auto",
    output_field: OutputField = "auto",
    every_turn: EveryTurn = False,
    threads: Threads = None,
    eos: Eos = None,
    system: System = None,
    store: Annotated[
        Path | None,
        typer.Option(
            writable=True, help="Write the tokenised rows to this file; later appends and builds can start there."
        ),
    ] = None,
    no_inputs: Annotated[
        bool,
        typer.Option(
            "--no-inputs",
            help="Store nothing of the inputs; drafts are shorter then. Otherwise the index holds their text, hashes "
            "of their words and of adjacent word pairs with the rows that hold them, the token ids of their words, and "
            "how often each word is copied.",
        ),
    ] = False,
    no_fit: NoFit = False,
) -> None:
    """Index a task's past rows, for `tasc generate` and the library.

    Rows have an `output` and, where known, an `input`: drafts that know the rows' inputs go much further. Of rows with
    `messages`, the output is what the tokenizer's chat template writes after the prompt. The file belongs to one
    tokenizer and says so: a model with another tokenizer is refused.
    """
    from tasc._core import TaskIndex
    from tasc.data import TokenStore, load_tokenizer
    from tasc.data.endings import required_eos
    from tasc.drafting.prompt_input import template_in_words

    task_tokenizer = load_tokenizer(tokenizer, eos=end_token(eos))
    required_eos(task_tokenizer)
    begin = time.perf_counter()
    with scratch_folder(output) as folder, progress_bars() as bar:
        tokens = TokenStore.build(
            rows,
            task_tokenizer,
            store or folder / "rows.store",
            split=split,
            input_field=None if no_inputs else input_field,
            output_field=output_field,
            every_turn=every_turn,
            system=system,
            num_threads=threads,
            progress=bar("tokenising"),
        )
        index = TaskIndex.build(
            tokens,
            output,
            tokenizer=task_tokenizer,
            inputs=not no_inputs,
            fit=not no_fit,
            num_threads=threads,
            progress=of_fraction(bar("indexing")),
        )
        facts = index.info()
        documents, count = len(tokens), tokens.num_tokens
    seconds, size = time.perf_counter() - begin, output.stat().st_size
    out.print(
        f"{output}: {counted(documents, 'document')}, {counted(count, 'token')}, {size / 1e6:,.1f} MB "
        f"({size / max(1, count):.1f} bytes per token), {seconds:.1f} s; {_inputs_summary(facts)}",
        highlight=False,
        soft_wrap=True,
    )
    said = template_in_words(index, task_tokenizer)
    if said is not None:
        out.print(said, highlight=False, markup=False, soft_wrap=True)


def _inputs_summary(facts: dict[str, Any]) -> str:
    """Return the facts about the inputs of an index in a few words."""
    if facts["inputs"] == 0:
        return "no inputs"
    fitted = "weights not fitted" if facts["fit"] is None else f"weights fitted, s(0.02) {facts['fit']['speedup']:.1f}"
    return f"{counted(facts['inputs'], 'input')}, {fitted}"


@app.command()
def info(
    file: IndexFile,
    as_json: AsJson = False,
) -> None:
    """Show what an index holds: tokenizer, documents, tokens, sections, and the speed-up from each source of drafts.

    Opens in constant time, reads no contents. The speed-up from each source was measured when the index was built, on
    rows held out of it: **s(0.02)** is the speed-up if verifying k drafted tokens costs 1 + 0.02·k plain steps.
    """
    from tasc._core import TaskIndex
    from tasc.evaluation.ablation import fit_in_words

    facts = TaskIndex.open(file).info()
    if as_json:
        print_json(facts)
        return
    print_facts(_shown(facts))
    out.print()
    for sentence in fit_in_words(facts):
        out.print(sentence, highlight=False, soft_wrap=not out.is_terminal)
    if facts["fit"] is not None:
        out.print()
        _print_reliability(facts["fit"]["reliability"])


def _shown(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of an index for a terminal: of the chat template, the digest."""
    from tasc.data.chat import template_digest
    from tasc.printable import printable

    shown = {name: value for name, value in facts.items() if name not in ("fit", "notes", "input_template")}
    if "system" in facts["notes"]:
        shown["system"] = printable(facts["notes"]["system"])
    if "chat_template" in facts["notes"]:
        shown["chat_template"] = f"SHA-256 {template_digest(facts['notes']['chat_template'])[:16]}…"
    return shown


def _print_reliability(bins: list[tuple[float, float, int]]) -> None:
    """Are probabilities what they say? One line for each tenth that occurred."""
    print_table(
        "Reliability on held-out rows",
        ("probability", "mean", "right", "tokens"),
        (
            (f"{k / len(bins):.1f} to {(k + 1) / len(bins):.1f}", f"{mean:.3f}", f"{right:.3f}", tokens)
            for k, (mean, right, tokens) in enumerate(bins)
            if tokens
        ),
    )


@app.command()
def compact(
    file: IndexFile,
    tokenizer: TokenizerName,
    logs: Annotated[
        list[Path] | None,
        typer.Option(
            "--log",
            help="Merge this log of online rows, and LOG.1, LOG.2, … of further processes; may be repeated. By default "
            "FILE.served, if any.",
        ),
    ] = None,
    salt: Annotated[
        str | None,
        typer.Option(help="Merge what was learnt under this salt, into an index of its own beside FILE: FILE.DIGEST."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            writable=True,
            help="Write here and leave FILE and its log alone; by default over FILE.",
        ),
    ] = None,
    no_fit: NoFit = False,
) -> None:
    """Merge rows served since into an index, and fit its weights anew.

    The new index takes the old one's place whole, then the merged rows leave the logs; running processes go on with
    the old one until they open it again. The index notes which rows of which logs it holds: no row counts twice,
    whenever a process opens it. A log that a process is writing to is locked: stop that process first, or write
    elsewhere with -o.
    """
    from tasc._core import TaskIndex
    from tasc.data import load_tokenizer
    from tasc.drafting.protocol import salt_digest, served_log, served_logs
    from tasc.errors import InputError

    if salt is not None and (logs or output is not None):
        raise InputError("--salt names the log and the new index already; leave --log and -o out")
    index = TaskIndex.open(file)
    index.verify()  # damage must not get new checksums
    if salt is not None:
        digest = salt_digest(salt)
        logs, output = [served_log(index, digest)], Path(f"{index.path}.{digest}")
        if not served_logs(logs[0]):
            raise InputError(f"nothing was learnt under the salt {salt!r}: there is no {logs[0].name}")
    if output is not None and os.path.realpath(output) == os.path.realpath(file):
        output = None
    merged_logs = list(dict.fromkeys(each for log in logs or [served_log(index)] for each in served_logs(log)))
    for log in [*(logs or []), served_log(index), *merged_logs]:
        if output is not None and os.path.realpath(output) == os.path.realpath(log):
            raise InputError(f"-o {output} is a log of served rows; name another file")
    for log in logs or []:
        if not served_logs(log):
            raise InputError(f"there is no log {log}; leave --log out where nothing was served")
    task_tokenizer = load_tokenizer(tokenizer)
    with progress_bars() as bar:
        new, merged = index.compact(
            output or file,
            served=merged_logs,
            tokenizer=task_tokenizer,
            fit=not no_fit,
            progress=of_fraction(bar("compacting")),
        )
    facts = new.info()
    out.print(
        f"{output or file}: {counted(merged, 'served row')} merged, {counted(facts['documents'], 'document')}, "
        f"{counted(facts['tokens'], 'token')}; {_inputs_summary(facts)}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def remove(
    file: IndexFile,
    where: Annotated[
        Path | None,
        typer.Option(
            metavar="ROWS",
            help="Remove the rows of this file: each has an input, an output or both, or a `key`.",
        ),
    ] = None,
    salt: Annotated[str | None, typer.Option(help="Remove all that was learnt under this salt.")] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0.0, metavar="DAYS", help="Remove the online rows that are older than this.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Use the model's tokenizer: its folder, a tokenizer.json, a hub name, or smollm2."),
    ] = None,
    input_field: InputField = "auto",
    output_field: OutputField = "auto",
    no_fit: NoFit = False,
) -> None:
    """Take rows out again: write an index and its logs anew without them, as if they had never been there.

    Give one of --where, --salt and --older-than. --where and --older-than need --tokenizer, and go through the logs
    and indexes of all salts too. A line of --where with an `input` alone names all rows with this input, one with an
    `output` alone all rows with this output. Rows that `tasc index build` has read have no time and no key.

    Stop the processes that write to the logs first. Each file takes its place whole. If the command is stopped, run it
    again. Other files that were made of the rows (stores, tables of n-grams, plans, models, copies) are left alone.
    """
    from tasc._core import TaskIndex
    from tasc.cli.named_rows import NamedRows
    from tasc.data import load_tokenizer
    from tasc.errors import InputError

    if sum(option is not None for option in (where, salt, older_than)) != 1:
        raise InputError("give one of --where ROWS, --salt SALT and --older-than DAYS")
    index = TaskIndex.open(file)
    if salt is not None:
        _remove_salt(index, salt)
        return
    if tokenizer is None:
        raise InputError("the index is written anew, which needs the model's tokenizer: name it with --tokenizer")
    task_tokenizer = load_tokenizer(tokenizer, eos=index.info()["eos_id"])
    named = NamedRows(where, task_tokenizer, input_field=input_field, output_field=output_field)
    before = None if older_than is None else int(time.time() - older_than * 86400)
    with ExitStack() as held:
        for one, logs in _with_salts(index, held):
            with progress_bars() as bar:
                from_index, from_logs, untimed = one.remove(
                    named.picker(has_inputs=one.info()["inputs"] > 0, find_input=one.find_input),
                    keys=sorted(named.keys),
                    before=before,
                    served=logs,
                    tokenizer=task_tokenizer,
                    fit=not no_fit,
                    progress=of_fraction(bar("removing")),
                )
            stay = "" if before is None else f"; {counted(untimed, 'row')} without a time stay"
            said = f"{one.path}: {counted(from_index, 'row')} removed from the index, {from_logs:,} from its logs{stay}"
            out.print(said, highlight=False, soft_wrap=True)


def _with_salts(index: "TaskIndex", held: ExitStack) -> "list[tuple[TaskIndex, list[Path]]]":
    """Return an index and those of its salts, each with its logs; a salt without an index has its log at the first.

    While `held` is open, no compaction writes an index of such a salt: it may have read rows that are removed now.
    """
    from tasc._core import TaskIndex
    from tasc.drafting.protocol import served_log, served_logs

    path = Path(index.path)
    salted = re.compile(re.escape(path.name) + r"(?:\.served)?\.([0-9a-f]{32})(?:\.\d+)?")
    digests = sorted({found[1] for file in path.parent.iterdir() if (found := salted.fullmatch(file.name))})
    logs, own = served_logs(served_log(index)), []
    for digest in digests:
        salt_logs, compacted = served_logs(served_log(index, digest)), path.with_name(f"{path.name}.{digest}")
        with ExitStack() as alone:
            if not compacted.exists():
                alone.enter_context(scratch_folder(compacted))
            if not compacted.exists():
                held.push(alone.pop_all())
        if compacted.exists():
            own.append((TaskIndex.open(compacted), salt_logs))
        else:
            logs += salt_logs
    return [(index, logs), *own]


def _remove_salt(index: "TaskIndex", salt: str) -> None:
    from tasc.drafting.protocol import salt_digest, served_log, served_logs
    from tasc.errors import InputError
    from tasc.files import scratch_folder

    digest = salt_digest(salt)
    log, own = served_log(index, digest), Path(f"{index.path}.{digest}")
    with scratch_folder(own):  # no compaction writes it meanwhile, and what a killed one has left goes
        salt_logs = served_logs(log)
        there = [*salt_logs, *([own] if own.exists() else [])]
        if not there:
            raise InputError(f"nothing was learnt under the salt {salt!r}: there is no {log.name} and no {own.name}")
        for each in salt_logs:
            index.delete_log(each)
        own.unlink(missing_ok=True)
    for path in there:
        out.print(f"{path}: deleted", highlight=False, soft_wrap=True)


@app.command()
def verify(file: IndexFile) -> None:
    """Read the whole file, check every checksum, and prove that the file is safe to use; exit code 2 if not."""
    from tasc._core import TaskIndex

    TaskIndex.open(file).verify()
    err.print(f"{file}: all checksums hold, and the file is safe to use", highlight=False)
