"""Token ids, whatever they come in."""

from __future__ import annotations

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

    Example:
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
