"""Branches of `If` as part of the graph: names, guards, constants and what they hand on."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
from polygraphy_layerprec.model import ModelError, Role, load_graph
from polygraphy_layerprec.precision import FP16
from tests.eager_models import eager_model, run_whole
from tests.models import build_model, if_with_capture, node, normal, tensor

pytestmark = pytest.mark.onnxrt

SHAPE = [2, 4]
SAMPLE = {"x": normal(0, 2, 4)}
BOOL = TensorProto.BOOL


def branch(side, nodes, output, weights=None):
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    return helper.make_graph(nodes, side, [], [tensor(output, SHAPE)], initializers)


def choice(condition, output, then, other, *, name="if"):
    """An `If`; branches come as nodes, output and perhaps weights."""
    return node(
        "If",
        [condition],
        output,
        name=name,
        then_branch=branch("then", *then),
        else_branch=branch("else", *other),
    )


def model_of(nodes, conditions=("go",), weights=None):
    inputs = [tensor("x", SHAPE), *(tensor(name, [], BOOL) for name in conditions)]
    return build_model(nodes, inputs, [tensor("y", SHAPE)], weights)


def assert_computes_the_same(model, conditions=("go",)):
    """Checks the flat graph, node by node and eagerly, for every value of the conditions."""
    graph = load_graph(model)
    executor = PlannedExecutor(graph, FP16)
    for values in itertools.product((True, False), repeat=len(conditions)):
        sample = {**SAMPLE, **dict(zip(conditions, map(np.array, values), strict=True))}
        expected = run_whole(model, sample)["y"]
        np.testing.assert_array_equal(run_whole(eager_model(graph), sample)["y"], expected)
        np.testing.assert_array_equal(executor.run(sample)["y"], expected)
    return graph


def test_layers_of_branches_are_layers_of_the_graph():
    model = if_with_capture()
    for go in (True, False):
        sample = {**SAMPLE, "condition": np.array(go)}
        graph = load_graph(model)
        found = PlannedExecutor(graph, FP16).run(sample)["y"]
        np.testing.assert_array_equal(found, run_whole(model, sample)["y"])

    assert [n.name for n in graph.layers] == ["outer/Tanh", "then/MatMul", "outer/Mul"]
    product, chosen = graph.producers["then_out"], graph.producers["chosen"]
    assert [(g.condition, g.value, g.owner) for g in product.guards] == [
        ("condition", True, "chosen")
    ]
    assert product.trace == ("then/MatMul", "then (then_branch)", "branch (If)")
    assert chosen.branches == (("then_out",), ("else_out",))
    assert chosen.role is Role.EXACT
    assert chosen.captures == ()
    assert chosen.sources == ("condition", "then_out", "else_out")


def test_branches_within_branches_are_guarded_by_all_conditions():
    inner = choice("deep", "t", ([node("Exp", ["h"], "a")], "a"), ([node("Neg", ["h"], "b")], "b"))
    nodes = [
        node("Tanh", ["x"], "h"),
        choice("go", "y", ([inner], "t"), ([node("Abs", ["h"], "e")], "e"), name="outer"),
    ]
    graph = assert_computes_the_same(model_of(nodes, ("go", "deep")), ("go", "deep"))

    def guards(name):
        return [(g.condition, g.value) for g in graph.producers[name].guards]

    assert guards("a") == [("go", True), ("deep", True)]
    assert guards("b") == [("go", True), ("deep", False)]
    assert guards("t") == [("go", True)]
    assert guards("e") == [("go", False)]
    assert guards("y") == guards("h") == []
    assert graph.producers["a"].trace == (
        "node_of_a",
        "then (then_branch)",
        "if (If)",
        "then (then_branch)",
        "outer (If)",
    )


def test_names_of_both_branches_and_of_branches_alike_are_told_apart():
    same = [node("Exp", ["h"], "m", name="n"), node("Sin", ["m"], "out", name="o")]
    other = [node("Neg", ["h"], "m", name="n"), node("Sin", ["m"], "out", name="o")]
    nodes = [
        node("Tanh", ["x"], "h"),
        choice("go", "c", (same, "out"), (other, "out"), name="first"),
        node("Tanh", ["c"], "m_after"),
        choice("go", "d", (same, "out"), (other, "out"), name="second"),
        node("Add", ["m_after", "d"], "y"),
    ]
    graph = assert_computes_the_same(model_of(nodes))

    assert [n.outputs[0] for n in graph.nodes if n.op_type == "Exp"] == [
        "m",
        "second/then_branch/m",
    ]
    assert [n.outputs[0] for n in graph.nodes if n.op_type == "Neg"] == [
        "first/else_branch/m",
        "second/else_branch/m",
    ]
    names = [n.name for n in graph.nodes]
    assert len(set(names)) == len(names)


def test_a_name_of_the_graph_around_stays_with_it_and_branches_make_way():
    # ONNX forbids a branch to use a name of the graph around it again; later names it may.
    nodes = [
        choice("go", "c", ([node("Exp", ["x"], "late")], "late"), ([node("Neg", ["x"], "n")], "n")),
        node("Tanh", ["c"], "late"),
        node("Abs", ["late"], "y"),
    ]
    graph = load_graph(model_of(nodes))

    assert graph.producers["late"].op_type == "Tanh"
    assert graph.producers["if/then_branch/late"].op_type == "Exp"
    assert graph.producers["c"].branches[0] == ("if/then_branch/late",)


def test_weights_and_constants_of_branches_are_weights_of_the_graph():
    constant = numpy_helper.from_array(normal(3, 4))
    then = ([node("Mul", ["h", "w"], "t")], "t", {"w": normal(1, 4)})
    other = (
        [
            node("Constant", [], "w", value=constant),
            node("Exp", ["w"], "folded", name="fold"),
            node("Sub", ["h", "folded"], "e"),
        ],
        "e",
    )
    nodes = [node("Tanh", ["x"], "h"), choice("go", "y", then, other)]
    graph = assert_computes_the_same(model_of(nodes))

    assert set(graph.weights) == {"w", "if/else_branch/w"}
    np.testing.assert_array_equal(graph.weights["if/else_branch/w"].read(), normal(3, 4))
    assert graph.producers["folded"].role is Role.FOLDED
    assert [n.op_type for n in graph.layers] == ["Tanh", "Mul", "Sub"]


@pytest.mark.parametrize("handed", ["h", "x", "v", "w"])
def test_a_branch_may_hand_on_what_is_around_it(handed):
    weights = {"w": normal(1, 2, 4)}
    then = ([], "inside", {"inside": normal(2, 2, 4)}) if handed == "v" else ([], handed)
    nodes = [
        node("Tanh", ["x"], "h"),
        choice("go", "y", then, ([node("Exp", ["h"], "e")], "e")),
    ]
    graph = load_graph(model_of(nodes, weights=weights))
    executor = PlannedExecutor(graph, FP16)

    for go in (True, False):
        sample = {**SAMPLE, "go": np.array(go)}
        x = SAMPLE["x"]
        values = {"h": np.tanh(x), "x": x, "v": normal(2, 2, 4), "w": normal(1, 2, 4)}
        expected = values[handed] if go else np.exp(np.tanh(x))
        np.testing.assert_allclose(executor.run(sample)["y"], expected, rtol=1e-5)


def test_a_condition_may_be_computed_within_a_branch():
    deeper = [
        node("ReduceSum", ["h"], "sum", keepdims=0),
        node("Greater", ["sum", "zero"], "positive"),
        choice("positive", "t", ([node("Exp", ["h"], "a")], "a"), ([node("Neg", ["h"], "b")], "b")),
    ]
    nodes = [
        node("Tanh", ["x"], "h"),
        choice("go", "y", (deeper, "t"), ([node("Abs", ["h"], "e")], "e"), name="outer"),
    ]
    graph = assert_computes_the_same(model_of(nodes, weights={"zero": np.float32(0)}))

    assert [g.condition for g in graph.producers["a"].guards] == ["go", "positive"]


def test_nodes_of_a_branch_wait_for_its_condition():
    # The condition is listed last.
    nodes = [
        choice("go", "c", ([node("Exp", ["x"], "t")], "t"), ([node("Neg", ["x"], "e")], "e")),
        node("Abs", ["c"], "y"),
        node("Not", ["stop"], "go"),
    ]
    graph = load_graph(model_of(nodes, ["stop"]))

    order = [n.outputs[0] for n in graph.nodes]
    assert order.index("go") < min(order.index("t"), order.index("e"))
    assert max(order.index("t"), order.index("e")) < order.index("c")
    last = graph.last_uses
    assert "go" in last[graph.producers["c"].index]


@pytest.mark.parametrize("reader", ["outside", "other branch", "output", "deeper"])
def test_nothing_but_its_if_sees_into_a_branch(reader):
    then, other = [node("Exp", ["x"], "t")], [node("Neg", ["x"], "e")]
    nodes = []
    if reader == "other branch":
        other = [node("Add", ["x", "t"], "e")]
    if reader == "deeper":
        nested = choice("go", "d", ([node("Abs", ["t"], "da")], "da"), (list(other), "e"))
        other = [nested, node("Neg", ["d"], "out")]
    result = "out" if reader == "deeper" else "e"
    nodes.append(choice("go", "c", (then, "t"), (other, result)))
    nodes.append(node("Add", ["c", "t" if reader == "outside" else "c"], "y"))
    model = model_of(nodes)
    if reader == "output":
        model.graph.output.append(tensor("t", SHAPE))

    with pytest.raises(ModelError, match=r"'t'"):
        load_graph(model)


def test_an_if_without_a_branch_is_told():
    model = if_with_capture()
    del model.graph.node[1].attribute[0]

    with pytest.raises(ModelError, match="'branch' has no else_branch"):
        load_graph(model)


def test_an_if_within_a_loop_stays_with_it():
    body_nodes = [
        choice(
            "go_in", "s", ([node("Exp", ["state"], "t")], "t"), ([node("Neg", ["state"], "e")], "e")
        ),
        node("Identity", ["go_in"], "go_out"),
    ]
    state = [tensor("go_in", [], BOOL), tensor("state", SHAPE)]
    body = helper.make_graph(
        body_nodes,
        "body",
        [tensor("i", [], TensorProto.INT64), *state],
        [tensor("go_out", [], BOOL), tensor("s", SHAPE)],
    )
    nodes = [node("Loop", ["n", "go", "x"], "y", name="loop", body=body)]
    graph = assert_computes_the_same(model_of(nodes, weights={"n": np.array(2, np.int64)}))

    assert [n.op_type for n in graph.nodes] == ["Loop"]


def test_an_operator_of_another_domain_that_is_called_if_is_none():
    made = helper.make_node("If", ["x"], ["y"], domain="vendor")
    model = build_model(
        [made], [tensor("x", SHAPE)], [onnx.ValueInfoProto(name="y")], domains=["vendor"]
    )

    assert load_graph(model).nodes[0].branches == ()
