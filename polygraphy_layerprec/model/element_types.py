"""Types of values: ONNX's numbers, and the words that ONNX-Runtime has for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from onnx import TensorProto, TensorShapeProto, TypeProto, helper

__all__ = [
    "FLOAT_TYPES",
    "NOT_A_TENSOR",
    "PACKED_BITS",
    "TYPES_BY_RUNTIME_NAME",
    "UNKNOWN_TYPE",
    "ValueType",
    "is_packed",
    "stored_bytes",
    "type_of_runtime_name",
    "value_type",
]

NOT_A_TENSOR: Final = -1
"""Stands for the element type of a sequence, an optional or a map."""

UNKNOWN_TYPE: Final[int] = TensorProto.UNDEFINED
"""Stands for an element type that nobody tells."""

FLOAT_TYPES: Final[frozenset[int]] = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)
"""Types that networks compute in."""

TYPES_BY_RUNTIME_NAME: Final[dict[str, int]] = {
    name.lower(): number for name, number in TensorProto.DataType.items() if number
}
"""ONNX's element types by ONNX-Runtime's names for them."""


PACKED_BITS: Final = {"float4e2m1": 4, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
"""Bits of an element of the types that ONNX packs into bytes, by ONNX-Runtime's names."""


class ValueType(NamedTuple):
    """What is known of a value."""

    element_type: int
    """Member of `TensorProto.DataType`, `NOT_A_TENSOR` or `UNKNOWN_TYPE`."""

    shape: tuple[int | str | None, ...] | None = None
    """Extent of each axis: fixed, named, or unknown; None when not even the rank is known."""

    @property
    def is_known(self) -> bool:
        """Whether the element type is known."""
        return self.element_type != UNKNOWN_TYPE


def value_type(kind: TypeProto) -> ValueType:
    """Returns what a declaration says."""
    if kind.WhichOneof("value") not in (None, "tensor_type"):
        return ValueType(NOT_A_TENSOR)
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return ValueType(tensor.elem_type)
    return ValueType(tensor.elem_type, tuple(_extent(dim) for dim in tensor.shape.dim))


def is_packed(element_type: int) -> bool:
    """Returns whether ONNX stores several elements of a type in a byte."""
    return TensorProto.DataType.Name(element_type).lower() in PACKED_BITS


def stored_bytes(element_type: int, item_bytes: int, count: int) -> int:
    """Returns how many bytes ONNX stores elements in.

    Args:
        element_type: Member of `TensorProto.DataType`.
        item_bytes: Bytes of an element in memory.
        count: How many elements.
    """
    bits = PACKED_BITS.get(TensorProto.DataType.Name(element_type).lower(), 8 * item_bytes)
    return -(-count * bits // 8)


def type_of_runtime_name(name: str, shape: Sequence[int | None] | None = None) -> TypeProto:
    """Returns the type that ONNX-Runtime calls, say, `seq(tensor(float))`.

    Args:
        name: ONNX-Runtime's name for it.
        shape: Extents of a tensor, as far as they are known.

    Raises:
        KeyError: If it is of another kind.
    """
    kind, _, inner = name.partition("(")
    inner = inner.removesuffix(")")
    if kind == "tensor":
        return helper.make_tensor_type_proto(TYPES_BY_RUNTIME_NAME[inner], shape)
    make = {"seq": helper.make_sequence_type_proto, "optional": helper.make_optional_type_proto}
    return make[kind](type_of_runtime_name(inner))


def _extent(dim: TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return dim.dim_param or None
