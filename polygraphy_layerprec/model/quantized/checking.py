"""Scales and zero points that cannot be meant, told by the pair and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto

from polygraphy_layerprec.model.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.model.graph import Graph, Node

__all__ = ["checked_scale"]

_RANGES: Final[dict[int, tuple[int, int]]] = {TensorProto.INT8: (-128, 127)}
_SYMMETRIC: Final = frozenset({TensorProto.FLOAT8E4M3FN, TensorProto.INT32})
_SCALES: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_DEFAULT_AXIS: Final = 1


def checked_scale(
    graph: Graph, node: Node, before: Node | None
) -> tuple[npt.NDArray[Any], int | None, int]:
    """Returns the scale of a pair, the axis of its channels or blocks, and the size of a block.

    Args:
        graph: The quantised model.
        node: The DequantizeLinear.
        before: The QuantizeLinear before it; None for a constant that is stored quantised.

    Raises:
        ModelError: If scale or zero point of either node cannot be meant.
    """
    found = [_checked(graph, one) for one in (before, node) if one is not None]
    return found[0]


def _checked(graph: Graph, node: Node) -> tuple[npt.NDArray[Any], int | None, int]:
    scale = graph.weights[node.inputs[1]].read()
    kind = graph.weights[node.inputs[1]].tensor_type
    if kind not in _SCALES:
        named = TensorProto.DataType.Name(kind)
        raise _broken(
            node, f"the scale {node.inputs[1]!r} is {named}; FLOAT, FLOAT16 or BFLOAT16 is due"
        )
    wide = np.asarray(scale, np.float64)
    bad = ~(np.isfinite(wide) & (wide > 0.0))
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        where = f" at {place}" if wide.ndim and wide.size > 1 else ""
        raise _broken(
            node,
            f"the scale {node.inputs[1]!r} is {wide[bad].flat[0]:g}{where}; scales are positive",
        )
    axis, block_size = _check_shape(graph, node, scale)
    if len(node.inputs) > 2 and node.inputs[2]:
        _check_zero_point(graph, node, scale.shape)
    return scale, axis, block_size


def _check_shape(graph: Graph, node: Node, scale: npt.NDArray[Any]) -> tuple[int | None, int]:
    """Checks the shape of a scale, and returns its axis and the size of its blocks."""
    block_size = int(node.attributes.get("block_size", 0))
    if block_size < 0:
        raise _broken(node, f"the size of its blocks is {block_size}, which is negative")
    found = graph.types.get(node.inputs[0])
    shape = None if found is None else found.shape
    if scale.size == 1 and not block_size and scale.ndim <= 1:
        return None, 0
    axis = int(node.attributes.get("axis", _DEFAULT_AXIS))
    if shape is None:
        return axis, block_size
    if not -len(shape) <= axis < len(shape):
        raise _broken(node, f"the axis is {axis}, and the tensor has {len(shape)} axes")
    axis %= len(shape)
    extent = shape[axis]
    if block_size:
        blocks = None if not isinstance(extent, int) else -(-extent // block_size)
        wanted = [*shape[:axis], blocks, *shape[axis + 1 :]]
        if scale.ndim != len(shape):
            raise _wrong_shape(node, scale, wanted)
    else:
        wanted = [extent]
        if scale.ndim != 1:
            raise _wrong_shape(node, scale, wanted)
    for given, expected in zip(scale.shape, wanted, strict=True):
        if isinstance(expected, int) and given != expected:
            raise _wrong_shape(node, scale, wanted)
    return axis, block_size


def _check_zero_point(graph: Graph, node: Node, shape: tuple[int, ...]) -> None:
    weight = graph.weights[node.inputs[2]]
    kind = weight.tensor_type
    quantized = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    if graph.element_type(quantized) != kind:
        raise _broken(
            node,
            f"the zero point {weight.name!r} is {TensorProto.DataType.Name(kind)}, and the "
            f"integers are {TensorProto.DataType.Name(graph.element_type(quantized))}",
        )
    if weight.element_count != max(int(np.prod(shape)), 1):
        raise _broken(
            node,
            f"the zero point {weight.name!r} has shape {list(weight.shape)}, and the scale has "
            f"{list(shape)}",
        )
    stored = list(weight.tensor.int32_data)
    low, high = _RANGES.get(kind, (min(stored, default=0), max(stored, default=0)))
    if stored and not (low <= min(stored) and max(stored) <= high):
        raise _broken(
            node,
            f"the zero point {weight.name!r} goes from {min(stored)} to {max(stored)}, and INT8 "
            f"from {low} to {high}",
        )
    if kind in _SYMMETRIC and np.asarray(weight.read(), np.float64).any():
        raise _broken(
            node,
            f"the zero point {weight.name!r} is not 0, which {TensorProto.DataType.Name(kind)} "
            f"does not know",
        )


def _wrong_shape(node: Node, scale: npt.NDArray[Any], wanted: list[Any]) -> ModelError:
    shown = [extent if isinstance(extent, int) else "any" for extent in wanted]
    return _broken(
        node,
        f"the scale {node.inputs[1]!r} has shape {list(scale.shape)}; a scalar or {shown} is due",
    )


def _broken(node: Node, what: str) -> ModelError:
    return ModelError(
        f"{node.op_type} {node.name!r} cannot be meant: {what}.\nQuantise the model again."
    )
