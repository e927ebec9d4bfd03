"""Topology, roles and constants of a model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from polygraphy_layerprec.model import ModelError, Role, load_graph
from polygraphy_layerprec.model.names import block_of, unique_names
from polygraphy_layerprec.model.operators import Behavior, behavior_of, draws_random_numbers
from tests.models import (
    build_model,
    constant_nodes,
    loop_with_capture,
    node,
    normal,
    odd_names,
    optional_tensors,
    scalar,
    scan_with_capture,
    tensor,
    unsorted_nodes,
)

X, Y = [tensor("x", [2, 4])], [tensor("y", [2, 4])]


def test_nodes_come_after_what_they_read():
    graph = load_graph(unsorted_nodes())
    assert [n.name for n in graph.nodes] == ["first", "second", "third"]
    assert [n.index for n in graph.nodes] == [0, 1, 2]
    assert graph.producers["b"].name == "second"
    assert [n.name for n in graph.consumers["a"]] == ["second", "third"]


def test_nodes_that_may_run_in_any_order_keep_the_one_of_the_file():
    nodes = [node("Tanh", ["x"], f"t{i}", name=f"n{i}") for i in range(20)]
    nodes.append(node("Sum", [f"t{i}" for i in range(20)], "y", name="sum"))
    graph = load_graph(build_model(nodes, X, Y))
    assert [n.name for n in graph.nodes] == [f"n{i}" for i in range(20)] + ["sum"]


@pytest.mark.parametrize(
    ("build", "name", "captures"),
    [
        (loop_with_capture, "repeat", ("h", "half")),
        (scan_with_capture, "recur", ("gate",)),
    ],
)
def test_subgraphs_capture_outer_tensors(build, name, captures):
    graph = load_graph(build())
    found = next(n for n in graph.nodes if n.name == name)
    assert found.captures == captures
    assert set(captures) <= set(found.sources)


def test_a_body_may_hand_an_outer_tensor_to_its_output():
    branches = {
        f"{side}_branch": helper.make_graph([], side, [], [tensor("h", [2, 4])])
        for side in ("then", "else")
    }
    nodes = [node("Tanh", ["x"], "h"), node("If", ["go"], "y", name="if", **branches)]
    graph = load_graph(build_model(nodes, [*X, tensor("go", [], TensorProto.BOOL)], Y))
    assert graph.nodes[1].branches == (("h",), ("h",))
    assert graph.nodes[1].sources == ("go", "h")


def test_constant_nodes_are_weights_and_what_follows_from_them_is_folded():
    graph = load_graph(constant_nodes())
    assert set(graph.weights) == {"weight", "shift", "shape"}
    assert graph.weights["shape"].read().dtype == np.int64
    assert graph.weights["shift"].read() == np.float32(0.25)
    assert graph.weights["shift"].shape == ()
    roles = {n.name: n.role for n in graph.nodes}
    assert roles["filled"] is Role.FOLDED
    assert roles["product"] is roles["unchanged"] is Role.LAYER
    assert graph.weight_bytes == 4 * 12 + 4 + 8


def test_text_constants_run_as_nodes():
    nodes = [
        node("Constant", [], "text", value_string=b"abc"),
        node("Tanh", ["x"], "y"),
    ]
    graph = load_graph(build_model(nodes, X, Y))
    assert [n.op_type for n in graph.nodes] == ["Constant", "Tanh"]


def test_what_only_moves_values_is_exact():
    nodes = [
        node("Transpose", ["x"], "t", name="move"),
        node("Relu", ["t"], "r", name="choose"),
        node("ScatterND", ["r", "i", "u"], "s0", name="place", reduction="none"),
        node("ScatterND", ["s0", "i", "u"], "s1", name="add", reduction="add"),
        node("Exp", ["s1"], "y", name="compute"),
    ]
    weights = {"i": np.array([[0]], np.int64), "u": normal(0, 1, 2)}
    graph = load_graph(build_model(nodes, X, [tensor("y", [4, 2])], weights))
    exact, layer = Role.EXACT, Role.LAYER
    assert [n.role for n in graph.nodes] == [exact, exact, exact, layer, layer]
    assert graph.nodes[2].attributes == {"reduction": "none"}
    assert graph.nodes[2].block == ""


def test_operators_of_other_domains_always_compute():
    assert behavior_of("Relu", "ai.onnx") is behavior_of("Relu", "") is Behavior.CHOOSES
    assert behavior_of("Relu", "vendor") is Behavior.COMPUTES
    assert draws_random_numbers(node("RandomNormalLike", ["x"], "y"))
    foreign = helper.make_node("RandomNormalLike", ["x"], ["y"], domain="vendor")
    assert not draws_random_numbers(foreign)
    assert not draws_random_numbers(node("Add", ["x", "x"], "y"))


def test_absent_inputs_and_outputs_are_empty_names():
    graph = load_graph(optional_tensors())
    clip, norm, _ = graph.nodes
    assert clip.inputs == ("x", "", "ceiling")
    assert clip.sources == ("x", "ceiling")
    assert norm.outputs == ("normal", "", "inverse_deviation")


def test_every_layer_has_a_name_of_its_own():
    names = [n.name for n in load_graph(odd_names()).nodes]
    assert len(set(names)) == len(names)
    assert names[:4] == ["Mul:t0", "Add:t1", "twin:t2", "twin:t3"]


def test_a_name_that_looks_made_up_does_not_collide():
    rows = [("Mul:a", "Add", ["b"]), ("", "Mul", ["a"]), ("", "Loop", ["", "c"]), ("", "If", [])]
    names = unique_names(rows)
    assert len(set(names)) == 4
    assert names[0] == "Mul:a"
    assert names[2] == "Loop:c"
    assert unique_names([("", "Print", [])] * 3) == ["Print:", "Print:_2", "Print:_3"]


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("/encoder/layer.3/attention/query/MatMul", "encoder/layer.3"),
        ("/model/blocks/MatMul", "model/blocks"),
        ("/a/b/c/d/Add", "a/b"),
        ("Conv_17", ""),
        ("", ""),
        ("layer1/conv/Conv", "layer1"),
    ],
)
def test_the_block_is_the_path_to_the_first_number(name, block):
    assert block_of(name) == block


def test_inputs_are_described():
    inputs = [
        tensor("x", ["batch", 4, 0]),
        tensor("ids", [1], TensorProto.INT64),
        tensor("any", None),
        tensor("w", [4]),
    ]
    nodes = [node("Mul", ["x", "w"], "y")]
    x, ids, anything = load_graph(build_model(nodes, inputs, Y, {"w": normal(0, 4)})).inputs
    assert (x.name, x.dtype, x.shape) == ("x", np.float32, ("batch", 4, None))
    assert (ids.dtype, ids.shape) == (np.int64, (1,))
    assert anything.shape is None


def broken(case):
    nodes = [node("Tanh", ["x"], "y")]
    inputs, outputs = X, Y
    if case == "Nothing makes the tensor 'gone'":
        nodes = [node("Add", ["x", "gone"], "y")]
    elif case == "Two nodes write the tensor 'y'":
        nodes *= 2
    elif case == "Two nodes write the tensor 'x'":
        nodes = [node("Tanh", ["x"], "x")]
    elif case == "cycle":
        nodes = [node("Add", ["x", "b"], "a"), node("Tanh", ["a"], "b"), node("Tanh", ["a"], "y")]
    elif case == "Nothing makes these outputs of the model: ['z']":
        outputs = [tensor("z", [2])]
    elif case == "The model has no outputs.":
        outputs = []
    elif case == "not a tensor but a sequence_type":
        kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))
        inputs = [*X, helper.make_value_info("s", kind)]
    elif case == "The Constant node '' has 0 outputs, not 1":
        nodes = [node("Constant", [], value_float=1.0), *nodes]
    return build_model(nodes, inputs, outputs)


@pytest.mark.parametrize(
    "case",
    [
        "Nothing makes the tensor 'gone'",
        "Two nodes write the tensor 'y'",
        "Two nodes write the tensor 'x'",
        "cycle",
        "Nothing makes these outputs of the model: ['z']",
        "The model has no outputs.",
        "not a tensor but a sequence_type",
        "The Constant node '' has 0 outputs, not 1",
    ],
)
def test_a_graph_that_is_none_says_what_is_wrong(case):
    with pytest.raises(ModelError) as raised:
        load_graph(broken(case))
    assert case in str(raised.value)


@pytest.mark.parametrize("name", ["c", "w", "x"])
def test_a_constant_that_writes_what_is_there_already_is_told(name):
    constants = [node("Constant", [], made, value_float=1.0) for made in ("c", name)]
    nodes = [*constants, node("Sum", ["x", "c", "w"], "y")]

    with pytest.raises(ModelError, match=f"Two nodes write the tensor '{name}'"):
        load_graph(build_model(nodes, X, Y, {"w": scalar(2.0)}))


def test_attributes_come_as_python_values():
    attributes = {
        "i": 3,
        "f": 0.5,
        "s": "text",
        "ints": [1, 2],
        "strings": ["a", "b"],
        "t": onnx.numpy_helper.from_array(scalar(2.0)),
    }
    made = helper.make_node("Custom", ["x"], ["y"], domain="vendor", **attributes)
    found = load_graph(build_model([made], X, Y, domains=["vendor"])).nodes[0].attributes
    assert found["t"] == np.float32(2.0)
    assert {key: found[key] for key in attributes if key != "t"} == {
        key: attributes[key] for key in attributes if key != "t"
    }


def test_a_damaged_attribute_is_told():
    made = helper.make_node(
        "Custom", ["x"], ["y"], domain="vendor", t=helper.make_tensor("", 1, [1], [1])
    )
    made.attribute[0].t.data_type = 0
    graph = load_graph(build_model([made], X, Y, domains=["vendor"]))
    with pytest.raises(ModelError, match="attribute of node"):
        _ = graph.nodes[0].attributes


def test_an_opset_that_is_not_declared_is_the_first():
    graph = load_graph(unsorted_nodes())
    assert graph.opset() == 17
    assert graph.opset("vendor") == 1
