"""What a mixed-precision model says of itself: versions, operator sets, metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnx import ModelProto, helper

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.model.operators import normal_domain
from polygraphy_layerprec.model.schemas import signature

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph

__all__ = ["OPTIONAL_INPUTS_IR", "PRECISION_KEY", "header_of"]

PRECISION_KEY: Final = "polygraphy_layerprec.precision"
"""Metadata of a mixed model: its low precision, which no tensor tells where no layer has it."""

OPTIONAL_INPUTS_IR: Final = 4
"""Before this version every initializer had to be declared as an input of the graph."""


def header_of(graph: Graph, precision: str) -> ModelProto:
    """Returns a model that says of itself what the original does, without graph and functions."""
    made = ModelProto()
    for descriptor, value in graph.proto.ListFields():
        if descriptor.name in {"graph", "functions", "metadata_props", "opset_import"}:
            continue
        if hasattr(value, "extend"):
            getattr(made, descriptor.name).extend(value)
        else:
            setattr(made, descriptor.name, value)
    entries = graph.proto.metadata_props
    made.metadata_props.extend(entry for entry in entries if entry.key != PRECISION_KEY)
    made.metadata_props.add(key=PRECISION_KEY, value=precision)
    made.ir_version = max(graph.ir_version, OPTIONAL_INPUTS_IR)
    made.opset_import.extend(helper.make_opsetid(d, v) for d, v in _opsets(graph).items())
    return made


def _opsets(graph: Graph) -> dict[str, int]:
    """The operator sets that the nodes are of, once functions are expanded."""
    used = {node.domain for node in graph.nodes} | {""}
    functions = {normal_domain(function.domain) for function in graph.proto.functions}
    opsets = {d: v for d, v in graph.opsets.items() if d in used or d not in functions}
    for node in graph.nodes:
        version = opsets.setdefault(node.domain, node.opset)
        formals = signature(node.proto, node.opset)
        here = signature(node.proto, version)
        if version != node.opset and (formals is None or here is None or formals != here):
            raise UserError(
                f"{node.name!r} is in a local function of opset {node.opset}, and the model has "
                f"opset {version}, where {node.op_type} is another operator"
            )
    return opsets
