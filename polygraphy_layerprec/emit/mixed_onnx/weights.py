"""Weights: read in chunks, from memory or from an external data file, and rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.model.weights import locate_weight
from polygraphy_layerprec.precision import Precision, round_to_precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from polygraphy_layerprec.model.external_data import DataFolder

__all__ = [
    "ConversionCounts",
    "element_count",
    "encode_low",
    "is_external",
    "low_tensor_type",
    "read_float_chunks",
    "read_raw_chunks",
    "read_values",
    "stored_size",
]

_CHUNK_BYTES = 1 << 18  # bounds memory whatever the size of a weight, and stays in a cache
_LOW_TENSOR_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@dataclass(frozen=True, slots=True)
class ConversionCounts:
    """What rounding did to weights beyond rounding them."""

    clamped: int = 0
    """Finite values that became the largest finite number instead of infinity."""

    flushed: int = 0
    """Values other than zero that became zero."""

    def __add__(self, other: ConversionCounts) -> ConversionCounts:
        """Returns the counts of both."""
        return ConversionCounts(self.clamped + other.clamped, self.flushed + other.flushed)


def low_tensor_type(precision: Precision) -> int:
    """Returns the `TensorProto.DataType` that stores a precision.

    Raises:
        ValueError: If ONNX has no such type, or this module does not know it.
    """
    if precision.name not in _LOW_TENSOR_TYPES:
        known = ", ".join(sorted(_LOW_TENSOR_TYPES))
        raise ValueError(f"precision must be one of {known}, got {precision.name!r}")
    return _LOW_TENSOR_TYPES[precision.name]


def is_external(tensor: TensorProto) -> bool:
    """Returns whether the values lie in a file of their own."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def element_count(tensor: TensorProto) -> int:
    """Returns the number of elements, 1 for a scalar."""
    return math.prod(tensor.dims)


def stored_size(tensor: TensorProto, tensor_type: int | None = None) -> int:
    """Returns the size of the values in bytes, as if they had another type where one is given."""
    return math.ceil(element_count(tensor) * _type_bits(tensor_type or tensor.data_type) / 8)


def read_values(tensor: TensorProto, folder: DataFolder | None) -> npt.NDArray[np.float32]:
    """Returns all values of a FLOAT tensor, shape `tensor.dims`.

    Raises:
        ValueError: As `read_raw_chunks`.
    """
    chunks = list(read_float_chunks(tensor, folder))
    flat = np.concatenate(chunks) if chunks else np.empty(0, np.float32)
    return flat.reshape(tuple(tensor.dims))


def read_float_chunks(
    tensor: TensorProto, folder: DataFolder | None
) -> Iterator[npt.NDArray[np.float32]]:
    """Yields the values of a FLOAT tensor in order, flat, a bounded number at a time.

    Raises:
        ValueError: As `read_raw_chunks`.
    """
    for chunk in read_raw_chunks(tensor, folder):
        yield np.frombuffer(chunk, np.dtype("<f4")).astype(np.float32, copy=False)


def read_raw_chunks(tensor: TensorProto, folder: DataFolder | None) -> Iterator[bytes | memoryview]:
    """Yields the values as ONNX stores them in `raw_data`, a bounded number of bytes at a time.

    Args:
        tensor: Any tensor but one of strings.
        folder: Where the data files of the model are, None for a model in memory.

    Raises:
        ValueError: If external values have no folder, lie outside it, or are cut short.
    """
    if is_external(tensor):
        yield from _read_file_chunks(tensor, folder)
        return
    raw = memoryview(_inline_bytes(tensor))
    for start in range(0, len(raw), _CHUNK_BYTES):
        yield raw[start : start + _CHUNK_BYTES]


def encode_low(
    values: npt.NDArray[np.float32], precision: Precision
) -> tuple[bytes, ConversionCounts]:
    """Returns values rounded to nearest-even as `raw_data`, finite ones clamped to the range."""
    rounded = round_to_precision(values, precision, saturate=True)
    counts = ConversionCounts(
        clamped=_count_clamped(values, precision),
        flushed=int(np.count_nonzero(values)) - int(np.count_nonzero(rounded)),
    )
    if low_tensor_type(precision) == TensorProto.FLOAT16:
        return rounded.astype("<f2").tobytes(), counts
    upper_halves = rounded.astype("<f4", copy=False).view("<u4") >> 16
    return upper_halves.astype("<u2").tobytes(), counts


def _count_clamped(values: npt.NDArray[np.float32], precision: Precision) -> int:
    limit = precision.overflow_threshold
    if not values.size or max(float(values.max()), -float(values.min())) < limit:
        return 0
    return int(np.count_nonzero(np.isfinite(values) & (np.abs(values) >= limit)))


def _type_bits(tensor_type: int) -> int:
    name = TensorProto.DataType.Name(tensor_type)
    for suffix, bits in (("INT4", 4), ("INT2", 2), ("FLOAT4E2M1", 4)):
        if name.endswith(suffix):  # numpy carries these in whole bytes
            return bits
    return int(helper.tensor_dtype_to_np_dtype(tensor_type).itemsize) * 8


def _inline_bytes(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return numpy_helper.to_array(tensor).astype("<f4", copy=False).tobytes()


def _read_file_chunks(tensor: TensorProto, folder: DataFolder | None) -> Iterator[bytes]:
    if folder is None:
        raise ValueError(f"the values of {tensor.name!r} must be loaded: they are in another file")
    weight = locate_weight(tensor, tensor.name, folder)
    assert weight.path is not None
    remaining = weight.stored_bytes
    with open(weight.path, "rb") as file:
        file.seek(weight.offset)
        while remaining:
            chunk = file.read(min(remaining, _CHUNK_BYTES))
            if not chunk:
                raise ValueError(f"the external data of {tensor.name!r} must not be cut short")
            remaining -= len(chunk)
            yield chunk
