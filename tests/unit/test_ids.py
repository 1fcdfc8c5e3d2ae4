import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasc.data import as_ids
from tasc.data.ids import common_prefix_length
from tasc.errors import InputError


@pytest.mark.parametrize("ids", [[1, 2, 3], (1, 2, 3), range(1, 4), np.array([1, 2, 3], np.int16), np.arange(1, 7)[:3]])
def test_every_sequence_of_integers_is_taken(ids: object) -> None:
    array = as_ids(ids)
    assert array.dtype == np.uint32
    assert array.flags.c_contiguous
    assert array.tolist() == [1, 2, 3]


def test_a_tensor_is_taken() -> None:
    class Tensor:
        def detach(self) -> "Tensor":
            return self

        cpu = detach

        def numpy(self) -> np.ndarray:
            return np.array([5, 6], np.int64)

    assert as_ids(Tensor()).tolist() == [5, 6]


def test_uint32_is_not_copied_and_the_largest_id_fits() -> None:
    ids = np.array([0, 2**32 - 2], np.uint32)
    assert as_ids(ids) is ids
    assert as_ids([]).shape == (0,)
    assert as_ids([2**32 - 2]).tolist() == [2**32 - 2]


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([-1], "token id -1 is out of range"),
        ([2**32 - 1], f"token id {2**32 - 1} is out of range"),
        ([0, 2**80], f"token id {2**80} is out of range"),
        ([1.0], "must be integers"),
        ([True], "must be integers"),
        (["a"], "must be integers"),
        ([[1], [2]], r"shape \(2, 1\)"),
        ([[1], [2, 3]], "one sequence"),
        (7, r"shape \(\)"),
    ],
)
def test_what_is_no_id_is_named(ids: object, why: str) -> None:
    with pytest.raises(InputError, match=why):
        as_ids(ids)


@given(st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), max_size=9))
def test_the_common_prefix_is_the_same_for_lists_and_arrays(a: list[int], b: list[int]) -> None:
    pairs = enumerate(zip(a, b, strict=False))
    expected = next((at for at, (x, y) in pairs if x != y), min(len(a), len(b)))
    assert common_prefix_length(a, b) == common_prefix_length(as_ids(a), as_ids(b)) == expected
