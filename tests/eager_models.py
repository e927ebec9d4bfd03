"""A flat graph as one ONNX model that gives every tensor, for ONNX-Runtime to judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime as ort
from onnx import GraphProto, NodeProto, ValueInfoProto, helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from polygraphy_layerprec.model import Graph, Node

__all__ = ["eager_model", "run_whole", "session_of", "tensor_names"]


def eager_model(graph: Graph) -> onnx.ModelProto:
    """Returns a model of the same nodes in which both branches of every `If` run.

    The graph's operators must all be of the opset that the graph is of.
    """
    made = GraphProto(name="eager")
    made.input.extend(i for i in graph.proto.graph.input if i.name not in graph.weights)
    for name, weight in graph.weights.items():
        made.initializer.append(weight.tensor)
        made.initializer[-1].name = name
    for node in graph.nodes:
        made.node.append(_joined(node) if node.branches else node.proto)
        made.node[-1].name = node.name  # ONNX-Runtime wants every name but once
    made.output.extend(ValueInfoProto(name=name) for name in tensor_names(graph))
    # A model without local functions needs no domain but those of its operators.
    domains = {node.domain for node in graph.nodes} | {""}
    opsets = [helper.make_opsetid(domain, graph.opset(domain)) for domain in sorted(domains)]
    return helper.make_model(made, opset_imports=opsets, ir_version=graph.ir_version)


def tensor_names(graph: Graph) -> list[str]:
    """Returns every tensor that a node gives, model outputs that none gives included."""
    made = [name for node in graph.nodes for name in node.outputs if name]
    return list(dict.fromkeys((*made, *graph.outputs)))


def session_of(model: onnx.ModelProto) -> ort.InferenceSession:
    """Returns a session that computes every node as it stands."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_whole(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Returns the outputs of a model as ONNX-Runtime computes it."""
    session = session_of(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _joined(node: Node) -> NodeProto:
    attributes = ("then_branch", "else_branch")
    branches = {
        name: _branch(name, list(results), node.outputs)
        for name, results in zip(attributes, node.branches, strict=True)
    }
    made = helper.make_node("If", node.inputs, node.outputs, name=node.name, **branches)
    assert isinstance(made, NodeProto)
    return made


def _branch(side: str, results: Sequence[str], outputs: Sequence[str]) -> GraphProto:
    names = [f"{side}/{output}" for output in outputs]
    return GraphProto(name=side, node=_copies(results, names), output=_declared(names))


def _copies(results: Sequence[str], names: Sequence[str]) -> Iterator[NodeProto]:
    for result, name in zip(results, names, strict=False):
        yield NodeProto(op_type="Identity", input=[result], output=[name])


def _declared(names: Sequence[str]) -> Iterator[ValueInfoProto]:
    for name in names:
        yield ValueInfoProto(name=name)
