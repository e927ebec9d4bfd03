"""Which layers an error passes through on its way, against closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.gain import NodeGains, reader_shares

gains = st.floats(0.1, 10.0)


def test_along_a_chain_the_next_layer_takes_all():
    chain = [NodeGains({f"t{i}": 2.0}, (f"t{i + 1}",), i) for i in range(3)]

    shares = reader_shares(chain, {"t3": 0.5})

    assert shares == {"t0": {0: 1.0}, "t1": {1: 1.0}, "t2": {2: 1.0}, "t3": {}}


def test_in_a_diamond_readers_share_as_their_squared_gains():
    diamond = [
        NodeGains({"x": 2.0}, ("left",), 0),
        NodeGains({"x": 3.0}, ("right",), 1),
        NodeGains({"left": 5.0, "right": 7.0}, ("y",), 2),
    ]

    shares = reader_shares(diamond, {"y": 1.0})

    left, right = (2 * 5) ** 2, (3 * 7) ** 2
    assert shares["x"] == {
        0: pytest.approx(left / (left + right)),
        1: pytest.approx(right / (left + right)),
    }


def test_what_goes_straight_to_an_output_is_missing():
    nodes = [NodeGains({"y": 3.0}, ("z",), 0)]

    assert reader_shares(nodes, {"y": 1.0, "z": 1.0})["y"] == {0: pytest.approx(0.9)}


def test_what_only_moves_values_stands_for_the_layers_behind_it():
    nodes = [
        NodeGains({"x": 1.0}, ("moved",)),
        NodeGains({"moved": 2.0}, ("a",), 1),
        NodeGains({"moved": 4.0}, ("b",), 2),
        NodeGains({"x": 1.0}, ("c",), 3),
    ]

    shares = reader_shares(nodes, {"a": 1.0, "b": 1.0, "c": 1.0})

    assert shares["x"] == {
        1: pytest.approx(4 / 21),
        2: pytest.approx(16 / 21),
        3: pytest.approx(1 / 21),
    }


def test_what_moves_values_to_an_output_goes_straight_there():
    nodes = [NodeGains({"x": 1.0}, ("y",)), NodeGains({"x": 1.0}, ("z",), 1)]

    assert reader_shares(nodes, {"y": 3.0, "z": 1.0})["x"] == {1: pytest.approx(0.25)}


def test_what_reaches_no_output_has_no_readers():
    nodes = [NodeGains({"x": 1.0}, ("unused",), 0), NodeGains({"x": 2.0}, (), 1)]

    assert reader_shares(nodes, {"y": 1.0})["x"] == {}


def test_an_absent_output_is_no_output():
    nodes = [NodeGains({"x": 2.0}, ("", "a"), 0), NodeGains({"x": 1.0}, ("b",), 1)]

    shares = reader_shares(nodes, {"": 100.0, "a": 1.0, "b": 1.0})

    assert shares["x"] == {0: pytest.approx(0.8), 1: pytest.approx(0.2)}


@given(st.lists(st.tuples(gains, st.booleans(), gains), min_size=1, max_size=6))
def test_shares_add_up_to_one_where_no_output_is_read_on(branches):
    nodes = []
    for index, (inner, moves, outer) in enumerate(branches):
        nodes.append(NodeGains({"x": inner}, (f"m{index}",), None if moves else 2 * index))
        nodes.append(NodeGains({f"m{index}": outer}, (f"y{index}",), 2 * index + 1))

    shares = reader_shares(nodes, {f"y{index}": 1.0 for index in range(len(branches))})["x"]

    assert sum(shares.values()) == pytest.approx(1.0)
    assert set(shares) == {2 * i + (1 if moves else 0) for i, (_, moves, _) in enumerate(branches)}
