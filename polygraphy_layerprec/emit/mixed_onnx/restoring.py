"""Putting the weights back where stubs stand for them, converted where asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from onnx import TensorProto

from polygraphy_layerprec.emit.mixed_onnx.weights import (
    ConversionCounts,
    encode_low,
    read_float_chunks,
    read_raw_chunks,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.emit.mixed_onnx.detached import TensorStore
    from polygraphy_layerprec.precision import Precision

__all__ = ["restore_inline", "restore_to_file"]

_ALIGNMENT_BYTES = 4096  # lets a runtime map a weight into memory
_NO_COUNTS = ConversionCounts()


def restore_inline(
    tensor: TensorProto, precision: Precision, store: TensorStore
) -> ConversionCounts:
    """Gives a stub its values, and says what the conversion did; leaves other tensors alone.

    External values that need no conversion stay where they are.

    Raises:
        ValueError: As `read_raw_chunks`.
    """
    original = store.original(tensor)
    if original is None:
        return _NO_COUNTS
    if tensor.data_type == original.data_type:
        name = tensor.name
        tensor.CopyFrom(original)
        tensor.name = name
        return _NO_COUNTS
    pieces, counts = [], _NO_COUNTS
    for piece, piece_counts in _pieces(tensor, original, precision, store):
        pieces.append(bytes(piece))
        counts += piece_counts
    _clear_external(tensor)
    tensor.raw_data = b"".join(pieces)
    return counts


def restore_to_file(
    tensor: TensorProto, file: BinaryIO, location: str, *, precision: Precision, store: TensorStore
) -> ConversionCounts:
    """Appends a stub's values to a data file, and says what the conversion did.

    Args:
        tensor: A stub, which then refers to the data file, or any other tensor, left alone.
        file: The data file, open for writing at its end.
        location: Name of the data file beside the model.
        precision: The low precision.
        store: Where the originals are.

    Raises:
        ValueError: As `read_raw_chunks`.
    """
    original = store.original(tensor)
    if original is None:
        return _NO_COUNTS
    file.write(bytes(-file.tell() % _ALIGNMENT_BYTES))
    offset, counts = file.tell(), _NO_COUNTS
    for piece, piece_counts in _pieces(tensor, original, precision, store):
        file.write(piece)
        counts += piece_counts
    _clear_external(tensor)
    tensor.data_location = TensorProto.EXTERNAL
    length = file.tell() - offset
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return counts


def _pieces(
    tensor: TensorProto, original: TensorProto, precision: Precision, store: TensorStore
) -> Iterator[tuple[bytes | memoryview, ConversionCounts]]:
    if tensor.data_type == original.data_type:
        for raw in read_raw_chunks(original, store.folder):
            yield raw, _NO_COUNTS
    else:
        for values in read_float_chunks(original, store.folder):
            yield encode_low(values, precision)


def _clear_external(tensor: TensorProto) -> None:
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")
