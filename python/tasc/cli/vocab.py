"""`tasc vocab`: learn a task's vocabulary, look at it, and put it into a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasc.cli.console import end_token, out, print_facts, print_json, print_table, progress_bars
from tasc.cli.options import AsJson, Eos, OutputField, OutputFile, OutputFolder, PastRows, Split, TokenizerName
from tasc.cli.outputs import Commands

if TYPE_CHECKING:
    from tasc._core import MergePlan

app = Commands(no_args_is_help=True, help="Learn a task's vocabulary, look at it, and put it into a model.")


@app.command()
def learn(
    rows: PastRows,
    tokenizer: TokenizerName,
    output: OutputFile,
    size: Annotated[int, typer.Option("--size", "-k", min=1, help="Learn at most this many new tokens.")] = 256,
    split: Split = None,
    output_field: OutputField = "auto",
    min_count: Annotated[
        int, typer.Option(min=1, help="Require that a new token occurs at least this often in the outputs.")
    ] = 10,
    min_documents: Annotated[
        int,
        typer.Option(
            min=1, help="Require that it occurs in at least this many rows, because its text goes into tokenizer.json."
        ),
    ] = 5,
    max_length: Annotated[int, typer.Option(min=2, help="Let a new token replace at most this many base tokens.")] = 64,
    held_out: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="Hold out this share of the rows to choose the size that saves most."),
    ] = 0.1,
    eos: Eos = None,
) -> None:
    """Learn the new tokens that save the most decoding steps on a task's outputs.

    What a plan holds is what the tokenizer can hold: prompts will be encoded as before, and outputs decode to the exact
    text. `tasc vocab show` lists the tokens, `tasc vocab apply` puts them into a model.
    """
    from tasc.vocab.vocabulary import learn_vocabulary

    with progress_bars() as bar:
        plan = learn_vocabulary(
            rows,
            tokenizer,
            output,
            size=size,
            min_count=min_count,
            min_documents=min_documents,
            max_length=max_length,
            held_out=held_out,
            split=split,
            output_field=output_field,
            eos=end_token(eos),
            progress=bar("learning"),
        )
    out.print(f"{output}: {_summary(plan)}", highlight=False, soft_wrap=True)


@app.command()
def apply(
    model: Annotated[
        str, typer.Option(help="Extend this model: its folder with the tokenizer in it, a hub name, or smollm2.")
    ],
    plan: Annotated[Path, typer.Option(help="Read this plan of `tasc vocab learn`.")],
    output: OutputFolder,
    dtype: Annotated[
        str | None, typer.Option(help="Write weights as this type, for example bfloat16; by default the model's own.")
    ] = None,
    pad_to_multiple: Annotated[
        int, typer.Option(min=1, help="Pad embedding matrices that have to grow to a multiple of this.")
    ] = 1,
) -> None:
    """Write a checkpoint whose tokenizer and embeddings hold a plan's tokens, for fine-tuning.

    transformers and servers load it as it is. Until it is fine-tuned it hardly generates its new tokens.
    """
    from tasc._core import MergePlan
    from tasc.models import checkpoint
    from tasc.vocab.surgery import extend_checkpoint

    tokens = MergePlan.open(plan)
    extend_checkpoint(checkpoint(model), tokens, output, dtype=dtype, pad_to_multiple=pad_to_multiple)
    out.print(f"{output}: {len(tokens):,} new tokens", highlight=False, soft_wrap=True)


@app.command()
def show(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="Read this plan of `tasc vocab learn`.")],
    tokenizer: TokenizerName,
    top: Annotated[int, typer.Option(min=0, help="Print only the most used tokens; 0 prints all.")] = 0,
    as_json: AsJson = False,
) -> None:
    """List a plan's new tokens with their uses, and what each size of vocabulary would save."""
    from tasc._core import MergePlan
    from tasc.data import load_tokenizer
    from tasc.vocab.vocabulary import check_tokenizer

    tokens, task = MergePlan.open(plan), load_tokenizer(tokenizer)
    if task.plan is None or task.plan.fingerprint != tokens.fingerprint:
        check_tokenizer(task, "plan", tokens)
    rows = [
        (task.tokenizer.decode(ids, skip_special_tokens=False), tokens.base_vocab_size + k, len(ids), uses, documents)
        for k, (uses, documents) in enumerate(zip(map(int, tokens.counts), map(int, tokens.documents), strict=True))
        for ids in [tokens.expansion(k).tolist()]
    ]
    rows.sort(key=lambda row: (-row[3], row[1]))
    if as_json:
        names = ("text", "id", "length", "uses", "documents")
        listed = [dict(zip(names, row, strict=True)) for row in rows[: top or None]]
        print_json({**tokens.info(), "curve": tokens.curve, "new_tokens": listed})
        return
    print_facts(tokens.info())
    out.print()
    print_table(
        "Share of the tokens that a vocabulary of each size saves",
        ("new tokens", "rows learnt from, %", "rows left out, %"),
        ((f"{size:,}", 100 * train, 100 * held_out) for size, train, held_out in tokens.curve),
    )
    print_table(
        "New tokens, the most used first",
        ("text", "id", "base tokens", "uses", "outputs"),
        ((repr(text), *numbers) for text, *numbers in rows[: top or None]),
    )


def _summary(plan: "MergePlan") -> str:
    """Return the size of a plan and its savings in a few words."""
    size = f"{len(plan):,} new tokens"
    if not plan.curve:
        return size
    at = next((point for point in plan.curve if point[0] >= len(plan)), plan.curve[-1])
    return f"{size}; {at[0]:,} from a part of the rows save {at[1]:.1%} of its tokens, {at[2]:.1%} on rows left out"
