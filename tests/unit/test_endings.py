"""The end token: one rule for models, engines and tokenizers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tasc.data.endings import eos_ids, eos_ids_of, required_eos, required_eos_ids
from tasc.errors import InputError


def config(ids: Any) -> SimpleNamespace:
    return SimpleNamespace(eos_token_id=ids)


def test_generation_settings_come_before_the_config() -> None:
    model = SimpleNamespace(generation_config=config([0, 7]), config=config(9))
    assert eos_ids(model, config(5)) == {0, 7, 5}
    assert eos_ids(SimpleNamespace(generation_config=config(None), config=config(0)), config(None)) == {0}
    assert eos_ids(SimpleNamespace(config=config(9))) == {9}


def test_engines_give_mappings() -> None:
    assert eos_ids_of([{"eos_token_id": 3}], config(4)) == {3, 4}
    assert eos_ids_of([{}, None]) == frozenset()


def test_no_end_token_is_refused_where_one_is_needed() -> None:
    with pytest.raises(InputError, match="name a token that ends an output"):
        required_eos_ids(SimpleNamespace(generation_config=config(None)), config(None))
    with pytest.raises(InputError, match="'t' names no token"):
        required_eos(SimpleNamespace(name="t", eos_id=None))
    assert required_eos(SimpleNamespace(name="t", eos_id=0)) == 0
