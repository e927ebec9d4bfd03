"""How far tensors that something else computed are apart, by name, a sample at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.divergence.metrics import DivergenceSums, measure_divergence
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.records import OutputDivergence

if TYPE_CHECKING:
    from polygraphy_layerprec.precision import Precision

__all__ = ["TensorComparison", "TensorDivergence"]

Array = np.ndarray[Any, Any]

# Squares of larger FP64 numbers, relative errors too, and sums of them leave the range of FP64.
_LARGEST_MAGNITUDE: Final = 1e140


@dataclass(frozen=True, slots=True)
class TensorDivergence:
    """What is known of one tensor over any number of samples; `a + b` merges two."""

    sums: DivergenceSums = field(default_factory=DivergenceSums)
    """Divergence of the samples whose values are floating-point numbers, clipped to the range of
    the precision."""

    sample_count: int = 0
    """Samples seen, whether they could be compared or not."""

    compared_count: int = 0
    """Samples with a relative error: both sides are floating-point tensors of one shape."""

    squared_error: float = 0.0
    """Sum of the squared relative L2 errors of those samples, not clipped."""

    max_abs_error: float = 0.0
    """Largest |candidate - reference| in those samples; what is not finite counts as in
    `OutputDivergence`."""

    nonfinite_count: int = 0
    """Elements finite in the reference and NaN or infinite in the candidate."""

    element_count: int = 0
    """Elements of the reference, of any type."""

    mismatch_count: int = 0
    """Elements that are not equal; all of them where shapes differ."""

    reshaped_count: int = 0
    """Samples in which the candidate has another shape than the reference."""

    absent_count: int = 0
    """Samples in which either side has no tensor of numbers."""

    def __add__(self, other: TensorDivergence) -> TensorDivergence:
        """Returns what both sets of samples say together."""
        return TensorDivergence(
            sums=self.sums + other.sums,
            sample_count=self.sample_count + other.sample_count,
            compared_count=self.compared_count + other.compared_count,
            squared_error=self.squared_error + other.squared_error,
            max_abs_error=max(self.max_abs_error, other.max_abs_error),
            nonfinite_count=self.nonfinite_count + other.nonfinite_count,
            element_count=self.element_count + other.element_count,
            mismatch_count=self.mismatch_count + other.mismatch_count,
            reshaped_count=self.reshaped_count + other.reshaped_count,
            absent_count=self.absent_count + other.absent_count,
        )

    @property
    def present_count(self) -> int:
        """Samples in which both sides have a tensor of numbers."""
        return self.sample_count - self.absent_count

    @property
    def is_measured(self) -> bool:
        """Whether floating-point values were seen on both sides."""
        return self.sums.element_count > 0

    @property
    def is_of_integers(self) -> bool:
        """Whether its elements are integers, of which only whether they are equal is known."""
        return self.element_count > 0 and not (self.compared_count or self.reshaped_count)

    @property
    def cumulative_error(self) -> float | None:
        """Relative L2 error in [0, inf); None where nothing was measured or shapes differed."""
        return self.sums.cumulative_error if self.is_measured else None

    def to_output_divergence(self, name: str) -> OutputDivergence:
        """Returns it as the record of a model output."""
        comparable = self.compared_count > 0 and not self.reshaped_count
        infinite = math.inf if self.nonfinite_count else 0.0
        root = math.sqrt(self.squared_error / max(self.compared_count, 1))
        return OutputDivergence(
            name,
            error=max(root, infinite) if comparable else None,
            max_abs_error=max(self.max_abs_error, infinite) if comparable else None,
            nonfinite_count=self.nonfinite_count,
            mismatch_fraction=self.mismatch_count / max(self.element_count, 1),
        )


class TensorComparison:
    """Accumulates the divergence of named tensors; memory grows with their number alone.

    >>> from polygraphy_layerprec.precision import FP16
    >>> comparison = TensorComparison(FP16)
    >>> comparison.add("y", np.float32([3, 4]), np.float32([3, 4.5]))
    >>> comparison["y"].cumulative_error
    0.1
    """

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self._tensors: dict[str, TensorDivergence] = {}

    def __getitem__(self, name: str) -> TensorDivergence:
        """Returns what is known of a tensor; nothing, as zeros, of one that was never added."""
        return self._tensors.get(name, TensorDivergence())

    def __contains__(self, name: object) -> bool:
        """Returns whether a tensor was added, present or not."""
        return name in self._tensors

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that were added, in the order in which they came."""
        return tuple(self._tensors)

    @property
    def sample_count(self) -> int:
        """Samples in which the tensor with most of them took part."""
        return max((tensor.sample_count for tensor in self._tensors.values()), default=0)

    def add(self, name: str, reference: object, candidate: object) -> None:
        """Adds one sample of one tensor.

        Args:
            name: Name of the tensor.
            reference: An array of any shape and type. What is no array of numbers, such as None or
                a sequence, is counted as absent.
            candidate: As `reference`; another shape is counted, and cannot be compared.
        """
        self._tensors[name] = self[name] + _compare(
            _numbers_of(reference), _numbers_of(candidate), self.precision
        )

    def add_sample(self, reference: Mapping[str, object], candidate: Mapping[str, object]) -> None:
        """Adds one sample of every tensor that either side has; what one lacks is absent."""
        for name in dict.fromkeys((*reference, *candidate)):
            self.add(name, reference.get(name), candidate.get(name))

    def merge(self, other: TensorComparison) -> None:
        """Adds what another comparison, of further samples or tensors, has seen.

        Raises:
            UserError: If it is about another precision.
        """
        if other.precision != self.precision:
            raise UserError(
                f"Cannot merge a comparison in {other.precision.name} with one in "
                f"{self.precision.name}."
            )
        for name, divergence in other._tensors.items():
            self._tensors[name] = self[name] + divergence

    def to_json_value(self) -> dict[str, Any]:
        """Returns everything as JSON values, all finite; `from_json_value` takes them back."""
        tensors = {name: asdict(divergence) for name, divergence in self._tensors.items()}
        return {"precision": self.precision.name, "tensors": tensors}

    @classmethod
    def from_json_value(cls, value: Mapping[str, Any], precision: Precision) -> TensorComparison:
        """Returns the comparison that `to_json_value` made `value` from.

        Raises:
            UserError: If it is not one, or is about another precision.
        """
        comparison = cls(precision)
        try:
            saved_precision = value["precision"]
            for name, fields in value["tensors"].items():
                sums = DivergenceSums(**fields["sums"])
                comparison._tensors[name] = TensorDivergence(**{**fields, "sums": sums})
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"This is no saved comparison that can be read: {error}.") from error
        if saved_precision != precision.name:
            raise UserError(
                f"The saved comparison is in {saved_precision!r}, not in {precision.name!r}."
            )
        return comparison


