"""BatchNormalization: when it is one scale, and what its layers compute otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan.batch_norm import is_folded
from tests.execution.numpy_emulation import half
from tests.models import build_model, node, normal, tensor
from tests.planned_runs import run_lowered

SHAPE = (2, 3, 4, 4)
PARAMETERS = {
    "scale": normal(1, 3) + np.float32(2),
    "bias": normal(2, 3),
    "mean": normal(3, 3, scale=0.3),
    "variance": np.square(normal(4, 3)) + np.float32(0.5),
}


def model_of(outputs=("y",), computed=(), **attributes):
    """Returns a model of one node; the parameters `computed` are fed."""
    weights = {name: values for name, values in PARAMETERS.items() if name not in computed}
    return build_model(
        [node("BatchNormalization", ["x", *PARAMETERS], *outputs, name="norm", **attributes)],
        [tensor("x", list(SHAPE)), *(tensor(name, [3]) for name in computed)],
        [tensor(outputs[0], list(SHAPE)), *(tensor(name, [3]) for name in outputs[1:])],
        weights,
    )


@pytest.mark.parametrize(
    ("model", "folded"),
    [
        pytest.param(model_of(), True, id="constants"),
        pytest.param(model_of(computed=("mean",)), False, id="a computed parameter"),
        pytest.param(model_of(training_mode=1), False, id="training"),
        pytest.param(model_of(("y", "m", "v"), training_mode=1), False, id="training, all outputs"),
    ],
)
def test_it_is_one_scale_where_its_parameters_are_constants(model, folded):
    graph = load_graph(model)

    assert is_folded(graph, graph.nodes[0]) is folded


def test_with_computed_parameters_every_step_is_rounded():
    x = normal(0, *SHAPE)

    found = run_lowered(model_of(computed=tuple(PARAMETERS)), {"x": x, **PARAMETERS})["y"]

    scale, bias, mean, variance = (
        half(values).reshape(1, 3, 1, 1) for values in PARAMETERS.values()
    )
    deviation = half(np.sqrt(half(variance + np.float32(1e-5))))
    quotient = half(half(half(x) - mean) / deviation)
    np.testing.assert_array_equal(found, half(half(scale * quotient) + bias))
