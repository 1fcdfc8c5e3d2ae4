"""A task of six rows for the examples of docstrings and docs: its store, n-grams, index and plan in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import train_tokenizer

from tasc import MergePlan, NgramTable, TaskIndex, TokenStore, load_tokenizer

ROWS = [
    {"input": f"{count} {drink}", "output": f'{{"item": "{drink}", "count": {count}}}'}
    for count in (1, 2, 3)
    for drink in ("tea", "coffee")
]


def build_toy_task(folder: Path) -> dict[str, Any]:
    """Write `rows.jsonl` and `task.{store,ngrams,tasc,plan}`; return the names that examples may use."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tokenizer = load_tokenizer(train_tokenizer(["<|endoftext|>"]))
    store = TokenStore.build(folder / "rows.jsonl", tokenizer, folder / "task.store")
    NgramTable.count(store, folder / "task.ngrams", max_length=2)
    MergePlan.learn(store, folder / "task.plan", size=4, min_count=2, min_documents=2, held_out=0)
    index = TaskIndex.build(store, folder / "task.tasc", tokenizer=tokenizer)
    return {"tokenizer": tokenizer, "store": store, "index": index}
