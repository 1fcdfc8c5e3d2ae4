"""Random cases: outputs with drafts equal plain ones, whatever is drafted."""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import count
from pathlib import Path

import pytest

for package in ("torch", "transformers"):
    pytest.importorskip(package)
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from fuzz import check  # noqa: E402

COUNTS = Path(__file__).parents[2] / "out" / "lossless.json"
"""How many cases and outputs were right, over all runs; remove it to begin anew."""


def test_outputs_with_drafts_equal_plain_ones() -> None:
    assert sum(map(check, range(8))) > 80


@pytest.mark.lossless
def test_outputs_with_drafts_equal_plain_ones_for_minutes() -> None:
    end = time.monotonic() + 60 * float(os.environ.get("TASC_LOSSLESS_MINUTES", "10"))
    done = json.loads(COUNTS.read_text()) if COUNTS.exists() else {"cases": 0, "outputs": 0}
    for number in count(done["cases"]):
        if time.monotonic() > end:
            break
        outputs = check(number, generators=12)  # plain decoding, request by request, takes most of the time
        done = {"cases": number + 1, "outputs": done["outputs"] + outputs}
        COUNTS.parent.mkdir(exist_ok=True)
        COUNTS.write_text(json.dumps(done))
    print(f"{done['outputs']} outputs of {done['cases']} cases equal plain decoding, over all runs")
