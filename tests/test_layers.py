"""Every layer of a graph is in its ranking, measured or named as unmeasured."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.model import Role, load_graph
from polygraphy_layerprec.pipeline import rank_model
from tests.emit.onnx_zoo import ZOO, feeds
from tests.models import custom_domain, sample_inputs

pytestmark = pytest.mark.onnxrt


@pytest.mark.parametrize("case", sorted({*ZOO} - {"optional"}))
def test_every_layer_is_ranked_or_named_as_unmeasured(case):
    model = ZOO[case]()
    layers = {layer.name for layer in load_graph(model).layers}

    ranking = rank_model(model, [feeds(model)], impact="gain")

    ranked = [layer.name for layer in ranking.layers]
    unmeasured = {layer.name for layer in ranking.unmeasured}
    assert len(ranked) == len(set(ranked))
    assert set(ranked) <= layers
    assert layers <= {*ranked, *unmeasured}
    assert unmeasured.isdisjoint(ranked)


def test_an_output_that_cannot_be_computed_judges_no_layer():
    model = ZOO["optional"]()

    with pytest.raises(ExecutionError, match="fail is 'OptionalGetElement:surely'"):
        rank_model(model, [feeds(model)], impact="gain")


def test_a_node_that_nobody_can_type_is_no_layer_but_named():
    model = custom_domain()

    ranking = rank_model(model, [sample_inputs(model)], impact="gain")

    graph = load_graph(model)
    assert {n.name: n.role for n in graph.nodes}["plugin"] is Role.APART
    assert {layer.name for layer in ranking.unmeasured} == {"plugin", "after"}
    assert {layer.name for layer in ranking.layers} == {"before"}
