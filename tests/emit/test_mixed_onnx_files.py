"""From file to file: external data, streaming, and what must never be overwritten."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from polygraphy_layerprec.emit.mixed_onnx import lower_model, save_mixed_onnx, weights
from polygraphy_layerprec.emit.mixed_onnx.bodies import tensors_of
from polygraphy_layerprec.model import ModelError
from tests.emit.onnx_zoo import ZOO


def _saved(folder, case="large weights", *, external):
    path = os.path.join(folder, "model.onnx")
    onnx.save_model(
        ZOO[case](),
        path,
        save_as_external_data=external,
        location="model.weights",
        size_threshold=0,
        convert_attribute=True,
    )
    return path


def all_tensors(model):
    yield from model.graph.initializer
    for node in model.graph.node:
        yield from tensors_of(node)


def data_files(folder, name="mixed.onnx"):
    return sorted(f for f in os.listdir(folder) if f.startswith(name) and f.endswith(".data"))


def _weights(model):
    return {
        tensor.name: (tensor.data_type, numpy_helper.to_array(tensor).tobytes())
        for tensor in all_tensors(model)
    }


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("case", ["large weights", "convolutional, opset 11", "loop"])
def test_file_holds_what_lowering_in_memory_gives(tmp_path, case, external):
    path, output = _saved(tmp_path, case, external=external), str(tmp_path / "mixed.onnx")
    kept = [ZOO[case]().graph.node[-1].output[0]]
    expected, expected_summary = lower_model(onnx.load(path), kept)

    summary = save_mixed_onnx(path, output, kept)

    onnx.checker.check_model(output, full_check=True)
    written = onnx.load(output)
    assert summary == expected_summary
    assert _weights(written) == _weights(expected)
    assert [n.output[0] for n in written.graph.node] == [n.output[0] for n in expected.graph.node]


def test_weights_beyond_the_threshold_get_a_file_of_their_own(tmp_path):
    path = _saved(tmp_path, external=False)
    lowered_bytes = 2 * (40 * 64 + 64 + 64 * 32)

    for name, threshold in (("inline", lowered_bytes), ("external", lowered_bytes - 1)):
        output = str(tmp_path / f"{name}.onnx")
        save_mixed_onnx(path, output, (), external_threshold_bytes=threshold)

        assert len(data_files(tmp_path, f"{name}.onnx")) == (name == "external")

    graph = onnx.load(str(tmp_path / "external.onnx"), load_external_data=False).graph
    assert {t.name for t in graph.initializer if t.external_data} == {"w1", "w2"}
    entries = {e.key: e.value for e in graph.initializer[0].external_data}
    assert [entries["location"]] == data_files(tmp_path, "external.onnx")
    assert int(entries["offset"]) % 4096 == 0


@pytest.mark.parametrize(
    "name",
    ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT64", "BOOL", "INT4", "UINT4", "FLOAT4E2M1"],
)
def test_a_tensor_is_stored_in_as_many_bytes_as_onnx_takes(name):
    tensor_type = onnx.TensorProto.DataType.Value(name)
    values = np.zeros(32, onnx.helper.tensor_dtype_to_np_dtype(tensor_type))

    stored = numpy_helper.from_array(values).raw_data

    assert weights._type_bits(tensor_type) * values.size == 8 * len(stored)


def test_streaming_never_holds_a_whole_weight(tmp_path, monkeypatch):
    path, output = _saved(tmp_path, external=True), str(tmp_path / "mixed.onnx")
    monkeypatch.setattr(weights, "_CHUNK_BYTES", 64)
    longest = []
    encode = weights._encode_low

    def spy(values, precision):
        longest.append(values.nbytes)
        return encode(values, precision)

    monkeypatch.setattr(weights, "_encode_low", spy)
    save_mixed_onnx(path, output, ())

    assert max(longest) == 64
    assert _weights(onnx.load(output)) == _weights(lower_model(onnx.load(path), ())[0])


@pytest.mark.parametrize("target", ["model.onnx", "model.weights", "./model.onnx"])
def test_output_over_a_file_of_the_input_is_refused(tmp_path, target):
    path = _saved(tmp_path, external=True)
    before = {name: (tmp_path / name).read_bytes() for name in sorted(os.listdir(tmp_path))}

    with pytest.raises(ValueError, match="must not replace a file of the input"):
        save_mixed_onnx(path, os.path.join(tmp_path, target), ())

    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_new_data_never_replace_those_of_the_model_that_is_there(tmp_path):
    path, output = _saved(tmp_path, external=True), str(tmp_path / "mixed.onnx")
    save_mixed_onnx(path, output, ())
    (first,) = data_files(tmp_path)

    save_mixed_onnx(path, output, [ZOO["large weights"]().graph.node[-1].output[0]])

    (second,) = data_files(tmp_path)
    assert second != first
    onnx.checker.check_model(output, full_check=True)


def test_a_kill_between_model_and_data_leaves_the_old_pair(tmp_path, monkeypatch):
    path, output = _saved(tmp_path, external=True), str(tmp_path / "mixed.onnx")
    save_mixed_onnx(path, output, ())
    before = _weights(onnx.load(output))
    replace = os.replace

    def killed(source, target):
        if target == output:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_mixed_onnx(path, output, [ZOO["large weights"]().graph.node[-1].output[0]])

    assert _weights(onnx.load(output)) == before


def test_data_of_others_are_left_alone(tmp_path):
    path, output = _saved(tmp_path, external=True), str(tmp_path / "mixed.onnx")
    others = ["mixed.onnx.data", "mixed.onnx.0123.data", "mixed.onnx.notebook.data"]
    for name in others:
        (tmp_path / name).write_bytes(b"other")

    save_mixed_onnx(path, output, ())

    assert set(others) < set(data_files(tmp_path))


def test_failure_leaves_no_trace(tmp_path):
    path = _saved(tmp_path, external=True)
    with open(tmp_path / "model.weights", "r+b") as file:
        file.truncate(100)
    output = tmp_path / "mixed.onnx"
    output.write_bytes(b"older")

    with pytest.raises(ModelError, match="truncated"):
        save_mixed_onnx(path, str(output), ())

    assert sorted(os.listdir(tmp_path)) == ["mixed.onnx", "model.onnx", "model.weights"]
    assert output.read_bytes() == b"older"


def test_unloaded_weights_are_looked_for_in_the_working_folder(tmp_path, monkeypatch):
    path = _saved(tmp_path, external=True)
    model = onnx.load(path, load_external_data=False)

    with pytest.raises(ModelError, match="external data of the model is missing"):
        lower_model(model, ())
    monkeypatch.chdir(tmp_path)

    assert _weights(lower_model(model, ())[0]) == _weights(lower_model(onnx.load(path), ())[0])


def test_same_input_gives_the_same_files(tmp_path):
    path = _saved(tmp_path, external=True)
    contents = []
    for _ in range(2):
        save_mixed_onnx(path, str(tmp_path / "mixed.onnx"), ())
        contents.append(
            [(tmp_path / name).read_bytes() for name in ("mixed.onnx", *data_files(tmp_path))]
        )

    assert contents[0] == contents[1]
    assert np.frombuffer(contents[0][1], np.float16).size
