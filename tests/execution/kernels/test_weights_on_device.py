"""Weights on a device, rounded as those on the host are."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from polygraphy_layerprec.execution.kernels.weights_in_use import WeightsInUse
from polygraphy_layerprec.execution.kernels.weights_on_device import WeightsOnDevice, weights_of
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.precision import FP16
from tests.models import build_model, node, tensor
from tests.standin_device import StandInDevice, on_standin_device


@pytest.mark.parametrize(
    ("device", "kind"), [(None, WeightsInUse), (StandInDevice(), WeightsOnDevice)]
)
@pytest.mark.parametrize("largest", ["first", "second"])
def test_the_largest_of_all_weights_is_told(device, kind, largest):
    values = {"first": np.array([2.0], np.float32), "second": np.array([2.0], np.float32)}
    values[largest] = np.array([-300.25, np.inf], np.float32)
    graph = load_graph(
        build_model(
            [node("Clip", ["x", "first", "second"], "y")],
            [tensor("x", [2])],
            [tensor("y", [2])],
            values,
        )
    )

    with on_standin_device(device) if device else contextlib.nullcontext():
        weights = weights_of(graph)
        weights.load(graph.nodes[0])
        changed, found = weights.round(FP16, {"first", "second"})

    assert isinstance(weights, kind)
    assert found == 300.25
    assert set(changed) <= {largest}
