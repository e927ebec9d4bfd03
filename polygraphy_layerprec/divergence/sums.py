"""What is known of one tensor's divergence, as sums that merge over chunks and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Final

import numpy as np

__all__ = ["DivergenceSums", "merge_sums", "relative_error"]


@dataclass(frozen=True, slots=True)
class DivergenceSums:
    """What is known of one tensor after any number of elements; `a + b` merges two.

    Elements that are not finite in the reference are counted, and left out of all the rest.
    Magnitudes beyond the precision's largest finite number are clipped to it on both sides before
    errors are taken: an attention mask of -3.4e38 that becomes infinite says the same as before.
    """

    element_count: int = 0
    """Elements seen."""

    reference_power: float = 0.0
    """Sum of squares of the reference."""

    introduced_power: float = 0.0
    """Sum of squares of (introduced - reference): exact inputs, weights and output rounded."""

    rounding_power: float = 0.0
    """What rounding the output does by itself, as in `introduced_power`: no part of that, since a
    rounded input may leave an output with nothing to round."""

    cumulative_power: float = 0.0
    """Sum of squares of (candidate - reference). A NaN counts as the loss of its element."""

    incomparable_count: int = 0
    """Elements whose candidate has another shape, so that no cumulative error exists."""

    max_abs: float = 0.0
    """Largest finite magnitude in the reference."""

    overflow_count: int = 0
    """Finite elements of the reference that round to infinity."""

    underflow_count: int = 0
    """Non-zero elements of the reference below the smallest positive number."""

    reference_nonfinite_count: int = 0
    """Elements that are NaN or infinite in the reference."""

    candidate_nonfinite_count: int = 0
    """Elements finite in the reference and not in the candidate."""

    nan_count: int = 0
    """Elements that are NaN in the reference or the candidate."""

    def __add__(self, other: DivergenceSums) -> DivergenceSums:
        """Returns the sums over both sets of elements."""
        return merge_sums((self, other))

    @property
    def introduced_error(self) -> float:
        """Relative L2 error of the introduced rounding, in [0, inf)."""
        return relative_error(self.introduced_power, self.reference_power)

    @property
    def cumulative_error(self) -> float | None:
        """Relative L2 error of the candidate, in [0, inf); None if shapes differed."""
        if self.incomparable_count:
            return None
        return relative_error(self.cumulative_power, self.reference_power)


_ADDED: Final = tuple(f.name for f in fields(DivergenceSums) if f.name != "max_abs")
_added_of: Final = attrgetter(*_ADDED)


def merge_sums(parts: Sequence[DivergenceSums]) -> DivergenceSums:
    """Returns the sums over all sets of elements; of none, zeros."""
    if len(parts) == 1:
        return parts[0]
    added = dict(zip(_ADDED, map(sum, zip(*map(_added_of, parts), strict=True)), strict=False))
    return DivergenceSums(**added, max_abs=max((part.max_abs for part in parts), default=0.0))


def relative_error(error_power: float, reference_power: float) -> float:
    """Returns the relative L2 error, sqrt(error_power / reference_power).

    A reference without power cannot be a scale: then any error counts as 1, a total loss.

    >>> relative_error(1.0, 4.0)
    0.5
    >>> relative_error(1e-9, 0.0)
    1.0
    """
    if error_power == 0.0:
        return 0.0
    if reference_power == 0.0:
        return 1.0
    return float(np.sqrt(error_power / reference_power))