def _compare(
    reference: Array | None, candidate: Array | None, precision: Precision
) -> TensorDivergence:
    if reference is None or candidate is None:
        return TensorDivergence(sample_count=1, absent_count=1)
    kinds = reference.dtype.kind + candidate.dtype.kind
    if "f" in kinds:
        widest = max(reference.dtype.itemsize, candidate.dtype.itemsize)
        wide = np.float32 if widest <= 4 else np.float64
        reference, candidate = _as_floats(reference, wide), _as_floats(candidate, wide)
    outputs = OutputDivergences([""], precision)
    outputs.add({"": reference}, {"": candidate})
    (record,) = outputs.records()
    is_compared = record.error is not None
    divergence = TensorDivergence(
        sample_count=1,
        compared_count=int(is_compared),
        squared_error=min(outputs.finite_error if is_compared else 0.0, _LARGEST_MAGNITUDE) ** 2,
        max_abs_error=outputs.finite_max_abs_error if is_compared else 0.0,
        nonfinite_count=record.nonfinite_count,
        element_count=reference.size,
        mismatch_count=round(record.mismatch_fraction * reference.size),
        reshaped_count=int(reference.shape != candidate.shape),
    )
    if "f" not in kinds:
        return divergence
    sums = measure_divergence(reference, candidate, precision=precision, round_candidate=False)
    return replace(divergence, sums=sums)


def _numbers_of(value: object) -> Array | None:
    """The value as an array that numpy can subtract or compare, None if it is none."""
    if not isinstance(value, (np.ndarray, np.generic)):
        return None
    array = np.asarray(value)
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind != "V" or array.dtype.fields is not None:
        return None
    try:
        return array.astype(np.float32)  # a narrow float that numpy knows by an extension
    except (TypeError, ValueError):
        return None


def _as_floats(array: Array, dtype: type[np.floating[Any]]) -> Array:
    # Not `ascontiguousarray`, which makes a vector of a scalar.
    floats = np.asarray(array, dtype, order="C")
    if dtype is not np.float64 or not floats.size:
        return floats
    beyond = np.isfinite(floats) & (np.abs(floats) > _LARGEST_MAGNITUDE)
    if not beyond.any():
        return floats
    return np.where(beyond, np.copysign(_LARGEST_MAGNITUDE, floats), floats)
