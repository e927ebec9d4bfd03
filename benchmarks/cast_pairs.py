"""An ONNX model in which every float tensor is rounded to FP16 by an explicit pair of casts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["with_cast_pairs"]


def with_cast_pairs(model: onnx.ModelProto, exact: Collection[str] = ()) -> onnx.ModelProto:
    """Returns a copy of `model` with float inputs, weights and node outputs rounded to FP16.

    Tensors keep their names: what is read under a name is the rounded value. BatchNormalization is
    folded into a scale and a shift before these are rounded, as TensorRT does. Nodes inside
    subgraphs are left as they are. Weights must be embedded.

    Args:
        model: The FP32 model.
        exact: Names of tensors to leave unrounded.
    """
    floats = _float_tensors(model).difference(exact)
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    _fold_normalizations(rounded.graph)
    for weight in rounded.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and weight.name not in exact:
            array = numpy_helper.to_array(weight)
            with np.errstate(over="ignore"):
                half = array.astype(np.float16).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(half, weight.name))
    nodes, renamed = _round_inputs(rounded.graph, floats)
    for node in rounded.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        copy.output[:] = [_raw(name) if name in floats else name for name in node.output]
        nodes.append(copy)
        for name in node.output:
            if name in floats:
                nodes.extend(_pair(_raw(name), name))
    del rounded.graph.node[:]
    rounded.graph.node.extend(nodes)
    return rounded


def _fold_normalizations(graph: onnx.GraphProto) -> None:
    """Gives every BatchNormalization of constants the parameters {scale, shift, 0, 1}."""
    weights = {weight.name: weight for weight in graph.initializer} | {
        node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"
    }
    for index, node in enumerate(graph.node):
        if node.op_type != "BatchNormalization" or not weights.keys() >= set(node.input[1:]):
            continue
        factor, bias, mean, variance = (
            numpy_helper.to_array(weights[name]).astype(np.float64) for name in node.input[1:]
        )
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        scale = factor / np.sqrt(variance + attributes.pop("epsilon", 1e-5))
        folded = (scale, bias - mean * scale, np.zeros_like(scale), np.ones_like(scale))
        names = [f"{node.output[0]}__folded_{part}" for part in range(4)]
        graph.initializer.extend(
            numpy_helper.from_array(values.astype(np.float32), name)
            for name, values in zip(names, folded, strict=True)
        )
        made = helper.make_node(node.op_type, [node.input[0], *names], node.output, node.name)
        attributes["epsilon"] = 0.0
        made.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        graph.node[index].CopyFrom(made)


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    declared = [*graph.input, *graph.value_info, *graph.output]
    return {
        value.name for value in declared if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _round_inputs(
    graph: onnx.GraphProto, floats: set[str]
) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    weights = {weight.name for weight in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    renamed = {}
    for value in graph.input:
        if value.name in floats and value.name not in weights:
            renamed[value.name] = f"{value.name}__rounded"
            nodes.extend(_pair(value.name, renamed[value.name]))
    return nodes, renamed


def _pair(source: str, target: str) -> list[onnx.NodeProto]:
    half = f"{target}__half"
    return [
        helper.make_node("Cast", [source], [half], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [target], to=TensorProto.FLOAT),
    ]


def _raw(name: str) -> str:
    return f"{name}__unrounded"
