"""Which layers of the original model a peer's mixed-precision model keeps in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, shape_inference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["fp32_layers"]


def fp32_layers(
    original: onnx.ModelProto, converted: onnx.ModelProto, layers: Sequence[tuple[str, str]]
) -> set[str]:
    """Returns the output tensors of the layers that still compute in FP32.

    A layer is found again by the name of its node, else by its output tensor. One that is gone was
    fused into what follows it, and counts as what reads it does.

    Args:
        original: The FP32 model.
        converted: What the peer made of it.
        layers: Node name and first output tensor of each layer of `original`.
    """
    types = _element_types(converted)
    by_name = {node.name: node for node in converted.graph.node if node.name}
    by_output = {name: node for node in converted.graph.node for name in node.output}
    readers = _readers(original)
    kept: dict[str, bool] = {}
    for name, tensor in reversed(_in_graph_order(original, layers)):
        node = by_name.get(name) or by_output.get(tensor)
        if node is not None:
            kept[tensor] = types.get(node.output[0]) == TensorProto.FLOAT
            continue
        after = [kept[reader] for reader in _layers_after(tensor, readers, kept)]
        kept[tensor] = bool(after) and all(after)
    return {tensor for tensor, is_kept in kept.items() if is_kept}


def _element_types(model: onnx.ModelProto) -> Mapping[str, int]:
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    declared = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in declared}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                types[node.output[0]] = attribute.i
    return types


def _in_graph_order(
    model: onnx.ModelProto, layers: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    position = {
        name: index for index, node in enumerate(model.graph.node) for name in node.output if name
    }
    return sorted(layers, key=lambda layer: position[layer[1]])


def _readers(model: onnx.ModelProto) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.output[0])
    return readers


def _layers_after(
    tensor: str, readers: Mapping[str, Sequence[str]], known: Mapping[str, bool]
) -> set[str]:
    found: set[str] = set()
    waiting, seen = list(readers.get(tensor, ())), {tensor}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in known:
            found.add(name)
        else:
            waiting.extend(readers.get(name, ()))
    return found
