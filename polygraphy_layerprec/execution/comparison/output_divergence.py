"""How far the model's outputs are apart, over all samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.divergence.metrics import relative_error
from polygraphy_layerprec.divergence.powers import sum_of_squares
from polygraphy_layerprec.execution.streams import largest_finite
from polygraphy_layerprec.precision import is_floating
from polygraphy_layerprec.records import OutputDivergence

if TYPE_CHECKING:
    from polygraphy_layerprec.precision import Precision

__all__ = ["ObservedOutput", "OutputDivergences"]


@dataclass(slots=True)
class ObservedOutput:
    """What one output was seen to do."""

    squared_errors: list[float] = field(default_factory=list)
    max_abs_error: float = 0.0
    nonfinite_count: int = 0
    mismatches: int = 0
    elements: int = 0
    comparable: bool = True
    is_floating: bool = True

    def merge(self, other: ObservedOutput) -> None:
        """Adds what it did in other samples."""
        self.squared_errors += other.squared_errors
        self.max_abs_error = max(self.max_abs_error, other.max_abs_error)
        self.nonfinite_count += other.nonfinite_count
        self.mismatches += other.mismatches
        self.is_floating = other.is_floating if other.elements else self.is_floating
        self.elements += other.elements
        self.comparable &= other.comparable

    @property
    def error(self) -> float:
        """As of all outputs."""
        if self.nonfinite_count:
            return float("inf")
        return float(np.sqrt(np.mean(self.squared_errors)))

    @property
    def largest(self) -> float:
        """Largest absolute error, infinite where an element was lost."""
        return float("inf") if self.nonfinite_count else self.max_abs_error

    @property
    def mismatch_fraction(self) -> float:
        """Share of unequal elements."""
        return self.mismatches / self.elements if self.elements else 0.0


class OutputDivergences:
    """Accumulates the divergence of each output, a sample at a time.

    An element that is finite in the reference and not in the candidate makes the error infinite. An
    element that is not finite in the reference is left out. An output of another shape than the
    reference's is lost as a whole, which is an error of 1.
    """

    def __init__(self, names: Sequence[str], precision: Precision) -> None:
        self._precision = precision
        self._outputs = {name: ObservedOutput() for name in names}

    def add(
        self,
        reference: Mapping[str, np.ndarray[Any, Any]],
        candidate: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """Adds one sample."""
        for name, output in self._outputs.items():
            if name in reference and name in candidate:
                self._add(output, reference[name], candidate[name])

    @property
    def observed(self) -> Sequence[ObservedOutput]:
        """What each output was seen to do, in the model's order."""
        return list(self._outputs.values())

    def merge(self, other: OutputDivergences) -> None:
        """Adds the samples that another one accumulated, over the same outputs."""
        for name, output in self._outputs.items():
            output.merge(other._outputs[name])

    def _add(
        self,
        output: ObservedOutput,
        reference: np.ndarray[Any, Any],
        candidate: np.ndarray[Any, Any],
    ) -> None:
        output.elements += reference.size
        output.is_floating = is_floating(reference.dtype)
        if reference.shape != candidate.shape:
            output.comparable = False
            output.mismatches += reference.size
            if output.is_floating:
                output.squared_errors.append(1.0)  # as if every element were lost
                output.max_abs_error = max(output.max_abs_error, largest_finite(reference))
            return
        is_nan = (reference != reference) & (candidate != candidate)  # noqa: PLR0124 - for any dtype
        output.mismatches += int(np.count_nonzero((reference != candidate) & ~is_nan))
        if not output.is_floating:
            output.comparable = False
            return
        reference, candidate = reference.astype(np.float64), candidate.astype(np.float64)
        finite = np.isfinite(reference)
        output.nonfinite_count += int(np.count_nonzero(finite & ~np.isfinite(candidate)))
        exact = reference[finite]
        difference = self._as_counted(candidate[finite]) - exact
        output.squared_errors.append(
            relative_error(sum_of_squares(difference), sum_of_squares(exact)) ** 2
        )
        largest = float(np.abs(difference).max(initial=0.0))
        output.max_abs_error = max(output.max_abs_error, largest)

    def _as_counted(self, candidate: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The candidate with numbers in place of what is not finite, for `finite_error`.

        Finite values are not clipped: beyond the range, too, an output is wrong by as much as it
        moved.
        """
        limit = self._precision.max_finite
        return np.asarray(np.nan_to_num(candidate, nan=0.0, posinf=limit, neginf=-limit))

    @property
    def error(self) -> float:
        """Relative L2 error, root mean square over comparable float outputs and samples.

        Or the share of unequal elements in an integer output, where that is larger: a class that
        changes says what no distance does. Infinite where any element became NaN or infinite.
        """
        return float("inf") if self.nonfinite_count else self.finite_error

    @property
    def nonfinite_count(self) -> int:
        """Elements, finite in the reference, that became NaN or infinite."""
        return sum(output.nonfinite_count for output in self._outputs.values())

    @property
    def finite_error(self) -> float:
        """The same where a NaN is the loss of its element, and an infinity the largest number.

        For adding up, and for telling one loss from another.
        """
        outputs = self._outputs.values()
        squares = [square for output in outputs for square in output.squared_errors]
        shares = [output.mismatch_fraction for output in outputs if not output.is_floating]
        return max(float(np.sqrt(np.mean(squares))) if squares else 0.0, *shares, 0.0)

    @property
    def max_abs_error(self) -> float:
        """Largest |candidate - reference| over all outputs and samples, infinite as `error`."""
        return max((output.largest for output in self._outputs.values()), default=0.0)

    @property
    def finite_max_abs_error(self) -> float:
        """The same with numbers in place of what is not finite, as in `finite_error`."""
        return max((output.max_abs_error for output in self._outputs.values()), default=0.0)

    def records(self) -> tuple[OutputDivergence, ...]:
        """Returns a record for each output, in the model's order."""
        return tuple(
            OutputDivergence(
                name,
                error=o.error if o.comparable and o.squared_errors else None,
                max_abs_error=o.largest if o.comparable and o.squared_errors else None,
                nonfinite_count=o.nonfinite_count,
                mismatch_fraction=o.mismatch_fraction,
            )
            for name, o in self._outputs.items()
        )
