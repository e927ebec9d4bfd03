"""How far two orders are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["rank_correlation", "ranks"]


def rank_correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Returns Spearman's rank correlation, in [-1, 1]; ties share their mean rank.

    It is Pearson's correlation of the ranks (Spearman, 1904). None where it does not exist: fewer
    than two values, or all alike on one side.

    >>> rank_correlation([1, 2, 3], [10, 20, 90])
    1.0
    """
    a, b = ranks(np.asarray(first, np.float64)), ranks(np.asarray(second, np.float64))
    if a.size < 2 or not np.ptp(a) or not np.ptp(b):
        return None
    a, b = a - a.mean(), b - b.mean()
    return round(float(a @ b / np.sqrt((a @ a) * (b @ b))), 12)


def ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the place of each value, from 1 for the smallest; ties share their mean place."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group], np.float64)
