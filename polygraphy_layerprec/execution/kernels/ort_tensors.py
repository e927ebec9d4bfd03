"""Between numpy's arrays and ONNX-Runtime's tensors, of every element type that both can hold.

numpy lacks BF16 and everything narrower; ml_dtypes has these types, an element a byte or two.
ONNX-Runtime packs what is narrower than a byte, the first element in the lowest bits. It hands text
out but does not take it in.
"""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from polygraphy_layerprec.arrays import library_of, namespace_of
from polygraphy_layerprec.execution.errors import ExecutionError, NodeError
from polygraphy_layerprec.execution.kernels.device import current_device, is_placed_there
from polygraphy_layerprec.execution.kernels.sessions import create_session
from polygraphy_layerprec.model.element_types import PACKED_BITS, TYPES_BY_RUNTIME_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fed_tensor", "foreign_dtype", "placed", "placed_tensor", "tensor_of", "value_of"]

_BIT_WIDTHS: Final = {
    "bfloat16": 16,
    "float8e4m3fn": 8,
    "float8e4m3fnuz": 8,
    "float8e5m2": 8,
    "float8e5m2fnuz": 8,
    "float8e8m0": 8,
    **PACKED_BITS,
}  # of the types that numpy lacks
_REGISTERED: Final = 2  # numpy calls types so that others brought
_PLACED_TYPES: Final = frozenset({"tensor(float)", "tensor(double)"})
_TEXT_KINDS: Final = frozenset("OSU")


def _foreign_dtypes() -> Iterator[tuple[str, np.dtype[Any]]]:
    """The types that numpy lacks, of those that this onnx knows and hands out as such."""
    for name in _BIT_WIDTHS.keys() & TYPES_BY_RUNTIME_NAME.keys():
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(TYPES_BY_RUNTIME_NAME[name]))
        if dtype.isbuiltin == _REGISTERED:  # older versions put numpy's in their place
            yield name, dtype


_DTYPES: Final = dict(_foreign_dtypes())
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}
_NAMES_OF_TENSORS: Final = {f"tensor({name})": name for name in _BIT_WIDTHS}
_OWNERS: Final[WeakKeyDictionary[ort.OrtValue, np.ndarray[Any, Any]]] = WeakKeyDictionary()


def tensor_of(values: np.ndarray[Any, Any]) -> ort.OrtValue:
    """Returns ONNX-Runtime's view of an array, which must stay alive and in place.

    Text and what is narrower than a byte are copied.

    Raises:
        NodeError: If ONNX-Runtime has no tensors of this type.
    """
    if library_of(values) is not None:
        return _device_tensor(values)
    # `ascontiguousarray` makes a 0-D array 1-D; `require` does not.
    values = np.require(values, requirements="C")
    name = _NAMES.get(values.dtype)
    try:
        if name is not None:
            tensor = _foreign_tensor(values, name)
        elif values.dtype.kind in _TEXT_KINDS:
            return _text_tensor(values)
        else:
            tensor = ort.OrtValue.ortvalue_from_numpy(values)
    except (AttributeError, RuntimeError) as error:  # ONNX-Runtime 1.17 takes numpy's types alone
        raise NodeError(
            f"ONNX-Runtime {ort.__version__} has no tensors of {values.dtype} on the CPU"
        ) from error
    _OWNERS[tensor] = values
    return tensor


def value_of(tensor: ort.OrtValue) -> np.ndarray[Any, Any]:
    """Returns the elements of a tensor, without a copy where ONNX-Runtime can.

    Raises:
        ExecutionError: If it is text that is not UTF-8, or has more axes than numpy's arrays may.
    """
    # ONNX-Runtime's own view of an array of numpy's would not keep the array alive.
    owner = _OWNERS.get(tensor)
    if owner is not None:
        return owner
    device = current_device()
    if device is not None and tensor.data_type().startswith("tensor") and device.holds(tensor):
        there: np.ndarray[Any, Any] = device.array_of(tensor)
        return there
    name = _NAMES_OF_TENSORS.get(tensor.data_type())
    if name is not None:
        return _foreign_values(tensor, name)
    try:
        values: np.ndarray[Any, Any] = tensor.numpy()
    except UnicodeDecodeError as error:
        raise ExecutionError(
            f"Text in the model is not UTF-8: {error}.\nExport the model again."
        ) from error
    except ValueError as error:
        raise ExecutionError(
            f"A tensor of the model has {len(tensor.shape())} axes, which is too many: {error}.\n"
            f"Export the model without operators that make as many."
        ) from error
    return values


