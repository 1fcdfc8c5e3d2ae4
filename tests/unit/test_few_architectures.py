"""A few architectures of the matrix in tests/architectures: one of each kind that the generator must treat apart."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
from matrix import EQUAL, REFUSED, check

STATES = {
    ("llama", ""): EQUAL,
    ("gemma3_text", ""): EQUAL,  # windows
    ("phi3", "longrope"): EQUAL,  # RoPE factors that switch
    ("gpt_neo", ""): EQUAL,  # windows and learned positions
    ("bloom", ""): EQUAL,  # ALiBi
    ("bart", ""): EQUAL,  # positions counted from the cache
    ("openai-gpt", ""): REFUSED,  # no cache
    ("granitemoehybrid", "attention"): EQUAL,
    ("lfm2", ""): EQUAL,  # states that can be undone
    ("mamba2", ""): EQUAL,  # states that cannot
    ("qwen3_5_text", ""): EQUAL,
    ("mamba", ""): EQUAL,
}  # fmt: skip


@pytest.mark.parametrize("case", STATES, ids=lambda case: " ".join(case).strip())
def test_equal_or_refused(case: tuple[str, str]) -> None:
    result = check(*case, batch_sizes=(3,))
    assert result.state == STATES[case], result.detail
