"""Plans of quantised models: what is kept is in FP32, and all else goes through its pairs."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.plan import KeptLayers, Width
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import QDQ
from tests.pair_models import cnn, cnn_inputs, quantised


def test_the_layers_that_are_kept_are_those_in_fp32():
    graph = pass_pairs_by(load_graph(quantised(cnn(), cnn_inputs())), load_graph(cnn()))
    unit = graph.decisions[0]
    planner = planner_for(graph, QDQ)

    plan = planner.plan(KeptLayers.of_nodes(unit))

    assert plan.natives == {name: Width.FP32 for node in unit for name in node.outputs}
    assert plan.fp32_node_count == len(unit)
    assert planner.plan().fp32_node_count == 0


def test_pairs_of_a_graph_that_does_not_tell_them_apart_are_refused():
    quantized = load_graph(quantised(cnn(), cnn_inputs()))

    with pytest.raises(UserError, match="Give what `pass_pairs_by`"):
        planner_for(quantized, QDQ)
