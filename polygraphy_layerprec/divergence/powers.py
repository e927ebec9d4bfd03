"""Sums of squares, without the threads of BLAS."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.arrays import library_of
from polygraphy_layerprec.divergence.scratch import scratch
from polygraphy_layerprec.rounding import chunks_of

__all__ = ["norm_of", "squared_distance", "sum_of_squares"]

Floats = npt.NDArray[np.floating[Any]]

# Below some 10,000 elements BLAS starts no threads. Those would go on spinning for milliseconds,
# on the cores that ONNX-Runtime's threads want.
_BLOCK_ELEMENTS: Final = 1 << 13


def sum_of_squares(values: Floats) -> float:
    """Returns the sum of squares of a contiguous 1-D array, on the calling thread alone."""
    library = library_of(values)
    if library is not None:
        return library.sum_of_squares(values)
    whole = values.size - values.size % _BLOCK_ELEMENTS
    blocks = values[:whole].reshape(-1, _BLOCK_ELEMENTS)
    sums = np.matmul(blocks[:, np.newaxis, :], blocks[:, :, np.newaxis])
    rest = values[whole:]
    return float(sums.sum(dtype=np.float64)) + float(np.dot(rest, rest))


def norm_of(values: Floats) -> float:
    """Returns the L2 norm of a contiguous 1-D array."""
    return float(np.sqrt(sum_of_squares(values)))


def squared_distance(first: Floats, second: Floats) -> float:
    """Returns the sum of squares of the difference of two contiguous arrays of one shape."""
    first, second = first.reshape(-1), second.reshape(-1)
    total = 0.0
    for chunk in chunks_of(first.size, like=first):
        part = scratch("distance", chunk.stop - chunk.start, first)
        np.subtract(first[chunk], second[chunk], out=part)
        total += sum_of_squares(part)
    return total
