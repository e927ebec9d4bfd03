"""Nodes with operands that are missing or too many are refused where the model is read."""

from __future__ import annotations

import pytest
from onnx import defs, helper

from polygraphy_layerprec.model import ModelError, load_graph
from tests.models import build_model, node, tensor

X, Y = [tensor("x", [2])], [tensor("y", None)]
MANY = ["x"] * 9

WRONG = {
    "If without a condition": ("If", [], ["y"], "has 0 inputs, not 1"),
    "Loop without inputs": ("Loop", [], ["y"], "has 0 inputs, not 2 or more"),
    "LSTM without weights": ("LSTM", ["x"], ["y"], "has 1 input, not 3 to 8"),
    "GRU with too many inputs": ("GRU", MANY, ["y"], "has 9 inputs, not 3 to 6"),
    "BatchNormalization alone": ("BatchNormalization", ["x"], ["y"], "has 1 input, not 5"),
    "Gather without indices": ("Gather", ["x"], ["y"], "has 1 input, not 2"),
    "Identity of many": ("Identity", MANY, ["y"], "has 9 inputs, not 1"),
    "Identity of nothing": ("Identity", [""], ["y"], "lacks its input 0"),
    "Gemm without its second factor": ("Gemm", ["x", ""], ["y"], "lacks its input 1"),
    "Cast without outputs": ("Cast", ["x"], [], "has 0 outputs, not 1"),
    "MaxPool with too many outputs": ("MaxPool", ["x"], ["y", "a", "b"], "3 outputs, not 1 to 2"),
}


def model_of(op, inputs, outputs, *, opset=17):
    proto = helper.make_node(op, inputs, outputs, name="odd")
    if op == "If":
        for branch in ("then_branch", "else_branch"):
            made = helper.make_node("Exp", ["x"], [f"{branch}_y"])
            body = helper.make_graph([made], branch, [], [tensor(f"{branch}_y", [2])])
            proto.attribute.append(helper.make_attribute(branch, body))
    nodes = [proto, node("Exp", ["x"], "z", name="beside")]
    model = build_model(nodes, X, [tensor("z", None)])
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    return model


@pytest.mark.parametrize("case", WRONG)
def test_operands_that_an_operator_does_not_have_are_told_by_node(case):
    op, inputs, outputs, problem = WRONG[case]

    with pytest.raises(ModelError, match=f"The {op} node 'odd' .*{problem}"):
        load_graph(model_of(op, inputs, outputs))


@pytest.mark.parametrize(
    ("op", "inputs"), [("Clip", ["x", "", "x"]), ("Concat", MANY), ("Frobnicate", MANY)]
)
def test_optional_variadic_and_unknown_operands_are_taken(op, inputs):
    assert load_graph(model_of(op, inputs, ["y"]))


def test_operators_of_a_version_that_nobody_knows_yet_may_take_more():
    opset = defs.onnx_opset_version() + 1

    assert load_graph(model_of("Identity", MANY, ["y"], opset=opset))


@pytest.mark.parametrize("of_function", [False, True])
def test_an_opset_that_is_no_version_is_refused(*, of_function):
    model = build_model([node("Exp", ["x"], "y", name="exp")], X, Y)
    owner = model.functions.add() if of_function else model
    owner.opset_import.add(domain="d", version=2**62)

    with pytest.raises(ModelError, match=r"opset 4611686018427387904 of the domain 'd'"):
        load_graph(model)
