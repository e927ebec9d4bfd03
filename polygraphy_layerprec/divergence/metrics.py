"""How far one tensor moves in low precision, as sums that merge over chunks and samples."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.arrays import (
    count_true,
    is_any_true,
    largest_of,
    smallest_of,
)
from polygraphy_layerprec.divergence.compact_errors import write_errors
from polygraphy_layerprec.divergence.powers import sum_of_squares
from polygraphy_layerprec.divergence.scratch import scratch
from polygraphy_layerprec.divergence.sums import DivergenceSums, merge_sums, relative_error
from polygraphy_layerprec.rounding import chunks_of, round_flat, round_to_precision, rounder_like

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.compact_errors import CompactErrors
    from polygraphy_layerprec.precision import Precision

__all__ = [
    "DivergenceSums",
    "measure_divergence",
    "merge_sums",
    "relative_error",
]

Floats = npt.NDArray[np.floating[Any]]

# Between these, squares and sums of squares of FP32 numbers neither overflow nor vanish.
_SAFE_MAGNITUDES: Final = (1e-12, 1e15)

_LEAST_ROUNDING: Final = 1 / 32
"""Relative power that rounding leaves at least, in squares of the unit roundoff, unless values lie
on the precision's grid already: it is 1/12 where all significands are nearly 2, 1/5 on average."""


def measure_divergence(
    reference: Floats,
    candidate: Floats,
    *,
    precision: Precision,
    introduced: Floats | None = None,
    introduced_rounded: Floats | None = None,
    round_candidate: bool = True,
    compact_errors: CompactErrors | None = None,
) -> DivergenceSums:
    """Returns how far `candidate` is from `reference`, rounding the candidate in place.

    Args:
        reference: Any shape, float32 or float64, C-contiguous.
        candidate: What the node made of the candidate's inputs, not yet rounded unless
            `round_candidate` is False. Another shape than the reference's cannot be compared; it
            is rounded all the same.
        precision: The low precision.
        introduced: What the node made of the reference's inputs with rounded weights, not yet
            rounded; of the reference's shape. None means that only the output is rounded.
        introduced_rounded: `introduced` (the reference, if that is None) rounded already, if it is.
        round_candidate: Whether to round the candidate in place.
        compact_errors: Where to write the introduced error: memory that `ErrorMemory` gave for it.
    """
    comparable = candidate.shape == reference.shape
    if not comparable and round_candidate:
        round_flat(candidate.reshape(-1), candidate.reshape(-1), precision)
    measurement = _Measurement(
        reference.reshape(-1),
        candidate.reshape(-1) if comparable else None,
        None if introduced is None else introduced.reshape(-1),
        None if introduced_rounded is None else introduced_rounded.reshape(-1),
        precision,
        compact_errors,
    )
    return measurement.run(round_candidate=round_candidate)


class _Chunk(NamedTuple):
    """What is compared at a time, 1-D arrays of one size."""

    place: slice
    reference: Floats
    candidate: Floats | None
    introduced: Floats
    """The reference itself where only the output is rounded."""
    rounded: Floats
    """`introduced`, rounded."""


