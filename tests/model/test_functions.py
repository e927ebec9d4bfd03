"""Local functions: every call expanded under its path, with the meaning that ONNX gives it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from polygraphy_layerprec.model import ModelError, load_graph
from tests.eager_models import eager_model, run_whole
from tests.function_models import SAMPLE, TANH, X, call, function, model_of
from tests.models import local_function, node, normal, scalar, tensor

pytestmark = pytest.mark.onnxrt

STATE = [
    tensor("i", [], TensorProto.INT64),
    tensor("go_in", [], TensorProto.BOOL),
    tensor("state", [2, 4]),
]


def refers(made, attribute, parameter, kind):
    made.attribute.add(name=attribute, ref_attr_name=parameter, type=kind)
    return made


def assert_computes_the_same(model, sample=SAMPLE):
    graph = load_graph(model)
    flat = run_whole(eager_model(graph), sample)
    for name, expected in run_whole(model, sample).items():
        np.testing.assert_array_equal(flat[name], expected)
    return graph


def test_each_call_has_layers_and_tensors_of_its_own():
    graph = assert_computes_the_same(local_function())

    assert [n.name for n in graph.nodes] == [
        "first/inner/Mul",
        "first/inner/Tanh",
        "second/inner/Mul",
        "second/inner/Tanh",
    ]
    assert [n.outputs for n in graph.nodes] == [
        ("first/scaled",),
        ("h",),
        ("second/scaled",),
        ("y",),
    ]
    assert graph.nodes[3].trace == ("inner/Tanh", "second (ScaledTanh)")
    assert graph.nodes[3].path == ("second (ScaledTanh)",)
    assert all(graph.is_fp32(name) for n in graph.nodes for name in n.outputs)


def test_calls_within_calls_have_the_path_of_both():
    outer = function(
        "Twice",
        ["a"],
        ["c"],
        [call("Tanh2", ["a"], "b", name="once"), call("Tanh2", ["b"], "c", name="again")],
    )
    graph = assert_computes_the_same(
        model_of([call("Twice", ["x"], "y", name="top")], [TANH, outer])
    )

    assert [n.name for n in graph.nodes] == ["top/once/tanh", "top/again/tanh"]
    assert graph.nodes[1].trace == ("tanh", "again (Tanh2)", "top (Twice)")
    assert graph.nodes[0].outputs == ("top/b",)


def test_calls_without_a_name_are_called_by_what_they_make():
    graph = load_graph(model_of([call("Tanh2", ["x"], "y")], [TANH]))

    assert graph.nodes[0].trace == ("tanh", "node_of_y (Tanh2)")
    assert graph.nodes[0].name == "node_of_y/tanh"


def test_two_calls_of_one_name_are_told_apart():
    nodes = [call("Tanh2", ["x"], "h", name="c"), call("Tanh2", ["h"], "y", name="c")]
    body = [node("Abs", ["a"], "mid"), node("Tanh", ["mid"], "b", name="tanh")]
    model = model_of(nodes, [function("Tanh2", ["a"], ["b"], body)])

    graph = load_graph(model)  # ONNX-Runtime refuses two nodes of one name

    assert len({n.name for n in graph.nodes}) == 4
    assert len({name for n in graph.nodes for name in n.outputs}) == 4
    for one in model.graph.node:
        one.name = ""
    expected = run_whole(model, SAMPLE)["y"]
    np.testing.assert_array_equal(run_whole(eager_model(graph), SAMPLE)["y"], expected)


@pytest.mark.parametrize(("given", "expected"), [({}, 0.25), ({"slope": 0.5}, 0.5)])
def test_attributes_come_from_the_call_or_from_the_default(given, expected):
    body = [refers(node("LeakyRelu", ["a"], "b"), "alpha", "slope", onnx.AttributeProto.FLOAT)]
    leaky = function("Leaky", ["a"], ["b"], body, defaults=[helper.make_attribute("slope", 0.25)])
    graph = assert_computes_the_same(model_of([call("Leaky", ["x"], "y", **given)], [leaky]))

    assert graph.nodes[0].attributes == {"alpha": expected}


def test_an_attribute_that_no_call_gives_is_the_operators_own_default():
    body = [refers(node("LeakyRelu", ["a"], "b"), "alpha", "slope", onnx.AttributeProto.FLOAT)]
    leaky = function("Leaky", ["a"], ["b"], body, attributes=["slope"])
    graph = assert_computes_the_same(model_of([call("Leaky", ["x"], "y")], [leaky]))

    assert graph.nodes[0].attributes == {}


def test_attributes_are_handed_on_from_call_to_call_and_into_branches():
    kind = onnx.AttributeProto.FLOAT
    inner = function(
        "Leaky",
        ["a"],
        ["b"],
        [refers(node("LeakyRelu", ["a"], "b"), "alpha", "slope", kind)],
        attributes=["slope"],
    )
    then = refers(call("Leaky", ["a"], "t", name="leaky"), "slope", "steep", kind)
    branches = {
        "then_branch": helper.make_graph([then], "then", [], [tensor("t", [2, 4])]),
        "else_branch": helper.make_graph(
            [refers(node("LeakyRelu", ["a"], "e"), "alpha", "steep", kind)],
            "else",
            [],
            [tensor("e", [2, 4])],
        ),
    }
    outer = function(
        "Choose", ["a", "go"], ["b"], [node("If", ["go"], "b", **branches)], attributes=["steep"]
    )
    nodes = [call("Choose", ["x", "go"], "y", name="top", steep=0.75)]
    model = model_of(nodes, [inner, outer], [*X, tensor("go", [], TensorProto.BOOL)])
    for go in (True, False):
        graph = assert_computes_the_same(model, {**SAMPLE, "go": np.array(go)})

    leaky = [n for n in graph.nodes if n.op_type == "LeakyRelu"]
    assert [n.attributes for n in leaky] == [{"alpha": 0.75}] * 2
    assert [[g.value for g in n.guards] for n in leaky] == [[True], [False]]


def test_a_constant_may_be_an_argument():
    constant = node("Constant", [], "c")
    refers(constant, "value_float", "shift", onnx.AttributeProto.FLOAT)
    body = [constant, node("Add", ["a", "c"], "b", name="add")]
    shifted = function("Shift", ["a"], ["b"], body, attributes=["shift"])
    nodes = [
        call("Shift", ["x"], "h", name="one", shift=1.5),
        call("Shift", ["h"], "y", name="two", shift=-0.5),
    ]
    graph = assert_computes_the_same(model_of(nodes, [shifted]))

    assert {name: float(w.read()) for name, w in graph.weights.items()} == {
        "one/c": 1.5,
        "two/c": -0.5,
    }


@pytest.mark.parametrize("inputs", [["x"], ["x", ""], ["x", "", "ceiling"]])
def test_inputs_that_a_call_leaves_out_are_absent(inputs):
    clip = function("Clamp", ["a", "low", "high"], ["b"], [node("Clip", ["a", "low", "high"], "b")])
    model = model_of([call("Clamp", inputs, "y")], [clip], weights={"ceiling": scalar(0.5)})
    graph = assert_computes_the_same(model)

    assert graph.nodes[0].sources == tuple(filter(None, inputs))


def test_outputs_that_a_call_does_not_want_are_still_made():
    both = function("Both", ["a"], ["p", "q"], [node("Tanh", ["a"], "p"), node("Exp", ["p"], "q")])
    graph = assert_computes_the_same(model_of([call("Both", ["x"], "", "y", name="c")], [both]))

    assert [n.outputs for n in graph.nodes] == [("c/p",), ("y",)]


def test_an_input_may_be_handed_straight_to_an_output():
    through = function("Through", ["a"], ["a", "b"], [node("Tanh", ["a"], "b", name="tanh")])
    nodes = [call("Through", ["x"], "h", "t", name="c"), node("Add", ["h", "t"], "y", name="add")]
    graph = load_graph(model_of(nodes, [through]))  # which ONNX-Runtime cannot run whole

    assert [n.op_type for n in graph.nodes] == ["Tanh", "Identity", "Add"]
    x = SAMPLE["x"]
    found = run_whole(eager_model(graph), SAMPLE)["y"]
    np.testing.assert_allclose(found, np.tanh(x) + x, rtol=1e-6)


def test_names_of_functions_and_models_do_not_mix():
    # `h` and `c/h` are names of the model too, and `a` and `x` change places.
    body = [node("Sub", ["a", "x"], "h"), node("Tanh", ["h"], "y")]
    swapped = function("Swap", ["a", "x"], ["y"], body)
    nodes = [
        node("Exp", ["x"], "h"),
        node("Neg", ["h"], "c/h"),
        call("Swap", ["h", "c/h"], "a", name="c"),
        call("Swap", ["x", "a"], "y", name="c/h"),
    ]
    graph = assert_computes_the_same(model_of(nodes, [swapped]))

    made = [name for n in graph.nodes for name in n.outputs]
    assert len(set(made)) == len(made)
    assert "c/h_2" in made


def test_a_function_sees_nothing_but_its_inputs():
    stray = function("Stray", ["a"], ["b"], [node("Add", ["a", "x"], "b", name="add")])

    with pytest.raises(ModelError, match=r"Nothing makes the tensor 'c/x'.*'add'"):
        load_graph(model_of([call("Stray", ["x"], "y", name="c")], [stray]))


def test_functions_may_be_called_from_branches():
    branches = {
        "then_branch": helper.make_graph(
            [call("Tanh2", ["x"], "t", name="call")], "then", [], [tensor("t", [2, 4])]
        ),
        "else_branch": helper.make_graph(
            [call("Tanh2", ["w"], "e", name="call")], "else", [], [tensor("e", [2, 4])]
        ),
    }
    nodes = [node("If", ["go"], "y", name="if", **branches)]
    inputs = [*X, tensor("go", [], TensorProto.BOOL)]
    model = model_of(nodes, [TANH], inputs, weights={"w": normal(1, 2, 4)})
    for go in (True, False):
        graph = assert_computes_the_same(model, {**SAMPLE, "go": np.array(go)})

    first = graph.nodes[0]
    assert first.trace == ("tanh", "call (Tanh2)", "then (then_branch)", "if (If)")
    assert (first.name, first.outputs) == ("call/tanh:t", ("t",))


def loop_over(nodes, *, state_out, trips=3):
    body = helper.make_graph(
        [*nodes, node("Identity", ["go_in"], "go_out")],
        "body",
        STATE,
        [tensor("go_out", [], TensorProto.BOOL), tensor(state_out, [2, 4])],
    )
    return node("Loop", [f"trips{trips}", "", "x"], "y", name="loop", body=body), {
        f"trips{trips}": np.array(trips, np.int64)
    }


def test_functions_may_be_called_from_bodies():
    outer = function(
        "Twice",
        ["a"],
        ["c"],
        [call("Tanh2", ["a"], "b", name="once"), call("Tanh2", ["b"], "c", name="again")],
    )
    loop, weights = loop_over(
        [call("Twice", ["state"], "h", name="call"), node("Sub", ["h", "state"], "s")],
        state_out="s",
    )
    model = model_of([loop], [TANH, outer], weights=weights)
    graph = assert_computes_the_same(model)

    (found,) = graph.nodes
    body = found.attributes["body"]
    assert [n.op_type for n in body.node] == ["Tanh", "Tanh", "Sub", "Identity"]
    assert found.captures == ()
    assert [n.name for n in body.node[:2]] == ["call/once/tanh", "call/again/tanh"]


def test_a_body_within_a_function_reads_its_tensors():
    body = helper.make_graph(
        [node("Mul", ["state", "scale"], "s"), node("Identity", ["go_in"], "go_out")],
        "body",
        STATE,
        [tensor("go_out", [], TensorProto.BOOL), tensor("s", [2, 4])],
    )
    repeated = function(
        "Repeat",
        ["a", "n"],
        ["b"],
        [node("Exp", ["a"], "scale"), node("Loop", ["n", "", "a"], "b", body=body)],
    )
    nodes = [
        call("Repeat", ["x", "n"], "h", name="one"),
        call("Repeat", ["h", "n"], "y", name="two"),
    ]
    graph = assert_computes_the_same(
        model_of(nodes, [repeated], weights={"n": np.array(2, np.int64)})
    )

    loops = [n for n in graph.nodes if n.op_type == "Loop"]
    assert [n.captures for n in loops] == [("one/scale",), ("two/scale",)]


def test_a_function_may_import_another_opset():
    # Axes of ReduceSum are an attribute up to opset 12, and an input from 13 on.
    old = function(
        "Total", ["a"], ["b"], [node("ReduceSum", ["a"], "b", axes=[1], keepdims=1)], opset=12
    )
    nodes = [call("Total", ["x"], "h", name="c"), node("ReduceSum", ["h", "axes"], "y")]
    weights = {"axes": np.array([1], np.int64)}
    graph = load_graph(model_of(nodes, [old], outputs=[tensor("y", None)], weights=weights))

    assert [n.opset for n in graph.nodes] == [12, 17]
    assert graph.is_fp32("h")
    assert graph.is_fp32("y")
    assert [n.is_layer for n in graph.nodes] == [True, True]
