"""Shared parts of benchmarks on a real model: their arguments, and the model and rows that these name."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smoke_task import tiny_model, write_rows, write_tokenizer

from tasc.models import load_checkpoint, use_threads


def model_arguments(doc: str | None, *, limit: int, max_tokens: int = 256) -> argparse.ArgumentParser:
    """A parser of what all of them take, with the defaults of one: `limit` prompts of `max_tokens` output tokens."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="rows {input, output, split}")
    parser.add_argument("--model", default="smollm2", help="folder, hub name or smollm2")
    parser.add_argument("--adapter", type=Path, help="PEFT adapter, merged")
    parser.add_argument("--system", help="system prompt of every request")
    parser.add_argument("--limit", type=int, default=limit)
    parser.add_argument("--max-tokens", type=int, default=max_tokens)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=Path, help="JSON of what was measured")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model on a generated task, no peers")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments given; a smoke run has three prompts of few tokens, and one thread."""
    options = parser.parse_args()
    if options.data is None and not options.smoke:
        parser.error("give DATA, or --smoke")
    if options.smoke:
        options.limit, options.max_tokens, options.threads = 3, 24, 1
    if options.threads is not None:
        use_threads(options.threads)
    return options


@contextmanager
def subject(options: argparse.Namespace) -> Iterator[tuple[Any, Any, Path]]:
    """Model, tokenizer and rows that the arguments name."""
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            data = write_rows(Path(folder))
            yield *tiny_model(write_tokenizer(Path(folder), data)), data
    else:
        yield *load_checkpoint(options.model, adapter=options.adapter, dtype=options.dtype), options.data
