"""Inputs of `polygraphy run --layerprec` that Polygraphy itself cannot make or read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from polygraphy.exception import PolygraphyException
from polygraphy.json import load_json, save_json

pytestmark = [
    pytest.mark.onnxrt,
    pytest.mark.filterwarnings("ignore:SelectableGroups dict interface:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def detector(files):
    """Writes a model that takes images of sides from 64 on, and returns its file name."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv", strides=[32, 32]),
        helper.make_node("GlobalAveragePool", ["y"], ["out"], name="pool"),
    ]
    weight = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (None, 3, "height", "width"))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), files / "detector.onnx")
    return "detector.onnx"


def inputs_of(path):
    return [sample["x"] for sample in load_json(str(path))]


@pytest.mark.parametrize("order", [("--onnxrt", "--layerprec"), ("--layerprec", "--onnxrt")])
def test_open_shapes_are_made_up_for_all_runners(run, files, detector, capsys, order):
    options = ("--save-inputs", "made.json", "--atol", "0.1", "--iterations", "2", "--seed", "3")

    assert run(detector, *order, *options)

    said = " ".join(capsys.readouterr().out.split())
    first, second = inputs_of(files / "made.json")
    assert first.shape == (1, 3, 224, 224)
    assert not np.array_equal(first, second)
    assert 0 <= first.min() < first.max() <= 1
    assert "height = 224, width = 224" in said
    assert "--input-shapes x:[1,3,224,224]" in said


def test_what_polygraphy_can_make_up_is_left_to_it(run, files, detector, capsys):
    given = ("--input-shapes", "x:[2,3,64,96]", "--save-inputs", "given.json")

    assert run(detector, "--onnxrt", "--layerprec", "--atol", "0.1", *given)

    assert inputs_of(files / "given.json")[0].shape == (2, 3, 64, 96)
    assert "Made-up input" not in capsys.readouterr().out


def test_loaded_outputs_beside_made_up_inputs_are_warned_of(run, detector, capsys):
    run(detector, "--onnxrt", "--layerprec", "--atol", "0.1", "--save-outputs", "out.json")

    run(detector, "--layerprec", "--load-outputs", "out.json", "--atol", "0.1")

    assert "they need not be the same" in capsys.readouterr().out


def image(value):
    return np.full((1, 3, 64, 64), value, np.float32)


@pytest.fixture(scope="module")
def images(files):
    """Writes a folder with two samples."""
    folder = files / "images"
    folder.mkdir()
    np.savez(folder / "a.npz", x=image(0.25))
    np.save(folder / "b.npy", image(0.75))


@pytest.mark.parametrize(
    ("path", "values"),
    [("images", [0.25, 0.75]), ("images/a.npz", [0.25]), ("images/b.npy", [0.75])],
)
@pytest.mark.usefixtures("images")
def test_files_that_polygraphy_does_not_read_are_read(run, files, detector, path, values):
    saved = files / "read.json"
    options = ("--load-inputs", path, "--save-inputs", str(saved), "--atol", "0.1")

    assert run(detector, "--onnxrt", "--layerprec", *options)

    assert [sample.flat[0] for sample in inputs_of(saved)] == values
    saved.unlink()


def test_a_sample_that_does_not_fit_is_a_mistake_in_words(run, files, detector):
    np.savez(files / "other.npz", z=image(0))

    with pytest.raises(Exception, match="no array for the model's input 'x'"):
        run(detector, "--layerprec", "--load-inputs", "other.npz")


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (
            "empty/",
            None,
            "holds no input data.\nNote: Files are read that end in .json, .npy, .npz",
        ),
        ("notes/x.txt", "1 2", "holds no input data.\nNote: Files are read that end in .json"),
        ("x.txt", "1 2", "holds no input data in JSON as Polygraphy saves it"),
        ("broken.json", "[{", "holds no input data in JSON as Polygraphy saves it"),
        ("none.json", "[]", "The input data hold no sample.\nGive at least one."),
        ("saved/0.json", "[]", "The input data hold no sample.\nGive at least one."),
        ("missing.npz", None, "No such file with input data: 'missing.npz'.\nCheck the path."),
    ],
)
def test_inputs_without_a_sample_are_no_reason_to_pass(run, files, detector, path, text, message):
    folder, _, name = path.rpartition("/")
    (files / folder).mkdir(exist_ok=True)
    if text is not None:
        (files / folder / name).write_text(text)

    with pytest.raises(PolygraphyException) as caught:
        run(detector, "--onnxrt", "--layerprec", "--load-inputs", folder or name)

    assert message in str(caught.value)


@pytest.mark.parametrize("path", ["wide.json", "wide"])
def test_arrays_of_a_json_file_are_cast_as_polygraphy_casts_them(run, files, detector, path):
    (files / "wide").mkdir(exist_ok=True)
    for name in ("wide.json", "wide/0.json"):
        save_json([{"x": image(0.25).astype(np.float64)}], str(files / name))
    options = ("--load-inputs", path, "--atol", "0.1")

    assert run(detector, "--onnxrt", "--layerprec", *options)
