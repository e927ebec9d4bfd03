"""Composition of gains against closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.gain import NodeGains, output_gains

gains = st.floats(0.0, 100.0)


@given(st.lists(gains, min_size=1, max_size=8), st.floats(0.01, 10.0))
def test_gains_multiply_along_a_chain(factors, scale):
    nodes = [NodeGains({f"t{i}": gain}, (f"t{i + 1}",)) for i, gain in enumerate(factors)]
    squared = output_gains(nodes, {f"t{len(factors)}": scale})
    expected = scale
    for gain in factors:
        expected *= gain**2
    assert squared["t0"] == pytest.approx(expected)


def test_squares_add_up_where_a_tensor_is_read_twice():
    diamond = [
        NodeGains({"x": 2.0}, ("left",)),
        NodeGains({"x": 3.0}, ("right",)),
        NodeGains({"left": 5.0, "right": 7.0}, ("y",)),
    ]
    squared = output_gains(diamond, {"y": 1.0})
    assert squared["x"] == pytest.approx((2 * 5) ** 2 + (3 * 7) ** 2)


def test_an_output_that_is_read_again_counts_for_both():
    nodes = [NodeGains({"x": 2.0}, ("y",)), NodeGains({"y": 3.0}, ("z",))]
    squared = output_gains(nodes, {"y": 0.5, "z": 0.25})
    assert squared["y"] == pytest.approx(0.5 + 9 * 0.25)
    assert squared["x"] == pytest.approx(4 * (0.5 + 9 * 0.25))


def test_of_several_outputs_the_largest_counts_and_absent_ones_do_not():
    node = NodeGains({"x": 2.0}, ("a", "", "b"))
    assert output_gains([node], {"a": 1.0, "b": 9.0, "": 100.0})["x"] == pytest.approx(36.0)


def test_what_nobody_reads_has_no_gain():
    squared = output_gains([NodeGains({"x": 2.0}, ("unused",))], {"y": 1.0})
    assert squared["x"] == 0.0
    assert output_gains([NodeGains({"x": 2.0}, ())], {"y": 1.0})["x"] == 0.0
