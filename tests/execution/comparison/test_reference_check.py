"""The float graph of a quantised model is compared with the reference that was named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.comparison.reference_check import (
    _relative_error,
    check_against_reference,
)
from polygraphy_layerprec.execution.kernels.plain_session import PlainSession
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
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
