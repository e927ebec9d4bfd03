"""The kind of trouble a layer is in, in words, with the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.divergence.caveats import describe_caveats

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.caveats import Caveat
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

    caveats: frozenset[Caveat] = frozenset()
    """What the impact does not see."""

    largest_inexact_integer: float = 0.0
    """The largest of its floats if they are taken for integers and are not exact; else 0."""


def describe_trouble(symptoms: Symptoms, precision: Precision) -> tuple[str, str]:
    """Returns the kind of trouble and the reason in words."""
    return next(
        (kind, describe(symptoms, precision))
        for kind, applies, describe in _KINDS
        if applies(symptoms, precision)
    )


def _overflows(symptoms: Symptoms, _: Precision) -> bool:
    return symptoms.harmful_overflow


def _describe_overflow(symptoms: Symptoms, precision: Precision) -> str:
    largest = max(symptoms.sums.max_abs, symptoms.max_abs_input)
    if not symptoms.sums.overflow_count and symptoms.sums.max_abs <= precision.max_finite:
        return (
            f"reads an overflow: |x| up to {largest:.3g}, {precision.name} ends at "
            f"{precision.max_finite:.5g}"
        )
    return f"overflow: |x| up to {largest:.3g}, {precision.name} ends at {precision.max_finite:.5g}"


def _overflows_unfelt(symptoms: Symptoms, _: Precision) -> bool:
    return symptoms.sums.overflow_count > 0


def _describe_benign_overflow(symptoms: Symptoms, _: Precision) -> str:
    return f"benign overflow: |x| up to {symptoms.sums.max_abs:.3g}, absorbed by what follows"


def _are_inexact_integers(symptoms: Symptoms, _: Precision) -> bool:
    return symptoms.largest_inexact_integer > 0.0


def _describe_inexact_integers(symptoms: Symptoms, precision: Precision) -> str:
    limit = f"ids beyond {precision.max_exact_integer} are not exact in {precision.name.upper()}"
    return f"{limit}, and go up to {symptoms.largest_inexact_integer:.6g}; {_effect(symptoms)}"


def _underflows(symptoms: Symptoms, _: Precision) -> bool:
    return symptoms.sums.underflow_count > _UNDERFLOW_SHARE * symptoms.sums.element_count


def _describe_underflow(symptoms: Symptoms, precision: Precision) -> str:
    share = symptoms.sums.underflow_count / symptoms.sums.element_count
    values = f"{share:.0%} of values below {precision.min_subnormal:.1g}"
    return f"underflow: {values}; {_effect(symptoms)}"


def _cancels(symptoms: Symptoms, _: Precision) -> bool:
    return (
        symptoms.op in _CANCELLING_OPS
        and symptoms.sums.max_abs > 0.0
        and symptoms.max_abs_input > _CANCELLATION_RATIO * symptoms.sums.max_abs
    )


def _describe_cancellation(symptoms: Symptoms, _: Precision) -> str:
    terms = f"terms up to {symptoms.max_abs_input:.3g} leave {symptoms.sums.max_abs:.3g}"
    return f"cancellation: {terms}; {_effect(symptoms)}"


def _adds_up_beyond_range(symptoms: Symptoms, precision: Precision) -> bool:
    return symptoms.largest_sum_of_terms > precision.max_finite


def _describe_long_reduction(symptoms: Symptoms, precision: Precision) -> str:
    terms = f"terms add up to {symptoms.largest_sum_of_terms:.3g}"
    risk = f"at risk where accumulated in {precision.name}"
    return f"long reduction: {terms}, {risk}; {_effect(symptoms)}"


def _is_exact(symptoms: Symptoms, _: Precision) -> bool:
    return symptoms.sums.introduced_power == 0.0


def _describe_exact(_: Symptoms, __: Precision) -> str:
    return "exact: rounding changes nothing"


def _always(_: Symptoms, __: Precision) -> bool:
    return True


def _effect(symptoms: Symptoms, _: Precision | None = None) -> str:
    caveat = describe_caveats(symptoms.caveats, judged=symptoms.impact > 0.0)
    if caveat and not symptoms.impact:
        return caveat
    text = f"{_percent(symptoms.share)} of the output error"
    introduced = symptoms.sums.introduced_error
    if introduced > 0.0 and symptoms.impact > _NOTABLE_AMPLIFICATION * introduced:
        text += f", amplified {symptoms.impact / introduced:.3g}x on the way"
    return f"{text}; {caveat}" if caveat else text


def _percent(share: float) -> str:
    # Two digits: shares rest on errors being independent, and on a random probe.
    return f"{float(f'{100 * share:.2g}'):g} %" if share else "none"


_KINDS: Final = (
    ("overflow", _overflows, _describe_overflow),
    ("inexact integers", _are_inexact_integers, _describe_inexact_integers),
    ("benign overflow", _overflows_unfelt, _describe_benign_overflow),
    ("underflow", _underflows, _describe_underflow),
    ("cancellation", _cancels, _describe_cancellation),
    ("long reduction", _adds_up_beyond_range, _describe_long_reduction),
    ("exact", _is_exact, _describe_exact),
    ("rounding", _always, _effect),
)
"""Each kind with when it applies and how it is told; the first that applies is the one."""
