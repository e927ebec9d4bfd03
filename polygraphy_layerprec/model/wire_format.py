"""An ONNX file without its weights: a scan that leaves large tensors where they are on disk.

Parsing a model with embedded weights the usual way costs more memory than the whole model. Here
the protobuf wire format (protobuf.dev, "Encoding") is walked with seeks: large `raw_data` fields
become references into the file itself, in the form that ONNX uses for external data.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Final

from polygraphy_layerprec.model.errors import ModelError

__all__ = ["read_skeleton"]

# Field numbers are those of onnx.proto.
_CHILDREN: Final = {
    ("model", 7): "graph",
    ("model", 25): "function",
    ("graph", 1): "node",
    ("graph", 5): "tensor",
    ("function", 7): "node",
    ("node", 5): "attribute",
    ("attribute", 5): "tensor",
    ("attribute", 6): "graph",
    ("attribute", 10): "tensor",
    ("attribute", 11): "graph",
}
_DEEPEST: Final = 100  # protobuf's own limit
_RAW_DATA_FIELD: Final = 9
_EXTERNAL_DATA_FIELD: Final = 13
_DATA_LOCATION_FIELD: Final = 14
_EXTERNAL_LOCATION: Final = 1

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT_BYTES: Final = 10


def read_skeleton(path: str, *, inline_bytes: int) -> bytes:
    """Returns the serialized model with every tensor over `inline_bytes` left on disk.

    Such a tensor refers to the file's own name, an offset and a length, as external data would.

    Raises:
        ModelError: If the bytes are not a complete protobuf message.
        OSError: If the file cannot be read.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        return _Scanner(file, os.path.basename(path), inline_bytes).message("model", size)


class _Scanner:
    def __init__(self, file: BinaryIO, location: str, inline_bytes: int) -> None:
        self._file = file
        self._location = location
        self._inline_bytes = inline_bytes

    def message(self, kind: str, end: int, depth: int = 0) -> bytes:
        """Copies the message that ends at byte `end`, large tensors excepted."""
        if depth > _DEEPEST:
            raise ModelError(
                f"{self._location!r} nests messages in more than {_DEEPEST} levels, which protobuf "
                f"refuses.\nExport the model with fewer bodies within each other."
            )
        parts: list[bytes] = []
        reference = b""
        while self._file.tell() < end:
            tag = self._varint(end)
            number, wire_type = tag >> 3, tag & 7
            if number == 0:
                raise self._malformed()
            if wire_type == _LENGTH_DELIMITED:
                field, large = self._length_delimited(kind, number, end, depth)
                parts.append(field)
                reference = reference or large
            elif wire_type == _VARINT:
                parts.append(_encode_varint(tag) + _encode_varint(self._varint(end)))
            elif wire_type in _FIXED_SIZES:
                parts.append(_encode_varint(tag) + self._bytes(_FIXED_SIZES[wire_type], end))
            else:
                raise self._malformed()
        # The last value of a field counts: the file itself may say that the data is embedded.
        return b"".join([*parts, reference])

    def _length_delimited(
        self, kind: str, number: int, end: int, depth: int
    ) -> tuple[bytes, bytes]:
        """The copied field, and in place of large data the reference to it."""
        length = self._varint(end)
        start = self._file.tell()
        if start + length > end:
            raise ModelError(
                f"The file ends in the middle of the model: {self._location!r} is truncated.\n"
                f"Note: A field at byte {start} wants {length} bytes, but only {end - start} are "
                f"left.\nCopy or export the model again."
            )
        if kind == "tensor" and number == _RAW_DATA_FIELD and length > self._inline_bytes:
            self._file.seek(length, os.SEEK_CUR)
            return b"", self._external_reference(start, length)
        child = _CHILDREN.get((kind, number))
        # What is small holds no large tensor: copied whole, it costs no walk.
        if child is None or length <= self._inline_bytes:
            payload = self._bytes(length, end)
        else:
            payload = self.message(child, start + length, depth + 1)
        return _encode_field(number, payload), b""

    def _external_reference(self, offset: int, length: int) -> bytes:
        entries = {"location": self._location, "offset": str(offset), "length": str(length)}
        fields = [
            _encode_field(
                _EXTERNAL_DATA_FIELD,
                _encode_field(1, key.encode()) + _encode_field(2, os.fsencode(value)),
            )
            for key, value in entries.items()
        ]
        location_tag = _encode_varint(_DATA_LOCATION_FIELD << 3 | _VARINT)
        return b"".join([*fields, location_tag, _encode_varint(_EXTERNAL_LOCATION)])

    def _bytes(self, count: int, end: int) -> bytes:
        payload = self._file.read(count)
        if len(payload) != count or self._file.tell() > end:
            raise self._malformed()
        return payload

    def _varint(self, end: int) -> int:
        value = 0
        for index in range(_LONGEST_VARINT_BYTES):
            byte = self._bytes(1, end)[0]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value
        raise self._malformed()

    def _malformed(self) -> ModelError:
        return ModelError(
            f"{self._location!r} is not an ONNX model: its bytes are not a protobuf message "
            f"(byte {self._file.tell()}).\nGive the path of a binary `.onnx` file."
        )


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _encode_field(number: int, payload: bytes) -> bytes:
    tag = _encode_varint(number << 3 | _LENGTH_DELIMITED)
    return tag + _encode_varint(len(payload)) + payload
