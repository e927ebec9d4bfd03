"""Counting layers by their types agrees with counting what a ranking measures."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.layer_count import count_layers
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import rank_model
from tests.emit.onnx_zoo import ZOO, feeds

pytestmark = pytest.mark.onnxrt

UNMEASURABLE = {"foreign local function", "optional"}
"""Models with operators that ONNX-Runtime cannot run by themselves."""


@pytest.mark.parametrize("case", sorted(ZOO.keys() - UNMEASURABLE))
def test_all_layers_that_are_ranked_are_counted_and_no_others(case):
    model = ZOO[case]()

    ranking = rank_model(model, [feeds(model)], impact="gain")

    assert ranking.unmeasured == ()
    assert count_layers(load_graph(model)) == len(ranking.layers)


def test_a_layer_of_unknown_type_counts():
    model = ZOO["contributed operator"]()
    model.graph.node[1].domain = "vendor"
    model.opset_import.add(domain="vendor", version=1)

    assert count_layers(load_graph(model)) == 3
