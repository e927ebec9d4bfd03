"""A metric of the user's own over the whole data set as a judge: top-1, mAP, word error rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.precision import is_floating
from polygraphy_layerprec.records import Criterion, Judgement

__all__ = ["Metric", "MetricJudge"]

Arrays = Mapping[str, np.ndarray[Any, Any]]

Metric = Callable[[Iterator[Arrays], Iterator[Arrays]], Any]
"""Takes the outputs of all samples and the samples themselves, labels included; returns a number,
higher is better."""


@dataclass(frozen=True, slots=True)
class MetricJudge:
    """Judges by how much a metric drops from what FP32 has.

    What it is given of a data set is kept until all of it is there.
    """

    metric: Metric
    """The user's function."""

    name: str
    """What it is called."""

    max_drop: float
    """The largest drop that passes, at least 0: in the metric's unit, or in percent."""

    is_percent: bool = False
    """Whether it is in percent of what FP32 has."""

    calls_user: ClassVar[bool] = True

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What it judges by."""
        unit = " %" if self.is_percent else ""
        return (Criterion(f"drop of {self.name}", self.max_drop, unit=unit),)

    def start(self) -> _MetricJudging:
        """Returns what judges one candidate."""
        return _MetricJudging(self)


class _MetricJudging:
    def __init__(self, judge: MetricJudge) -> None:
        self._judge = judge
        self._samples: list[Arrays] = []
        self._references: list[Arrays] = []
        self._candidates: list[Arrays] = []
        self._lost = False

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        self._samples.append({**sample, **getattr(sample, "labels", {})})
        self._references.append(reference)
        self._candidates.append({name: candidate[name] for name in reference if name in candidate})
        self._lost = self._lost or any(
            name not in candidate or _loses(exact, candidate[name])
            for name, exact in reference.items()
        )

    def merge(self, other: _MetricJudging) -> None:
        self._samples += other._samples
        self._references += other._references
        self._candidates += other._candidates
        self._lost = self._lost or other._lost

    def judgements(self) -> tuple[Judgement, ...]:
        (criterion,) = self._judge.criteria
        before = self._value(self._references)
        if self._judge.is_percent and not before:
            raise UserError(
                f"The metric `{self._judge.name}` is 0 in FP32, of which there is no percentage.\n"
                f"Give `--max-drop` in the metric's own unit, and see whether the metric finds the "
                f"labels and outputs that it expects."
            )
        if self._lost:  # a metric need not know what to make of NaN
            return (Judgement(criterion, None, math.inf, fp32_value=before),)
        if self._value(self._references) != before:
            raise UserError(
                f"The metric `{self._judge.name}` gives another number for the same outputs each "
                f"time.\nSeed what it draws, so that only the outputs decide."
            )
        after = self._value(self._candidates)
        drop = max(before - after, 0.0) * (100.0 / abs(before) if self._judge.is_percent else 1.0)
        limit = criterion.threshold
        excess = drop / limit if limit else drop and 1.0 + drop
        return (Judgement(criterion, drop, excess, fp32_value=before, candidate_value=after),)

    def _value(self, outputs: list[Arrays]) -> float:
        returned = self._judge.metric(iter(outputs), iter(self._samples))
        try:
            value = float(returned)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise UserError(
                f"The metric `{self._judge.name}` must return a finite number, "
                f"got {returned!r:.80}."
            )
        return value


def _loses(exact: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> bool:
    if not is_floating(exact.dtype):
        return False
    if found.shape != exact.shape:
        return True
    finite = np.isfinite(exact.astype(np.float64))
    return not bool(np.isfinite(found.astype(np.float64))[finite].all())
