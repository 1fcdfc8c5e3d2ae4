"""The example of a decoder that tasc does not know runs, and its drafts spare it steps."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "foreign_decoder.py"


def test_it_says_what_its_model_says_in_few_steps() -> None:
    said = subprocess.run(
        [sys.executable, str(EXAMPLE)], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    lines = said.splitlines()
    assert [re.search(r"\{.*\}", line)[0] for line in lines] == [
        '{"room": "garden", "light": "on"}',
        '{"room": "veranda", "light": "off"}',
    ]
    for line in lines:
        tokens, steps = map(int, re.search(r"(\d+) tokens in (\d+) steps", line).groups())
        assert tokens >= 33 and steps <= tokens // 4
