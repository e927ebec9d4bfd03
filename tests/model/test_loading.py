"""Models from files and memory, and files that are none."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.model import ModelError, WeightBuffer, identify, load_graph
from polygraphy_layerprec.model.external_data import DataFolder
from polygraphy_layerprec.model.weights import locate_weight
from polygraphy_layerprec.model.wire_format import read_skeleton
from tests.models import (
    build_model,
    constant_nodes,
    if_with_capture,
    local_function,
    loop_with_capture,
    node,
    normal,
    optional_tensors,
    quantize_dequantize,
    save_with_external_data,
    scan_with_capture,
    sequences,
    small_cnn,
    tensor,
    unsorted_nodes,
)

BUILDERS = (
    *(small_cnn, loop_with_capture, local_function, quantize_dequantize, constant_nodes),
    *(if_with_capture, scan_with_capture, sequences, optional_tensors),
)


def product(weight=None, *, name="w"):
    nodes = [node("MatMul", ["x", name], "y", name="matmul")]
    weights = {name: normal(0, 64, 64) if weight is None else weight}
    return build_model(nodes, [tensor("x", [2, 64])], [tensor("y", [2, 64])], weights)


def external(**changes):
    """A model whose weight refers to `w.data`, with entries changed."""
    model = product()
    (weight,) = model.graph.initializer
    size = len(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "w.data", "offset": "0", "length": str(size), **changes}.items():
        weight.external_data.add(key=key, value=value)
    return model


def save(model, folder, name="m.onnx"):
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def read_everything(path):
    graph = load_graph(path)
    identify(graph)
    return (
        graph,
        [weight.read() for weight in graph.weights.values()],
        [n.attributes for n in graph.nodes],
    )


def test_large_embedded_weights_stay_in_the_file(tmp_path):
    path = save(product(), tmp_path)
    weight = load_graph(path).weights["w"]
    assert weight.path == str(path)
    assert weight.nbytes == 64 * 64 * 4
    with open(path, "rb") as file:
        file.seek(weight.offset)
        assert file.read(weight.nbytes) == normal(0, 64, 64).tobytes()
    np.testing.assert_array_equal(weight.read(), normal(0, 64, 64))
    assert len(read_skeleton(str(path), inline_bytes=4096)) < 1000


def test_a_weight_that_says_it_is_embedded_may_be_left_in_the_file(tmp_path):
    """`data_location` names the default explicitly in files of some exporters."""
    model = product()
    model.graph.initializer[0].data_location = onnx.TensorProto.DEFAULT
    assert model.graph.initializer[0].HasField("data_location")
    content = model.SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(content)

    weight = load_graph(path).weights["w"]

    assert weight.path == str(path)
    np.testing.assert_array_equal(weight.read(), normal(0, 64, 64))
    onnx.checker.check_model(content)


def test_small_weights_stay_with_the_graph(tmp_path):
    weight = load_graph(save(product(normal(0, 64, 1)), tmp_path)).weights["w"]
    assert weight.path is None
    np.testing.assert_array_equal(weight.read(), normal(0, 64, 1))


@pytest.mark.parametrize("build", BUILDERS)
def test_a_skeleton_with_everything_inline_is_the_model(build, tmp_path):
    model = build()
    path = save(model, tmp_path)
    found = onnx.ModelProto.FromString(read_skeleton(str(path), inline_bytes=0))
    for initializer in found.graph.initializer:
        initializer.ClearField("external_data")
        initializer.ClearField("data_location")
    assert [n.SerializeToString() for n in found.graph.node if n.op_type != "Constant"] == [
        n.SerializeToString() for n in model.graph.node if n.op_type != "Constant"
    ]
    whole = onnx.ModelProto.FromString(read_skeleton(str(path), inline_bytes=1 << 30))
    assert whole == model


@pytest.mark.parametrize("build", BUILDERS)
def test_weights_are_the_same_wherever_they_are(build, tmp_path):
    model = build()
    save_with_external_data(model, tmp_path / "external.onnx")
    graphs = [
        load_graph(model),
        load_graph(save(model, tmp_path)),
        load_graph(tmp_path / "external.onnx"),
    ]
    assert len({graph.weight_bytes for graph in graphs}) == 1
    for graph in graphs[1:]:
        assert list(graph.weights) == list(graphs[0].weights)
        for name, weight in graph.weights.items():
            np.testing.assert_array_equal(weight.read(), graphs[0].weights[name].read())


def test_external_data_may_be_in_another_folder(tmp_path):
    (tmp_path / "data").mkdir()
    path = save(external(), tmp_path)
    normal(0, 64, 64).tofile(tmp_path / "data" / "w.data")
    with pytest.raises(ModelError, match="external data of the model is missing"):
        load_graph(path)
    graph = load_graph(path, external_data_folder=str(tmp_path / "data"))
    np.testing.assert_array_equal(graph.weights["w"].read(), normal(0, 64, 64))
    in_memory = load_graph(external(), external_data_folder=str(tmp_path / "data"))
    np.testing.assert_array_equal(in_memory.weights["w"].read(), normal(0, 64, 64))


def test_embedded_weights_are_found_beside_external_ones_elsewhere(tmp_path):
    (tmp_path / "data").mkdir()
    graph = load_graph(save(product(), tmp_path), external_data_folder=str(tmp_path / "data"))
    np.testing.assert_array_equal(graph.weights["w"].read(), normal(0, 64, 64))


@pytest.mark.parametrize(
    "location", ["../w.data", "a/../../w.data", "/etc/hostname", "", "missing", "."]
)
def test_external_data_outside_the_folder_is_refused(location, tmp_path):
    (tmp_path / "sub").mkdir()
    normal(0, 64, 64).tofile(tmp_path / "w.data")
    with pytest.raises(ModelError):
        load_graph(save(external(location=location), tmp_path / "sub"))


def test_an_absolute_location_is_refused_even_if_the_data_is_there(tmp_path):
    normal(0, 64, 64).tofile(tmp_path / "w.data")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_graph(save(external(location=str(tmp_path / "w.data")), tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": "-4"},
        {"offset": "one"},
        {"offset": "8"},
        {"length": "16"},
        {"length": "-1"},
        {"length": "99999999"},
        {"offset": "²"},
    ],
)
def test_external_data_of_another_size_is_refused(changes, tmp_path):
    normal(0, 64, 64).tofile(tmp_path / "w.data")
    with pytest.raises(ModelError, match="'w'"):
        load_graph(save(external(**changes), tmp_path))


def test_a_file_that_shrinks_while_in_use_is_told(tmp_path):
    path = save(product(), tmp_path)
    weight = load_graph(path).weights["w"]
    os.truncate(path, 200)
    with pytest.raises(ModelError, match="became shorter"):
        weight.read()


@pytest.mark.parametrize("dims", [[-1, 4], [1 << 40], [1 << 40, 1 << 40], [7]])
def test_a_shape_that_the_data_does_not_fill_is_refused(dims, tmp_path):
    model = product()
    model.graph.initializer[0].raw_data = b"\0" * 16
    model.graph.initializer[0].dims[:] = dims
    with pytest.raises(ModelError, match="damaged"):
        read_everything(save(model, tmp_path))


def test_weights_share_the_memory_of_a_buffer():
    weights = list(load_graph(small_cnn()).weights.values())
    buffer = WeightBuffer()
    buffer.reset(weights)
    found = [weight.read(buffer) for weight in weights]
    for weight, values in zip(weights, found, strict=True):
        np.testing.assert_array_equal(values, weight.read())
        assert values.ctypes.data % 16 == found[0].ctypes.data % 16
    first = found[0].ctypes.data
    buffer.reset(weights[:1])
    assert weights[0].read(buffer).ctypes.data == first


def test_types_of_less_than_a_byte_are_unpacked(tmp_path):
    values = (np.arange(20000) % 16 - 8).astype(np.int8)
    packed = onnx.helper.make_tensor("w", onnx.TensorProto.INT4, [20000], values)
    if not packed.HasField("raw_data"):
        nibbles = values.astype(np.uint8) & 15
        packed.ClearField("int32_data")
        packed.raw_data = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
    model = product()
    model.graph.initializer[0].CopyFrom(packed)
    weight = load_graph(save(model, tmp_path)).weights["w"]
    assert weight.path is not None
    np.testing.assert_array_equal(weight.read().astype(np.int8), values)
    buffer = WeightBuffer()
    buffer.reset([weight])
    np.testing.assert_array_equal(weight.read(buffer).astype(np.int8), values)


def test_an_unknown_data_type_is_told():
    model = product()
    model.graph.initializer[0].data_type = 999
    with pytest.raises(ModelError, match="unknown data type: 999"):
        load_graph(model)


def test_what_is_no_model_is_told(tmp_path):
    with pytest.raises(ModelError, match="There is no model file"):
        load_graph(tmp_path / "nothing.onnx")
    with pytest.raises(ModelError, match="is not a file"):
        load_graph(tmp_path)
    for name, content in {
        "empty": b"",
        "text": b"Dear model,\n\nplease load.\n" * 20,
        "zeros": bytes(100),
        "ones": b"\xff" * 100,
        "field": b"\x08\x07",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            load_graph(tmp_path / name)
    with pytest.raises(ModelError, match="0 nodes"):
        load_graph(onnx.ModelProto())


def test_unreadable_files_are_told(tmp_path, monkeypatch):
    path = save(product(), tmp_path)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("polygraphy_layerprec.model.loading.read_skeleton", refuse)
    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        load_graph(path)


def test_names_that_are_no_text_are_told(tmp_path):
    content = product(name="weightname").SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(content.replace(b"weightname", b"weight\xff\xfe\xfd\xfc"))
    with pytest.raises(ModelError):
        load_graph(path)


def load_damaged(content, path):
    path.write_bytes(content)
    try:
        read_everything(path)
    except ModelError as error:
        assert str(error)  # noqa: PT017 - any other exception is the failure
        return False
    return True


@pytest.mark.parametrize("build", BUILDERS)
def test_a_model_cut_short_anywhere_is_told(build, tmp_path):
    content = build().SerializeToString()
    # Between two fields of the outermost message a cut leaves a shorter, whole message.
    graph_ends = content.rindex(b"test_graph")
    cuts = range(1, graph_ends, max(1, graph_ends // 300))
    assert not any(load_damaged(content[:cut], tmp_path / "cut.onnx") for cut in cuts)


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_bytes_raise_model_error_alone(data, tmp_path_factory):
    content = bytearray(data.draw(st.sampled_from(BUILDERS))().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert load_damaged(bytes(content), tmp_path_factory.getbasetemp() / "x.onnx") in (True, False)


def test_a_varint_that_never_ends_is_told(tmp_path):
    path = tmp_path / "m.onnx"
    for content in (b"\x80" * 30, b"\x0b\x00", b"\x00\x00", b"\x09\x00", b"\x3a\x80\x80\x04xx"):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            read_skeleton(str(path), inline_bytes=0)


def test_fields_of_fixed_size_are_copied(tmp_path):
    path = tmp_path / "m.onnx"
    content = b"\x09" + bytes(range(8)) + b"\x15" + bytes(range(4)) + b"\x18\xac\x02"
    path.write_bytes(content)
    assert read_skeleton(str(path), inline_bytes=0) == content


def test_the_digest_tells_models_apart():
    def digest(model):
        return identify(load_graph(model)).digest

    assert digest(small_cnn()) == digest(small_cnn())
    other = [
        product(),
        product(normal(1, 64, 64)),
        product(normal(0, 64, 32)),
        product(name="v"),
        unsorted_nodes(),
    ]
    assert len({digest(model) for model in other}) == len(other)


def test_the_digest_does_not_depend_on_where_weights_are(tmp_path):
    weight = normal(1, 64, 64)
    inside, outside = str(tmp_path / "inside.onnx"), str(tmp_path / "outside.onnx")
    onnx.save(product(weight), inside)
    onnx.save(
        product(weight), outside, save_as_external_data=True, location="data", size_threshold=0
    )

    digests = {identify(load_graph(s)).digest for s in (product(weight), inside, outside)}

    assert len(digests) == 1


def test_a_local_function_is_inlined():
    graph = load_graph(local_function())
    assert [n.op_type for n in graph.nodes] == ["Mul", "Tanh", "Mul", "Tanh"]
    assert identify(graph).node_count == 4
    assert identify(graph).opset == 17


@pytest.mark.parametrize("states_length", [True, False])
@pytest.mark.parametrize("count", [1, 7, 64])
@pytest.mark.parametrize("name", ["INT4", "UINT4", "FLOAT4E2M1", "FLOAT8E4M3FN", "BFLOAT16"])
def test_packed_weights_in_files_need_not_say_how_long_they_are(
    name, count, states_length, tmp_path
):
    kind = getattr(onnx.TensorProto, name)
    values = (np.arange(count) % 7).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    tensor_proto = onnx.numpy_helper.from_array(values, "q")
    raw = tensor_proto.raw_data
    tensor_proto.ClearField("raw_data")
    tensor_proto.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": "q.data", "offset": "4"}
    if states_length:
        entries["length"] = str(len(raw))
    for key, value in entries.items():
        tensor_proto.external_data.add(key=key, value=value)
    # More than the tensor, so that a length that is too long would be read.
    (tmp_path / "q.data").write_bytes(b"\xff" * 4 + raw + b"\xff" * 4 * count)

    read = locate_weight(tensor_proto, "q", DataFolder(str(tmp_path))).read()

    assert read.tobytes() == values.tobytes()
