"""Gains across quantization, where a run says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.rules import Application
from polygraphy_layerprec.execution.kernels.node_session import tensor_of
from polygraphy_layerprec.execution.probes.error_paths import NodePaths
from polygraphy_layerprec.execution.probes.integer_gains import _like_values, gains_by_rule
from polygraphy_layerprec.model import load_graph
from tests.foreign_arrays import ForeignArray, foreign_arrays
from tests.models import build_model, node, scalar, tensor

INT8 = 3
FLOATS = np.linspace(-1.0, 1.0, 64, dtype=np.float32)


def gains(steps, integers):
    """Gains of `DequantizeLinear`, of integers that stand for floats, with a scale of 0.25."""
    model = build_model(
        [node("DequantizeLinear", ["q", "scale"], "y")],
        [tensor("q", [64], INT8)],
        [tensor("y", [64])],
        {"scale": scalar(0.25)},
    )
    tensors = {"q": integers, "scale": np.float32(0.25), "y": FLOATS}
    paths = NodePaths(frozenset({0}), frozenset(), {}, steps)
    placed = {name: tensor_of(np.asarray(values)) for name, values in tensors.items()}
    return gains_by_rule(load_graph(model).nodes[0], paths, placed)


def test_integers_of_one_kind_are_enough_to_need_the_rule():
    assert gains("", np.arange(64, dtype=np.int8)) == {"q": pytest.approx(0.25)}


def test_between_floats_a_run_says_as_much():
    assert gains("", FLOATS) == {}


def test_the_probe_lies_where_any_of_the_floats_does():
    with foreign_arrays():
        application = Application(
            op_type="Mul",
            opset=17,
            attributes={},
            inputs=[np.ones(2, np.float32), ForeignArray(np.ones(2, np.float32))],
            outputs=[],
            input_shapes=[(2,), (2,)],
            output_shapes=[(2,)],
            wanted=frozenset({1}),
        )

        moved = _like_values(np.ones(2, np.float32), application)

    assert isinstance(moved, ForeignArray)
