"""What ONNX-Runtime says of types that neither ONNX's inference nor its schemas tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from onnx import NodeProto, ValueInfoProto, helper

from polygraphy_layerprec.model.element_types import (
    ValueType,
    type_of_runtime_name,
    value_type,
)

__all__ = ["output_types"]

_NEWEST_IR_VERSION = 9  # ONNX-Runtime 1.17 reads no newer one


def output_types(
    proto: NodeProto,
    sources: Iterable[str],
    types: Mapping[str, ValueType],
    *,
    opsets: Mapping[str, int],
) -> dict[str, ValueType]:
    """Returns the types of a node's outputs, none where ONNX-Runtime cannot load the node.

    Args:
        proto: The node.
        sources: The tensors that it reads, captured ones included.
        types: Their types.
        opsets: Operator-set version by domain.
    """
    # Costs a quarter of a second, which most models need not spend before they are run.
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        inputs = [
            helper.make_tensor_value_info(name, types[name].element_type, types[name].shape)
            for name in sources
        ]
        outputs = [ValueInfoProto(name=name) for name in proto.output if name]
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        model = helper.make_model(
            helper.make_graph([proto], "node", inputs, outputs),
            opset_imports=imports,
            ir_version=_NEWEST_IR_VERSION,
        )
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return {output.name: _type_of(output) for output in session.get_outputs()}
    except Exception:  # noqa: BLE001 - ONNX-Runtime raises a dozen types without a common base
        return {}


def _type_of(output: Any) -> ValueType:
    kind = value_type(type_of_runtime_name(output.type))
    # A scalar has an empty shape, and so has what ONNX-Runtime knows no rank of.
    return ValueType(kind.element_type, tuple(output.shape)) if output.shape else kind
