"""The float graph of a quantised model is compared with the reference that was named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.comparison.reference_check import (
    _relative_error,
    check_against_reference,
)
from polygraphy_layerprec.execution.kernels.plain_session import PlainSession
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from tests.model_parts import normal
from tests.pair_models import mlp, mlp_inputs, quantised

pytestmark = pytest.mark.onnxrt


@pytest.fixture
def compared(tmp_path):
    """Returns a graph with its reference, a sample, and what the reference gives for it."""
    reference, sample = mlp(), mlp_inputs()
    path = str(tmp_path / "float.onnx")
    onnx.save(reference, path)
    quantized = load_graph(quantised(reference, sample))
    graph = pass_pairs_by(quantized, load_graph(path), reference_path=path)
    return graph, sample, PlainSession(path).run(sample)


def test_what_the_reference_gives_passes(compared):
    graph, sample, outputs = compared

    check_against_reference(graph, sample, outputs)


@pytest.mark.parametrize("factor", [1.011, -1.0])
def test_what_differs_by_more_than_a_hundredth_is_refused(compared, factor):
    graph, sample, outputs = compared
    others = {name: values * np.float32(factor) for name, values in outputs.items()}

    with pytest.raises(ExecutionError, match="was not made of the reference"):
        check_against_reference(graph, sample, others)


def with_reference(quantized, reference, path):
    onnx.save(reference, path)
    return pass_pairs_by(load_graph(quantized), load_graph(path), reference_path=str(path))


def test_constants_that_mean_something_else_are_refused(tmp_path):
    other = mlp()
    for constant in other.graph.initializer:
        constant.CopyFrom(numpy_helper.from_array(normal(9, *constant.dims), constant.name))
    graph = with_reference(quantised(mlp(), mlp_inputs()), other, tmp_path / "float.onnx")
    outputs = PlainSession(str(tmp_path / "float.onnx")).run(mlp_inputs())

    with pytest.raises(ExecutionError, match="constant 'wq_quantized' does not stand for"):
        check_against_reference(graph, mlp_inputs(), outputs)


def test_constants_that_are_clipped_to_their_signs_pass(tmp_path):
    model = quantised(mlp(), mlp_inputs(), granularity="tensor")
    for constant in model.graph.initializer:
        if constant.name == "wq_quantized":
            signs = 127 * np.sign(numpy_helper.to_array(constant))
            constant.CopyFrom(numpy_helper.from_array(signs.astype(np.int8), constant.name))
    graph = with_reference(model, mlp(), tmp_path / "float.onnx")

    check_against_reference(
        graph, mlp_inputs(), PlainSession(str(tmp_path / "float.onnx")).run(mlp_inputs())
    )


def test_what_quantises_in_the_float_graph_too_may_make_it_differ(tmp_path):
    model = quantised(mlp(), mlp_inputs(), granularity="tensor", ops={"MatMul"})
    for constant in model.graph.initializer:
        if constant.name == "r_zero":  # UINT8 is not ranked
            constant.CopyFrom(numpy_helper.from_array(np.uint8(128), constant.name))
    graph = with_reference(model, mlp(), tmp_path / "float.onnx")
    outputs = PlainSession(str(tmp_path / "float.onnx")).run(mlp_inputs())

    check_against_reference(graph, mlp_inputs(), {"y": outputs["y"] * np.float32(1.1)})


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        ([3, 4], [3, 4.5], 0.1),
        ([3, 4, np.inf], [3, 4.5, np.inf], 0.1),
        ([3, 4, 1e9], [3, 4.5, np.nan], 0.1),
        ([3, 4, -np.inf], [3, 4.5, 7], 0.1),
        ([0, 0], [0, 0], 0.0),
        ([0, 0], [0, 1e-9], 1.0),
        ([1, 2], [1, 2, 3], np.inf),
    ],
)
def test_the_error_is_that_of_what_is_finite_in_both(expected, found, error):
    values = (np.array(each, np.float32) for each in (expected, found))

    assert _relative_error(*values) == pytest.approx(error)
