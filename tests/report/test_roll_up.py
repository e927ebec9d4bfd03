from __future__ import annotations

import pytest

from polygraphy_layerprec.report.roll_up import LayerGroup, roll_up_by_block, roll_up_by_op
from tests.rankings import make_layer

LAYERS = (
    make_layer(1, op="MatMul", block="encoder", share=0.5, impact=0.3, overflow=True),
    make_layer(2, op="Add", block="encoder", share=0.125, impact=0.1),
    make_layer(3, op="MatMul", block="", share=0.25, impact=0.4),
    make_layer(4, op="Softmax", block="", share=0.125, impact=0.05),
)


def test_shares_add_up_by_operator_the_largest_first():
    assert roll_up_by_op(LAYERS) == (
        LayerGroup("MatMul", 2, 0.75, 0.4, 1, lost="overflow"),
        LayerGroup("Add", 1, 0.125, 0.1, 0),
        LayerGroup("Softmax", 1, 0.125, 0.05, 0),
    )


def test_shares_add_up_by_block():
    assert roll_up_by_block(LAYERS) == (
        LayerGroup("encoder", 2, 0.625, 0.1, 1, lost="overflow"),
        LayerGroup("", 2, 0.375, 0.4, 0),
    )


def test_what_loses_values_comes_first_the_gravest_of_it():
    reading = {"overflow": True, "max_abs_input": 7e5, "max_abs": 1.0}
    layers = (
        make_layer(1, op="Conv", share=0.9, impact=0.3),
        make_layer(2, op="Sqrt", share=0.0, impact=1e-12, **reading),
        make_layer(3, op="Div", share=0.1, impact=0.1, keeps_finite=True),
        make_layer(4, op="Pow", share=0.0, impact=1e-12, overflow=True, overflow_count=3),
        make_layer(5, op="Pow", share=0.0, impact=1e-12, **reading),
    )

    groups = roll_up_by_op(layers)

    assert groups == (
        LayerGroup("Pow", 2, 0.0, 0.0, 1, reading_count=1, lost="overflow"),
        LayerGroup("Div", 1, 0.1, 0.0, 0, lost="NaN/Inf"),
        LayerGroup("Sqrt", 1, 0.0, 0.0, 0, reading_count=1, lost="reads overflow"),
        LayerGroup("Conv", 1, 0.9, 0.3, 0),
    )
    assert [group.share_says_nothing for group in groups] == [True, False, True, False]


@pytest.mark.parametrize("roll_up", [roll_up_by_op, roll_up_by_block])
def test_the_order_of_layers_does_not_matter(roll_up):
    assert roll_up(LAYERS[::-1]) == roll_up(LAYERS)


def test_no_layers_make_no_groups():
    assert roll_up_by_op(()) == ()
