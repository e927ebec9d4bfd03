"""What overflow alone does: which layer leaves the range, and whether the damage is felt.

A mask of -3.4e38 becomes infinite and softmax makes the same zeros of it; a square of 1e6 becomes
infinite and a division by it makes everything zero. To tell them apart, a copy of the reference
that is infinite where the precision's range ends is carried on from the overflow until it is
absorbed, or seen to have damaged a value that is in range. It costs nothing where nothing
overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.divergence.powers import sum_of_squares
from polygraphy_layerprec.precision import chunks_of

if TYPE_CHECKING:
    from polygraphy_layerprec.precision import Precision

__all__ = ["SaturatedOutput", "saturate_output"]

_HARMFUL_ERROR: Final = 1e-2
"""Relative error of the values in range above which an overflow counts as felt: twenty times what
rounding costs in FP16, and far below what a lost infinity does."""


@dataclass(frozen=True, slots=True)
class SaturatedOutput:
    """One output in the world where only overflow happens."""

    values: np.ndarray[Any, Any] | None
    """Its values; None if they are the reference's."""

    overflows: frozenset[int]
    """The nodes whose overflow it carries."""

    harmful: frozenset[int]
    """The nodes whose overflow is felt here."""


def saturate_output(
    reference: np.ndarray[Any, Any],
    arrived: np.ndarray[Any, Any] | None,
    *,
    origins: frozenset[int],
    index: int,
    precision: Precision,
) -> SaturatedOutput:
    """Returns what becomes of an output of node `index`.

    Args:
        reference: The output in FP32, any shape.
        arrived: The output from saturated inputs; None if these are the reference's.
        origins: The nodes whose overflow is in the inputs.
        index: The node itself.
        precision: The low precision.
    """
    finite = np.isfinite(reference)
    beyond = finite & (np.abs(reference) >= precision.overflow_threshold)
    harmful = frozenset[int]()
    if arrived is None or arrived.shape != reference.shape:
        harmful = origins if arrived is not None else harmful
        arrived = reference
    elif _is_damaged(reference, arrived, finite & ~beyond):
        # Told once; from here on every further overflow is judged on its own.
        harmful, arrived = origins, reference
    if not beyond.any():
        return SaturatedOutput(None, frozenset(), harmful)
    values = np.where(beyond, np.copysign(np.inf, reference), arrived).astype(reference.dtype)
    return SaturatedOutput(values, (origins - harmful) | {index}, harmful)


def _is_damaged(
    reference: np.ndarray[Any, Any], arrived: np.ndarray[Any, Any], in_range: np.ndarray[Any, Any]
) -> bool:
    expected_power = error_power = 0.0
    reference, arrived, in_range = reference.ravel(), arrived.ravel(), in_range.ravel()
    for chunk in chunks_of(reference.size):  # in the cache, without copies of the whole
        expected = np.where(in_range[chunk], reference[chunk], 0.0).astype(np.float64)
        found = np.where(in_range[chunk], arrived[chunk], 0.0).astype(np.float64)
        expected_power += sum_of_squares(expected)
        error_power += sum_of_squares(found - expected)
    # A NaN compares as false, an infinity as too much.
    return not error_power <= _HARMFUL_ERROR**2 * expected_power
