"""A layer that cancels a large term stands beside that term: one is of no use without the other."""

from __future__ import annotations

import math

import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.ranking.order import _urgencies
from tests.models import build_model, node, normal, sample_inputs, scalar, tensor
from tests.rankings import make_layer


def shifted(*between, restored_from="up"):
    nodes = [
        node("MatMul", ["x", "w0"], "a", name="in"),
        node("Tanh", ["a"], "b", name="tanh"),
        node("Add", ["b", "offset"], "up", name="up"),
        *between,
        node("Sub", [restored_from, "offset"], "down", name="down"),
        node("MatMul", ["down", "w1"], "c", name="middle"),
        node("Exp", ["c"], "d", name="exp"),
        node("MatMul", ["d", "w2"], "y", name="out"),
    ]
    weights = {f"w{i}": normal(i, 8, 8, scale=0.3) for i in range(3)}
    weights["offset"] = scalar(400.0)
    return build_model(nodes, [tensor("x", [16, 8])], [tensor("y", [16, 8])], weights)


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
@pytest.mark.parametrize("through", ["", "Identity"])
def test_both_layers_of_a_pair_are_adjacent_at_the_top(impact, through):
    model = shifted(
        *([node(through, ["up"], "moved", name="move")] if through else []),
        restored_from="moved" if through else "up",
    )

    ranking = rank_model(model, [sample_inputs(model)], impact=impact)

    assert [layer.name for layer in ranking.layers[:2]] == ["up", "down"]
    assert ranking.layers[1].kind == "cancellation"
    assert ranking.layers[0].share > 0.9


def term(**changes):
    settings = {"impact": 0.5, "weight_share": 0.36, "readers": (("down", 0.25), ("other", 0.75))}
    return make_layer(1, "up", **{**settings, **changes})


def test_a_cancellation_is_as_urgent_as_what_of_its_term_passes_through_it():
    down = make_layer(2, "down", impact=0.01, kind="cancellation")
    other = make_layer(3, "other", impact=0.02)

    urgencies = _urgencies([term(), down, other])

    # Of a squared impact of 0.25, 64 % is rounding of the output, and a quarter of that enters.
    expected = math.sqrt(0.25 * 0.64 * 0.25)
    assert urgencies == {"up": 0.5, "down": pytest.approx(expected), "other": 0.02}


def test_a_cancellation_that_matters_more_than_its_terms_keeps_its_own_impact():
    down = make_layer(2, "down", impact=0.9, kind="cancellation")

    assert _urgencies([down, term()])["down"] == 0.9


def test_of_several_terms_the_worst_counts():
    down = make_layer(3, "down", impact=0.0, kind="cancellation")
    small = term(impact=0.1, weight_share=0.0, readers=(("down", 1.0),))
    large = make_layer(2, "large", impact=0.2, weight_share=0.0, readers=(("down", 1.0),))

    assert _urgencies([small, large, down])["down"] == pytest.approx(0.2)


def test_readers_of_other_kinds_are_not_moved():
    assert _urgencies([term(), make_layer(2, "down", impact=0.01)])["down"] == 0.01
