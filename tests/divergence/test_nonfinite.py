"""Tracing of infinities and NaN from where they start."""

from __future__ import annotations

from polygraphy_layerprec.divergence.nonfinite import NonFiniteVisit, trace_nonfinite


def visit(parent=None, *, nan=False, in_reference=False):
    return NonFiniteVisit(parent, has_nan=nan, in_reference=in_reference)


def test_the_path_leads_from_the_origin_to_the_output():
    visits = {2: visit(), 4: visit(2), 7: visit(4)}
    (trace,) = trace_nonfinite(visits, reaching_outputs=[7])
    assert (trace.origin, trace.value, trace.in_reference) == (2, "inf", False)
    assert trace.path == (2, 4, 7)


def test_the_path_leads_to_the_last_layer_that_an_output_shows():
    visits = {1: visit(), 2: visit(1), 3: visit(2), 4: visit(3)}
    (trace,) = trace_nonfinite(visits, reaching_outputs={1, 3})
    assert trace.path == (1, 2, 3)


def test_an_infinity_that_is_absorbed_is_left_out():
    assert trace_nonfinite({1: visit(), 2: visit(1)}, reaching_outputs=[]) == []
    assert trace_nonfinite({}, reaching_outputs=[3]) == []


def test_a_nan_is_told_even_if_no_output_shows_it():
    (trace,) = trace_nonfinite({1: visit(), 3: visit(1, nan=True)}, reaching_outputs=[])
    assert (trace.origin, trace.path) == (1, (1, 3))
    assert trace.value == "inf"


def test_origins_come_in_graph_order_each_with_its_own_path():
    visits = {5: visit(nan=True), 1: visit(in_reference=True), 6: visit(5, nan=True), 3: visit(1)}
    first, second = trace_nonfinite(visits, reaching_outputs=[3, 6])
    assert (first.origin, first.value, first.in_reference, first.path) == (1, "inf", True, (1, 3))
    assert (second.origin, second.value, second.path) == (5, "nan", (5, 6))


def test_a_parent_that_was_never_seen_makes_the_layer_an_origin():
    (trace,) = trace_nonfinite({4: visit(2)}, reaching_outputs=[4])
    assert (trace.origin, trace.path) == (4, (4,))
