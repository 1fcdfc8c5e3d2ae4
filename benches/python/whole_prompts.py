"""Draft quality where rows are whole prompts, beside rows that are inputs alone, by replay of held-out rows; no model.

    python benches/python/whole_prompts.py DATA_FOLDER --tokenizer T [--set slu_atis] [--k 16] [-o OUT.json]
    python benches/python/whole_prompts.py --smoke

DATA_FOLDER holds NAME.jsonl.gz files of rows {input, output, split}. Every row becomes a prompt: an instruction, examples
from the train rows, the input. The examples are the same in all prompts, or drawn anew for each.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratios import Ratio, report

from tasc.cli.console import progress_bars
from tasc.data import TaskTokenizer, load_tokenizer, read_rows
from tasc.drafting.prompt_input import template_in_words
from tasc.evaluation.replay import encode_rows, replay
from tasc.evaluation.replay_comparison import make_drafters, open_task
from tasc.serving.tasks import TaskDrafts

INSTRUCTION = "Read what the user says, and answer as the examples do. Write the answer alone, in one line.\n\n"
COST = 0.02
LEAST = 0.98
"""Required ratio of s(0.02) over that of the inputs alone, with the same examples in all prompts."""


@dataclass(frozen=True, slots=True)
class Form:
    """Form of a prompt: the number of examples in it, and whether they differ from prompt to prompt."""

    examples: int
    differ: bool = False

    @property
    def name(self) -> str:
        """Name in the table."""
        return f"{self.examples} examples, {'drawn for each prompt' if self.differ else 'the same in all prompts'}"


FORMS = (Form(0), Form(8), Form(40), Form(8, differ=True), Form(40, differ=True))


def prompts(rows: Sequence[dict[str, Any]], form: Form) -> Iterator[dict[str, Any]]:
    """The rows, each with a whole prompt as its input."""
    known = [row for row in rows if row["split"] == "train"]
    draw = random.Random(5)
    examples = draw.sample(known, form.examples)
    for row in rows:
        if form.differ:
            examples = draw.sample(known, form.examples)
        shown = "".join(f"Input: {e['input']}\nOutput: {e['output']}\n\n" for e in examples)
        yield {**row, "input": f"{INSTRUCTION}{shown}Input: {row['input']}\nOutput:"}


def measure(rows: Sequence[dict[str, Any]], tokenizer: TaskTokenizer, k: int, limit: int | None) -> dict[str, Any]:
    """s(0.02) of the held-out rows, and the share of them whose input is found in the ids of the prompt alone."""
    with tempfile.TemporaryDirectory() as folder, progress_bars() as bar:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        with open_task(path, tokenizer, limit=limit, progress=bar) as task:
            held_out = encode_rows(task.held_out, tokenizer, eos=task.eos)
            [drafter] = make_drafters(["tasc"], task, k)
            speedup = replay(drafter, held_out, max_tokens=k, cost=COST).speedup
            serving = TaskDrafts(task.index, tokenizer)
            found = [serving.start(row.prompt).input_text for row in held_out]
            said = template_in_words(task.index, tokenizer)
    return {"speedup": speedup, "found": found, "said": said}


def compare(
    rows: Sequence[dict[str, Any]], tokenizer: TaskTokenizer, k: int, limit: int | None, output: Path | None
) -> None:
    """Print the table."""
    bare = measure(rows, tokenizer, k, limit)
    inputs = [row["input"] for row in rows if row["split"] == "test"][:limit]
    ratios = [Ratio("the input alone: s(0.02)", bare["speedup"])]
    said = {}
    for form in FORMS:
        found = measure(list(prompts(rows, form)), tokenizer, k, limit)
        least = None if form.differ else LEAST
        ratios.append(Ratio(f"{form.name}: s(0.02)", found["speedup"], "the input alone", bare["speedup"], least=least))
        right = sum(a == b for a, b in zip(found["found"], inputs, strict=True)) / len(inputs)
        said[form.name] = {"input": found["said"], "found_in_serving": right}
    report(f"Rows that are whole prompts, at most {k} drafted", ratios, output, forms=said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of NAME.jsonl.gz files")
    parser.add_argument("--tokenizer", help="folder, tokenizer.json or hub name")
    parser.add_argument("--set", default="slu_atis")
    parser.add_argument("--k", type=int, default=16, help="most tokens drafted")
    parser.add_argument("--limit", type=int, help="held-out rows")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny generated task")
    options = parser.parse_args()
    if options.smoke:
        smoke(options.output)
        return
    if options.data is None or options.tokenizer is None:
        parser.error("give DATA_FOLDER and --tokenizer, or --smoke")
    rows = list(read_rows([options.data / f"{options.set}.jsonl.gz"]))
    compare(rows, load_tokenizer(options.tokenizer), options.k, options.limit, options.output)


def smoke(output: Path | None) -> None:
    """The whole path on a tiny task."""
    from smoke_task import write_rows, write_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(Path(folder))
        compare(list(read_rows([data])), load_tokenizer(write_tokenizer(Path(folder), data)), 16, None, output)


if __name__ == "__main__":
    main()
