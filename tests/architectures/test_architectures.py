"""Every type of `AutoModelForCausalLM`, tiny: equal to `generate`, or refused in one line."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from matrix import CRASHES, DIFFERS, check, saved
from tiny import cases


@pytest.mark.architectures
@pytest.mark.parametrize(
    ("model_type", "name"), [pytest.param(*case, id="-".join(filter(None, case))) for case in cases()]
)
def test_equal_or_refused(model_type: str, name: str, record: Recorder) -> None:
    result = check(model_type, name)
    record(result)
    assert result.state not in (CRASHES, DIFFERS), result.detail
