"""Judges of outputs: the default criterion, and the errors that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import numpy as np

from polygraphy_layerprec.divergence.output_errors import (
    count_lost,
    count_unequal,
    largest_error,
    worst_relative_error,
)
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.precision import QDQ, is_floating
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
    "tolerance_judges",
]

_FP16_TOLERANCE: Final = 5e-3
_FP16_MANTISSA_BITS: Final = 10
_QDQ_TOLERANCE: Final = 0.1

_UNEQUAL_SHARE: Final = 0.01

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Judging(Protocol):
    """Judges one candidate, a sample at a time."""

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        """Adds one sample: the outputs of both by name, and the inputs."""

    def merge(self, other: Any) -> None:
        """Adds the samples that another one, started by the same judge, judged after these."""

    def judgements(self) -> tuple[Judgement, ...]:
        """Returns one judgement for each criterion that had anything to judge."""


class Judge(Protocol):
    """Judges candidates by criteria. It can be pickled unless it calls a function of the user's."""

    @property
    def calls_user(self) -> bool:
        """Whether it calls a function of the user's, which no other process has."""

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
    return _finiteness_judge(), *(others or tolerance_judges(precision, tolerance))


def tolerance_judges(
    precision: Precision,
    tolerance: float | None = None,
    part: str = "",
    *,
    parts: OutputParts | None = None,
) -> tuple[Judge, Judge]:
    """Returns the judges of errors of floats, and of integers that differ.

    Args:
        precision: The low precision.
        tolerance: Largest relative L2 error, and of a part that is named the largest share of
            integers that differ; the default criterion's by default.
        part: As for `tolerance_judge`.
        parts: As for `tolerance_judge`.
    """
    limit = default_tolerance(precision) if tolerance is None else tolerance
    unequal = limit if part else max(_UNEQUAL_SHARE, tolerance or 0.0)
    judge = tolerance_judge(limit, precision, part, parts=parts)
    return judge, _TotalJudge(
        Criterion("share of unequal integers", unequal, outputs=_outputs_of(part, parts)),
        count_unequal,
        part,
        parts,
    )


def default_tolerance(precision: Precision) -> float:
    """Returns the relative L2 error of each output and sample that is taken for harmless.

    For FP16 it is of the size of NVIDIA's own limit when it moves models to strongly typed
    networks; for others it is as many times the unit roundoff.

    >>> from polygraphy_layerprec.precision import BF16, FP16
    >>> default_tolerance(FP16), default_tolerance(BF16)
    (0.005, 0.04)

    Quantisation is coarser, and retrained models are judged by their metric alone: 0.1, a ratio of
    signal to noise of 20 dB, is what sets are judged by where nothing else is asked for.
    """
    if precision == QDQ:
        return _QDQ_TOLERANCE
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
        outputs=_outputs_of(part, parts),
    )
    measure = partial(worst_relative_error, floor=2.0**precision.min_exponent)
    return _WorstJudge(criterion, measure, part, parts)


def max_abs_judge(limit: float, part: str = "", *, parts: OutputParts | None = None) -> Judge:
    """Returns the judge of the largest absolute error of any element, in the outputs' own unit.

    Args:
        limit: Largest error that passes.
        part: As for `tolerance_judge`.
        parts: As for `tolerance_judge`.
    """
    criterion = Criterion("largest absolute error", limit, outputs=_outputs_of(part, parts))
    return _WorstJudge(criterion, largest_error, part, parts, needs_floats=True)


def _finiteness_judge() -> Judge:
    """Returns the judge that no element finite in the reference may become NaN or infinite."""
    criterion = Criterion("no NaN or infinity where FP32 has none", 0.0, finiteness=True)
    return _TotalJudge(criterion, count_lost)


def _outputs_of(part: str, parts: OutputParts | None) -> tuple[str, ...]:
    """What a criterion is about, as it says; nothing where it is all."""
    if part or parts is None:
        return (part,) if part else ()
    return parts.rest if parts.names_any else ()


class _SingleJudge:
    """Holds one criterion against the outputs, or against a part of them."""

    __slots__ = ()

    criterion: Criterion
    part: str
    parts: OutputParts | None

    def select(self, arrays: Arrays) -> Arrays:
        """What of the outputs is judged."""
        return arrays if self.parts is None else self.parts.select(arrays, self.part)

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        return (self.criterion,)


@dataclass(frozen=True, slots=True)
class _WorstJudge(_SingleJudge):
    """Judges by the worst of a number of each float output and sample."""

    criterion: Criterion
    measure: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], tuple[float, str]]
    part: str
    parts: OutputParts | None
    needs_floats: bool = False
    calls_user: ClassVar[bool] = False

    def start(self) -> _WorstJudging:
        return _WorstJudging(self)


class _WorstJudging:
    def __init__(self, judge: _WorstJudge) -> None:
        self._judge = judge
        self._worst = Judgement(judge.criterion, 0.0, 0.0)
        self._judged = False

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        del sample
        candidate = self._judge.select(candidate)
        for name, exact in self._judge.select(reference).items():
            if not is_floating(exact.dtype):
                continue
            self._judged = True
            found = candidate.get(name)
            value, channels = float("inf"), ""
            if found is not None and found.shape == exact.shape:
                value, channels = self._judge.measure(exact, found)
            if value > (self._worst.value or 0.0):
                excess = _excess(value, self._worst.criterion.threshold)
                self._worst = Judgement(
                    self._worst.criterion, value, excess, name, channels=channels
                )

    def merge(self, other: _WorstJudging) -> None:
        self._judged |= other._judged
        if (other._worst.value or 0.0) > (self._worst.value or 0.0):
            self._worst = other._worst

    def judgements(self) -> tuple[Judgement, ...]:
        criterion = self._worst.criterion
        if not self._judged and self._judge.needs_floats:
            raise UserError(
                f"{criterion.text!r} is about floats, and none of these outputs has any.\n"
                f"Judge integers by the share that differs: `--tolerance`."
            )
        return (self._worst,) if self._judged else ()


@dataclass(frozen=True, slots=True)
class _TotalJudge(_SingleJudge):
    """Judges by a count of elements, over all outputs and samples, or by its share."""

    criterion: Criterion
    count: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any] | None], tuple[int, int]]
    part: str = ""
    parts: OutputParts | None = None
    calls_user: ClassVar[bool] = False

    def start(self) -> _TotalJudging:
        return _TotalJudging(self)


class _TotalJudging:
    def __init__(self, judge: _TotalJudge) -> None:
        self._judge = judge
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        del sample
        candidate = self._judge.select(candidate)
        for name, exact in self._judge.select(reference).items():
            self._count(name, *self._judge.count(exact, candidate.get(name)))

    def merge(self, other: _TotalJudging) -> None:
        for name, counted in other._counts.items():
            self._count(name, *counted)

    def _count(self, name: str, count: int, total: int) -> None:
        before = self._counts.get(name, (0, 0))
        self._counts[name] = before[0] + count, before[1] + total

    def judgements(self) -> tuple[Judgement, ...]:
        criterion = self._judge.criterion
        if criterion.finiteness:
            value = float(sum(count for count, _ in self._counts.values()))
            return (Judgement(criterion, value, float("inf") if value else 0.0),)
        shares = {name: count / total for name, (count, total) in self._counts.items() if total}
        if not shares:
            return ()
        worst = max(shares, key=lambda name: shares[name])
        return (Judgement(criterion, shares[worst], shares[worst] / criterion.threshold, worst),)


def _excess(value: float, threshold: float) -> float:
    return value / threshold if threshold else float("inf")
