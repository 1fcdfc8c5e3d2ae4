"""New tokens against the text they stand for, on every row: prompts keep their ids, outputs decode to the exact text.

    python benches/python/round_trip.py DATA --tokenizer MODEL [--sets NAME,...] [-k 500] [-o OUT.json]
    python benches/python/round_trip.py --smoke

A plan is learnt on each set's train rows and put into the tokenizer. Then, for every row of every split: the ids of
input and output are those of the tokenizer as it was; the output written with new tokens expands to its ids again and
decodes to the text that they decode to, at once and as a stream. The first difference ends the run.
"""

from __future__ import annotations

import tempfile
from itertools import batched
from pathlib import Path
from typing import Any

from tokenizers.decoders import DecodeStream

from tasc.data import TaskTokenizer, read_rows
from tasc.ft import extend_tokenizer, learn_vocabulary


def streamed(task: TaskTokenizer, ids: list[int]) -> str:
    stream = DecodeStream()
    return "".join(stream.step(task.tokenizer, i) or "" for i in ids)


def check(base: TaskTokenizer, extended: TaskTokenizer, texts: list[str]) -> tuple[int, int]:
    """Tokens of the texts before and after. Raises AssertionError where anything differs."""
    before, after = base.encode_batch(texts), extended.encode_outputs(texts)
    assert extended.encode_batch(texts) == before, "encode has changed"
    assert extended.plan is not None
    expanded = extended.plan.expand_batch(after)
    for text, old, new, back in zip(texts, before, after, expanded, strict=True):
        assert back.tolist() == old, f"segmenting loses something: {text!r}"
        meant = base.decode(old)
        assert extended.decode(new) == meant == streamed(extended, new), f"decode has changed: {text!r}"
    return sum(map(len, before)), sum(map(len, after))


def measure(data: Path, base: TaskTokenizer, size: int, **floors: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        plan = learn_vocabulary(data, base, Path(folder) / "task.plan", size=size, split="train", **floors)
        extended = extend_tokenizer(base, plan)
        found: dict[str, Any] = {"new tokens": len(plan), "rows": 0, "exact": 0, "before": 0, "after": 0}
        for rows in batched(read_rows(data), 2000) if hasattr(read_rows, "__call__") else ():
            outputs = [row["output"] for row in rows]
            before, after = check(base, extended, outputs)
            inputs = [row["input"] for row in rows if "input" in row]
            assert extended.encode_batch(inputs) == base.encode_batch(inputs), "encode has changed"
            for name, number in (("rows", len(rows)), ("before", before), ("after", after)):
                found[name] += number
            found["exact"] += sum(
                base.decode(ids) == text for text, ids in zip(outputs, base.encode_batch(outputs), strict=True)
            )
    return found
