"""Element types between numpy and ONNX-Runtime, against onnx's own way of storing them."""

from __future__ import annotations

import ctypes

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.execution.errors import ExecutionError, NodeError
from polygraphy_layerprec.execution.kernels.ort_tensors import fed_tensor, tensor_of, value_of
from polygraphy_layerprec.execution.kernels.sessions import create_session

pytestmark = pytest.mark.onnxrt

NUMBERS = sorted(
    name
    for name in TensorProto.DataType.keys()  # noqa: SIM118 - an enum of protobuf, no dictionary
    if name not in {"UNDEFINED", "STRING", "COMPLEX64", "COMPLEX128", "FLOAT6E2M3", "FLOAT6E3M2"}
)
SHAPES = [(), (0,), (1,), (3,), (2, 5), (4, 0, 2), (9, 3)]


def numbers(name, shape):
    """Returns every kind of number that a type can hold, its signs included."""
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(getattr(TensorProto, name)))
    values = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)
    signed = name.startswith(("INT", "FLOAT", "BFLOAT", "DOUBLE")) and name != "FLOAT8E8M0"
    return np.asarray((values - 2.0 if signed else values).astype(dtype))


def made_by_onnxruntime(values):
    """Returns a tensor that ONNX-Runtime read from a model, so that numpy owns nothing of it."""
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(values))],
        "constant",
        [],
        [onnx.ValueInfoProto(name="y")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=9)
    (tensor,) = create_session(model.SerializeToString()).run_with_ort_values(["y"], {})
    return tensor


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_stored_as_onnx_stores_them(name, shape):
    values = numbers(name, shape)

    tensor = tensor_of(values)

    stored = numpy_helper.from_array(values).raw_data
    assert tensor.element_type() == getattr(TensorProto, name)
    assert tuple(tensor.shape()) == shape
    assert ctypes.string_at(tensor.data_ptr(), len(stored)) == stored
    assert value_of(tensor) is values


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_onnxruntime_made_are_read_back(name, shape):
    values = numbers(name, shape)

    read = value_of(made_by_onnxruntime(values))

    assert read.dtype == values.dtype
    assert read.shape == shape
    np.testing.assert_array_equal(read.astype(np.float64), values.astype(np.float64))


def test_what_is_packed_stays_where_it_is():
    values = numbers("INT4", (1 << 12,))
    tensor = tensor_of(values)

    others = [np.full(values.shape, 0xFF, np.uint8) for _ in range(8)]

    stored = numpy_helper.from_array(values).raw_data
    assert ctypes.string_at(tensor.data_ptr(), len(stored)) == stored
    assert len(others) == 8


def test_fp32_is_shared_and_never_copied():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    made = made_by_onnxruntime(values)

    assert tensor_of(values).data_ptr() == values.ctypes.data
    assert value_of(made).ctypes.data == made.data_ptr()


@pytest.mark.parametrize("dtype", [object, "U5", "S5"])
def test_text_of_any_kind_is_handed_over(dtype):
    texts = np.array([["a", ""], ["zzz", "b c"]], dtype)

    tensor = tensor_of(texts)

    assert tensor.data_type() == "tensor(string)"
    assert value_of(tensor).tolist() == [["a", ""], ["zzz", "b c"]]


def test_text_beyond_ascii_is_handed_over():
    assert value_of(tensor_of(np.array("é漢", object))).item() == "é漢"


def test_text_that_is_no_utf8_is_a_clear_error():
    with pytest.raises(ExecutionError, match="Text in the model is not UTF-8"):
        value_of(tensor_of(np.array([b"\xff\xfe"])))


def test_a_type_that_onnxruntime_lacks_is_named():
    values = np.zeros(2, np.complex64)

    with pytest.raises(NodeError, match="has no tensors of complex64"):
        tensor_of(values)
    with pytest.raises(ExecutionError, match=r"input 'x' cannot be fed: .* complex64"):
        fed_tensor("x", values)
