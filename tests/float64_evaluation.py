"""Models evaluated node by node in float64, in a way that shares nothing with the emulation: a
layer in low precision takes rounded inputs and gives rounded outputs, and all else is exact."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from polygraphy_layerprec.precision import Precision

__all__ = ["Float64Evaluation"]

_MOVES: Final = frozenset(
    "Abs Cast Concat Constant DequantizeLinear Gather Greater Identity If Neg QuantizeLinear "
    "ReduceMax Relu Reshape Split Squeeze Transpose Unsqueeze Where".split()
)
"""Operators that move, choose, compare or quantise values."""

_Values = dict[str, np.ndarray[Any, Any]]


class Float64Evaluation:
    """One model whose operators are flat or in branches of `If`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Finds out which values are FP32: the precision is chosen for these."""
        typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        self._graph = model.graph
        self._types = _element_types(typed.graph)
        self._opset = model.opset_import[0].version
        self._evaluators: dict[str, ReferenceEvaluator] = {}

    def run(
        self,
        sample: Mapping[str, np.ndarray[Any, Any]],
        precision: Precision | None = None,
        kept: Collection[str] = (),
    ) -> _Values:
        """Returns the outputs in float64.

        Args:
            sample: The inputs.
            precision: What layers are lowered to; none are by default.
            kept: Names of output tensors of the layers that are not.
        """
        values: _Values = {name: _widened(array) for name, array in sample.items()}
        weights = {w.name: _widened(numpy_helper.to_array(w)) for w in self._graph.initializer}
        self._run_nodes(
            self._graph.node, {**values, **weights}, precision, kept, set(weights), made := {}
        )
        return {value.name: made[value.name] for value in self._graph.output}

    def _run_nodes(self, nodes, around, precision, kept, constants, made) -> None:
        values = {**around}
        for node in nodes:
            feeds = {name: values[name] for name in node.input if name}
            if node.op_type == "If":
                found = self._run_branch(node, values, precision, kept, constants)
            else:
                found = self._run_node(node, feeds, precision, kept, constants)
            if constants.issuperset(name for name in node.input if name) and node.op_type != "If":
                constants.update(node.output)
            values.update(found)
            made.update(found)

    def _run_branch(self, node, values, precision, kept, constants) -> _Values:
        taken = "then_branch" if bool(values[node.input[0]]) else "else_branch"
        (body,) = (a.g for a in node.attribute if a.name == taken)
        inner: _Values = {}
        self._run_nodes(body.node, values, precision, kept, set(constants), inner)
        return {
            outer: inner[given.name] for outer, given in zip(node.output, body.output, strict=True)
        }

    def _run_node(self, node, feeds, precision, kept, constants) -> _Values:
        is_constant = constants.issuperset(feeds)
        lowered = (
            precision is not None
            and node.op_type not in _MOVES
            and not is_constant
            and kept_free(node, kept)
            and self._types.get(node.output[0]) == TensorProto.FLOAT
        )
        if lowered and node.op_type != "BatchNormalization":
            feeds = {
                name: _round(values, precision, saturate=name in constants)
                if self._types[name] == TensorProto.FLOAT
                else values
                for name, values in feeds.items()
            }
        if lowered and node.op_type == "BatchNormalization":
            outputs = [_normalized(node, feeds, precision)]
        else:
            outputs = self._evaluate(node, feeds)
        return {
            name: self._stored(name, output, precision if lowered else None)
            for name, output in zip(node.output, outputs, strict=True)
            if name
        }

    def _evaluate(self, node, feeds):
        key = node.output[0]
        if key not in self._evaluators:
            self._evaluators[key] = self._evaluator(node, feeds)
        return self._evaluators[key].run(None, feeds)

    def _evaluator(self, node, feeds) -> ReferenceEvaluator:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for attribute in copy.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                wide = attribute.i in (TensorProto.FLOAT, TensorProto.FLOAT16)
                attribute.i = TensorProto.DOUBLE if wide else attribute.i
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape
            )
            for name, values in feeds.items()
        ]
        outputs = [
            helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in node.output
        ]
        graph = helper.make_graph([copy], "node", inputs, outputs)
        # What evaluates these in numpy begins at a later opset; nothing else about them changed.
        opset = 19 if node.op_type in {"DequantizeLinear", "QuantizeLinear"} else self._opset
        return ReferenceEvaluator(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        )

    def _stored(self, name, values, precision):
        """A value as the model's types and the precision let it be."""
        if self._types.get(name) == TensorProto.FLOAT16:
            return values.astype(np.float16).astype(np.float64)
        return _round(values, precision) if precision is not None else values


def _normalized(node, feeds, precision):
    """One scale and one shift, folded before they are rounded."""
    x, gamma, beta, mean, variance = (feeds[name] for name in node.input)
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    scale = gamma / np.sqrt(variance + epsilon)
    low = [_round(v, precision, saturate=True) for v in (scale, beta - mean * scale)]
    return _round(x, precision) * low[0] + low[1]


def kept_free(node, kept) -> bool:
    return not set(node.output) & set(kept)


def _round(values, precision: Precision, *, saturate: bool = False):
    """Rounds float64 to the nearest of the precision, ties to even, by scaling."""
    if values.dtype != np.float64:
        return values
    with np.errstate(all="ignore"):
        exponents = np.floor(np.log2(np.abs(values)))
        smallest = np.log2(precision.min_normal)
        exponents = np.maximum(np.where(np.isfinite(exponents), exponents, smallest), smallest)
        bits = 10 if precision.name == "fp16" else 7
        steps = 2.0 ** (exponents - bits)
        rounded = np.where(np.isfinite(values), np.rint(values / steps) * steps, values)
        beyond = np.abs(rounded) > precision.max_finite
        limit = precision.max_finite if saturate else np.inf
        return np.where(beyond & np.isfinite(values), np.copysign(limit, values), rounded)


def _widened(values):
    return values.astype(np.float64) if values.dtype in (np.float16, np.float32) else values


def _element_types(graph) -> dict[str, int]:
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types.update({weight.name: weight.data_type for weight in graph.initializer})
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                types.update(_element_types(attribute.g))
    return types
