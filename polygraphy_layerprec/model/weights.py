"""Weights on demand: read while their node runs, never all at once."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from polygraphy_layerprec.model.element_types import is_packed, stored_bytes
from polygraphy_layerprec.model.errors import ModelError, damaged_tensor
from polygraphy_layerprec.model.external_data import DataFolder
from polygraphy_layerprec.model.sparse import dense_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

__all__ = ["Weight", "WeightBuffer", "locate_weight"]

_LARGEST_EXPANSION: Final = 64  # an INT64 zero takes one byte in a file, and text as little


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant tensor of the model and where its bytes are."""

    name: str
    """ONNX name, unique in the model."""

    dtype: np.dtype[Any]
    """Element type; ml_dtypes' types for those that numpy lacks."""

    shape: tuple[int, ...]
    """Shape; `()` for a scalar."""

    nbytes: int
    """Size of the array in memory."""

    tensor: TensorProto
    """The tensor as it stands in the model, without its bytes when they are in a file."""

    path: str | None
    """File with the bytes; None when the tensor holds them itself."""

    offset: int
    """First byte in that file."""

    def read(self, buffer: WeightBuffer | None = None) -> npt.NDArray[Any]:
        """Returns the values, in `buffer`'s memory where one is given.

        Raises:
            ModelError: If the file went away or became shorter since the model was loaded.
        """
        if self.path is None:
            return self._copied(_values_of(self.tensor), buffer)
        if not self.is_plain:
            return self._copied(self._read_packed(), buffer)
        values = np.empty(self.shape, self.dtype) if buffer is None else buffer.take(self)
        with self._open() as file:
            self._read_into(values, file, self.offset)
        return values

    @property
    def tensor_type(self) -> int:
        """Member of `TensorProto.DataType`."""
        return int(self.tensor.data_type)

    @property
    def element_count(self) -> int:
        """Number of elements, 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether the bytes are in a file just as they are in memory."""
        return self.path is not None and not is_packed(self.tensor_type)

    def read_rows(self, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
        """Returns some entries along the first axis of a tensor that `is_plain`.

        Args:
            rows: Indices, sorted, from 0 to below the extent of the axis.

        Raises:
            ModelError: As `read` does.
        """
        values = np.empty((rows.size, *self.shape[1:]), self.dtype)
        row_bytes = self.nbytes // self.shape[0]
        with self._open() as file:
            for target, row in zip(values, rows.tolist(), strict=True):
                self._read_into(target, file, self.offset + row * row_bytes)
        return values

    def read_chunks(self, chunk_bytes: int) -> Iterator[bytes]:
        """Yields the values as ONNX stores them in `raw_data`, a bounded number of bytes at a time.

        Raises:
            ModelError: As `read` does.
        """
        if self.path is None:
            raw = self.tensor.raw_data
            if not self.tensor.HasField("raw_data"):
                raw = numpy_helper.from_array(_values_of(self.tensor)).raw_data
            for start in range(0, len(raw), chunk_bytes):
                yield raw[start : start + chunk_bytes]
            return
        with io.BufferedReader(self._open()) as file:
            file.seek(self.offset)
            remaining = self._stored_bytes
            while remaining:
                chunk = file.read(min(remaining, chunk_bytes))
                if not chunk:
                    raise self._cut_short(remaining, file.tell())
                remaining -= len(chunk)
                yield chunk

    def read_ends(self, count: int) -> bytes:
        """Returns the first and the last `count` bytes, or all bytes where there are fewer.

        Raises:
            ModelError: As `read` does.
        """
        if not self.is_plain or self.nbytes <= 2 * count:
            values = self.read()
            # An array of texts holds addresses.
            whole = repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()
            return whole if len(whole) <= 2 * count else whole[:count] + whole[-count:]
        ends = np.empty((2, count), np.uint8)
        with self._open() as file:
            self._read_into(ends[0], file, self.offset)
            self._read_into(ends[1], file, self.offset + self.nbytes - count)
        return ends.tobytes()

    def _open(self) -> io.FileIO:
        assert self.path is not None
        try:
            return open(self.path, "rb", buffering=0)
        except OSError as error:
            raise ModelError(
                f"The weights file {self.path!r} cannot be read any more: {error.strerror}.\n"
                f"Note: Tensor {self.name!r} is in it. Put it back, and start again."
            ) from error

    def _read_into(self, values: npt.NDArray[Any], file: io.FileIO, offset: int) -> None:
        # A 0-D array has no buffer of bytes to read into; its 1-D view does.
        view = values.reshape(-1).view(np.uint8)
        file.seek(offset)
        if file.readinto(memoryview(view)) != view.nbytes:
            raise self._cut_short(view.nbytes, offset)

    def _cut_short(self, wanted: int, offset: int) -> ModelError:
        return ModelError(
            f"The weights file {self.path!r} became shorter while it was in use.\n"
            f"Note: Tensor {self.name!r} wants {wanted} bytes at {offset}."
        )

    def _copied(self, values: npt.NDArray[Any], buffer: WeightBuffer | None) -> npt.NDArray[Any]:
        if buffer is None:
            return values
        target = buffer.take(self)
        target[...] = values
        return target

    @property
    def _stored_bytes(self) -> int:
        return stored_bytes(self.tensor_type, self.dtype.itemsize, self.element_count)

    def _read_packed(self) -> npt.NDArray[Any]:
        """Reads types of less than a byte, which ONNX packs."""
        with io.BufferedReader(self._open()) as file:
            file.seek(self.offset)
            raw = file.read(self._stored_bytes)
        inline = TensorProto(
            name=self.name, data_type=self.tensor.data_type, dims=self.shape, raw_data=raw
        )
        return _values_of(inline)


class WeightBuffer:
    """Memory that one node's weights share with the next node's.

    Fresh memory for each weight would be mapped and zeroed page by page, which takes as long as
    reading them.
    """

    _LARGEST_KEPT_BYTES = 64 << 20
    _ALIGNMENT = 64  # as kernels like it

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._used = 0

    def reset(self, weights: Iterable[Weight]) -> None:
        """Makes room for `weights`; every array handed out before becomes invalid."""
        needed = sum(self._aligned(weight.nbytes) for weight in weights)
        self._used = 0
        if needed > self._memory.nbytes or self._memory.nbytes > self._LARGEST_KEPT_BYTES:
            self._memory = np.empty(0, np.uint8)  # give back the old before asking for the new
            self._memory = np.empty(needed, np.uint8)

    def take(self, weight: Weight) -> npt.NDArray[Any]:
        """Returns an uninitialised array for `weight`, one of those given to `reset`."""
        start, self._used = self._used, self._used + self._aligned(weight.nbytes)
        flat = self._memory[start : start + weight.nbytes].view(weight.dtype)
        return flat.reshape(weight.shape)

    def _aligned(self, nbytes: int) -> int:
        return -(-nbytes // self._ALIGNMENT) * self._ALIGNMENT


def locate_weight(tensor: TensorProto | SparseTensorProto, name: str, folder: DataFolder) -> Weight:
    """Returns where the bytes of `tensor` are; those in files are looked for in `folder`.

    Raises:
        ModelError: If the file is missing, too short, or outside `folder`, or if a sparse tensor
            is damaged or too large.
    """
    if isinstance(tensor, SparseTensorProto):
        values = locate_weight(tensor.values, name, folder).read()
        indices = locate_weight(tensor.indices, name, folder).read()
        tensor = dense_tensor(values, indices, tuple(tensor.dims), name)
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except KeyError:
        raise ModelError(
            f"Tensor {name!r} has an unknown data type: {tensor.data_type}.\n"
            f"Note: onnx is version {onnx.__version__}. Try a newer one."
        ) from None
    shape = tuple(tensor.dims)
    nbytes = dtype.itemsize * math.prod(shape)
    if min(shape, default=0) < 0:
        raise damaged_tensor(name, f"its shape is {list(shape)}")
    if tensor.data_location != TensorProto.EXTERNAL:
        if nbytes > _LARGEST_EXPANSION * tensor.ByteSize():
            raise damaged_tensor(name, f"{nbytes} bytes are missing from it")
        return Weight(name, dtype, shape, nbytes, tensor, None, 0)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = folder.data_path(entries.get("location", ""), name)
    offset = _number(entries, "offset", 0, name)
    stored = stored_bytes(tensor.data_type, dtype.itemsize, math.prod(shape))
    length = _number(entries, "length", stored, name)
    if length != stored:
        raise damaged_tensor(name, f"{length} bytes are stored for {list(shape)} of {dtype}")
    wanted = offset + length
    available = os.path.getsize(path)
    if available < wanted:
        raise ModelError(
            f"The weights file {path!r} is truncated.\n"
            f"Note: Tensor {name!r} ends at byte {wanted}, but the file has {available}.\n"
            f"Copy or export the model again, with its data file."
        )
    return Weight(name, dtype, shape, nbytes, tensor, path, offset)


def _number(entries: dict[str, str], key: str, default: int, name: str) -> int:
    text = entries.get(key, str(default))
    if not text.isascii() or not text.isdigit():
        raise damaged_tensor(name, f"its {key} in the data file is {text!r}")
    return int(text)


def _values_of(tensor: TensorProto) -> npt.NDArray[Any]:
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise damaged_tensor(tensor.name, str(error)) from error
