"""The float graph of a quantised model that computes in FP16 around its pairs, in FP32.

What FP16 does is another question, which `--precision fp16` answers; the reference is FP32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.weights import locate_weight

if TYPE_CHECKING:
    from onnx import ModelProto

    from polygraphy_layerprec.model.external_data import DataFolder
    from polygraphy_layerprec.model.weights import Weight

__all__ = ["widen_model", "widen_weights"]


def widen_model(model: ModelProto) -> None:
    """Makes FP32 of every FP16 that a model without its constants speaks of.

    Raises:
        ModelError: If a body of a loop or a branch computes in FP16.
    """
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    _widen_nodes(model.graph.node)


def _widen_nodes(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise ModelError(
                    f"The {node.op_type} {node.name!r} has a body, in a model that computes in "
                    f"FP16 around its pairs.\n"
                    f"Quantise it with FP32 around: ModelOpt has `--high_precision_dtype fp32`."
                )
            if attribute.name in {"to", "dtype"} and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            elif attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT16:
                values = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


def widen_weights(weights: Mapping[str, Weight], folder: DataFolder) -> dict[str, Weight]:
    """Returns constants with those of FP16 as FP32, which are then in memory."""
    widened = {}
    for name, weight in weights.items():
        if weight.tensor_type == TensorProto.FLOAT16:
            values = numpy_helper.from_array(weight.read().astype(np.float32), weight.tensor.name)
            widened[name] = locate_weight(values, name, folder)
        else:
            widened[name] = weight
    return widened
