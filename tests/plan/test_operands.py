"""Which operands a lowered node has in low precision, read off ONNX's schemas by hand."""

from __future__ import annotations

import onnx
import pytest

from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan.operands import network_operands, schema_operands
from polygraphy_layerprec.precision import BF16, FP16
from tests.models import build_model, node, tensor


def graph_of(op_type, inputs, outputs, **attributes):
    return load_graph(
        build_model(
            [node(op_type, list(inputs), *outputs, **attributes)],
            [tensor(name, shape) for name, shape in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
        )
    )


@pytest.mark.parametrize(
    ("op_type", "inputs", "outputs", "expected"),
    [
        pytest.param("Add", {"a": [2], "b": [2]}, ["y"], ({0, 1}, {0}), id="one type"),
        pytest.param("ArgMax", {"a": [2]}, ["y"], ({0}, set()), id="integers"),
        pytest.param("RandomNormalLike", {"a": [2]}, ["y"], (set(), {0}), id="a type of its own"),
    ],
)
def test_an_output_is_low_where_its_schema_lets_it(op_type, inputs, outputs, expected):
    graph = graph_of(op_type, inputs, outputs)

    found = schema_operands(graph, graph.nodes[0], FP16, 17)

    assert (found.inputs, found.outputs) == expected


@pytest.mark.parametrize(("precision", "inputs"), [(FP16, {0, 1}), (BF16, set())])
def test_operands_are_low_only_where_the_schema_has_the_precision(precision, inputs):
    graph = graph_of("Conv", {"x": [1, 1, 4, 4], "w": [1, 1, 3, 3]}, ["y"])

    assert schema_operands(graph, graph.nodes[0], precision, 17).inputs == inputs


def test_every_output_of_a_layer_is_low_but_last_states():
    split = graph_of("Split", {"a": [2, 4]}, ["x", "y"], axis=1)
    inputs = {"x": [3, 1, 2], "w": [1, 4, 2], "r": [1, 4, 1]}
    lstm = graph_of("LSTM", inputs, ["y", "h", "c"], hidden_size=1)

    assert network_operands(split, split.nodes[0]).outputs == {0, 1}
    assert network_operands(lstm, lstm.nodes[0]).outputs == {0}


@pytest.mark.skipif(not onnx.defs.has("LinearAttention"), reason="needs an ONNX that has it")
def test_a_state_that_is_not_given_is_of_the_type_of_the_output():
    version = onnx.defs.get_schema("LinearAttention").since_version
    heads = {"q_num_heads": 2, "kv_num_heads": 2}
    names = ("query", "key", "value")
    graph = load_graph(
        build_model(
            [node("LinearAttention", names, "y", "state", **heads)],
            [tensor(name, [1, 3, 8]) for name in names],
            [tensor("y", [1, 3, 8]), tensor("state", [1, 2, 4, 4])],
            opset=version,
        )
    )

    assert schema_operands(graph, graph.nodes[0], FP16, version).outputs == {0, 1}
