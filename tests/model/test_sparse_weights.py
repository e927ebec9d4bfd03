"""Sparse initializers and constants: what they stand for, and damaged ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from polygraphy_layerprec.model import ModelError, identify, load_graph
from tests.eager_models import run_whole
from tests.models import build_model, node, normal, tensor

DENSE = np.array([[0, 0, 3, 0], [0, 0, 0, 0], [-1, 0, 0, 2]], np.float32)
LINEAR = [2, 8, 11]
COORDINATES = [[0, 2], [2, 0], [2, 3]]


def sparse(values=(3, -1, 2), indices=LINEAR, dims=(3, 4), name="w", dtype=np.float32):
    made = SparseTensorProto(dims=dims)
    made.values.CopyFrom(numpy_helper.from_array(np.array(values, dtype), name))
    made.indices.CopyFrom(numpy_helper.from_array(np.array(indices, np.int64), f"{name}_at"))
    return made


def model_of(weight):
    nodes = [node("MatMul", ["x", "w"], "y", name="matmul")]
    model = build_model(nodes, [tensor("x", [2, 3])], [tensor("y", [2, 4])])
    model.graph.sparse_initializer.append(weight)
    return model


@pytest.mark.parametrize("indices", [LINEAR, COORDINATES])
def test_indices_are_linear_or_coordinates(indices):
    graph = load_graph(model_of(sparse(indices=indices)))

    np.testing.assert_array_equal(graph.weights["w"].read(), DENSE)
    assert graph.is_fp32("w")
    assert graph.types["y"].shape == (2, 4)
    assert graph.weight_bytes == DENSE.nbytes


def test_both_kinds_of_indices_are_one_model():
    digests = {
        identify(load_graph(model_of(sparse(indices=i)))).digest for i in (LINEAR, COORDINATES)
    }

    assert len(digests) == 1


@pytest.mark.onnxrt
def test_a_sparse_weight_means_what_onnxruntime_takes_it_for():
    model = model_of(sparse())
    sample = {"x": normal(0, 2, 3)}

    expected = run_whole(model, sample)["y"]

    dense = load_graph(model).weights["w"].read()
    np.testing.assert_allclose(sample["x"] @ dense, expected, rtol=1e-6)


def test_a_constant_may_be_sparse_and_so_may_a_weight_of_a_branch():
    branches = {
        "then_branch": helper.make_graph(
            [node("Constant", [], "t", sparse_value=sparse(name=""))],
            "then",
            [],
            [tensor("t", [3, 4])],
        ),
        "else_branch": onnx.GraphProto(
            name="else",
            sparse_initializer=[sparse(name="e", values=(1, 1, 1))],
            output=[tensor("e", [3, 4])],
        ),
    }
    nodes = [node("If", ["go"], "w", **branches), node("MatMul", ["x", "w"], "y")]
    inputs = [tensor("x", [2, 3]), tensor("go", [], TensorProto.BOOL)]
    graph = load_graph(build_model(nodes, inputs, [tensor("y", [2, 4])]))

    np.testing.assert_array_equal(graph.weights["t"].read(), DENSE)
    np.testing.assert_array_equal(graph.weights["e"].read(), DENSE != 0)


def test_a_sparse_tensor_without_values_is_all_zero():
    graph = load_graph(model_of(sparse(values=(), indices=())))

    np.testing.assert_array_equal(graph.weights["w"].read(), np.zeros_like(DENSE))


DAMAGED = {
    "an index beyond the end": {"indices": [2, 8, 12]},
    "a negative index": {"indices": [2, 8, -1]},
    "a coordinate beyond the end": {"indices": [[0, 2], [2, 0], [3, 3]]},
    "a negative coordinate": {"indices": [[0, 2], [2, 0], [2, -1]]},
    "coordinates of another rank": {"indices": [[0, 2, 0], [2, 0, 0], [2, 3, 0]]},
    "fewer values than indices": {"values": (3, -1)},
    "one value for all indices": {"values": (3,)},
    "one index for all values": {"indices": [2]},
    "values in rows": {"values": [[3, -1, 2]]},
    "a negative extent": {"dims": (-3, 4)},
    "more elements than memory": {"dims": (1 << 20, 1 << 20)},
    "a scalar of three values": {"dims": ()},
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_sparse_tensor_is_told_by_name(damage):
    with pytest.raises(ModelError, match=r"'w.*is damaged"):
        load_graph(model_of(sparse(**DAMAGED[damage])))


def test_indices_that_are_no_integers_are_told():
    weight = sparse()
    weight.indices.CopyFrom(numpy_helper.from_array(np.array([0.5, 1, 2], np.float32), "at"))

    with pytest.raises(ModelError, match="'w' is damaged"):
        load_graph(model_of(weight))


def test_values_in_a_file_are_looked_for_in_the_folder_of_the_model(tmp_path, monkeypatch):
    weight = sparse()
    weight.values.ClearField("raw_data")
    weight.values.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "v.data", "offset": "0", "length": "12"}.items():
        weight.values.external_data.add(key=key, value=value)
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    np.array([3, -1, 2], np.float32).tofile(tmp_path / "model" / "v.data")
    np.array([9, 9, 9], np.float32).tofile(tmp_path / "elsewhere" / "v.data")
    path = tmp_path / "model" / "m.onnx"
    path.write_bytes(model_of(weight).SerializeToString())
    monkeypatch.chdir(tmp_path / "elsewhere")

    np.testing.assert_array_equal(load_graph(path).weights["w"].read(), DENSE)

    weight.values.external_data[0].value = "../elsewhere/v.data"
    path.write_bytes(model_of(weight).SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_graph(path)
