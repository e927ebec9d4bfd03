"""Weights: read in chunks, from memory or from a file, and rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from polygraphy_layerprec.plan.operands import LOW_TENSOR_TYPES
from polygraphy_layerprec.precision import Precision
from polygraphy_layerprec.rounding import round_to_precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from polygraphy_layerprec.model import Weight

__all__ = ["ConversionCounts", "PendingWeight", "low_tensor"]

_CHUNK_BYTES = 1 << 18  # bounds memory whatever the size of a weight, and stays in a cache


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


@dataclass(frozen=True, slots=True)
class PendingWeight:
    """A tensor of the new model whose values are not there yet."""

    tensor: TensorProto
    """The tensor in the new model: name, type and shape."""

    weight: Weight
    """Where its values come from."""

    precision: Precision
    """What FP32 values are rounded to where the types differ."""

    @property
    def stored_bytes(self) -> int:
        """Size of the values in the new model."""
        return math.ceil(self.weight.element_count * _type_bits(self.tensor.data_type) / 8)

    def fill_inline(self) -> ConversionCounts:
        """Puts the values into the tensor itself, and returns what the conversion did.

        Raises:
            ModelError: If a file went away or became shorter since the model was loaded.
        """
        counts = ConversionCounts()
        if self._is_copied and self.weight.path is None:
            name = self.tensor.name
            self.tensor.CopyFrom(self.weight.tensor)
            self.tensor.name = name
            return counts
        pieces = []
        for piece, piece_counts in self.pieces():
            pieces.append(piece)
            counts += piece_counts
        self.tensor.raw_data = b"".join(pieces)
        return counts

    @property
    def is_text(self) -> bool:
        """Whether it is a tensor of strings, which ONNX keeps in the model alone."""
        return bool(self.tensor.data_type == TensorProto.STRING)

    def pieces(self) -> Iterator[tuple[bytes, ConversionCounts]]:
        """Yields the values as ONNX stores them, and what the conversion did to each piece.

        Raises:
            ModelError: As `fill_inline`.
        """
        for chunk in self.weight.read_chunks(_CHUNK_BYTES):
            if self._is_copied:
                yield chunk, ConversionCounts()
            else:
                yield _encode_low(np.frombuffer(chunk, np.dtype("<f4")), self.precision)

    @property
    def _is_copied(self) -> bool:
        return bool(self.tensor.data_type == self.weight.tensor_type)


def low_tensor(values: npt.NDArray[np.float32], name: str, precision: Precision) -> TensorProto:
    """Returns a tensor of `precision` with these values, rounded, finite ones in range."""
    raw, _ = _encode_low(values.astype("<f4"), precision)
    tensor_type = LOW_TENSOR_TYPES[precision.name]
    return TensorProto(name=name, data_type=tensor_type, dims=values.shape, raw_data=raw)


def _encode_low(
    values: npt.NDArray[np.float32], precision: Precision
) -> tuple[bytes, ConversionCounts]:
    """Returns values rounded to nearest-even as `raw_data`, finite ones clamped to the range."""
    rounded = round_to_precision(values.astype(np.float32), precision, saturate=True)
    counts = ConversionCounts(
        clamped=_count_clamped(values, precision),
        flushed=int(np.count_nonzero(values)) - int(np.count_nonzero(rounded)),
    )
    if precision.name == "fp16":
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
