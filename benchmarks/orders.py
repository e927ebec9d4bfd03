"""How good an order of layers is: its agreement with another, and how long a prefix is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = ["shortest_prefix", "spearman"]

_SCAN = 3  # rounding noise makes the error dip and rise along a prefix


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Returns the rank correlation of two sequences, in [-1, 1]; ties share their mean rank."""
    return float(np.corrcoef(_ranks(left), _ranks(right))[0, 1])


def shortest_prefix(
    order: Sequence[str], error_with: Callable[[set[str]], float], target: float
) -> int:
    """Returns how many first names of `order` bring the error to `target` or below.

    Args:
        order: Output tensors of layers, first to be kept in FP32 first.
        error_with: Output error with the layers of these tensors in FP32.
        target: Output error to reach.
    """
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if error_with(set(order[:middle])) <= target:
            high = middle
        else:
            low = middle + 1
    for count in range(max(0, high - _SCAN), high):
        if error_with(set(order[:count])) <= target:
            return count
    return high


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts).astype(np.float64)
    ranks: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks
