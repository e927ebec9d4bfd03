"""Judges of outputs: the default criterion, and the errors that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from polygraphy_layerprec.divergence.sums import relative_error
from polygraphy_layerprec.precision import is_floating
from polygraphy_layerprec.records import Criterion, Judgement

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.output_parts import OutputParts
    from polygraphy_layerprec.precision import Precision

__all__ = [
    "Judge",
    "Judging",
    "default_tolerance",
    "judges_for",
    "max_abs_judge",
    "tolerance_judge",
    "worst_relative_error",
]

_FP16_TOLERANCE: Final = 5e-3
_FP16_MANTISSA_BITS: Final = 10

_UNEQUAL_SHARE: Final = 0.01
_CHANNEL_RATIO: Final = 30.0
_MIN_CHANNEL_ELEMENTS: Final = 16

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Judging(Protocol):
    """Judges one candidate, a sample at a time."""

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        """Adds one sample: the outputs of both by name, and the inputs."""

    def judgements(self) -> tuple[Judgement, ...]:
        """Returns one judgement for each criterion."""


class Judge(Protocol):
    """Judges candidates by criteria."""

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What it judges by."""

    def start(self) -> Judging:
        """Returns what judges one candidate."""


def judges_for(
    precision: Precision, *, tolerance: float | None = None, others: Sequence[Judge] = ()
) -> tuple[Judge, ...]:
    """Returns the judges of a model: whatever is asked for, no element may become NaN or infinite.

    Args:
        precision: The low precision, which has its own default tolerance.
        tolerance: Largest relative L2 error, instead of the default; and the largest share of
            integers that differ, if that is more than the default's 1 %.
        others: What replaces the tolerance on errors and on integers that differ.
    """
    if not others:
        limit = default_tolerance(precision) if tolerance is None else tolerance
        unequal = max(_UNEQUAL_SHARE, tolerance or 0.0)
        others = tolerance_judge(limit, precision), _unequal_judge(unequal)
    return _finiteness_judge(), *others


def default_tolerance(precision: Precision) -> float:
    """Returns the relative L2 error of each output and sample that is taken for harmless.

    For FP16 it is of the size of NVIDIA's own limit when it moves models to strongly typed
    networks; for others it is as many times the unit roundoff.

    >>> from polygraphy_layerprec.precision import BF16, FP16
    >>> default_tolerance(FP16), default_tolerance(BF16)
    (0.005, 0.04)
    """
    return _FP16_TOLERANCE * 2.0 ** (_FP16_MANTISSA_BITS - precision.mantissa_bits)


def tolerance_judge(
    tolerance: float,
    precision: Precision,
    part: str = "",
    *,
    parts: OutputParts | None = None,
) -> Judge:
    """Returns the judge of the largest relative L2 error of any output and sample.

    Args:
        tolerance: Largest error that passes.
        precision: The low precision.
        part: Which of `parts` is judged; what they do not name by default.
        parts: Outputs that are judged apart.
    """
    criterion = Criterion(
        "relative L2 error",
        tolerance,
        detail="of the worst output, sample and group of channels",
        outputs=(part,) if part else (),
    )
    floor = 2.0**precision.min_exponent

    def measure(exact: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
        return worst_relative_error(exact, found, floor)

    return _WorstJudge(criterion, measure, parts)


def max_abs_judge(limit: float, part: str = "", *, parts: OutputParts | None = None) -> Judge:
    """Returns the judge of the largest absolute error of any element, in the outputs' own unit.

    Args:
        limit: Largest error that passes.
        part: As for `tolerance_judge`.
        parts: As for `tolerance_judge`.
    """
    criterion = Criterion("largest absolute error", limit, outputs=(part,) if part else ())
    return _WorstJudge(criterion, _largest_error, parts)


def worst_relative_error(
    reference: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any], floor: float = 0.0
) -> float:
    """Returns the relative L2 error of an output, or of that part of its channels that is worst.

    Channels whose sizes lie a factor of 30 and more apart are measured apart: the error of scores
    does not vanish beside boxes that are a thousand times as large. Channels of like size are
    taken together, however many there are: a class that nobody sees has no error of its own.

    Args:
        reference: Shape `(...)`, any float; what is not finite in it does not count.
        candidate: Of the same shape.
        floor: Root mean square below which a group of channels counts as being of this size.

    >>> worst_relative_error(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    0.1
    """
    exact, found = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.isfinite(exact)
    if not np.isfinite(found[finite]).all():
        return float("inf")
    powers = np.where(finite, exact, 0.0) ** 2
    errors = np.where(finite, found - np.where(finite, exact, 0.0), 0.0) ** 2
    worst = relative_error(float(errors.sum()), float(powers.sum()))
    for axis in {1, exact.ndim - 1} if exact.ndim > 2 else ():
        if exact.size >= _MIN_CHANNEL_ELEMENTS * exact.shape[axis]:
            worst = max(worst, *_group_errors(powers, errors, axis, floor))
    return worst


