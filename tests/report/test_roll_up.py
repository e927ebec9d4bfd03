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
        LayerGroup("MatMul", 2, 0.75, 0.4, 1),
        LayerGroup("Add", 1, 0.125, 0.1, 0),
        LayerGroup("Softmax", 1, 0.125, 0.05, 0),
    )


def test_shares_add_up_by_block():
    assert roll_up_by_block(LAYERS) == (
        LayerGroup("encoder", 2, 0.625, 0.3, 1),
        LayerGroup("", 2, 0.375, 0.4, 0),
    )


@pytest.mark.parametrize("roll_up", [roll_up_by_op, roll_up_by_block])
def test_the_order_of_layers_does_not_matter(roll_up):
    assert roll_up(LAYERS[::-1]) == roll_up(LAYERS)


def test_no_layers_make_no_groups():
    assert roll_up_by_op(()) == ()
