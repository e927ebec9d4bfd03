"""How far an order of layers depends on the samples that it was measured with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.ranking.correlation import ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["order_stability", "relative_uncertainty"]


def order_stability(powers: npt.ArrayLike) -> float | None:
    """Returns Spearman's rank correlation between two samples, the mean over all pairs.

    Layers without any impact are left out: they would agree for nothing.

    Args:
        powers: Squared impacts, shape `(layers, samples)`.

    Returns:
        In [-1, 1], 1 where every sample gives the same order; None where no two samples give one.

    >>> order_stability([[1, 3], [2, 2], [3, 1]])
    -1.0
    """
    table = np.asarray(powers, np.float64)
    table = table[table.any(axis=1)]
    directions: list[npt.NDArray[np.float64]] = []
    for sample in table.T if len(table) else ():
        places = ranks(sample)
        if np.ptp(places):
            centred = places - places.mean()
            directions.append(centred / np.linalg.norm(centred))
    count = len(directions)
    if count < 2:
        return None
    # |sum of unit vectors|^2 is their number plus twice the sum of all pairs' products.
    squared_length = float(np.square(np.sum(directions, axis=0)).sum())
    mean = (squared_length - count) / (count * (count - 1))
    return round(mean, 12)


def relative_uncertainty(powers: Sequence[float]) -> float | None:
    """Returns the standard error of an impact over the samples, relative to it, in [0, inf).

    Args:
        powers: Squared impact in each sample. The impact is the root of their mean, so its relative
            error is half of theirs.

    Returns:
        None with fewer than two samples, or where there is no impact.
    """
    mean = float(np.mean(powers)) if len(powers) > 1 else 0.0
    if not mean:
        return None
    return float(np.std(powers, ddof=1)) / math.sqrt(len(powers)) / mean / 2.0
