"""The parts that the models of the tests are made of, and inputs and files for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

__all__ = [
    "build_model",
    "node",
    "normal",
    "sample_inputs",
    "save_with_external_data",
    "scalar",
    "tensor",
]

_OPSET = 17
_IR_VERSION = 8  # the newest that goes with opset 17, so that old ONNX-Runtimes load the models


def node(
    operator: str, inputs: Sequence[str], *outputs: str, name: str = "", **attributes: object
) -> onnx.NodeProto:
    """Returns one node; empty strings stand for absent inputs and outputs."""
    made = helper.make_node(operator, inputs, outputs, name=name or None)
    made.attribute.extend(helper.make_attribute(key, attributes[key]) for key in sorted(attributes))
    return made


def tensor(
    name: str, shape: Sequence[int | str] | None, element_type: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    """Returns the declaration of a tensor; strings in `shape` are dynamic dimensions."""
    return helper.make_tensor_value_info(name, element_type, shape)


def scalar(value: float) -> npt.NDArray[np.float32]:
    """Returns `value` as a weight of rank 0."""
    return np.array(value, np.float32)


def normal(seed: int, *shape: int, scale: float = 1.0) -> npt.NDArray[np.float32]:
    """Returns seeded N(0, scale²) numbers of the given shape."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def build_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = _OPSET,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """Returns a model, without checking it: some tests need what the checker refuses."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "test_graph", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(
        graph, opset_imports=opsets, functions=functions, ir_version=_IR_VERSION
    )


def sample_inputs(
    model: onnx.ModelProto, *, scale: float = 1.0, seed: int = 0, dynamic: int = 3
) -> dict[str, npt.NDArray[Any]]:
    """Returns one array per input: N(0, scale²) floats, integers in [0, 4), True for bools.

    Args:
        model: Model whose inputs to fill; weights that are also inputs are left out.
        scale: Standard deviation of float inputs.
        seed: Seed of the random numbers.
        dynamic: Size of every dynamic dimension.
    """
    generator = np.random.default_rng(seed)
    weights = {weight.name for weight in model.graph.initializer}
    samples = {}
    for declared in model.graph.input:
        if declared.name in weights:
            continue
        kind = declared.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [size.dim_value or dynamic for size in kind.shape.dim]
        if dtype == np.bool_:
            samples[declared.name] = np.ones(shape, np.bool_)
        elif np.issubdtype(dtype, np.floating):
            samples[declared.name] = (generator.standard_normal(shape) * scale).astype(dtype)
        else:
            samples[declared.name] = generator.integers(0, 4, shape).astype(dtype)
        if "mask" in declared.name:
            samples[declared.name].reshape(-1)[:] = 1
    return samples


def save_with_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Saves a copy of `model` at `path` with every weight in `<name of path>.data` beside it."""
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    onnx.save_model(
        stored, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0
    )
