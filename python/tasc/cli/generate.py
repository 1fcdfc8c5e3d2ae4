"""`tasc generate`: outputs for a file of prompts."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasc.cli.console import err, progress_bars
from tasc.cli.options import InputField, System
from tasc.cli.resumable import PartialOutputs, resumable
from tasc.drafting.defaults import MAX_DRAFT, MEMORY_BYTES
from tasc.errors import CorpusError, InputError, NoTokenError, PromptError
from tasc.printable import counted, printable

if TYPE_CHECKING:
    from tasc.data import Progress, Row
    from tasc.decoding.generator import Generation, Generator
    from tasc.decoding.grammar import Grammar
    from tasc.decoding.stats import Stats

CALL_ROWS = 8
"""Least rows of a call of the generator: it fills a free place of the batch from those that wait."""


def generate(
    prompts: Annotated[
        Path,
        typer.Argument(
            metavar="PROMPTS",
            help="Read rows with an `input` or `messages` (go through the chat template) or a `prompt` (goes as it "
            "is); rows of other forms become rows with an `input`. - is standard input.",
        ),
    ],
    model: Annotated[str, typer.Option(help="A model's folder, a name on the model hub, or smollm2.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", writable=True, help="Write JSONL: each row with its `output`."),
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
    input_field: InputField = "auto",
    adapter: Annotated[Path | None, typer.Option(help="A PEFT adapter's folder, merged into the model.")] = None,
    system: System = None,
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
    json_schema: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Outputs are JSON of the schema in this file.")
    ] = None,
    regex: Annotated[str | None, typer.Option(help="Outputs match this regular expression as a whole.")] = None,
    grammar: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Outputs follow the grammar in this file: GBNF or Lark."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; a GPU where there is one.")] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the model's small parts: faster steps on a GPU.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Round the weights to int8: faster steps on a CPU. The text is the rounded model's, except where two "
            "tokens are nearly tied.",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Answer at most this many rows, the first ones.")] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on from the outputs in FILE.partial, or discard them and start again.")
    ] = True,
) -> None:
    """Generate an output for every row of PROMPTS, the same text as plain decoding and faster.

    Each output is written to FILE.partial as soon as it is finished, and to FILE when every row has been tried. After
    an error, Ctrl-C or a kill, the same command goes on from FILE.partial. Where the rows, the model or a setting of
    the text have changed since, it is refused. While a run writes FILE, another one is refused.

    A row whose prompt cannot be used, such as one beyond the model's context, is named and skipped. The exit code is
    then 1.

    The fields of a row stay as they are, but for `output`: a row's own `output` is written as `reference`. Rows that
    have a `finish_reason`, or an `output` and a `reference`, are refused: rename these fields.
    """
    from tasc._core import TaskIndex
    from tasc.data import load_tokenizer
    from tasc.data.prompt_notes import index_prompts
    from tasc.decoding.draft_model.loading import draft_model_drafter, load_draft
    from tasc.decoding.generator import Generator
    from tasc.drafting.retokenizing import ngram_drafter
    from tasc.evaluation.provenance import folder_key, rows_key
    from tasc.models import check_loadable, checkpoint, load_checkpoint

    check_loadable(model, draft, adapter=adapter, dtype=dtype, device=device)
    rows, field = read_prompts(prompts, input_field)
    options: dict[str, Any] = {
        "system": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": stop,
    }
    constraint = read_grammar(json_schema, regex, grammar)
    settings: dict[str, Any] = {
        "rows": rows_key(row for _, row in rows), "model": model, "model files": folder_key(model),
        "adapter": None if adapter is None else str(adapter),
        "adapter files": None if adapter is None else folder_key(adapter), "dtype": dtype, "int8": int8, **options,
        **({} if constraint is None else {constraint.kind: constraint.text}),
    }  # fmt: skip
    options = {name: value for name, value in {**options, "grammar": constraint}.items() if value is not None}
    task_index = None if index is None else TaskIndex.open(index, memory_bytes=MEMORY_BYTES)
    has_template = True
    if task_index is not None:
        task_tokenizer = load_tokenizer(checkpoint(model))
        ngram_drafter(task_index, task_tokenizer)  # checks that it is the model's
        has_template = task_tokenizer.chat_template is not None
    if field == "inputs":  # another index may bring another system message, and so another text
        taken = index_prompts(checkpoint(model), task_index, has_template=has_template)
        settings |= {**taken, **({} if system is None else {"system": system})}
    rows = rows[:limit]
    with resumable(output, settings, rows=len(rows), resume=resume) as sink, progress_bars() as bar:
        left = [number for number in range(len(rows)) if number not in sink.done]
        if sink.done:
            said = f"going on: {len(sink.done)} of {len(rows)} outputs are in {output}.partial"
            err.print(said, highlight=False, soft_wrap=True)
        loaded, tokenizer = load_checkpoint(model, adapter=adapter, dtype=dtype, device=device)
        drafts: dict[str, Any] = {"index": task_index}
        if draft is not None:
            small, its_tokenizer = load_draft(draft, loaded, dtype=dtype, device=device)
            drafter = draft_model_drafter(small, its_tokenizer)
            drafts = {"drafter": drafter} if task_index is None else {"index": task_index, "draft": drafter}
        generator = Generator(
            loaded, tokenizer, **drafts, max_draft=max_draft, batch_size=batch_size, compile=compile,
            pack_weights="int8" if int8 else None,
        )  # fmt: skip
        if system is None and field == "inputs" and generator.system is not None:
            err.print(f"system prompt: {printable(generator.system)}", highlight=False, markup=False, soft_wrap=True)
        if field == "prompts" and getattr(tokenizer, "chat_template", None) is not None:
            said = "each `prompt` goes as it is, without the chat template; with --input-field prompt it is the input"
            err.print(f"{said}, as in the other commands", highlight=False, soft_wrap=True)
        begin = time.perf_counter()
        run = Run(generator, rows, field, options, sink, bar("generating"))
        size = max(batch_size, CALL_ROWS)
        for first in range(0, len(left), size):
            run.answer(left[first : first + size])
        if run.skipped == len(rows):
            raise InputError(f"none of the {len(rows)} rows can be used, and {output} is not written{run.reason}")
    err.print(_summary(run.total, time.perf_counter() - begin), highlight=False, soft_wrap=True)
    if run.skipped:
        said = f"skipped {run.skipped} of {counted(len(rows), 'row')}{run.reason}"
        err.print(said, highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def read_grammar(json_schema: Path | None, regex: str | None, grammar: Path | None) -> "Grammar | None":
    """Return the grammar that the options give; None if they give none.

    Raises:
        InputError: They give several, or a file is no text.
    """
    from tasc.decoding.grammar import Grammar

    given: list[tuple[Path | str | None, Callable[[str], Grammar]]] = [
        (json_schema, Grammar.json_schema), (regex, Grammar.regex), (grammar, Grammar.ebnf),
    ]  # fmt: skip
    found = [(value, make) for value, make in given if value is not None]
    if len(found) > 1:
        raise InputError("give one of --json-schema, --regex and --grammar")
    if not found:
        return None
    [(value, make)] = found
    try:
        return make(value.read_text(encoding="utf-8") if isinstance(value, Path) else value)
    except UnicodeDecodeError as error:
        raise InputError(f"{value} is no UTF-8 text: {error}") from error


class Run:
    """Answers rows and writes each with its output.

    Args:
        generator: Generator of the outputs.
        rows: Rows, each with its position in its file.
        field: Argument of the generator that takes the prompts, "inputs" or "prompts".
        options: Other arguments of the generator.
        sink: File to write to; rows that it has are not asked for.
        progress: Called with (rows tried, rows in all).

    Attributes:
        total: Sum of the outputs' counts.
    """

    def __init__(
        self,
        generator: "Generator",
        rows: "Sequence[tuple[str, Row]]",
        field: str,
        options: dict[str, Any],
        sink: PartialOutputs,
        progress: "Progress",
    ) -> None:
        from tasc.decoding.stats import Stats

        self._generator, self._rows, self._field, self._options = generator, rows, field, options
        self._sink, self._progress = sink, progress
        self.total = Stats()
        self._skipped: dict[str, list[str]] = {}  # positions of rows by the reason

    @property
    def skipped(self) -> int:
        """Number of rows that could not be used."""
        return sum(map(len, self._skipped.values()))

    @property
    def reason(self) -> str:
        """The reason that most skipped rows share, as the end of a sentence; "" if they share none."""
        reason, where = max(self._skipped.items(), key=lambda item: len(item[1]), default=("", []))
        return f"; in {len(where)} of them, the prompt {reason}" if len(where) > 1 else ""

    def answer(self, numbers: Sequence[int]) -> None:
        """Answer rows by their numbers, and write each output as soon as it is finished.

        A row whose logits leave no token is tried without drafts, because NaN at a wrong draft spreads to the tokens
        before it. If this fails too, the row is skipped. The unfinished others are answered again.
        """
        from tasc.drafting.protocol import NullDrafter

        waiting = [number for number in numbers if self._is_usable(number)]
        finished: set[int] = set()

        def write(number: int, made: "Generation") -> None:
            self._sink.write(number, _line(self._rows[number][1], made))
            finished.add(number)
            self.total.add(made.stats)
            self._progress(len(self._sink.done) + self.skipped, len(self._rows))

        def generate(tried: Sequence[int], **options: Any) -> None:
            call = {**self._options, **self._prompts(tried), **options}
            self._generator.generate(**call, positions=tried, finished=lambda index, made: write(tried[index], made))

        while waiting:
            try:
                generate(waiting)
            except NoTokenError as error:
                failed = waiting.pop(error.number)
                try:
                    generate([failed], drafter=NullDrafter())
                except NoTokenError as again:
                    self._skip(failed, again.reason)
            waiting = [number for number in waiting if number not in finished]

    def _prompts(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Return the generator's argument with the prompts of rows."""
        rows = [self._rows[number][1] for number in numbers]
        return {self._field: rows if self._field == "inputs" else [row["prompt"] for row in rows]}

    def _is_usable(self, number: int) -> bool:
        """Return whether a row can be used; otherwise skip it."""
        try:
            self._generator.check(**self._prompts([number]), system=self._options.get("system"))
        except PromptError as error:
            self._skip(number, error.reason)
            return False
        return True

    def _skip(self, number: int, reason: str) -> None:
        """Name a row and count it as skipped; the reason is said for the first row that has it."""
        reason = " ".join(reason.split())
        alike = self._skipped.setdefault(reason, [])
        said = f"for the same reason as {alike[0]}" if alike else reason
        alike.append(self._rows[number][0])
        err.print(f"skipped {alike[-1]}: {said}", highlight=False, soft_wrap=True)


