"""The scan of a file's bytes: a model is the same before and after, weights on disk or not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.wire_format import read_skeleton

NUMBERS = st.integers(100, 100_000)  # of fields that no version of the format has
VARINTS = st.one_of(
    st.integers(0, 300), st.integers(2**14 - 2, 2**14 + 2), st.integers(0, 2**64 - 1)
)


def varint(value):
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


@st.composite
def unknown_fields(draw):
    wire_type = draw(st.sampled_from([0, 1, 2, 5]))
    tag = varint(draw(NUMBERS) << 3 | wire_type)
    if wire_type == 0:
        return tag + varint(draw(VARINTS))
    if wire_type == 2:
        payload = bytes(draw(st.sampled_from([0, 1, 3, 4, 127, 128, 16_383, 16_384])))
        return tag + varint(len(payload)) + payload
    size = {1: 8, 5: 4}[wire_type]
    return tag + draw(st.binary(min_size=size, max_size=size))


def a_model(weight):
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], name="add")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [weight.size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [weight.size])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, ir_version=8)


@given(fields=st.lists(unknown_fields(), max_size=6), inline=st.sampled_from([0, 16, 1 << 20]))
def test_fields_of_every_kind_come_back_byte_for_byte(tmp_path_factory, fields, inline):
    path = tmp_path_factory.mktemp("wire") / "model.onnx"
    content = a_model(np.ones(2, np.float32)).SerializeToString() + b"".join(fields)
    path.write_bytes(content)

    skeleton = read_skeleton(str(path), inline_bytes=max(inline, 8))

    assert skeleton == content


@pytest.mark.parametrize("count", [1, 31, 32, 33, 4096, 100_000])
def test_large_weights_become_references_to_their_bytes(tmp_path, count):
    weight = np.arange(count, dtype=np.float32)
    path = tmp_path / "model.onnx"
    onnx.save(a_model(weight), path)

    model = onnx.ModelProto.FromString(read_skeleton(str(path), inline_bytes=128))

    (tensor,) = model.graph.initializer
    places = {entry.key: entry.value for entry in tensor.external_data}
    assert bool(places) is (weight.nbytes > 128)
    if places:
        content = path.read_bytes()[int(places["offset"]) :][: int(places["length"])]
        assert (content, places["location"]) == (weight.tobytes(), "model.onnx")
    else:
        assert np.array_equal(numpy_helper.to_array(tensor), weight)


@pytest.mark.parametrize("cut", [1, 2, 5, 20])
def test_a_file_that_ends_early_is_told_from_a_model(tmp_path, cut):
    path = tmp_path / "model.onnx"
    path.write_bytes(a_model(np.ones(64, np.float32)).SerializeToString()[:-cut])

    with pytest.raises(ModelError, match=r"model\.onnx"):
        read_skeleton(str(path), inline_bytes=16)
