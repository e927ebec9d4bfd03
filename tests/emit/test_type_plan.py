"""Which layers of a network depend on constants alone, with the real parser."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.emit.network_view import NetworkView
from polygraphy_layerprec.emit.type_plan import _find_folded
from tests.emit.networks import make_model

pytestmark = pytest.mark.trt


def test_what_a_loop_takes_of_a_constant_is_another_in_each_iteration(tensorrt):
    model = make_model(
        """(float[4] x) => (float[4] y, float[3,4] ys) {
            doubled = Add (w, w)
            y, ys = Scan <num_scan_inputs=1, body = step (float[4] state, float[4] row)
                => (float[4] next, float[4] out) {
                next = Add (state, row)
                out = Mul (row, row)
            }> (x, doubled)
        }""",
        "w[3,4]",
    )
    parsed = tensorrt.parse(model)
    view = NetworkView(parsed.network, tensorrt.module)

    folded = {layer.kind for layer in _find_folded(view)}

    assert "ITERATOR" in {layer.kind for layer in view.layers}
    assert "ELEMENTWISE" in folded
    assert "ITERATOR" not in folded
