"""The kinds of trouble, and their order where several apply."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polygraphy_layerprec.divergence.kinds import Symptoms, describe_trouble
from polygraphy_layerprec.divergence.metrics import DivergenceSums
from polygraphy_layerprec.precision import BF16, FP16

HEALTHY = Symptoms(
    op="MatMul",
    sums=DivergenceSums(
        element_count=100, reference_power=100.0, introduced_power=1e-6, max_abs=3.0
    ),
    max_abs_input=2.0,
    largest_sum_of_terms=0.0,
    harmful_overflow=False,
    impact=1e-4,
    share=0.31,
)


def with_sums(symptoms=HEALTHY, **changes):
    return replace(symptoms, sums=replace(symptoms.sums, **changes))


def test_a_healthy_layer_rounds():
    assert describe_trouble(HEALTHY, FP16) == ("rounding", "31 % of the output error")
    kind, reason = describe_trouble(replace(HEALTHY, share=0.0), FP16)
    assert (kind, reason) == ("rounding", "none of the output error")


def test_an_error_that_grows_on_the_way_says_by_how_much():
    _, reason = describe_trouble(replace(HEALTHY, impact=1e-2), FP16)
    assert reason == "31 % of the output error, amplified 100x on the way"


def test_harmful_overflow_comes_before_everything():
    symptoms = with_sums(
        replace(HEALTHY, harmful_overflow=True, max_abs_input=8.1e5),
        underflow_count=90,
        overflow_count=1,
    )
    kind, reason = describe_trouble(symptoms, FP16)
    assert kind == "overflow"
    assert reason == "overflow: |x| up to 8.1e+05, fp16 ends at 65504"
    assert "bf16" in describe_trouble(symptoms, BF16)[1]


def test_a_layer_that_only_reads_an_overflow_says_so():
    symptoms = replace(HEALTHY, harmful_overflow=True, max_abs_input=8.1e5)

    kind, reason = describe_trouble(symptoms, FP16)

    assert kind == "overflow"
    assert reason == "reads an overflow: |x| up to 8.1e+05, fp16 ends at 65504"


def test_overflow_that_nobody_feels_is_benign():
    kind, reason = describe_trouble(with_sums(overflow_count=1, max_abs=3.4e38), FP16)
    assert kind == "benign overflow"
    assert "3.4e+38" in reason


@pytest.mark.parametrize(("count", "kind"), [(1, "rounding"), (2, "underflow"), (100, "underflow")])
def test_underflow_needs_more_than_one_percent(count, kind):
    found, reason = describe_trouble(with_sums(underflow_count=count), FP16)
    assert found == kind
    assert (f"{count}% of values below 6e-08" in reason) == (kind == "underflow")


@pytest.mark.parametrize(
    ("op", "largest", "kind"),
    [
        ("Sub", 64.0 * 3.0 + 1.0, "cancellation"),
        ("Sub", 64.0 * 3.0, "rounding"),
        ("Mul", 1e4, "rounding"),
        ("ReduceMean", 1e3, "cancellation"),
    ],
)
def test_cancellation_is_a_small_sum_of_large_terms(op, largest, kind):
    found, _ = describe_trouble(replace(HEALTHY, op=op, max_abs_input=largest), FP16)
    assert found == kind


def test_a_sum_of_nothing_does_not_cancel():
    symptoms = with_sums(replace(HEALTHY, op="Sub", max_abs_input=1e3), max_abs=0.0)
    assert describe_trouble(symptoms, FP16)[0] == "rounding"


def test_a_long_reduction_passes_the_range():
    at_risk = replace(HEALTHY, largest_sum_of_terms=65505.0)
    kind, reason = describe_trouble(at_risk, FP16)
    assert kind == "long reduction"
    assert "6.55e+04" in reason
    assert describe_trouble(replace(HEALTHY, largest_sum_of_terms=65504.0), FP16)[0] == "rounding"
    assert describe_trouble(at_risk, BF16)[0] == "rounding"


def test_a_layer_that_rounding_leaves_alone_is_exact():
    assert describe_trouble(with_sums(introduced_power=0.0), FP16)[0] == "exact"
