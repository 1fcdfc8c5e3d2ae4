"""Token ids, whatever they come in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasc.errors import InputError

MAX_ID = 2**32 - 2
"""The largest token id; 2**32 - 1 is reserved."""


def as_ids(ids: Any) -> NDArray[np.uint32]:
    """Token ids as a contiguous uint32 array; such an array is not copied.

    Args:
        ids: (T,) list, tuple, numpy array of an integer type or torch tensor.

    Returns:
        (T,) uint32.

    Raises:
        InputError: Not one-dimensional, not integers, or an id outside 0 … 2**32 - 2.

    Examples:
        >>> as_ids([3, 1, 2])
        array([3, 1, 2], dtype=uint32)
    """
    if hasattr(ids, "detach"):  # a torch tensor, wherever it lives
        ids = ids.detach().cpu().numpy()
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise InputError(f"token ids must be one sequence of integers: {error}") from error
    if array.ndim != 1:
        raise InputError(f"token ids must be one-dimensional, these have shape {array.shape}; give one sequence")
    if array.size == 0:
        return np.empty(0, np.uint32)
    if array.dtype.kind not in "iu" and not all(type(i) is int for i in array.tolist()):
        raise InputError(f"token ids must be integers, these are {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > MAX_ID:
        raise InputError(f"token id {low if low < 0 else high} is out of range 0..{MAX_ID}")
    return np.ascontiguousarray(array, dtype=np.uint32)


def common_prefix_length(a: Sequence[int] | NDArray[Any], b: Sequence[int] | NDArray[Any]) -> int:
    """Number of leading ids that two lists, or two arrays, share.

    Complexity: O(n) comparisons of n = the shorter length, made by numpy for arrays and by slices for lists.

    Examples:
        >>> common_prefix_length([1, 2, 3], [1, 2, 4, 5])
        2
    """
    low, high = 0, min(len(a), len(b))
    if isinstance(a, np.ndarray):
        differ = np.flatnonzero(a[:high] != b[:high])
        return int(differ[0]) if len(differ) else high
    while low < high:  # binary search: slices are compared much faster than ids one by one
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
