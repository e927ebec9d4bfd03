"""What becomes of an error in a quantizer, against counting."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from polygraphy_layerprec.execution.kernels.node_session import tensor_of
from polygraphy_layerprec.execution.probes.step_gain import step_gain
from polygraphy_layerprec.model import load_graph
from tests.models import build_model, tensor

VALUES = np.linspace(-3.0, 3.0, 1000, dtype=np.float32)


def node_of(op_type, *more, outputs=("y",)):
    made = helper.make_node(op_type, ["x", *more], outputs)
    model = build_model(
        [made], [tensor("x", [1000])], [tensor("y", None)], {n: np.float32(1) for n in more}
    )
    return load_graph(model).nodes[0]


def tensors(**arrays):
    return {name: tensor_of(np.asarray(array)) for name, array in arrays.items()}


def gain_of(op_type, before, after, made, moved, **more):
    constants = tensors(**more)
    return step_gain(
        node_of(op_type, *more),
        {**tensors(x=before), **constants},
        {**tensors(x=after), **constants},
        [tensor_of(made)],
        [tensor_of(moved)],
    )


@pytest.mark.parametrize("step", [0.01, 0.03, 0.1])
def test_the_gain_is_the_root_of_step_over_error(step):
    """Of values at even distances, a share of error / step changes, each by a step."""
    error = np.float32(1e-3)
    scale = np.float32(step)
    made, moved = (np.round(v / scale).astype(np.int16) for v in (VALUES, VALUES + error))

    gain = gain_of("QuantizeLinear", VALUES, VALUES + error, made, moved, s=scale)

    changed = np.count_nonzero(made != moved)
    assert gain == pytest.approx(np.sqrt(changed * step**2 / (1000 * 1e-6)), rel=1e-2)
    assert gain == pytest.approx(np.sqrt(step / error), rel=0.2)


def test_rounding_to_integers_has_a_step_of_one():
    moved = VALUES + np.float32(0.25)

    gain = gain_of("Round", VALUES, moved, np.round(VALUES), np.round(moved))

    assert gain == pytest.approx(2.0, rel=0.1)


def test_errors_beyond_a_step_and_what_is_clipped_leave_as_they_came():
    far = VALUES + np.float32(50)
    rounded = np.round(VALUES), np.round(far)

    assert gain_of("Round", VALUES, far, *rounded) == pytest.approx(1.0, abs=1e-3)
    clipped = np.full(1000, 127, np.int8)
    scale = np.float32(1e-6)
    assert gain_of("QuantizeLinear", VALUES, far, clipped, clipped, s=scale) == 1.0


def test_without_an_error_or_a_quantizer_there_is_no_gain():
    same = tensors(x=VALUES)
    made = tensor_of(np.round(VALUES))

    assert step_gain(node_of("Round"), same, same, [made], [made]) == 1.0
    assert step_gain(node_of("Exp"), same, tensors(x=VALUES + 1), [made], [made]) == 1.0


def test_each_side_of_a_dynamic_quantizer_has_its_own_scale():
    names = ["y", "scale", "zero"]
    moved = VALUES * np.float32(1.01)  # the scale moves along, and no integer changes
    integers = np.round(VALUES * 40 + 128).astype(np.uint8)
    sides = [
        [tensor_of(integers), tensor_of(np.float32(scale)), tensor_of(np.uint8(128))]
        for scale in (0.025, 0.02525)
    ]

    gain = step_gain(
        node_of("DynamicQuantizeLinear", outputs=names), tensors(x=VALUES), tensors(x=moved), *sides
    )

    assert gain == pytest.approx(1.0, abs=1e-2)
