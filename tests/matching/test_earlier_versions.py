"""Files of earlier versions: their names within functions were those of onnx's inliner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.matching.earlier_versions import (
    constraints_of_today,
    ranking_of_today,
)
from polygraphy_layerprec.matching.requested_precisions import requested_by_ranking
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.earlier_names import earlier_names
from polygraphy_layerprec.pipeline import rank_model, select_constraints
from polygraphy_layerprec.plan.network_widths import constraint_of
from polygraphy_layerprec.records import Constraint
from polygraphy_layerprec.selection import SelectionRequest
from tests.function_models import SAMPLE, call, function, model_of
from tests.models import node, small_cnn, tensor
from tests.rankings import make_layer, make_ranking

OLD_DIGEST = "5e" * 32


def constant(name, value):
    return node("Constant", [], name, value=numpy_helper.from_array(np.float32(value)))


def nested():
    """Returns a model that calls a function of functions twice, with constants within."""
    inner = function(
        "Inner",
        ["a"],
        ["c"],
        [
            constant("k", 0.5),
            node("Mul", ["a", "k"], "b", name="half"),
            node("Tanh", ["b"], "c", name="squash"),
        ],
    )
    outer = function(
        "Outer",
        ["a"],
        ["z"],
        [
            call("Inner", ["a"], "m", name="first"),
            call("Inner", ["m"], "n", name="second"),
            node("Add", ["m", "n"], "z", name="sum"),
        ],
    )
    calls = [call("Outer", ["x"], "h", name="one"), call("Outer", ["h"], "y", name="two")]
    return model_of(calls, [inner, outer])


@pytest.fixture
def graph(tmp_path):
    onnx.save(nested(), tmp_path / "model.onnx")
    return load_graph(tmp_path / "model.onnx")


def of_then(model):
    """Returns the ranking of a model as an earlier version wrote it."""
    ranking = rank_model(onnx.inliner.inline_local_functions(model), [SAMPLE])
    return replace(ranking, model=replace(ranking.model, name="model.onnx", digest=OLD_DIGEST))


def test_every_name_of_the_inliner_has_one_of_today(graph):
    inlined = onnx.inliner.inline_local_functions(nested()).graph.node
    names = earlier_names(graph)

    made = [name for proto in inlined if proto.op_type != "Constant" for name in proto.output]
    assert set(names) == set(made)
    assert sorted(names.values()) == sorted(graph.producers)
    assert names["y"] == "y"


def test_an_old_ranking_is_read_under_the_names_of_today(graph):
    now = rank_model(graph, [SAMPLE])
    old = of_then(nested())
    assert {layer.name for layer in old.layers}.isdisjoint(layer.name for layer in now.layers)

    read = ranking_of_today(graph, old)

    for found, expected in zip(read.layers, now.layers, strict=True):
        assert (found.name, found.node_name) == (expected.name, expected.node_name)
        assert (found.inputs, found.outputs) == (expected.inputs, expected.outputs)
        assert found.trace == expected.trace
        assert found.impact == pytest.approx(expected.impact, rel=1e-6)


def test_sets_of_an_old_ranking_are_measured(graph):
    read = ranking_of_today(graph, of_then(nested()))

    selection = select_constraints(read, SelectionRequest(top_k=2), model=graph, samples=[SAMPLE])

    assert [layer.name for layer in selection.layers] == [layer.name for layer in read.layers[:2]]
    assert selection.decision is not None
    assert selection.decision.outcome.error < selection.decision.lowered.error


def test_verification_takes_an_old_ranking_and_says_that_it_is_old(graph, tmp_path):
    save_ranking(of_then(nested()), tmp_path / "old.json")

    asked = requested_by_ranking(tmp_path / "old.json", graph, SelectionRequest(top_k=1))

    (kept,) = asked.constraints
    assert kept.outputs[0] in graph.producers
    assert "another kind of digest" in asked.warnings[0]


def test_old_constraints_are_read_under_the_names_of_today(graph):
    inlined = load_graph(onnx.inliner.inline_local_functions(nested()))
    old = [constraint_of(layer, f"reason {layer.index}") for layer in inlined.layers]

    read = constraints_of_today(graph, OLD_DIGEST, old)

    assert [c.outputs for c in read] == [layer.outputs for layer in graph.layers]
    assert [c.reason for c in read] == [c.reason for c in old]


def test_names_that_nothing_explains_stay_as_they_are(graph):
    old = [constraint_of(layer) for layer in load_graph(small_cnn()).layers]

    assert constraints_of_today(graph, OLD_DIGEST, old) == tuple(old)


def test_a_file_of_today_is_not_reinterpreted(graph):
    now = rank_model(graph, [SAMPLE])
    stranger = replace(now, layers=(replace(now.layers[0], outputs=("m__1",)),))

    assert ranking_of_today(graph, stranger) is stranger


def test_twins_within_a_function_keep_their_order():
    twins = function(
        "Twins",
        ["a"],
        ["z"],
        [
            node("Tanh", ["a"], "p", name="left"),
            node("Tanh", ["a"], "q", name="right"),
            node("Sub", ["p", "q"], "r", name="cross"),
            node("Exp", ["q"], "s", name="only_right"),
            node("Add", ["r", "s"], "z", name="sum"),
        ],
    )
    graph = load_graph(model_of([call("Twins", ["x"], "y", name="c")], [twins]))

    names = earlier_names(graph)

    assert [names[f"{name}__1"] for name in "pqrs"] == ["c/p", "c/q", "c/r", "c/s"]


def branch(*nodes, output):
    return helper.make_graph(list(nodes), "branch", [], [tensor(output, None)])


def beside_a_branch():
    """Returns a model with a function that begins like a branch, on the same input."""
    inner = [node("Exp", ["a"], "u", name="t"), node("Log", ["u"], "z", name="e")]
    nodes = [
        node(
            "If",
            ["c"],
            "i",
            name="if",
            then_branch=branch(node("Exp", ["x"], "tb", name="tb"), output="tb"),
            else_branch=branch(
                node("Exp", ["x"], "eb0", name="eb0"), node("Tanh", ["eb0"], "eb"), output="eb"
            ),
        ),
        call("A", ["x"], "h", name="c1"),
        node("Add", ["i", "h"], "y", name="add"),
    ]
    model = model_of(nodes, [function("A", ["a"], ["z"], inner)])
    model.graph.input.append(tensor("c", [], TensorProto.BOOL))
    return model


def test_a_name_within_a_function_is_not_that_of_a_branch():
    names = earlier_names(load_graph(beside_a_branch()))

    assert names["u__1"] == "c1/u"
    assert names["h"] == "h"


def test_a_kept_conditional_keeps_what_is_in_its_branches():
    graph = load_graph(beside_a_branch())
    whole = Constraint("if", "If", ("c",), ("i",), "a reason")

    read = constraints_of_today(graph, OLD_DIGEST, [whole])

    assert [c.outputs for c in read] == [("tb",), ("eb0",), ("eb",)]
    assert {c.reason for c in read} == {"a reason"}
    assert all(c.trace for c in read)


def test_a_ranked_conditional_is_shared_by_the_layers_in_its_branches():
    graph = load_graph(beside_a_branch())
    whole = make_layer(1, "if", op="If", outputs=("i",), impact=0.3, share=0.9)
    old = make_ranking(whole, make_layer(2, "add", op="Add", outputs=("y",)))
    old = replace(old, model=replace(old.model, digest=OLD_DIGEST))

    read = ranking_of_today(graph, old)

    assert [layer.outputs for layer in read.layers] == [("tb",), ("eb0",), ("eb",), ("y",)]
    assert [layer.rank for layer in read.layers] == [1, 2, 3, 4]
    assert sum(layer.impact**2 for layer in read.layers[:3]) == pytest.approx(0.3**2)
    assert sum(layer.share for layer in read.layers[:3]) == pytest.approx(0.9)


def test_text_constants_do_not_hide_what_takes_them():
    words = node("Constant", [], "w", value_strings=["a", "b"])
    nodes = [
        words,
        node("Equal", ["w", "w"], "same", name="equal"),
        node("Cast", ["same"], "k", name="cast", to=TensorProto.FLOAT),
        node("ReduceSum", ["k"], "s", name="sum"),
        node("Mul", ["a", "s"], "m", name="scale"),
        node("Exp", ["m"], "z", name="e"),
    ]
    inner = function("A", ["a"], ["z"], nodes, opset=19)
    model = model_of([call("A", ["x"], "y", name="c")], [inner])
    model.opset_import[0].version = 19
    graph = load_graph(model)

    assert earlier_names(graph)["m__1"] == "c/m"
