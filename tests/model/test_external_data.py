"""Data files may lie in the model's folder and nowhere else, for all that read them."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx
from polygraphy_layerprec.emit.mixed_onnx.reading import read_mixed_onnx
from polygraphy_layerprec.model import ModelError, load_graph
from tests.models import build_model, node, tensor

WEIGHTS = np.arange(4096, dtype=np.float32)


def save_model(path, location="weights.data"):
    """Saves a model whose one weight is said to be in a file, which is not written."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=WEIGHTS.shape)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], name="add")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, WEIGHTS.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, WEIGHTS.shape)],
        [weight],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return str(path)


def write_weights(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    WEIGHTS.tofile(path)
    return path


def values_read_from(model_path, tmp_path, **options):
    """Returns the weight as each reader finds it: the graph's, and that of the saved model."""
    output = str(tmp_path / "mixed.onnx")
    save_mixed_onnx(model_path, output, ["y"], **options)
    (saved,) = onnx.load(output).graph.initializer
    return load_graph(model_path, **options).weights["w"].read(), numpy_helper.to_array(saved)


def link_the_file(folder, secret):
    (folder / "weights.data").symlink_to(secret)
    return "weights.data"


def link_its_folder(folder, secret):
    (folder / "sub").symlink_to(secret.parent)
    return os.path.join("sub", secret.name)


def link_a_link(folder, secret):
    (folder / "first").symlink_to(secret)
    (folder / "weights.data").symlink_to("first")
    return "weights.data"


def climb(_folder, secret):
    return os.path.join("..", "outside", secret.name)


def climb_through_a_folder(folder, secret):
    (folder / "sub").mkdir()
    return os.path.join("sub", "..", "..", "outside", secret.name)


def name_it_whole(_folder, secret):
    return str(secret)


WAYS_OUT = [
    link_the_file,
    link_its_folder,
    link_a_link,
    climb,
    climb_through_a_folder,
    name_it_whole,
]


@pytest.mark.parametrize("way_out", WAYS_OUT, ids=lambda way: way.__name__)
def test_no_way_leads_out_of_the_models_folder(tmp_path, way_out):
    secret = write_weights(tmp_path / "outside" / "secret")
    (tmp_path / "model").mkdir()
    path = save_model(tmp_path / "model" / "model.onnx", way_out(tmp_path / "model", secret))
    output = tmp_path / "mixed.onnx"

    inline = build_model(
        [node("Add", ["x", "w"], "y", name="add")],
        [tensor("x", WEIGHTS.shape)],
        [tensor("y", WEIGHTS.shape)],
        {"w": WEIGHTS},
    )
    readers = (
        load_graph,
        lambda path: save_mixed_onnx(path, str(output), []),
        lambda path: read_mixed_onnx(path, load_graph(inline)),
    )
    for read in readers:
        with pytest.raises(ModelError, match="outside the model's folder"):
            read(path)

    assert not output.exists()


@pytest.mark.parametrize("location", ["", "a\0b"])
def test_a_location_that_is_none_is_refused(tmp_path, location):
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_graph(save_model(tmp_path / "model.onnx", location))


def test_links_within_the_folder_are_followed(tmp_path):
    write_weights(tmp_path / "model" / "blobs" / "0123")
    (tmp_path / "model" / "weights.data").symlink_to(os.path.join("blobs", "0123"))

    for values in values_read_from(save_model(tmp_path / "model" / "model.onnx"), tmp_path):
        np.testing.assert_array_equal(values, WEIGHTS)


def test_a_folder_that_is_a_link_itself_is_one_folder(tmp_path):
    write_weights(tmp_path / "real" / "weights.data")
    save_model(tmp_path / "real" / "model.onnx")
    (tmp_path / "linked").symlink_to("real")

    for values in values_read_from(str(tmp_path / "linked" / "model.onnx"), tmp_path):
        np.testing.assert_array_equal(values, WEIGHTS)


def test_a_snapshot_of_links_into_one_folder_of_blobs_is_read(tmp_path):
    write_weights(tmp_path / "blobs" / "0123")
    save_model(tmp_path / "blobs" / "4567")
    snapshot = tmp_path / "snapshots" / "89ab"
    snapshot.mkdir(parents=True)
    (snapshot / "model.onnx").symlink_to(os.path.join("..", "..", "blobs", "4567"))
    (snapshot / "weights.data").symlink_to(os.path.join("..", "..", "blobs", "0123"))

    for values in values_read_from(str(snapshot / "model.onnx"), tmp_path):
        np.testing.assert_array_equal(values, WEIGHTS)


def test_a_folder_that_the_user_names_is_trusted_and_no_other(tmp_path):
    write_weights(tmp_path / "big-disk" / "weights.data")
    path = save_model(tmp_path / "model" / "model.onnx")
    (tmp_path / "model" / "weights.data").symlink_to(tmp_path / "big-disk" / "weights.data")

    with pytest.raises(ModelError, match="--external-data-dir"):
        load_graph(path)

    options = {"external_data_folder": str(tmp_path / "big-disk")}
    for values in values_read_from(path, tmp_path, **options):
        np.testing.assert_array_equal(values, WEIGHTS)
