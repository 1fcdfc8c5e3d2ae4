"""Libraries that constrain outputs, on the outputs of a task: time of a mask, of compiling, and forced text.

    pip install llguidance xgrammar
    python benches/python/grammar_libraries.py DATA.jsonl.gz --model smollm2 [--limit 60]

DATA has rows {input, output, split} whose outputs are JSON. Both libraries get the schema of the training outputs
(`schema_of` in grammar.py), follow the test outputs, and make a mask and look for forced text before each token. Times
are medians: a machine that others use stretches a few of them. No model is run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from grammar import schema_of

from tasc import Grammar, read_rows
from tasc.cli.console import print_table
from tasc.data import TaskTokenizer, load_tokenizer
from tasc.decoding.grammar import Grammars
from tasc.decoding.jobs import CheckedDraft

Timed = tuple[Any, float]


def timed(call: Callable[[], Any]) -> Timed:
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def llguidance(tokenizer: TaskTokenizer, schema: dict[str, Any], outputs: list[list[int]], eos: int) -> dict[str, Any]:
    """tasc's own use of it, tokens of forced text included."""
    grammars, ready = timed(lambda: Grammars(tokenizer, tokenizer.vocab_size))
    start = partial(grammars.start, Grammar.json_schema(schema), 0, frozenset([eos]))
    _, compiled = timed(start)
    masks, forced, drafted, accepted = [], [], 0, 0
    for ids in outputs:
        state = start()
        for at in range(len(ids)):
            mask, seconds = timed(state._mask)
            assert mask[ids[at]]
            masks.append(seconds)
            draft, seconds = timed(partial(state.constrain, CheckedDraft(), ids[:at], 64))
            forced.append(seconds)
            state._take_all(ids[at : at + 1])
            drafted += len(draft.tokens)
            pairs = zip(draft.tokens, ids[at:], strict=False)
            accepted += next((k for k, (a, b) in enumerate(pairs) if a != b), len(draft.tokens))
    return figures(ready, compiled, masks, forced) | {"forced tokens": drafted, "right": accepted / max(1, drafted)}


def xgrammar(tokenizer: Any, schema: dict[str, Any], outputs: list[list[int]]) -> dict[str, Any]:
    """The text that it forces, without the tokens."""
    import xgrammar as library

    info, ready = timed(lambda: library.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer)))
    compiler = library.GrammarCompiler(info, max_threads=1)
    options = {"any_whitespace": False, "separators": (", ", ": ")}
    grammar, compiled = timed(lambda: compiler.compile_json_schema(json.dumps(schema), **options))
    bitmask = library.allocate_token_bitmask(1, len(tokenizer))
    masks, forced = [], []
    for ids in outputs:
        matcher = library.GrammarMatcher(grammar)
        for token in ids:
            masks.append(timed(partial(matcher.fill_next_token_bitmask, bitmask))[1])
            forced.append(timed(matcher.find_jump_forward_string)[1])
            assert matcher.accept_token(token)
    return figures(ready, compiled, masks, forced)


def figures(ready: float, compiled: float, masks: list[float], forced: list[float]) -> dict[str, Any]:
    return {
        "tokenizer, s": ready,
        "schema, ms": 1e3 * compiled,
        "mask, µs": 1e6 * median(masks),
        "forced text, µs": 1e6 * median(forced),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--limit", type=int, default=60, help="test outputs")
    options = parser.parse_args()
    from transformers import AutoTokenizer

    from tasc.models import checkpoint

    theirs = AutoTokenizer.from_pretrained(checkpoint(options.model))
    ours = load_tokenizer(theirs)
    assert ours.eos_id is not None
    schema = schema_of([json.loads(row["output"]) for row in read_rows(options.data, "train")])
    rows = [row["output"] for row in islice(read_rows(options.data, "test"), options.limit)]
    outputs = [ids for text, ids in zip(rows, ours.encode_batch(rows), strict=True) if "\\u" not in text]
    found = {
        "llguidance": llguidance(ours, schema, outputs, ours.eos_id),
        "xgrammar": xgrammar(theirs, schema, outputs),
    }
    names = list(found["llguidance"])
    print_table(
        f"{len(outputs)} outputs, {len(theirs):,} ids",
        ("library", *names),
        [(library, *(facts.get(name) for name in names)) for library, facts in found.items()],
    )


if __name__ == "__main__":
    main()
