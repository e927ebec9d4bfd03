"""Numbers that a logarithmic axis does not reach, by hand."""

from __future__ import annotations

import math

import pytest

from polygraphy_layerprec.report.broken_axis import break_axis


def test_an_axis_that_reaches_everything_has_no_break():
    axis = break_axis([0.002, 0.05])

    assert axis.drawn == axis.ends == pytest.approx((1e-3, 1e-1))
    assert (axis.labels, axis.breaks) == ({}, ())
    assert axis.place(0.002) == 0.002


def test_zero_stands_a_decade_below_the_axis():
    axis = break_axis([0.0, 0.002, 0.05])

    assert axis.place(0.0) == axis.drawn[0] == pytest.approx(1e-4)
    assert axis.labels == {axis.drawn[0]: "0"}
    assert axis.drawn[0] < axis.breaks[0] < axis.ends[0]
    assert not axis.reaches(0.0)
    assert axis.reaches(0.002)


def test_what_is_too_small_for_eight_decades_is_not_called_zero():
    axis = break_axis([1e-30, 0.5])

    assert axis.labels == {axis.drawn[0]: "less"}


@pytest.mark.parametrize("value", [3.4e38, math.inf])
def test_what_is_as_good_as_infinite_stands_a_decade_above(value):
    axis = break_axis([0.5, value], beyond="NaN/Inf")

    assert axis.place(value) == axis.drawn[1] == pytest.approx(10.0)
    assert axis.labels == {axis.drawn[1]: "NaN/Inf"}
    assert axis.ends[1] < axis.breaks[0] < axis.drawn[1]


def test_ends_may_be_given():
    axis = break_axis([5.0, 1e9], ends=(1.0, 1e3), beyond="more")

    assert axis.drawn == (1.0, 1e4)


def test_what_was_not_measured_is_not_drawn():
    axis = break_axis([None, 0.5])

    assert math.isnan(axis.place(None))
    assert not axis.reaches(None)
