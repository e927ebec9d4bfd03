"""The kind of trouble a layer is in, in words, with the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.metrics import DivergenceSums
    from polygraphy_layerprec.precision import Precision

__all__ = ["Symptoms", "describe_trouble"]

_CANCELLING_OPS: Final = frozenset({"Add", "Sub", "Sum", "ReduceSum", "ReduceMean"})
_CANCELLATION_RATIO: Final = 64.0  # the inputs lose six bits or more of their eleven
_UNDERFLOW_SHARE: Final = 0.01
_NOTABLE_AMPLIFICATION: Final = 8.0


@dataclass(frozen=True, slots=True)
class Symptoms:
    """What was observed at one layer."""

    op: str
    """ONNX operator."""

    sums: DivergenceSums
    """Divergence of its outputs."""

    max_abs_input: float
    """Largest finite magnitude among its inputs."""

    largest_sum_of_terms: float
    """Largest sum of |terms| that it accumulates, 0 if surely in range."""

    harmful_overflow: bool
    """Whether its overflow was felt by a layer in range."""

    impact: float
    """Relative L2 error at the outputs."""

    share: float
    """Share of the squared output error, in [0, 1]."""


def describe_trouble(  # noqa: PLR0911 - one for each kind
    symptoms: Symptoms, precision: Precision
) -> tuple[str, str]:
    """Returns the kind of trouble and the reason in words."""
    sums = symptoms.sums
    if symptoms.harmful_overflow:
        largest = max(sums.max_abs, symptoms.max_abs_input)
        limit = f"{precision.name} ends at {precision.max_finite:.5g}"
        return "overflow", f"overflow: |x| up to {largest:.3g}, {limit}"
    if sums.overflow_count:
        return (
            "benign overflow",
            f"benign overflow: |x| up to {sums.max_abs:.3g}, absorbed by what follows",
        )
    effect = _effect(symptoms)
    if sums.underflow_count > _UNDERFLOW_SHARE * sums.element_count:
        share = sums.underflow_count / sums.element_count
        return (
            "underflow",
            f"underflow: {share:.0%} of values below {precision.min_subnormal:.1g}; {effect}",
        )
    if _cancels(symptoms):
        terms = f"terms up to {symptoms.max_abs_input:.3g} leave {sums.max_abs:.3g}"
        return "cancellation", f"cancellation: {terms}; {effect}"
    if symptoms.largest_sum_of_terms > precision.max_finite:
        terms = f"terms add up to {symptoms.largest_sum_of_terms:.3g}"
        risk = f"at risk where accumulated in {precision.name}"
        return "long reduction", f"long reduction: {terms}, {risk}; {effect}"
    if sums.introduced_power == 0.0:
        return "exact", "exact: rounding changes nothing"
    return "rounding", effect


def _effect(symptoms: Symptoms) -> str:
    text = f"{_percent(symptoms.share)} of the output error"
    introduced = symptoms.sums.introduced_error
    if introduced > 0.0 and symptoms.impact > _NOTABLE_AMPLIFICATION * introduced:
        text += f", amplified {symptoms.impact / introduced:.3g}x on the way"
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share else "none"


def _cancels(symptoms: Symptoms) -> bool:
    return (
        symptoms.op in _CANCELLING_OPS
        and symptoms.sums.max_abs > 0.0
        and symptoms.max_abs_input > _CANCELLATION_RATIO * symptoms.sums.max_abs
    )