class _Measurement:
    """One comparison of flat arrays, done chunk by chunk while the chunk is in the cache."""

    def __init__(
        self,
        reference: Floats,
        candidate: Floats | None,
        introduced: Floats | None,
        introduced_rounded: Floats | None,
        precision: Precision,
        compact_errors: CompactErrors | None,
    ) -> None:
        self._reference = reference
        self._candidate = candidate
        self._introduced = introduced
        self._introduced_rounded = introduced_rounded
        self._precision = precision
        self._compact_errors = compact_errors
        first = next(chunks_of(reference.size, like=reference), slice(0, 0))
        self._difference = scratch("difference", first.stop, reference)

    @cached_property
    def _rounder(self) -> Any:
        return rounder_like(self._reference, self._precision)

    def run(self, *, round_candidate: bool) -> DivergenceSums:
        return merge_sums(
            [
                self._sums_of(place, round_candidate=round_candidate)
                for place in chunks_of(self._reference.size, like=self._reference)
            ]
        )

    def _sums_of(self, place: slice, *, round_candidate: bool) -> DivergenceSums:
        reference = self._reference[place]
        introduced = reference if self._introduced is None else self._introduced[place]
        candidate = None if self._candidate is None else self._candidate[place]
        if self._introduced_rounded is not None and not round_candidate:
            rounded = self._introduced_rounded[place]
            sums = self._sums_if_in_range(_Chunk(place, reference, candidate, introduced, rounded))
            if sums is not None:
                return sums
        rounder, rounded = self._rounder, scratch("rounded", reference.size, reference)
        binades = [rounder.round(introduced, rounded, keep_sign_of_zero=False)]
        if candidate is not None and round_candidate:
            binades.append(rounder.round(candidate, candidate))
        elif candidate is not None:
            binades.append(_largest(candidate))
        if introduced is not reference:
            binades.append(_largest(reference))
        chunk = _Chunk(place, reference, candidate, introduced, rounded)
        low, high = _SAFE_MAGNITUDES
        # Written so that a NaN, which compares as false, does not pass.
        safe = all(binade < high for binade in binades) and max(binades) > low
        if safe and max(binades) < 2.0**self._precision.max_exponent:
            return self._sums_in_range(chunk)
        if not any(binades) and not is_any_true(reference != 0.0):
            return self._sums_in_range(chunk)
        finite = low < binades[0] < np.inf and (introduced is reference or binades[-1] < np.inf)
        if finite and self._precision.max_finite < high and not _has_nan(candidate):
            return self._sums_clipped(chunk)
        return self._sums_anywhere(chunk)

    def _sums_if_in_range(self, chunk: _Chunk) -> DivergenceSums | None:
        """Sums of tensors rounded already, or None if they tell of what is not in range.

        Looking first would cost as much as rounding does.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            sums = self._sums_in_range(chunk)
        total = sums.introduced_power + sums.rounding_power + sums.cumulative_power
        low, high = _SAFE_MAGNITUDES
        limit = min(high, 2.0**self._precision.max_exponent)
        # Written so that a NaN, which compares as false, does not pass.
        return sums if low < sums.max_abs < limit and total < np.inf else None

    def _sums_in_range(self, chunk: _Chunk) -> DivergenceSums:
        """Sums where everything is finite, in range, and can be squared."""
        place, reference, candidate, introduced, rounded = chunk
        difference = self._difference[: reference.size]
        np.abs(reference, out=difference)
        max_abs = largest_of(difference)
        small_count = zeros = 0
        if smallest_of(difference) < self._precision.min_subnormal:
            small_count = count_true(difference < self._precision.min_subnormal)
            zeros = count_true(difference == 0.0)
        np.subtract(rounded, reference, out=difference)
        introduced_power = sum_of_squares(difference)
        self._keep_error(place, difference)
        reference_power, rounding_power = sum_of_squares(reference), introduced_power
        if introduced is not reference:
            np.subtract(rounded, introduced, out=difference)
            rounding_power = sum_of_squares(difference)
            if rounding_power < self._least_rounding * reference_power:
                rounding_power = self._rounding_power(reference, difference)
        cumulative = 0.0
        if candidate is not None:
            np.subtract(candidate, reference, out=difference)
            cumulative = sum_of_squares(difference)
        return DivergenceSums(
            element_count=reference.size,
            reference_power=reference_power,
            introduced_power=introduced_power,
            rounding_power=rounding_power,
            cumulative_power=cumulative,
            incomparable_count=reference.size if candidate is None else 0,
            max_abs=max_abs,
            underflow_count=small_count - zeros,
        )

    def _sums_clipped(self, chunk: _Chunk) -> DivergenceSums:
        """Sums where the reference is finite and nothing is NaN: once clipped, all is in range."""
        place, reference, candidate, introduced, rounded = chunk
        limit = reference.dtype.type(self._precision.max_finite)
        exact = np.clip(reference, -limit, limit)
        sums = self._sums_in_range(
            _Chunk(
                place,
                exact,
                None if candidate is None else np.clip(candidate, -limit, limit),
                exact if introduced is reference else np.clip(introduced, -limit, limit),
                np.clip(rounded, -limit, limit),
            )
        )
        magnitudes = np.abs(reference)
        moved = reference if candidate is None else candidate
        return replace(
            sums,
            max_abs=largest_of(magnitudes),
            overflow_count=self._overflow_count(magnitudes),
            candidate_nonfinite_count=count_true(np.isinf(moved)),
        )

    def _sums_anywhere(self, chunk: _Chunk) -> DivergenceSums:
        """Sums where something is not finite, beyond the range, or too small to be squared."""
        place, reference, candidate, introduced, rounded = chunk
        precision = self._precision
        finite = np.isfinite(reference)
        magnitudes = np.abs(np.where(finite, reference, 0.0))
        underflows = (magnitudes > 0.0) & (magnitudes < precision.min_subnormal)
        # What an infinity would count depends on the precision alone, and hides all the rest.
        exact = np.where(finite, _clip(reference, precision), 0.0)

        def error_of(values: Floats) -> npt.NDArray[np.float64]:
            error = _clip(values, precision) - exact
            # The loss of an element is as large as the element.
            return np.where(finite, np.where(np.isnan(error), -exact, error), 0.0)

        introduced_error = error_of(rounded)
        self._keep_error(place, introduced_error)
        alone = rounded if introduced is reference else round_to_precision(reference, precision)
        moved = reference if candidate is None else candidate
        return DivergenceSums(
            element_count=reference.size,
            reference_power=sum_of_squares(exact),
            introduced_power=sum_of_squares(introduced_error),
            rounding_power=sum_of_squares(error_of(alone)),
            cumulative_power=sum_of_squares(error_of(moved)),
            incomparable_count=reference.size if candidate is None else 0,
            max_abs=largest_of(magnitudes),
            overflow_count=self._overflow_count(magnitudes),
            underflow_count=count_true(underflows),
            reference_nonfinite_count=reference.size - count_true(finite),
            candidate_nonfinite_count=count_true(finite & ~np.isfinite(moved)),
            nan_count=count_true(np.isnan(reference) | np.isnan(moved)),
        )

    def _overflow_count(self, magnitudes: Floats) -> int:
        with np.errstate(over="ignore"):  # FP32 ends where its largest number does
            threshold = magnitudes.dtype.type(self._precision.overflow_threshold)
        return count_true(magnitudes >= threshold)

    @property
    def _least_rounding(self) -> float:
        return _LEAST_ROUNDING * self._precision.unit_roundoff**2

    def _rounding_power(self, reference: Floats, difference: Floats) -> float:
        """What rounding does to the exact output: a rounded one may lie on the grid already."""
        self._rounder.round(reference, difference, keep_sign_of_zero=False)
        np.subtract(difference, reference, out=difference)
        return sum_of_squares(difference)

    def _keep_error(self, place: slice, error: Floats) -> None:
        if self._compact_errors is not None:
            write_errors(self._compact_errors, place, error)


def _clip(values: Floats, precision: Precision) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = values.astype(np.float64)
    return np.clip(wide, -precision.max_finite, precision.max_finite)


def _largest(values: Floats) -> float:
    """Largest magnitude of a 1-D array; NaN if there is one in it."""
    return max(largest_of(values), -smallest_of(values))


def _has_nan(values: Floats | None) -> bool:
    return values is not None and bool(np.isnan(largest_of(values)))
