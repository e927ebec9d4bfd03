"""The parts of models with local functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import FunctionProto, ModelProto, NodeProto, helper

from tests.models import build_model, node, normal, tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnx import AttributeProto, ValueInfoProto

__all__ = ["DOMAIN", "SAMPLE", "TANH", "X", "Y", "call", "function", "model_of"]

DOMAIN = "test.functions"
X, Y = [tensor("x", [2, 4])], [tensor("y", [2, 4])]
SAMPLE = {"x": normal(0, 2, 4)}


def call(
    operator: str, inputs: Sequence[str], *outputs: str, name: str = "", **attributes: object
) -> NodeProto:
    """Returns a call of a local function."""
    made = helper.make_node(operator, inputs, outputs, name=name, domain=DOMAIN, **attributes)
    assert isinstance(made, NodeProto)
    return made


def function(
    name: str,
    inputs: Iterable[str],
    outputs: Iterable[str],
    nodes: Iterable[NodeProto],
    *,
    attributes: Iterable[str] = (),
    defaults: Iterable[AttributeProto] = (),
    opset: int = 17,
) -> FunctionProto:
    """Returns a local function; `defaults` are attributes that a call may leave out."""
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    made = helper.make_function(
        DOMAIN,
        name,
        list(inputs),
        list(outputs),
        list(nodes),
        opsets,
        attributes=list(attributes),
        attribute_protos=list(defaults),
    )
    assert isinstance(made, FunctionProto)
    return made


def model_of(
    nodes: Sequence[NodeProto],
    functions: Iterable[FunctionProto],
    inputs: Sequence[ValueInfoProto] = X,
    outputs: Sequence[ValueInfoProto] = Y,
    weights: dict[str, object] | None = None,
) -> ModelProto:
    """Returns a model with local functions."""
    return build_model(nodes, inputs, outputs, weights, functions=list(functions), domains=[DOMAIN])


TANH = function("Tanh2", ["a"], ["b"], [node("Tanh", ["a"], "b", name="tanh")])
"""A function of one node."""