def fed_tensor(name: str, values: np.ndarray[Any, Any]) -> ort.OrtValue:
    """Returns what `tensor_of` does, for what is fed to the model's input `name`.

    Raises:
        ExecutionError: If ONNX-Runtime has no tensors of this type.
    """
    try:
        return placed_tensor(values)
    except NodeError as error:
        raise ExecutionError(
            f"The model's input {name!r} cannot be fed: {error}.\n"
            f"Cut the model behind it, for example with `polygraphy surgeon extract`."
        ) from error


def placed_tensor(values: np.ndarray[Any, Any]) -> ort.OrtValue:
    """Returns what `tensor_of` does, on the device where tensors of such a type lie there."""
    device = current_device()
    if device is None or library_of(values) is not None or not is_placed_there(values.dtype):
        return tensor_of(values)
    return tensor_of(device.array_from(values))


def placed(tensor: ort.OrtValue) -> ort.OrtValue:
    """Returns a value where it is to lie: itself, or a copy on the device."""
    device = current_device()
    if device is None or tensor.data_type() not in _PLACED_TYPES or device.holds(tensor):
        return tensor
    return tensor_of(device.array_from(value_of(tensor)))


def _device_tensor(values: Any) -> ort.OrtValue:
    device = current_device()
    assert device is not None
    values = namespace_of(values).ascontiguousarray(values).reshape(values.shape)
    tensor = device.tensor_of(values)
    _OWNERS[tensor] = values
    return tensor


def foreign_dtype(type_name: str) -> np.dtype[Any]:
    """Returns the dtype of a type that numpy lacks, by ONNX-Runtime's name, or that of its bits."""
    name = _NAMES_OF_TENSORS[type_name]
    return _DTYPES.get(name, np.dtype(np.uint8 if _BIT_WIDTHS[name] <= 8 else np.uint16))


def _foreign_tensor(values: np.ndarray[Any, Any], name: str) -> ort.OrtValue:
    width = _BIT_WIDTHS[name]
    if width >= 8:
        bits = values.view(np.uint8 if width == 8 else np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TYPES_BY_RUNTIME_NAME[name])
    # The tensor takes its shape from an array that is longer than what is read of it, and keeps it.
    packed = np.zeros(values.shape, np.uint8)
    _pack(values.reshape(-1).view(np.uint8), packed.reshape(-1), width)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(packed, TYPES_BY_RUNTIME_NAME[name])


def _pack(elements: np.ndarray[Any, Any], packed: np.ndarray[Any, Any], width: int) -> None:
    per_byte = 8 // width
    for place in range(per_byte):
        part = (elements[place::per_byte] & ((1 << width) - 1)) << (place * width)
        packed[: part.size] |= part


def _foreign_values(tensor: ort.OrtValue, name: str) -> np.ndarray[Any, Any]:
    """A copy of the bits, as numpy's bytes where this onnx has no type for them."""
    shape, width = tuple(tensor.shape()), _BIT_WIDTHS[name]
    count = math.prod(shape)
    stored = np.empty(-(-count * width // 8), np.uint8)
    ctypes.memmove(stored.ctypes.data, tensor.data_ptr(), stored.nbytes)
    if width >= 8:
        elements = stored.view(np.uint8 if width == 8 else np.uint16)
    else:
        places = np.arange(0, 8, width, dtype=np.uint8)
        elements = ((stored[:, np.newaxis] >> places) & ((1 << width) - 1)).reshape(-1)[:count]
    dtype = _DTYPES.get(name, elements.dtype)
    return elements.reshape(shape).view(dtype)


def _text_tensor(values: np.ndarray[Any, Any]) -> ort.OrtValue:
    """Text as the result of a model that holds it: no other way leads into an OrtValue."""
    texts = [text if isinstance(text, bytes) else str(text).encode() for text in values.flat]
    constant = TensorProto(data_type=TensorProto.STRING, dims=values.shape, string_data=texts)
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["text"], value=constant)],
        "text",
        [],
        [onnx.ValueInfoProto(name="text")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return create_session(model.SerializeToString()).run_with_ort_values(["text"], {})[0]