def _finiteness_judge() -> Judge:
    """Returns the judge that no element finite in the reference may become NaN or infinite."""
    criterion = Criterion("no NaN or infinity where FP32 has none", 0.0, finiteness=True)
    return _TotalJudge(criterion, _lost)


def _unequal_judge(share: float) -> Judge:
    """Returns the judge of the share of integers that differ, in [0, 1], over all samples."""
    return _TotalJudge(Criterion("share of unequal integers", share), _unequal)


def _group_errors(
    powers: np.ndarray[Any, Any], errors: np.ndarray[Any, Any], axis: int, floor: float
) -> list[float]:
    others = tuple(other for other in range(powers.ndim) if other != axis)
    elements = powers.size // powers.shape[axis]
    power, error = powers.sum(axis=others), errors.sum(axis=others)
    sizes = np.maximum(np.sqrt(power / elements), max(floor, np.finfo(np.float64).tiny))
    order = np.argsort(sizes, kind="stable")
    borders = 1 + np.flatnonzero(sizes[order][1:] > _CHANNEL_RATIO * sizes[order][:-1])
    if not borders.size:
        return [0.0]
    return [
        relative_error(
            float(error[group].sum()),
            max(float(power[group].sum()), floor**2 * elements * group.size),
        )
        for group in np.split(order, borders)
    ]


@dataclass(frozen=True, slots=True)
class _WorstJudge:
    """Judges by the worst of a number of each float output and sample."""

    criterion: Criterion
    measure: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], float]
    parts: OutputParts | None

    def select(self, arrays: Arrays) -> Arrays:
        """What of the outputs is judged."""
        if self.parts is None:
            return arrays
        return self.parts.select(arrays, "".join(self.criterion.outputs))

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        return (self.criterion,)

    def start(self) -> _WorstJudging:
        return _WorstJudging(self)


class _WorstJudging:
    def __init__(self, judge: _WorstJudge) -> None:
        self._judge = judge
        self._worst = Judgement(judge.criterion, 0.0, 0.0)

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        del sample
        candidate = self._judge.select(candidate)
        for name, exact in self._judge.select(reference).items():
            if not is_floating(exact.dtype):
                continue
            found = candidate.get(name)
            lost = found is None or found.shape != exact.shape
            value = float("inf") if lost or found is None else self._judge.measure(exact, found)
            if value > (self._worst.value or 0.0):
                excess = _excess(value, self._worst.criterion.threshold)
                self._worst = replace(self._worst, value=value, excess=excess, output=name)

    def judgements(self) -> tuple[Judgement, ...]:
        return (self._worst,)


@dataclass(frozen=True, slots=True)
class _TotalJudge:
    """Judges by a count of elements, over all outputs and samples, or by its share."""

    criterion: Criterion
    count: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any] | None], tuple[int, int]]

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        return (self.criterion,)

    def start(self) -> _TotalJudging:
        return _TotalJudging(self)


class _TotalJudging:
    def __init__(self, judge: _TotalJudge) -> None:
        self._criterion, self._count = judge.criterion, judge.count
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        del sample
        for name, exact in reference.items():
            count, total = self._count(exact, candidate.get(name))
            before = self._counts.get(name, (0, 0))
            self._counts[name] = before[0] + count, before[1] + total

    def judgements(self) -> tuple[Judgement, ...]:
        if self._criterion.finiteness:
            value = float(sum(count for count, _ in self._counts.values()))
            return (Judgement(self._criterion, value, float("inf") if value else 0.0),)
        shares = {name: count / total for name, (count, total) in self._counts.items() if total}
        worst = max(shares, key=lambda name: shares[name], default="")
        value = shares.get(worst, 0.0)
        return (Judgement(self._criterion, value, value / self._criterion.threshold, worst),)


def _lost(exact: np.ndarray[Any, Any], found: np.ndarray[Any, Any] | None) -> tuple[int, int]:
    if not is_floating(exact.dtype):
        return 0, 0
    finite = np.isfinite(exact.astype(np.float64))
    if found is None or found.shape != exact.shape:
        return int(np.count_nonzero(finite)), exact.size
    return int(np.count_nonzero(finite & ~np.isfinite(found.astype(np.float64)))), exact.size


def _unequal(exact: np.ndarray[Any, Any], found: np.ndarray[Any, Any] | None) -> tuple[int, int]:
    if is_floating(exact.dtype):
        return 0, 0
    if found is None or found.shape != exact.shape:
        return exact.size, exact.size
    return int(np.count_nonzero(exact != found)), exact.size


def _largest_error(exact: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    finite = np.isfinite(exact.astype(np.float64))
    wide = found.astype(np.float64)[finite]
    if not np.isfinite(wide).all():
        return float("inf")
    return float(np.abs(wide - exact.astype(np.float64)[finite]).max(initial=0.0))


def _excess(value: float, threshold: float) -> float:
    return value / threshold if threshold else float("inf")
