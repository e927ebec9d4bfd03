"""What the outputs have to hold, and whether they do: one type for search, verify and reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from polygraphy_layerprec.records.numbers import MaybeInfinite

__all__ = ["Criterion", "Judgement", "Outcome"]

_OUTPUTS_NAMED: Final = 2


@dataclass(frozen=True, slots=True)
class Criterion:
    """What the outputs have to hold against those of the FP32 model."""

    metric: str
    """What is measured, in words: `relative L2 error`, `cosine similarity`."""

    threshold: float
    """The worst value that passes."""

    higher_is_better: bool = False
    """Whether larger values are better than the threshold."""

    unit: str = ""
    """What follows a number: ` dB`; empty for numbers without a unit."""

    detail: str = ""
    """Over what it is taken, or with which options, in words; may be empty."""

    outputs: tuple[str, ...] = ()
    """Outputs that it is about, or parts of them with an index behind; none where it is all."""

    finiteness: bool = False
    """Whether it is about NaN and infinity, which hold whatever else is asked."""

    @property
    def text(self) -> str:
        """The criterion in words: `relative L2 error at most 0.005`."""
        return self.metric if self.finiteness else f"{self.metric_of_outputs} {self._bound}"

    @property
    def metric_of_outputs(self) -> str:
        """The metric, and of which outputs where it is not of all: `PSNR of boxes`."""
        more = len(self.outputs) - _OUTPUTS_NAMED
        shown = ", ".join(self.outputs[:_OUTPUTS_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"{self.metric} of {shown}" if shown else self.metric

    @property
    def _bound(self) -> str:
        side = "at least" if self.higher_is_better else "at most"
        return f"{side} {self.threshold:.8g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one candidate makes of a criterion."""

    criterion: Criterion
    """What it is judged by."""

    value: MaybeInfinite | None
    """The metric, of the worst output and sample; None where it has no number."""

    excess: MaybeInfinite
    """The error as a multiple of the one that just passes, in [0, inf]: at most 1 passes."""

    output: str = ""
    """The output that is worst; empty where it is about all of them."""

    fp32_value: float | None = None
    """What the value is a drop from, in the metric's own unit; None where it is no drop."""

    candidate_value: float | None = None
    """What it drops to; None where it is no drop, or outputs are lost."""

    channels: str = ""
    """Index of the channels of it that are worst; empty where it is about all of them."""

    @property
    def passed(self) -> bool:
        """Whether the criterion is met."""
        return self.excess <= 1.0

    @property
    def shortfall(self) -> float:
        """How far the value lies beyond the threshold, in its own unit, in [0, inf].

        It tells values apart of which none can pass, so that all of their excesses are infinite.
        """
        if self.passed:
            return 0.0
        if self.value is None:
            return math.inf
        beyond = self.value - self.criterion.threshold
        return max(-beyond if self.criterion.higher_is_better else beyond, 0.0)

    @property
    def place(self) -> str:
        """The output that is worst, with an index where it is a part of its channels."""
        return f"{self.output}{self.channels}"

    @property
    def is_blind(self) -> bool:
        """Whether a metric is 0 in FP32 and stays so: what never rises cannot drop."""
        return self.fp32_value == 0.0 and self.candidate_value == 0.0

    @property
    def number(self) -> str:
        """The value with its unit, in as many digits as tell it from the threshold."""
        values = self._values
        return _number(self.value, self.criterion) + (f" ({values})" if values else "")

    @property
    def _values(self) -> str:
        """What the value is a drop from, and to."""
        if self.fp32_value is None:
            return ""
        if self.candidate_value is None:
            return f"{self.fp32_value:.5g} in FP32"
        return f"{self.fp32_value:.5g} in FP32, now {self.candidate_value:.5g}"

    @property
    def text(self) -> str:
        """The metric, its value and the threshold: `relative L2 error 0.0015 (at most 0.005)`."""
        if self.criterion.finiteness:
            count = int(self.value or 0)
            become = "element becomes" if count == 1 else "elements become"
            return f"{count} output {become} NaN or infinite"
        is_told = self.criterion.outputs or self.channels
        where = f" of {self.place}" if self.output and is_told else ""
        aside = "; ".join(filter(None, (self.criterion._bound, self._values)))  # noqa: SLF001
        number = _number(self.value, self.criterion)
        return f"{self.criterion.metric}{where} {number} ({aside})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What measuring one set of FP32 layers said."""

    error: MaybeInfinite
    """Relative L2 error of the outputs, as `OutputError.measured`."""

    judgements: tuple[Judgement, ...]
    """One for each criterion, the one about NaN and infinity first."""

    @property
    def excess(self) -> float:
        """The worst excess, in [0, inf]."""
        return max((judgement.excess for judgement in self.judgements), default=0.0)

    @property
    def passed(self) -> bool:
        """Whether all criteria are met."""
        return self.excess <= 1.0

    @property
    def distance(self) -> tuple[float, float, float]:
        """How far it is from having no error, to be compared: of two, the smaller is nearer.

        The worst excess; where that is infinite for both, the elements lost, then what is missing.
        """
        lost = sum(j.shortfall for j in self.judgements if j.criterion.finiteness)
        missing = (j.shortfall for j in self.judgements if not j.criterion.finiteness)
        return self.excess, lost, max(missing, default=0.0)

    @property
    def headline(self) -> Judgement:
        """The judgement to show: the worst; about NaN and infinity only where there are any."""
        shown = [j for j in self.judgements if not j.criterion.finiteness or not j.passed]
        return max(shown or self.judgements, key=lambda judgement: judgement.excess)

    def of(self, criterion: Criterion) -> Judgement:
        """Returns the judgement by one of the criteria; without a value where there is none."""
        found = (j for j in self.judgements if j.criterion == criterion)
        return next(found, Judgement(criterion, None, 0.0))


def _number(value: float | None, criterion: Criterion) -> str:
    if value is None:
        return "unknown"
    if math.isinf(value):
        return "infinite"
    digits = next((n for n in range(3, 17) if _tells_apart(value, criterion, n)), 17)
    return f"{value:.{digits}g}{criterion.unit}"


def _tells_apart(value: float, criterion: Criterion, digits: int) -> bool:
    """Whether so many digits tell a value from the threshold, and a similarity from 1."""
    shown, bound = f"{value:.{digits}g}", f"{criterion.threshold:.{digits}g}"
    if criterion.higher_is_better and shown == "1" and value < 1.0:
        return False
    return shown != bound or value == criterion.threshold