def _summary(total: "Stats", seconds: float) -> str:
    """Speed and drafts of the whole run."""
    made = f"{counted(total.requests, 'output')}, {counted(total.tokens, 'token')}"
    said = f"{made}, {total.tokens / max(seconds, 1e-9):,.1f} tokens/s"
    if total.drafted == 0:
        return f"{said}, nothing drafted"
    return (
        f"{said}; {total.tokens / total.steps:.2f} tokens per step, {total.drafted / total.steps:.1f} drafted, "
        f"{total.accepted / total.drafted:.0%} of them accepted"
    )


def _line(row: "Row", made: "Generation") -> bytes:
    """Return the row with its generated output as JSON; an output that it came with is kept as `reference`."""
    reference = {"reference": row["output"]} if "output" in row else {}
    record = {**row, **reference, "output": made.text, "finish_reason": made.finish_reason}
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode()


_COLUMN = {"inputs": "input", "prompts": "prompt"}


def _has_prompt(row: "Row", field: str) -> bool:
    return isinstance(row.get(_COLUMN[field]), str) or (field == "inputs" and bool(row.get("messages")))


def read_prompts(path: Path, input_field: str = "auto") -> "tuple[list[tuple[str, Row]], str]":
    """Read rows with their positions, and how the generator takes them: as `inputs` or as `prompts`.

    Rows of other forms, and those whose `input_field` is named, become rows with an `input`.

    Raises:
        CorpusError: A row cannot be read, could not be written again, or has a field that would be overwritten.
        InputError: Some row has neither `messages` nor an `input` that is text, and some row no such `prompt`; or there
            is no row.
    """
    from tasc.data.rows import check_json, located_rows, understood_rows

    rows = list(located_rows(path))
    for where, row in rows:
        check_json(where, row)
    first = rows[0][1] if rows else {}
    is_plain = "instruction" not in first and any(_has_prompt(first, field) for field in _COLUMN)
    if input_field != "auto" or not is_plain:
        rows = list(understood_rows(rows, None, input_field=input_field, needs_output=False)) or rows
    for where, row in rows:
        _check_own_fields(where, row)
    if not rows:
        raise InputError(f"{path} has no rows; give one with an `input` or a `prompt` per line")
    lacking = []
    for field, column in _COLUMN.items():
        first = next((where for where, row in rows if not _has_prompt(row, field)), None)
        if first is None:
            return rows, field
        lacking.append(f"{first} has no such `{column}`")
    raise InputError(f"every row needs an `input`, or every row a `prompt`, as text: {', '.join(lacking)}")


def _check_own_fields(where: str, row: "Row") -> None:
    """Check that a row has no field that its output line needs."""
    needed = {"finish_reason": "the reason why the output ended"}
    if "output" in row:
        needed["reference"] = "the row's own `output`"
    for field, value in needed.items():
        if field in row:
            raise CorpusError(f"{where}: field {field!r} is needed for {value}; rename it or leave it out")
