"""What judges make of outputs, against errors in closed form."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from polygraphy_layerprec.divergence.judges import (
    default_tolerance,
    judges_for,
    max_abs_judge,
    tolerance_judge,
    tolerance_judges,
)
from polygraphy_layerprec.divergence.output_errors import worst_relative_error
from polygraphy_layerprec.divergence.output_parts import OutputParts
from polygraphy_layerprec.precision import BF16, FP16
from tests.merged_judging import judged_apart


def judge(judges, *pairs):
    """Returns the judgements of pairs of reference and candidate, by metric."""
    judging = [one.start() for one in judges]
    for reference, candidate in pairs:
        for one in judging:
            one.add(reference, candidate, {})
    apart = [judged_apart(one, [(*pair, {}) for pair in pairs]) for one in judges]
    assert apart == [one.judgements() for one in judging]
    return {found.criterion.metric: found for one in judging for found in one.judgements()}


def outputs(**arrays):
    return {name: np.asarray(array) for name, array in arrays.items()}


FLOATS = np.float32([3.0, 4.0])

FINITE = "no NaN or infinity where FP32 has none"


@pytest.mark.parametrize(("precision", "limit"), [(FP16, 5e-3), (BF16, 4e-2)])
def test_the_default_criterion_depends_on_the_precision(precision, limit):
    finite, l2, unequal = judges_for(precision)

    assert l2.criteria[0].threshold == default_tolerance(precision) == limit
    assert unequal.criteria[0].threshold == 0.01
    assert finite.criteria[0].finiteness


def test_a_tolerance_replaces_the_default_and_never_the_rule_about_nan():
    finite, l2, unequal = judges_for(FP16, tolerance=0.3)
    small = judges_for(FP16, tolerance=1e-3)

    assert finite.criteria[0].finiteness
    assert (l2.criteria[0].threshold, unequal.criteria[0].threshold) == (0.3, 0.3)
    assert [one.criteria[0].threshold for one in small[1:]] == [1e-3, 0.01]
    others = judges_for(FP16, others=[max_abs_judge(1.0)])
    assert [one.criteria[0].metric for one in others] == [FINITE, "largest absolute error"]


def test_the_worst_output_of_the_worst_sample_counts():
    near, far = np.float32([3.0, 4.01]), np.float32([3.0, 4.5])

    found = judge(
        judges_for(FP16),
        (outputs(a=FLOATS, b=FLOATS), outputs(a=near, b=near)),
        (outputs(a=FLOATS, b=FLOATS), outputs(a=FLOATS, b=far)),
        (outputs(a=FLOATS, b=FLOATS), outputs(a=FLOATS, b=FLOATS)),
    )["relative L2 error"]

    assert found.value == pytest.approx(0.1)
    assert found.excess == pytest.approx(20.0)
    assert found.output == "b"


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_an_element_that_becomes_nan_or_infinite_fails_everything(lost):
    judges = (*judges_for(FP16, tolerance=1e300), max_abs_judge(1e300))

    found = judge(judges, (outputs(y=FLOATS), outputs(y=np.float32([3.0, lost]))))

    assert found[FINITE].value == 1.0
    assert all(found[name].excess == np.inf for name in found if "unequal" not in name)


def test_what_is_not_finite_in_the_reference_does_not_count():
    reference = np.float32([np.nan, -np.inf, 4.0])
    candidate = np.float32([1.0, np.nan, 4.5])

    found = judge(
        (*judges_for(FP16), max_abs_judge(1.0)), (outputs(y=reference), outputs(y=candidate))
    )

    assert found[FINITE].value == 0.0
    assert found["relative L2 error"].value == pytest.approx(0.125)
    assert found["largest absolute error"].value == 0.5


@pytest.mark.parametrize("candidate", [{}, {"y": np.float32([3.0])}])
def test_an_output_that_is_missing_or_changes_its_shape_is_lost(candidate):
    found = judge(
        (*judges_for(FP16), max_abs_judge(1.0)),
        (outputs(y=FLOATS, label=[1, 2]), {**candidate, "label": np.array([1])}),
    )

    assert found[FINITE].value == 2.0
    assert found["relative L2 error"].excess == np.inf
    assert found["largest absolute error"].excess == np.inf
    assert found["share of unequal integers"].value == 1.0


def test_integers_that_differ_are_counted_over_all_samples():
    same, other = np.arange(10), np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0])

    found = judge(
        judges_for(FP16),
        (outputs(label=same, y=FLOATS), outputs(label=other, y=FLOATS)),
        (outputs(label=same, y=FLOATS), outputs(label=same, y=FLOATS)),
    )["share of unequal integers"]

    assert found.value == pytest.approx(0.05)
    assert (found.output, found.passed) == ("label", False)
    assert found.excess == pytest.approx(5.0)


def test_narrow_floats_are_floats():
    exact = np.array([3.0, 4.0], ml_dtypes.bfloat16)
    found = np.array([3.0, 4.5], ml_dtypes.bfloat16)

    judged = judge(judges_for(BF16), (outputs(y=exact), outputs(y=found)))

    assert judged["relative L2 error"].value == pytest.approx(0.1)


def test_a_tolerance_of_zero_is_met_by_equal_outputs_alone():
    judges = [tolerance_judge(0.0, FP16)]

    assert judge(judges, (outputs(y=FLOATS), outputs(y=FLOATS)))["relative L2 error"].passed
    missed = judge(judges, (outputs(y=FLOATS), outputs(y=FLOATS + 1)))
    assert missed["relative L2 error"].excess == np.inf


def boxes_and_scores(axis, *, scores=0.5, count=64):
    """Four channels of boxes of size 400, two of scores."""
    channels = [np.full(count, 400.0)] * 4 + [np.full(count, scores)] * 2
    return np.stack(channels, axis)[None]


@pytest.mark.parametrize("axis", [0, 1])
def test_scores_are_measured_apart_from_boxes(axis):
    reference = boxes_and_scores(axis)
    candidate = boxes_and_scores(axis, scores=0.45)

    error, channels = worst_relative_error(reference, candidate)

    assert error == pytest.approx(0.1)
    assert channels == ("[:, 4:6]", "[:, :, 4:6]")[axis]


@pytest.mark.parametrize(
    ("small", "channels"),
    [
        ([2], "[:, 2]"),
        ([0, 1], "[:, 0:2]"),
        ([0, 3, 4], "[:, {0, 3:5}]"),
        ([0, 2, 4, 6, 8], "[:, {0, 2, 4, ...}]"),
    ],
)
def test_the_channels_that_are_worst_are_named_by_an_index(small, channels):
    reference = np.full((1, 10, 32), 400.0)
    reference[:, small] = 0.5
    found = np.where(reference == 0.5, 0.4, reference)
    (judged,) = judge(
        [tolerance_judge(0.1, FP16)], (outputs(y=reference), outputs(y=found))
    ).values()

    assert judged.channels == channels
    assert judged.place == f"y{channels}"
    assert judged.text == f"relative L2 error of y{channels} 0.2 (at most 0.1)"
    if "{" not in channels:  # what is told can be asked for
        (part,) = OutputParts([judged.place], ["y"]).of({"y": reference}).values()
        assert (part == 0.5).all()
        assert part.size == 32 * len(small)


def test_channels_of_like_size_are_measured_together():
    reference = boxes_and_scores(0, scores=20.0)

    worst, channels = worst_relative_error(reference, boxes_and_scores(0, scores=19.0))

    # 2 of 6 channels are off by 1, all have 64 elements: sqrt(2 / (4 * 400^2 + 2 * 20^2)).
    assert worst == pytest.approx(np.sqrt(2 / (4 * 400.0**2 + 2 * 20.0**2)))
    assert not channels


def test_a_class_that_nobody_sees_counts_with_the_others():
    # Sizes 0.5, 0.05 and 0.005 are linked by factors of 10: one group, in which the last vanishes.
    reference = np.stack([np.full(64, size) for size in (0.5, 0.05, 0.005)])[None]
    candidate = reference.copy()
    candidate[0, 2] *= 1.5

    assert worst_relative_error(reference, candidate)[0] < 0.01


def test_channels_below_the_floor_are_as_large_as_it():
    reference = boxes_and_scores(0, scores=1e-9)
    candidate = boxes_and_scores(0, scores=2e-9)

    assert worst_relative_error(reference, candidate, floor=1e-4)[0] == pytest.approx(1e-5)
    assert worst_relative_error(reference, candidate)[0] == pytest.approx(1.0)


def test_short_and_flat_outputs_have_no_channels():
    short = boxes_and_scores(0, count=8)
    candidate = boxes_and_scores(0, count=8, scores=0.0)
    flat = np.array([[400.0] * 32, [0.5] * 32])

    assert worst_relative_error(short, candidate)[0] < 1e-3
    assert worst_relative_error(flat, np.array([[400.0] * 32, [0.0] * 32]))[0] < 2e-3


def test_parts_of_outputs_have_limits_of_their_own():
    parts = OutputParts(["y[:1]"], ["y", "z"])
    judges = [tolerance_judge(0.5, FP16, "y[:1]", parts=parts), max_abs_judge(9.0, parts=parts)]
    exact, found = outputs(y=FLOATS, z=FLOATS), outputs(y=FLOATS * 2, z=FLOATS + 1)

    by_part, others = judge(judges, (exact, found)).values()

    assert (by_part.output, by_part.value, by_part.passed) == ("y[:1]", pytest.approx(1.0), False)
    assert by_part.criterion.outputs == ("y[:1]",)
    assert others.criterion.outputs == ("the rest of y", "z")
    assert (others.output, others.value) == ("the rest of y", 4.0)


def test_the_rest_of_an_output_keeps_its_channels():
    parts = OutputParts(["y[..., :2]"], ["y"])
    exact = boxes_and_scores(0)
    found = boxes_and_scores(0, scores=19.0)
    judges = tolerance_judges(FP16, 0.1, parts=parts)

    (rest,) = judge(judges, (outputs(y=exact), outputs(y=found))).values()

    assert rest.output == "the rest of y"
    error, channels = worst_relative_error(exact, found)
    assert (rest.value, rest.channels) == (pytest.approx(error), channels)


@pytest.mark.parametrize(("share", "passes"), [(0.25, True), (0.2, False)])
def test_integers_that_are_named_have_a_share_of_their_own(share, passes):
    parts = OutputParts(["ids"], ["ids", "y"])
    exact, found = np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])
    judges = tolerance_judges(FP16, share, "ids", parts=parts)

    (named,) = judge(judges, (outputs(ids=exact, y=FLOATS), outputs(ids=found, y=FLOATS))).values()

    assert named.criterion.metric == "share of unequal integers"
    assert (named.value, named.passed) == (0.25, passes)


def test_a_criterion_that_has_nothing_to_judge_says_nothing():
    exact = outputs(ids=np.array([1, 2]))

    found = judge(judges_for(FP16), (exact, exact))

    assert [one.criterion.metric for one in found.values()] == [
        "no NaN or infinity where FP32 has none",
        "share of unequal integers",
    ]


def test_an_absolute_error_of_integers_alone_is_refused():
    exact = outputs(ids=np.array([1, 2]))

    with pytest.raises(ValueError, match=r"largest absolute error at most 1.*is about floats"):
        judge([max_abs_judge(1.0)], (exact, exact))
