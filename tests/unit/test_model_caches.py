"""The model's own caches against a slow twin: one pass over all tokens of a row, from nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_probe import CONFIGS, random_model
from tiny_models import VOCAB

from tasc.decoding.engine import model_cache
from tasc.decoding.engine.model_cache import ModelCaches

ROWS = 3
tokens = st.integers(1, VOCAB - 1)
row_numbers = st.integers(0, ROWS - 1)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("step"), row_numbers, st.lists(tokens, min_size=1, max_size=9), st.integers(1, 9)),
        st.tuples(st.just("draft"), row_numbers, st.lists(tokens, min_size=2, max_size=9), st.integers(1, 9)),
        st.tuples(st.just("keep"), row_numbers, st.integers(0, 9)),
        st.tuples(st.just("copy"), row_numbers, row_numbers, st.integers(0, 40)),
        st.tuples(st.just("move"), row_numbers, row_numbers),
        st.tuples(st.just("mark"), row_numbers),
    ),
    min_size=4, max_size=16,
)  # fmt: skip


@pytest.fixture(scope="module", params=["lfm2", "mamba2", "falcon_h1", "gpt_neo", "bloom", "rwkv", "gemma3"])
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(CONFIGS[request.param][1]())


@settings(max_examples=25, deadline=None)
@given(operations=operations)
def test_any_order_of_steps(model: Any, operations: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patched, torch.inference_mode():
        patched.setattr(model_cache, "_MIN_PREFIX", 2)
        patched.setattr(model_cache, "_MAX_PREFIXES", 2)
        caches, rows = ModelCaches(model, ROWS), [[] for _ in range(ROWS)]  # type: ignore[var-annotated]
        for name, row, *rest in operations:
            if name in ("step", "draft"):
                new, keep = rest[0], min(rest[1], len(rest[0])) if name == "step" else len(rest[0])
                logits = caches.step(row, new, len(rows[row]), keep)
                rows[row] = rows[row] + new
                wanted = model(input_ids=torch.tensor([rows[row]])).logits[:, -keep:]
                assert logits.shape == wanted.shape
                torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=2e-3)
            if name in ("keep", "draft"):
                taken_back = rest[0] if name == "keep" else max(0, len(rest[0]) - rest[1])
                length = max(0, len(rows[row]) - taken_back)
                kept = caches.keep(row, length)
                assert kept <= length
                rows[row] = rows[row][:kept]
            elif name == "copy":
                source = rows[row][: rest[1]]
                kept = caches.copy_row(row, rest[0], len(source))
                assert kept <= len(source)
                rows[rest[0]] = source[:kept]
            elif name == "move" and row != rest[0]:
                caches.move_row(row, rest[0], len(rows[row]))
                rows[rest[0]], rows[row] = rows[row], []
            elif name == "mark":
                caches.mark(row)


def test_a_marked_row_loses_only_the_draft(model: Any) -> None:
    with torch.inference_mode():
        caches = ModelCaches(model, 1)
        caches.step(0, [5, 6, 7], 0, 1)
        caches.step(0, [8, 9, 10, 11], 3, 4)
        assert caches.keep(0, 5) in (3, 5)  # back to the mark, or cropped


def test_a_shared_prefix_is_run_once(model: Any) -> None:
    caches, prefix = ModelCaches(model, 2), list(range(1, 30))
    with torch.inference_mode():
        caches.step(0, [*prefix, 40, 41], 0, 1)
        assert caches.copy_row(0, 1, len(prefix)) == 0
        caches.step(1, [*prefix, 50], 0, 1)
        assert caches.copy_row(1, 0, len(prefix)) == len(prefix)
